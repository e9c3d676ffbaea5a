#include "broker/merkle.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

/*
 * libcrypto's, which uses the processor's own instructions: a log is read whole at a start, and three times as fast so. Nothing here
 * is secret. Where it does not come up to it (out of memory), libsodium's. Not for several threads.
 */
static void hash(uint8_t prefix, const void *data, size_t len, uint8_t ret[32])
{
	static EVP_MD *sha256;
	static EVP_MD_CTX *ctx;
	crypto_hash_sha256_state st;

	if (!sha256)
		sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!ctx)
		ctx = EVP_MD_CTX_new();
	if (sha256 && ctx && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1 && EVP_DigestUpdate(ctx, &prefix, 1) == 1 &&
	    EVP_DigestUpdate(ctx, data, len) == 1 && EVP_DigestFinal_ex(ctx, ret, NULL) == 1)
		return;
	crypto_hash_sha256_init(&st);
	crypto_hash_sha256_update(&st, &prefix, 1);
	crypto_hash_sha256_update(&st, data, len);
	crypto_hash_sha256_final(&st, ret);
}

static void hash_nodes(const uint8_t left[32], const uint8_t right[32], uint8_t ret[32])
{
	uint8_t both[64];

	memcpy(both, left, 32);
	memcpy(both + 32, right, 32);
	hash(1, both, sizeof(both), ret);
}

void merkle_add(struct merkle *m, const void *data, size_t len)
{
	uint8_t node[32];
	unsigned int level;

	hash(0, data, len, node);
	for (level = 0; m->size >> level & 1; level++)
		hash_nodes(m->node[level], node, node);
	memcpy(m->node[level], node, 32);
	m->size++;
}

void merkle_root(const struct merkle *m, uint8_t ret[32])
{
	bool have = false;

	if (m->size == 0)
		crypto_hash_sha256(ret, (const uint8_t *)"", 0);
	for (unsigned int level = 0; level < MERKLE_LEVELS; level++) {
		if (!(m->size >> level & 1))
			continue;
		if (have)
			hash_nodes(m->node[level], ret, ret);
		else
			memcpy(ret, m->node[level], 32);
		have = true;
	}
}
