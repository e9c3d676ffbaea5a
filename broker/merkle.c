#include "broker/merkle.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

static void hash_nodes(const uint8_t left[32], const uint8_t right[32], uint8_t ret[32])
{
	uint8_t block[65] = {1};

	memcpy(block + 1, left, 32);
	memcpy(block + 33, right, 32);
	crypto_hash_sha256(ret, block, sizeof(block));
}

void merkle_add(struct merkle *m, const void *data, size_t len)
{
	static const uint8_t leaf_prefix = 0;
	crypto_hash_sha256_state st;
	uint8_t hash[32];
	unsigned int level;

	crypto_hash_sha256_init(&st);
	crypto_hash_sha256_update(&st, &leaf_prefix, 1);
	crypto_hash_sha256_update(&st, data, len);
	crypto_hash_sha256_final(&st, hash);
	for (level = 0; m->size >> level & 1; level++)
		hash_nodes(m->node[level], hash, hash);
	memcpy(m->node[level], hash, 32);
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
