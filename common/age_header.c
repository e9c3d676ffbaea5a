#include "common/age_header.h"

#include "common/b64.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/hkdf.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define COLUMNS 64u /* base64 characters of a full body line */

static const char intro[] = "age-encryption.org/v1\n";

struct line {
	const char *p;
	size_t len; /* without LF */
};

struct parser {
	const char *p;
	size_t len, pos;
	uint8_t *bodies;
	size_t bodies_len;
};

static int fail(struct err *err, const char *what)
{
	return err_set(err, ERR_AGE_HEADER, "header failure: %s", what);
}

static bool next_line(struct parser *in, struct line *ret)
{
	const char *start = in->p + in->pos;
	const char *lf = memchr(start, '\n', in->len - in->pos);

	if (!lf)
		return false;
	*ret = (struct line){start, (size_t)(lf - start)};
	in->pos += ret->len + 1;
	return true;
}

static int parse_args(struct line line, struct age_stanza *stanza, struct err *err)
{
	const char *p = line.p + 3, *end = line.p + line.len, *start;

	for (;;) {
		start = p;
		while (p < end && *p > 0x20 && *p < 0x7f)
			p++;
		if (p == start)
			return fail(err, "a stanza argument is empty or not printable ASCII");
		if (stanza->n_args == LIMIT_AGE_ARGS)
			return fail(err, "a stanza has too many arguments");
		stanza->args[stanza->n_args++] = (struct age_arg){start, (size_t)(p - start)};
		if (p == end)
			return 0;
		if (*p++ != ' ')
			return fail(err, "a stanza argument is not printable ASCII");
	}
}

static int parse_body(struct parser *in, struct age_stanza *stanza, struct err *err)
{
	uint8_t *out = in->bodies + in->bodies_len;
	struct line line;
	size_t n;

	stanza->body = out;
	do {
		if (!next_line(in, &line))
			return fail(err, "a stanza has no final line");
		if (line.len > COLUMNS)
			return fail(err, "a stanza body line is longer than 64 columns");
		if (!b64_decode(line.p, line.len, out, COLUMNS, &n))
			return fail(err, "a stanza body is not canonical base64");
		out += n;
		stanza->body_len += n;
		if (stanza->body_len > LIMIT_AGE_BODY)
			return fail(err, "a stanza body is too long");
	} while (line.len == COLUMNS);
	in->bodies_len += stanza->body_len;
	return 0;
}

static int parse_mac(struct parser *in, struct line line, struct age_header *h, struct err *err)
{
	size_t n;

	if (line.len != 4 + B64_LEN(AGE_MAC_LEN) || line.p[3] != ' ' ||
	    !b64_decode(line.p + 4, line.len - 4, h->mac, sizeof(h->mac), &n) || n != sizeof(h->mac))
		return fail(err, "the MAC line is malformed");
	h->mac_input_len = (size_t)(line.p - in->p) + 3;
	h->len = in->pos;
	return 0;
}

static int parse_stanzas(struct parser *in, struct age_header *h, struct err *err)
{
	struct line line;
	int r;

	for (;;) {
		if (!next_line(in, &line))
			return fail(err, in->len >= LIMIT_AGE_HEADER ? "it is longer than 64 KiB" : "it is cut off");
		if (line.len >= 3 && memcmp(line.p, "---", 3) == 0)
			break;
		if (line.len < 3 || memcmp(line.p, "-> ", 3) != 0)
			return fail(err, "a line is neither a stanza nor the MAC");
		if (h->n_stanzas == LIMIT_AGE_STANZAS)
			return fail(err, "it has more than 32 stanzas");
		r = parse_args(line, &h->stanzas[h->n_stanzas], err);
		if (r < 0)
			return r;
		r = parse_body(in, &h->stanzas[h->n_stanzas++], err);
		if (r < 0)
			return r;
	}
	if (h->n_stanzas == 0)
		return fail(err, "it has no recipient");
	return parse_mac(in, line, h, err);
}

static void cleanup_header(struct age_header *h)
{
	age_header_clear(h);
}

int age_header_parse(const uint8_t *data, size_t len, struct age_header *ret, struct err *err)
{
	CLEANUP(cleanup_header) struct age_header h = {0};
	struct parser in;
	int r;

	if (len < sizeof(intro) - 1 || memcmp(data, intro, sizeof(intro) - 1) != 0)
		return fail(err, "this is not an age v1 file");
	if (len > LIMIT_AGE_HEADER)
		len = LIMIT_AGE_HEADER;
	h.text = malloc(len);
	h.bodies = malloc(len + COLUMNS); /* decoding shrinks; one spare line for its buffer bound */
	if (!h.text || !h.bodies)
		return err_set(err, ERR_FAILED, "out of memory");
	memcpy(h.text, data, len);
	in = (struct parser){.p = h.text, .len = len, .pos = sizeof(intro) - 1, .bodies = h.bodies};
	r = parse_stanzas(&in, &h, err);
	if (r < 0)
		return r;
	*ret = h;
	h = (struct age_header){0};
	return 0;
}

void age_header_clear(struct age_header *header)
{
	if (!header)
		return;
	free(header->text);
	free(header->bodies);
	*header = (struct age_header){0};
}

bool age_stanza_is(const struct age_stanza *stanza, const char *type)
{
	return stanza->args[0].len == strlen(type) && memcmp(stanza->args[0].p, type, stanza->args[0].len) == 0;
}

bool age_stanza_arg(const struct age_stanza *stanza, size_t i, uint8_t *ret, size_t len)
{
	size_t n;

	return i < stanza->n_args && stanza->args[i].len == B64_LEN(len) &&
	       b64_decode(stanza->args[i].p, stanza->args[i].len, ret, len, &n) && n == len;
}

static void compute_mac(const void *text, size_t len, const uint8_t file_key[AGE_FILE_KEY_LEN], uint8_t ret[AGE_MAC_LEN])
{
	uint8_t key[32];
	struct hkdf_part part = {text, len};

	hkdf(NULL, 0, file_key, AGE_FILE_KEY_LEN, "header", key);
	hmac_parts(key, sizeof(key), &part, 1, ret);
	sodium_memzero(key, sizeof(key));
}

int age_header_verify(const struct age_header *header, const uint8_t file_key[AGE_FILE_KEY_LEN], struct err *err)
{
	uint8_t mac[AGE_MAC_LEN];

	compute_mac(header->text, header->mac_input_len, file_key, mac);
	if (sodium_memcmp(mac, header->mac, sizeof(mac)) != 0)
		return err_set(err, ERR_AGE_HMAC, "HMAC failure: the header was changed after sealing");
	return 0;
}

void age_header_write_intro(struct writer *w)
{
	writer_str(w, intro);
}

void age_header_write_stanza(struct writer *w, const char *const *args, size_t n_args, const uint8_t *body,
			     size_t body_len)
{
	char line[COLUMNS + 1];
	size_t n;

	writer_str(w, "->");
	for (size_t i = 0; i < n_args; i++) {
		writer_str(w, " ");
		writer_str(w, args[i]);
	}
	writer_str(w, "\n");
	for (;;) {
		n = body_len < COLUMNS / 4 * 3 ? body_len : COLUMNS / 4 * 3;
		b64_encode(body, n, line);
		writer_str(w, line);
		writer_str(w, "\n");
		if (n < COLUMNS / 4 * 3)
			return;
		body += n;
		body_len -= n;
	}
}

void age_header_write_end(struct writer *w, const uint8_t file_key[AGE_FILE_KEY_LEN])
{
	uint8_t mac[AGE_MAC_LEN];
	char text[B64_LEN(AGE_MAC_LEN) + 1];

	writer_str(w, "---");
	compute_mac(w->p, w->len, file_key, mac);
	b64_encode(mac, sizeof(mac), text);
	writer_str(w, " ");
	writer_str(w, text);
	writer_str(w, "\n");
}
