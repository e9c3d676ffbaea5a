#pragma once
/* The Merkle tree of RFC 6962 §2.1 over a growing list, kept as its frontier: O(log n) hashes. */
#include <stddef.h>
#include <stdint.h>

#define MERKLE_LEVELS 64u

struct merkle {
	uint64_t size;
	uint8_t node[MERKLE_LEVELS][32]; /* node[i] is in use when bit i of size is set */
};

/* Leaf hash SHA-256(0x00 || data). */
void merkle_add(struct merkle *m, const void *data, size_t len);
/* The root; SHA-256 of nothing for an empty tree. */
void merkle_root(const struct merkle *m, uint8_t ret[32]);
