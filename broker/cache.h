#pragma once
/*
 * Plaintexts that were opened lately, for "unseal: cache". They rest encrypted under a key that only this process has,
 * in ordinary memory, and are opened straight into the arena for each answer: locked memory stays small.
 */
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

#define CACHE_BUCKETS 16384u

struct cache_entry;
struct store_version;

struct cache {
	struct secret key;
	struct cache_entry *buckets[CACHE_BUCKETS];
	uint64_t ttl_ms;
	uint64_t n_sealed; /* under this key, ever */
	size_t n;
};

int cache_init(struct cache *c, uint64_t ttl_ms, struct err *err);
/* Also of what is in it: 0 empties it. */
void cache_set_ttl(struct cache *c, uint64_t ttl_ms);
void cache_done(struct cache *c);
/* False: not there, too old, or the arena is full. */
bool cache_get(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, struct secret *ret);
/* What the store told of the version that is kept, at which of its generations, and whether it was the current one. */
void cache_note(struct cache *c, const char *path, const struct store_version *v, uint64_t generation, bool current);
/* The same back without asking the store: false unless it was noted at this generation. version 0: the current one. ret_version has
 * no sealed bytes. */
bool cache_find(struct cache *c, const char *path, uint64_t version, uint64_t generation, uint64_t now_ms, struct store_version *ret_version,
		struct secret *ret);
void cache_put(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, const struct secret *plain);
/* All versions of a secret. */
void cache_drop(struct cache *c, const char *path);
void cache_expire(struct cache *c, uint64_t now_ms);
