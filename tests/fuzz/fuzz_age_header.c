/* A header that parses is written again from its parts: strict parsing leaves one spelling, so the bytes are the same. */
#include "fuzz.h"

#include "common/age_p256tag.h"
#include "common/b64.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

/* The key of the p256tag seeds. */
static const uint8_t point[P256_COMPRESSED_LEN] = {
	0x03, 0xb2, 0xfb, 0x75, 0x30, 0x90, 0xfa, 0x3a, 0xac, 0xdb, 0xd5, 0xf2, 0x09, 0xdc, 0x29, 0xe2, 0x10,
	0x21, 0xbd, 0x0c, 0x14, 0xc5, 0xe4, 0xb0, 0x88, 0x30, 0xfe, 0x02, 0xbf, 0x94, 0xd8, 0x14, 0x12,
};

static void write_stanza(struct writer *w, const struct age_stanza *s)
{
	char *args[LIMIT_AGE_ARGS];

	CHECK(s->n_args >= 1 && s->n_args <= LIMIT_AGE_ARGS && s->body_len <= LIMIT_AGE_BODY);
	for (size_t i = 0; i < s->n_args; i++) {
		CHECK(s->args[i].len > 0);
		args[i] = fuzz_string((const uint8_t *)s->args[i].p, s->args[i].len);
		CHECK(strlen(args[i]) == s->args[i].len);
	}
	age_header_write_stanza(w, (const char *const *)args, s->n_args, s->body, s->body_len);
	for (size_t i = 0; i < s->n_args; i++)
		free(args[i]);
}

static void check_round_trip(const struct age_header *h, const uint8_t *data)
{
	CLEANUP(cleanup_free) uint8_t *copy = malloc(h->len);
	struct writer w = writer_init(copy, h->len);
	char mac[B64_LEN(AGE_MAC_LEN) + 1];

	CHECK(copy && h->n_stanzas >= 1 && h->n_stanzas <= LIMIT_AGE_STANZAS);
	age_header_write_intro(&w);
	for (size_t i = 0; i < h->n_stanzas; i++)
		write_stanza(&w, &h->stanzas[i]);
	writer_str(&w, "---");
	CHECK(w.len == h->mac_input_len);
	b64_encode(h->mac, sizeof(h->mac), mac);
	writer_printf(&w, " %s", mac);
	writer_str(&w, "\n");
	CHECK(!w.failed && w.len == h->len && memcmp(copy, data, h->len) == 0);
}

static void check_bind(const struct age_header *h)
{
	uint8_t text[2048];
	struct writer w = writer_init(text, sizeof(text));
	struct err err = {0};
	struct bind b;

	if (!bind_read(h, &b)) {
		CHECK(bind_enforce(h, "a/b", 1, &err) == 0);
		return;
	}
	CHECK(path_valid(b.path));
	CHECK(bind_enforce(h, b.path, b.version, &err) == 0);
	CHECK(bind_enforce(h, strcmp(b.path, "a/b") == 0 ? "a/c" : "a/b", b.version, &err) == -ERR_TAMPERED);
	/* canonical: what is written from it stands in the header, unless a second such stanza came after */
	bind_write(&b, &w);
	CHECK(!w.failed && memmem(h->text, h->len, text, w.len));
}

static void check_find(const struct age_header *h, const uint8_t key[P256_POINT_LEN])
{
	struct err err = {0};
	uint8_t peer[P256_POINT_LEN], shared[P256_SECRET_LEN] = {1}, file_key[AGE_FILE_KEY_LEN];
	size_t index = 0;
	int r;

	for (;; index++) {
		r = age_p256tag_find(h, key, &index, peer, &err);
		fuzz_check_result(r, &err);
		CHECK(index <= h->n_stanzas && (r < 0 || index < h->n_stanzas));
		if (r < 0)
			break;
		/* never a point off the curve for the hardware */
		CHECK(p256_check(peer, &err) == 0);
		/* nobody can seal to the shared secret made up here */
		CHECK(age_p256tag_finish(&h->stanzas[index], key, shared, file_key, &err) == -ERR_NO_MATCH);
	}
	CHECK(r == -ERR_NO_MATCH || r == -ERR_AGE_HEADER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t file_key[AGE_FILE_KEY_LEN];
	size_t used = fuzz_begin();
	uint8_t key[P256_POINT_LEN];
	struct age_header h = {0};
	struct err err = {0};
	int r = age_header_parse(data, size, &h, &err);

	fuzz_check_result(r, &err);
	if (r == 0) {
		CHECK(h.len <= size && h.len <= LIMIT_AGE_HEADER);
		check_round_trip(&h, data);
		r = age_check_stanzas(&h, &err);
		fuzz_check_result(r, &err);
		check_bind(&h);
		CHECK(p256_decompress(point, key, &err) == 0);
		check_find(&h, key);
		fuzz_check_result(age_header_verify(&h, file_key, &err), &err);
	}
	age_header_clear(&h);
	CHECK(!h.text && !h.bodies && h.n_stanzas == 0);
	fuzz_end(used);
	return 0;
}
