#pragma once
/* Public areas of TPM keys (TPM 2.0 part 2, section 12.2.4): what they say of a key, and what a new one is to be. */
#include "common/provider.h"

#include <tss2/tss2_tpm2_types.h>

struct err;

/* KEY_NONE: a kind that cotter does not use. */
enum key_type tpm_key_type(const TPMT_PUBLIC *area);
/* ERR_INPUT: the same. */
int tpm_key_describe(const TPMT_PUBLIC *area, const char *ref, struct provider_key *ret, struct err *err);
/* Without authorisation: the caller adds a policy, or the empty password. */
void tpm_key_template(enum provider_key_use use, enum key_type type, TPM2B_PUBLIC *ret);
