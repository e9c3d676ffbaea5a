#pragma once
/* Key provider: a PKCS#11 token (HSM, smartcard, SoftHSM) through p11-kit. References are RFC 7512 URIs. */
#include "common/provider.h"

extern const struct provider_ops pkcs11_provider_ops;
