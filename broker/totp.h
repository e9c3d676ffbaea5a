#pragma once
/* One-time passwords by time: RFC 6238 over RFC 4226, keys in base32 (RFC 4648 section 6) as authenticator programs have them. */
#include "common/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOTP_KEY_MAX 128u /* bytes */
#define TOTP_CODE_LEN 8u

/* Upper or lower case, '=' at the end or not. ret has TOTP_KEY_MAX bytes. 0: it is none, or too long. */
size_t base32_decode(const char *text, size_t len, uint8_t ret[TOTP_KEY_MAX]);
/* Without padding; ret has room for 8 characters for every 5 bytes begun, and a NUL. */
void base32_encode(const uint8_t *data, size_t len, char *ret);

/* hash: SHA-1, SHA-256 or SHA-512; digits: 6 or 8; counter: seconds since 1970 by the period. false: libcrypto does not have the hash. */
bool totp_code(enum hash_type hash, unsigned int digits, const uint8_t *key, size_t key_len, uint64_t counter, char ret[TOTP_CODE_LEN + 1]);
