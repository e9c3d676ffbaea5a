#include "mask/forms.h"

#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "mask/dense.h"
#include "mask/escapes.h"

#include <jansson.h>
#include <sodium.h>
#include <string.h>

#define PIECE 256u  /* of a longer form */
#define LINE_MIN 3u /* a shorter line of a secret hides too much of a log */
#define LEAF_MIN 4u
#define LEAF_DIGITS_MIN 6u /* of a number: with fewer it is a port, a count, a year */
#define DENSE_LITERAL 12u /* a shorter one is looked for as it is alone */
#define BASE64_MIN 3u
#define HEX_MIN 10u
#define LEAVES_DEPTH 256u /* what is deeper is looked for as it is alone */

struct adding {
	struct forms *f;
	uint32_t number;
	unsigned int depth;
	bool is_line; /* of many: they have to fit, and are not disguised twice */
};

static int add(struct adding *a, struct match *m, const uint8_t *form, size_t len, uint8_t tail, struct err *err)
{
	int r = 0;

	if (len > FORMS_STRINGS || m->strings.len + len > FORMS_STRINGS)
		return err_set(err, ERR_LIMIT, "the secrets to look for, with all their disguises, are more than %u KiB",
			       FORMS_STRINGS / 1024);
	for (; r == 0 && len > MATCH_MAX; form += PIECE, len -= PIECE)
		r = match_add(m, form, PIECE, a->number, 0, err);
	return r == 0 && len ? match_add(m, form, len, a->number, tail, err) : r;
}

/* ---- the dense ones ------------------------------------------------------------------------------------------------- */

/* What of base64 is the value's own, whatever stands before and behind it: with 0, 1 and 2 bytes before it. */
static int add_base64(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	static const size_t first[3] = {0, 2, 3};
	int r = 0;

	for (size_t shift = 0; r == 0 && shift < 3; shift++) {
		CLEANUP(secret_clear) struct secret bytes = {0};
		CLEANUP(secret_clear) struct secret text = {0};
		size_t whole = (shift + len) * 8 / 6;

		if (whole < first[shift] + BASE64_MIN)
			continue;
		r = secret_copy(&bytes, "\0\0", shift, err);
		if (r == 0)
			r = secret_append(&bytes, value, len, err);
		if (r == 0)
			r = secret_new(&text, B64_LEN(bytes.len) + 1, err);
		if (r < 0)
			return r;
		b64_encode(bytes.data, bytes.len, (char *)text.data);
		r = add(a, &a->f->dense, text.data + first[shift], whole - first[shift], (uint8_t)((4 - whole % 4) % 4),
			err);
	}
	return r;
}

static int add_hex(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	int r;

	if (2 * len < HEX_MIN)
		return 0;
	r = secret_new(&text, 2 * len + 1, err);
	if (r < 0)
		return r;
	sodium_bin2hex((char *)text.data, 2 * len + 1, value, len);
	r = add(a, &a->f->dense, text.data, 2 * len, 0, err);
	for (size_t i = 0; i < 2 * len; i++)
		if (text.data[i] >= 'a')
			text.data[i] = (uint8_t)(text.data[i] - 'a' + 'A');
	return r == 0 ? add(a, &a->f->dense, text.data, 2 * len, 0, err) : r;
}

/* The code point at value[*i]; -1: this is no UTF-8 (RFC 3629). */
static int32_t utf8_next(const uint8_t *value, size_t len, size_t *i)
{
	uint8_t c = value[(*i)++];
	size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 4;
	int32_t point = more == 0 ? c : c & (0x3f >> more);

	if (more > len - *i || more == 4)
		return -1;
	for (size_t k = 0; k < more; k++, (*i)++) {
		if ((value[*i] & 0xc0) != 0x80)
			return -1;
		point = point << 6 | (value[*i] & 0x3f);
	}
	return point;
}

/* Empty when the value is no UTF-8. */
static int utf16le(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < len;) {
		int32_t point = utf8_next(value, len, &i);
		uint32_t high = 0, low = (uint32_t)point;
		uint8_t units[4];

		if (point < 0) {
			ret->len = 0;
			return 0;
		}
		if (low >= 0x10000) {
			high = 0xd800 + ((low - 0x10000) >> 10);
			low = 0xdc00 + ((low - 0x10000) & 0x3ff);
		}
		units[0] = (uint8_t)high;
		units[1] = (uint8_t)(high >> 8);
		units[2] = (uint8_t)low;
		units[3] = (uint8_t)(low >> 8);
		r = high ? secret_append(ret, units, 4, err) : secret_append(ret, units + 2, 2, err);
	}
	return r;
}

static int add_utf16(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	CLEANUP(secret_clear) struct secret units = {0};
	int r = utf16le(value, len, &units, err);

	if (r == 0 && units.len)
		r = add(a, &a->f->plain, units.data, units.len, 0, err);
	return r == 0 && units.len ? add_base64(a, units.data, units.len, err) : r;
}

static int add_base64_twice(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	int r = secret_new(&text, B64_LEN(len) + 1, err);

	if (r < 0)
		return r;
	b64_encode(value, len, (char *)text.data);
	/* its last character depends on what follows */
	return add_base64(a, text.data, len * 8 / 6, err);
}

static int add_dense_literal(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	CLEANUP(secret_clear) struct secret bytes = {0};
	CLEANUP(cleanup_free) struct dense_mark *marks = malloc(DENSE_MARKS(len) * sizeof(*marks));
	struct dense d = {.marks = marks};
	int r = marks ? secret_new(&bytes, len, err) : err_set(err, ERR_FAILED, "out of memory");

	if (r < 0)
		return r;
	dense_init(&d);
	d.bytes = bytes.data;
	dense_make(&d, value, len, true);
	return d.len >= DENSE_LITERAL ? add(a, &a->f->dense, d.bytes, d.len, 0, err) : 0;
}

/* ---- a value and its parts --------------------------------------------------------------------------------------------
 */

static int add_value(struct adding *a, const uint8_t *value, size_t len, struct err *err);

static int add_escapes(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_escapes; i++) {
		CLEANUP(secret_clear) struct secret text = {0};

		r = escape_make(&escapes[i], value, len, &text, err);
		/* what escapes leave of a value that is made of them is no part of it that would be known again */
		if (r == 0 && text.len >= a->f->min && 3 * text.len > len &&
		    (text.len != len || memcmp(text.data, value, len) != 0))
			r = add(a, &a->f->plain, text.data, text.len, 0, err);
	}
	return r;
}

/* PowerShell shows a command that failed with '&' and what follows it in another colour: the parts before and behind it. */
static int add_sections(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	const uint8_t *p = memmem(value, len, "&+", 2);
	size_t split;
	int r = 0;

	if (p) {
		split = (size_t)(p - value) + 2;
		r = split >= 6 ? add(a, &a->f->plain, value, split, 0, err) : 0;
		split++;
	} else {
		p = memrchr(value, '&', len);
		if (!p)
			return 0;
		split = (size_t)(p - value) + 1;
		r = split >= 6 ? add(a, &a->f->plain, value, split, 0, err) : 0;
	}
	return r == 0 && split + 6 <= len ? add(a, &a->f->plain, value + split, len - split, 0, err) : r;
}

static bool is_space(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(const uint8_t **value, size_t *len)
{
	while (*len && is_space((*value)[*len - 1]))
		(*len)--;
	for (; *len && is_space(**value); (*len)--)
		(*value)++;
}

/* A line that says nothing: brackets alone, or the frame of a PEM file (RFC 7468). */
static bool line_is_frame(const uint8_t *line, size_t len)
{
	if (len > 10 && memcmp(line, "-----", 5) == 0 && memcmp(line + len - 5, "-----", 5) == 0)
		return true;
	for (size_t i = 0; i < len; i++)
		if (line[i] >= '0' && !strchr(":;<=>?@[\\]^_`{|}~", line[i]))
			return false;
	return true;
}

/* What is left of a part without the white space around it may be too short, where the part was not. */
static int add_part(struct adding *a, const uint8_t *part, size_t len, size_t min, struct err *err)
{
	trim(&part, &len);
	return len < min || len < a->f->min ? 0 : add_value(a, part, len, err);
}

static int add_lines(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	bool outer = a->is_line;
	size_t start = 0;
	int r = 0;

	a->is_line = true;
	for (size_t i = 0; r == 0 && i <= len; i++) {
		const uint8_t *line = value + start;
		size_t n = i - start;

		if (i < len && value[i] != '\n' && value[i] != '\r')
			continue;
		start = i + 1;
		trim(&line, &n);
		if (n == len || line_is_frame(line, n))
			continue;
		r = add_part(a, line, n, LINE_MIN, err);
	}
	a->is_line = outer;
	return r;
}

static int add_number(struct adding *a, json_int_t number, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	int r = secret_new(&text, 32, err);

	if (r < 0)
		return r;
	text.len = (size_t)snprintf((char *)text.data, text.cap, "%" JSON_INTEGER_FORMAT, number);
	/* the digits: a sign before them tells nothing */
	return add_part(a, text.data + (number < 0), text.len - (number < 0), LEAF_DIGITS_MIN, err);
}

static int add_leaves(struct adding *a, const json_t *j, struct err *err)
{
	const char *key;
	json_t *child;
	size_t i;
	int r = 0;

	if (json_is_string(j))
		return add_part(a, (const uint8_t *)json_string_value(j), json_string_length(j), LEAF_MIN, err);
	if (json_is_integer(j))
		return add_number(a, json_integer_value(j), err);
	if (a->depth == LEAVES_DEPTH)
		return 0;
	a->depth++;
	json_object_foreach((json_t *)(uintptr_t)j, key, child) if (r == 0) r = add_leaves(a, child, err);
	json_array_foreach(j, i, child) if (r == 0) r = add_leaves(a, child, err);
	a->depth--;
	return r;
}

static bool in_number(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c && strchr("+-.eE", c));
}

/* The same JSON where numbers that may not fit stand in quotes. */
static int quote_numbers(const uint8_t *value, size_t len, struct secret *ret, struct err *err)
{
	bool in_string = false;
	int r = secret_new(ret, len + len / 4 + 2, err);

	for (size_t i = 0, n; r == 0 && i < len; i += n) {
		bool fits;

		for (n = 0; !in_string && i + n < len && in_number(value[i + n]);)
			n++;
		/* what begins with a letter is true, false or null */
		fits = n == 0 || (n < 19 && !memchr(value + i, 'e', n) && !memchr(value + i, 'E', n)) || value[i] > '9';
		n += n == 0;
		if (in_string && value[i] == '\\' && i + 1 < len)
			n = 2;
		else if (value[i] == '"')
			in_string = !in_string;
		if (!fits)
			r = secret_append(ret, "\"", 1, err);
		if (r == 0)
			r = secret_append(ret, value + i, n, err);
		if (r == 0 && !fits)
			r = secret_append(ret, "\"", 1, err);
	}
	return r;
}

/* *ret is NULL when it is none. */
static int as_json(const uint8_t *value, size_t len, json_t **ret, struct err *err)
{
	json_error_t e;
	int r;

	*ret = NULL;
	if (len < 2 || (value[0] != '{' && value[0] != '['))
		return 0;
	*ret = json_loadb((const char *)value, len, JSON_ALLOW_NUL, &e);
	if (!*ret && json_error_code(&e) == json_error_numeric_overflow) {
		CLEANUP(secret_clear) struct secret quoted = {0};

		/* a number that does not fit does not spoil the rest: it is text */
		r = quote_numbers(value, len, &quoted, err);
		if (r < 0)
			return r;
		*ret = json_loadb((const char *)quoted.data, quoted.len, JSON_ALLOW_NUL, &e);
	}
	return *ret || json_error_code(&e) != json_error_out_of_memory
		       ? 0
		       : err_set(err, ERR_BUSY, "the locked memory for secrets is full");
}

static int add_value(struct adding *a, const uint8_t *value, size_t len, struct err *err)
{
	json_t *j;
	int r;

	trim(&value, &len);
	r = add(a, &a->f->plain, value, len, 0, err);
	if (r == 0)
		r = add_dense_literal(a, value, len, err);
	if (r == 0)
		r = add_base64(a, value, len, err);
	if (r == 0)
		r = add_hex(a, value, len, err);
	if (r == 0 && len > 8 && value[0] == '"' && value[1] != '"' && value[len - 1] == '"')
		r = add_part(a, value + 1, len - 2, LEAF_MIN, err);
	if (r == 0 && len <= FORMS_LARGE) {
		r = add_escapes(a, value, len, err);
		if (r == 0)
			r = add_sections(a, value, len, err);
		if (r == 0 && !a->is_line)
			r = add_utf16(a, value, len, err);
		if (r == 0 && !a->is_line)
			r = add_base64_twice(a, value, len, err);
	}
	if (r == 0)
		r = as_json(value, len, &j, err);
	if (r < 0)
		return r;
	r = j ? add_leaves(a, j, err) : add_lines(a, value, len, err);
	json_decref(j);
	return r;
}

int forms_add(struct forms *f, const void *value, size_t len, uint32_t number, bool *ret_added, struct err *err)
{
	struct adding a = {.f = f, .number = number};
	const uint8_t *p = value;

	trim(&p, &len);
	*ret_added = len && len >= f->min;
	return *ret_added ? add_value(&a, p, len, err) : 0;
}

int forms_build(struct forms *f, struct err *err)
{
	int r = match_build(&f->plain, err);

	return r == 0 ? match_build(&f->dense, err) : r;
}

void forms_done(struct forms *f)
{
	match_done(&f->plain);
	match_done(&f->dense);
}
