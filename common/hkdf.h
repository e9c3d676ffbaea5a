#pragma once
/* HKDF-SHA256 (RFC 5869) and HMAC-SHA256 over libsodium: 1.0.18, which Debian 12 ships, has no crypto_kdf_hkdf_*. */
#include <stddef.h>
#include <stdint.h>

#define HKDF_HASH_LEN 32u

struct hkdf_part {
	const void *p;
	size_t len;
};

/* HMAC-SHA256 over the parts in order. key may have any length. */
void hmac_parts(const void *key, size_t key_len, const struct hkdf_part *parts, size_t n_parts, uint8_t ret[32]);

/* RFC 5869 §2.2; salt NULL means 32 zero bytes. */
void hkdf_extract(const void *salt, size_t salt_len, const void *ikm, size_t ikm_len, uint8_t ret_prk[32]);
/* RFC 5869 §2.3, ret_len at most 32: all that age and HPKE need. */
void hkdf_expand(const uint8_t prk[32], const struct hkdf_part *info, size_t n_info, uint8_t *ret, size_t ret_len);
/* Both steps, info a string. */
void hkdf(const void *salt, size_t salt_len, const void *ikm, size_t ikm_len, const char *info, uint8_t ret[32]);
