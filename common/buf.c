#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const uint8_t *reader_bytes(struct reader *r, size_t n)
{
	const uint8_t *p;

	if (r->failed || n > r->len - r->pos) {
		r->failed = true;
		return NULL;
	}
	p = r->p + r->pos;
	r->pos += n;
	return p;
}

static uint64_t reader_be(struct reader *r, size_t n)
{
	const uint8_t *p = reader_bytes(r, n);
	uint64_t v = 0;

	if (!p)
		return 0;
	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)reader_be(r, 1);
}

uint16_t reader_u16be(struct reader *r)
{
	return (uint16_t)reader_be(r, 2);
}

uint32_t reader_u32be(struct reader *r)
{
	return (uint32_t)reader_be(r, 4);
}

uint64_t reader_u64be(struct reader *r)
{
	return reader_be(r, 8);
}

bool reader_done(const struct reader *r)
{
	return !r->failed && r->pos == r->len;
}

static void writer_be(struct writer *w, uint64_t v, size_t n)
{
	uint8_t b[8];

	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
	writer_bytes(w, b, n);
}

void writer_u8(struct writer *w, uint8_t v)
{
	writer_be(w, v, 1);
}

void writer_u16be(struct writer *w, uint16_t v)
{
	writer_be(w, v, 2);
}

void writer_u32be(struct writer *w, uint32_t v)
{
	writer_be(w, v, 4);
}

void writer_u64be(struct writer *w, uint64_t v)
{
	writer_be(w, v, 8);
}

void writer_decimal(struct writer *w, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + v % 10);
	while (v /= 10);
	writer_bytes(w, digits + at, sizeof(digits) - at);
}

void writer_printf(struct writer *w, const char *fmt, ...)
{
	va_list ap;
	size_t room = w->cap - w->len;
	int n;

	if (w->failed)
		return;
	va_start(ap, fmt);
	n = vsnprintf((char *)w->p + w->len, room, fmt, ap);
	va_end(ap);
	/* the terminating zero needs room too, though it is not counted */
	if (n < 0 || (size_t)n >= room) {
		w->failed = true;
		return;
	}
	w->len += (size_t)n;
}
