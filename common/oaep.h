#pragma once
/* EME-OAEP (RFC 8017, section 7.1.2) for hardware that does RSA alone, or OAEP with SHA-1 alone. */
#include "common/keys.h"

/* block: the result of the raw RSA operation, as long as the modulus. In constant time, as libcrypto has it. ERR_INPUT: it is none. */
int oaep_unpad(enum hash_type hash, const uint8_t *block, size_t len, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err);
