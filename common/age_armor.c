#include "common/age_armor.h"

#include "common/b64.h"
#include "common/err.h"
#include "common/limits.h"

#include <sodium.h>
#include <string.h>

#define COLUMNS 64u

static const char begin[] = "-----BEGIN AGE ENCRYPTED FILE-----";
static const char end[] = "-----END AGE ENCRYPTED FILE-----";

static int fail(struct err *err, const char *what)
{
	return err_set(err, ERR_AGE_ARMOR, "armor failure: %s", what);
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool age_armor_detect(const uint8_t *head, size_t len)
{
	static const char binary[] = "age-encryption.org/";
	size_t i = 0;

	if (len >= sizeof(binary) - 1 && memcmp(head, binary, sizeof(binary) - 1) == 0)
		return false;
	while (i < len && is_space(head[i]))
		i++;
	if (len - i >= 5 && memcmp(head + i, "-----", 5) == 0)
		return true;
	return memmem(head, len, begin, sizeof(begin) - 1) != NULL; /* garbage before it is an armor fault */
}

static int decode_line(struct age_armor *a, struct err *err)
{
	uint8_t out[48];
	size_t n;

	if (a->line_len == 0)
		return fail(err, "an empty line inside");
	if (a->line_len > COLUMNS)
		return fail(err, "a line is longer than 64 columns");
	if (!b64_decode_padded(a->line, a->line_len, NULL, out, sizeof(out), &n))
		return fail(err, "not canonical padded base64");
	if (a->line_len < COLUMNS || n < sizeof(out))
		a->state = ARMOR_LAST;
	return a->write(a->ctx, out, n, err);
}

static int end_of_line(struct age_armor *a, bool has_lf, struct err *err)
{
	int r = 0;

	if (has_lf && a->line_len && a->line[a->line_len - 1] == '\r')
		a->line_len--;
	switch (a->state) {
	case ARMOR_BEFORE:
		if (a->line_len != sizeof(begin) - 1 || memcmp(a->line, begin, a->line_len) != 0)
			return fail(err, "the BEGIN line is wrong");
		a->state = ARMOR_BODY;
		break;
	case ARMOR_BODY:
	case ARMOR_LAST:
		if (a->line_len == sizeof(end) - 1 && memcmp(a->line, end, a->line_len) == 0)
			a->state = ARMOR_AFTER;
		else if (a->state == ARMOR_LAST)
			return fail(err, "text after the last line");
		else
			r = decode_line(a, err);
		break;
	case ARMOR_AFTER:
		break;
	}
	a->line_len = 0;
	return r;
}

int age_armor_feed(struct age_armor *a, const uint8_t *data, size_t len, struct err *err)
{
	int r;

	for (size_t i = 0; i < len; i++) {
		/* white space is tolerated outside the block only */
		if (a->state == ARMOR_AFTER || (a->state == ARMOR_BEFORE && a->line_len == 0)) {
			if (is_space(data[i])) {
				if (++a->preamble > 2 * LIMIT_AGE_PREAMBLE)
					return fail(err, "too much white space around it");
				continue;
			}
			if (a->state == ARMOR_AFTER)
				return fail(err, "text after the END line");
		}
		if (data[i] == '\n') {
			r = end_of_line(a, true, err);
			if (r < 0)
				return r;
			continue;
		}
		if (a->line_len == sizeof(a->line))
			return fail(err, a->state == ARMOR_BEFORE ? "the BEGIN line is wrong" : "a line is longer than 64 columns");
		a->line[a->line_len++] = (char)data[i];
	}
	return 0;
}

int age_armor_finish(struct age_armor *a, struct err *err)
{
	int r;

	if (a->line_len) {
		r = end_of_line(a, false, err);
		if (r < 0)
			return r;
	}
	return a->state == ARMOR_AFTER ? 0 : fail(err, "the END line is missing");
}

static int put(struct age_armor_writer *w, const char *text, struct err *err)
{
	return w->write(w->ctx, (const uint8_t *)text, strlen(text), err);
}

int age_armor_write_begin(struct age_armor_writer *w, struct err *err)
{
	int r = put(w, begin, err);

	return r < 0 ? r : put(w, "\n", err);
}

static int flush_line(struct age_armor_writer *w, struct err *err)
{
	char line[COLUMNS + 2];

	sodium_bin2base64(line, COLUMNS + 1, w->pending, w->pending_len, sodium_base64_VARIANT_ORIGINAL);
	strcat(line, "\n");
	w->pending_len = 0;
	return put(w, line, err);
}

int age_armor_write(struct age_armor_writer *w, const uint8_t *data, size_t len, struct err *err)
{
	int r;

	for (size_t i = 0; i < len; i++) {
		w->pending[w->pending_len++] = data[i];
		if (w->pending_len == sizeof(w->pending)) {
			r = flush_line(w, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int age_armor_write_end(struct age_armor_writer *w, struct err *err)
{
	int r = w->pending_len ? flush_line(w, err) : 0;

	if (r == 0)
		r = put(w, end, err);
	return r < 0 ? r : put(w, "\n", err);
}
