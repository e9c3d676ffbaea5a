#pragma once
/* Key provider: a TPM 2.0 through ESYS. References are TSS2 PEM files ("/path/key.pem") or persistent handles
 * ("handle:0x81000010"). */
#include "common/provider.h"

extern const struct provider_ops tpm_provider_ops;
