#include "broker/token_seen.h"

#include "common/err.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

struct token_seen_entry {
	struct macaroon m;
	size_t len;
	char text[LIMIT_TOKEN_TEXT];
};

void token_seen_init(struct token_seen *s)
{
	*s = (struct token_seen){.entries = secret_alloc(TOKEN_SEEN * sizeof(*s->entries))};
	randombytes_buf(s->key, sizeof(s->key));
}

void token_seen_done(struct token_seen *s)
{
	secret_free(s->entries);
	memset(s, 0, sizeof(*s));
}

/* A token's end is its signature: as good as random. */
static size_t place_of(const struct token_seen *s, const char *text, size_t len)
{
	size_t n = len < 16 ? len : 16;
	uint64_t hash;

	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)text + len - n, n, s->key);
	return hash % TOKEN_SEEN;
}

static void copy(struct macaroon *to, const struct macaroon *from)
{
	*to = *from;
	for (size_t i = 0; i < from->n_caveats; i++)
		to->caveats[i].p = to->raw + (from->caveats[i].p - from->raw);
}

/* As sodium_memcmp, which takes a byte at a time; a token has hundreds. */
static bool same_text(const char *a, const char *b, size_t len)
{
	const uint8_t *p = (const uint8_t *)a, *q = (const uint8_t *)b;
	int differ = 0;

	for (; len >= crypto_verify_64_BYTES; p += crypto_verify_64_BYTES, q += crypto_verify_64_BYTES, len -= crypto_verify_64_BYTES)
		differ |= crypto_verify_64(p, q);
	return (differ | sodium_memcmp(p, q, len)) == 0;
}

int token_seen_parse(const struct token_seen *s, const char *text, size_t len, struct macaroon **ret, struct err *err)
{
	const struct token_seen_entry *e = s->entries && len ? &s->entries[place_of(s, text, len)] : NULL;
	struct macaroon *m;

	if (!e || e->len != len || !same_text(e->text, text, len))
		return macaroon_parse(text, len, ret, err);
	m = secret_alloc(sizeof(*m));
	if (!m)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	copy(m, &e->m);
	*ret = m;
	return 0;
}

void token_seen_put(struct token_seen *s, const char *text, size_t len, const struct macaroon *m)
{
	struct token_seen_entry *e = s->entries ? &s->entries[place_of(s, text, len)] : NULL;

	assert(m->verified && len <= sizeof(e->text));
	if (!e)
		return;
	copy(&e->m, m);
	memcpy(e->text, text, len);
	e->len = len;
}
