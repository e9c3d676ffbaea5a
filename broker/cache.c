#include "broker/cache.h"

#include "broker/store.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NONCE_LEN crypto_aead_chacha20poly1305_ietf_NPUBBYTES
#define TAG_LEN crypto_aead_chacha20poly1305_ietf_ABYTES

struct cache_entry {
	struct cache_entry *next;
	uint64_t version, deadline_ms;
	uint64_t generation; /* of the store, when head was true; 0: nothing is noted */
	bool current;
	struct store_version head;
	uint8_t nonce[NONCE_LEN];
	size_t sealed_len, path_len;
	uint8_t data[]; /* sealed bytes, then the path */
};

int cache_init(struct cache *c, uint64_t ttl_ms, struct err *err)
{
	int r = secret_new(&c->key, 48, err);

	c->ttl_ms = ttl_ms;
	c->key.len = 48; /* 32 to encrypt, 16 to hash paths */
	if (r == 0)
		randombytes_buf(c->key.data, c->key.len);
	return r;
}

static struct cache_entry **bucket(struct cache *c, const char *path)
{
	uint64_t hash;

	/* keyed: whoever names secrets cannot pile them into one bucket */
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)path, strlen(path), c->key.data + 32);
	return &c->buckets[hash % CACHE_BUCKETS];
}

static void remove_entry(struct cache *c, struct cache_entry **at)
{
	struct cache_entry *e = *at;

	*at = e->next;
	sodium_memzero(e->data, e->sealed_len);
	free(e);
	c->n--;
}

static bool same_path(const struct cache_entry *e, const char *path)
{
	return e->path_len == strlen(path) && memcmp(e->data + e->sealed_len, path, e->path_len) == 0;
}

static struct cache_entry *find(struct cache *c, const char *path, uint64_t version)
{
	struct cache_entry *e = c->ttl_ms ? *bucket(c, path) : NULL;

	while (e && !(e->version == version && same_path(e, path)))
		e = e->next;
	return e;
}

static bool open_entry(const struct cache *c, const struct cache_entry *e, uint64_t now_ms, struct secret *ret)
{
	unsigned long long len;

	if (!e || e->deadline_ms <= now_ms || secret_new(ret, e->sealed_len, NULL) < 0)
		return false;
	if (crypto_aead_chacha20poly1305_ietf_decrypt(ret->data, &len, NULL, e->data, e->sealed_len, e->data + e->sealed_len,
						      e->path_len, e->nonce, c->key.data) != 0) {
		secret_clear(ret);
		return false;
	}
	ret->len = len;
	return true;
}

bool cache_get(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, struct secret *ret)
{
	return open_entry(c, find(c, path, version), now_ms, ret);
}

void cache_note(struct cache *c, const char *path, const struct store_version *v, uint64_t generation, bool current)
{
	struct cache_entry *e = find(c, path, v->version);

	if (!e)
		return;
	e->current = current || (e->current && e->generation == generation);
	e->generation = generation;
	e->head = *v;
	e->head.sealed = NULL;
}

bool cache_find(struct cache *c, const char *path, uint64_t version, uint64_t generation, uint64_t now_ms, struct store_version *ret_version,
		struct secret *ret)
{
	struct cache_entry *e = c->ttl_ms ? *bucket(c, path) : NULL;

	while (e && !(e->generation == generation && (version ? e->version == version : e->current) && same_path(e, path)))
		e = e->next;
	if (!open_entry(c, e, now_ms, ret))
		return false;
	*ret_version = e->head;
	return true;
}

void cache_put(struct cache *c, const char *path, uint64_t version, uint64_t now_ms, const struct secret *plain)
{
	size_t path_len = strlen(path);
	struct cache_entry **head = bucket(c, path), *e;

	if (c->ttl_ms == 0)
		return;
	for (struct cache_entry **at = head; *at;) {
		if ((*at)->version == version && same_path(*at, path))
			remove_entry(c, at);
		else
			at = &(*at)->next;
	}
	e = malloc(sizeof(*e) + plain->len + TAG_LEN + path_len);
	if (!e)
		return; /* the hardware answers next time, too */
	*e = (struct cache_entry){.version = version, .deadline_ms = now_ms + c->ttl_ms, .sealed_len = plain->len + TAG_LEN,
				  .path_len = path_len, .next = *head};
	/* never twice with this key, which lives no longer than the counter */
	c->n_sealed++;
	memcpy(e->nonce, &c->n_sealed, sizeof(c->n_sealed));
	memcpy(e->data + e->sealed_len, path, path_len);
	crypto_aead_chacha20poly1305_ietf_encrypt(e->data, NULL, plain->data, plain->len, e->data + e->sealed_len, path_len, NULL,
						  e->nonce, c->key.data);
	*head = e;
	c->n++;
}

void cache_drop(struct cache *c, const char *path)
{
	for (struct cache_entry **at = bucket(c, path); *at;) {
		if (same_path(*at, path))
			remove_entry(c, at);
		else
			at = &(*at)->next;
	}
}

void cache_expire(struct cache *c, uint64_t now_ms)
{
	if (c->n == 0)
		return;
	for (size_t i = 0; i < CACHE_BUCKETS; i++) {
		for (struct cache_entry **at = &c->buckets[i]; *at;) {
			if ((*at)->deadline_ms <= now_ms)
				remove_entry(c, at);
			else
				at = &(*at)->next;
		}
	}
}

void cache_set_ttl(struct cache *c, uint64_t ttl_ms)
{
	if (ttl_ms == c->ttl_ms)
		return;
	c->ttl_ms = ttl_ms;
	cache_expire(c, UINT64_MAX);
}

void cache_done(struct cache *c)
{
	if (c->key.len)
		cache_expire(c, UINT64_MAX);
	secret_clear(&c->key);
}
