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

struct cache {
	struct secret key;
	struct cache_entry *buckets[CACHE_BUCKETS];
	uint64_t ttl_ms;
	size_t n;
};

int cache_init(struct cache *c, uint64_t ttl_ms, struct err *err);
/* Also of what is in it: 0 empties it. */
void cache_set_ttl(struct cache *c, uint64_t ttl_ms);
void cache_done(struct cache *c);
/* False: not there, too old, or the arena is full. */
bool cache_get(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, struct secret *ret);
void cache_put(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, const struct secret *plain);
/* All versions of a secret. */
void cache_drop(struct cache *c, const char *path);
void cache_expire(struct cache *c, uint64_t now_ms);
