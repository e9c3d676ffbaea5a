#include "common/hkdf.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

void hmac_parts(const void *key, size_t key_len, const struct hkdf_part *parts, size_t n_parts, uint8_t ret[32])
{
	crypto_auth_hmacsha256_state st;

	crypto_auth_hmacsha256_init(&st, key, key_len);
	for (size_t i = 0; i < n_parts; i++)
		crypto_auth_hmacsha256_update(&st, parts[i].p, parts[i].len);
	crypto_auth_hmacsha256_final(&st, ret);
	sodium_memzero(&st, sizeof(st));
}

void hkdf_extract(const void *salt, size_t salt_len, const void *ikm, size_t ikm_len, uint8_t ret_prk[32])
{
	static const uint8_t zero[HKDF_HASH_LEN];
	struct hkdf_part part = {ikm, ikm_len};

	if (!salt) {
		salt = zero;
		salt_len = sizeof(zero);
	}
	hmac_parts(salt, salt_len, &part, 1, ret_prk);
}

void hkdf_expand(const uint8_t prk[32], const struct hkdf_part *info, size_t n_info, uint8_t *ret, size_t ret_len)
{
	static const uint8_t one = 1;
	struct hkdf_part parts[8];
	uint8_t block[HKDF_HASH_LEN];

	assert(n_info < 8 && ret_len <= sizeof(block));
	for (size_t i = 0; i < n_info; i++)
		parts[i] = info[i];
	parts[n_info] = (struct hkdf_part){&one, 1};
	hmac_parts(prk, HKDF_HASH_LEN, parts, n_info + 1, block);
	memcpy(ret, block, ret_len);
	sodium_memzero(block, sizeof(block));
}

void hkdf(const void *salt, size_t salt_len, const void *ikm, size_t ikm_len, const char *info, uint8_t ret[32])
{
	uint8_t prk[HKDF_HASH_LEN];
	struct hkdf_part part = {info, strlen(info)};

	hkdf_extract(salt, salt_len, ikm, ikm_len, prk);
	hkdf_expand(prk, &part, 1, ret, 32);
	sodium_memzero(prk, sizeof(prk));
}
