/* A token that parses is verified under a fixed key and narrowed; the narrower one parses and has one caveat more. */
#include "fuzz.h"

#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/macaroon.h"

#include <string.h>

/* The key of the seeds. */
static const uint8_t key[32] = "the macaroon corpus is under it";

/* One spelling: the text is what the bytes encode to. */
static void check_text(const struct macaroon *m, const char *text, size_t len)
{
	char canonical[sizeof(MACAROON_PREFIX) + B64_LEN(LIMIT_TOKEN_LEN)] = MACAROON_PREFIX;

	b64url_encode(m->raw, m->raw_len, canonical + sizeof(MACAROON_PREFIX) - 1);
	CHECK(strlen(canonical) == len && memcmp(canonical, text, len) == 0);
}

static void check_parts(const struct macaroon *m)
{
	CHECK(m->raw_len <= sizeof(m->raw) && m->n_caveats <= LIMIT_CAVEATS && m->id[0] == 1);
	for (size_t i = 0; i < m->n_caveats; i++) {
		CHECK(m->caveats[i].len > 0 && m->caveats[i].len <= LIMIT_CAVEAT_LEN);
		CHECK(m->caveats[i].p > m->raw && m->caveats[i].p + m->caveats[i].len < m->raw + m->raw_len);
	}
}

static void check_narrowed(const struct macaroon *m, bool genuine, const struct secret *text, const char *caveat)
{
	CLEANUP(cleanup_secret_free) struct macaroon *n = NULL;
	struct err err = {0};
	const struct macaroon_caveat *last;

	CHECK(text->len <= LIMIT_TOKEN_TEXT && text->data[text->len] == '\0');
	CHECK(macaroon_parse((const char *)text->data, text->len, &n, &err) == 0);
	check_parts(n);
	CHECK(n->n_caveats == m->n_caveats + 1 && memcmp(n->id, m->id, sizeof(m->id)) == 0);
	last = &n->caveats[m->n_caveats];
	CHECK(last->len == strlen(caveat) && memcmp(last->p, caveat, last->len) == 0);
	/* narrowing neither makes a forgery genuine nor spoils what is */
	CHECK(macaroon_verify(n, key) == genuine);
}

static void narrow(const char *text, size_t len, const struct macaroon *m, bool genuine, const char *caveat)
{
	CLEANUP(secret_clear) struct secret narrowed = {0};
	struct err err = {0};
	int r = macaroon_narrow(text, len, caveat, &narrowed, &err);

	fuzz_check_result(r, &err);
	if (r == 0)
		check_narrowed(m, genuine, &narrowed, caveat);
	else
		CHECK(r == -ERR_LIMIT && !narrowed.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char longest[LIMIT_CAVEAT_LEN + 1];
	size_t used = fuzz_begin();
	struct macaroon *m = NULL;
	struct err err = {0};
	bool genuine;
	int r = macaroon_parse((const char *)data, size, &m, &err);

	fuzz_check_result(r, &err);
	if (r == 0) {
		check_parts(m);
		check_text(m, (const char *)data, size);
		genuine = macaroon_verify(m, key);
		memset(longest, 'x', LIMIT_CAVEAT_LEN);
		narrow((const char *)data, size, m, genuine, "op = get");
		narrow((const char *)data, size, m, genuine, longest);
	} else {
		CHECK(r == -ERR_INPUT && !m);
	}
	secret_free(m);
	fuzz_end(used);
	return 0;
}
