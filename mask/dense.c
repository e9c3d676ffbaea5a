#include "mask/dense.h"

#include <immintrin.h>
#include <string.h>

#define ESC 0x1b

/* What stands in the dense text for a byte, and whether it stands there at all. */
#define SAME_4(n) n, (n) + 1, (n) + 2, (n) + 3
#define SAME_16(n) SAME_4(n), SAME_4((n) + 4), SAME_4((n) + 8), SAME_4((n) + 12)
#define SAME_64(n) SAME_16(n), SAME_16((n) + 16), SAME_16((n) + 32), SAME_16((n) + 48)
#define ONES_16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define ONES_64 ONES_16, ONES_16, ONES_16, ONES_16

static const uint8_t translated[256] = {
	SAME_16(0), SAME_16(0x10), SAME_4(0x20),  SAME_4(0x24),	 SAME_4(0x28),	0x2c,	       '+' /* - */, 0x2e,
	0x2f,	    SAME_16(0x30), SAME_16(0x40), SAME_4(0x50),	 SAME_4(0x54),	SAME_4(0x58),  0x5c,	    0x5d,
	0x5e,	    '/' /* _ */,   SAME_16(0x60), SAME_16(0x70), SAME_64(0x80), SAME_64(0xc0),
};

static const uint8_t kept[256] = {
	1,	 1,	  1,	   1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, /* \t \n \v \f \r */
	ONES_16,							  /**/
	0,	 1,	  1,	   1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, /* space , */
	1,	 1,	  1,	   1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, /* : */
	ONES_64, ONES_64, ONES_64,
};

/* The next ESC or backslash. */
static size_t next_special(const uint8_t *text, size_t at, size_t len)
{
	const __m128i esc = _mm_set1_epi8(ESC), backslash = _mm_set1_epi8('\\');

	for (; at + 16 <= len; at += 16) {
		__m128i block = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
		int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(block, esc), _mm_cmpeq_epi8(block, backslash)));

		if (hits)
			return at + (size_t)__builtin_ctz((unsigned int)hits);
	}
	while (at < len && text[at] != ESC && text[at] != '\\')
		at++;
	return at;
}

/* The length of what begins with ESC or a backslash and is left out. 0: it is text; -1: the end cuts it off. */
static int sequence_len(const uint8_t *text, size_t at, size_t len)
{
	size_t left = len - at, i = 2;

	if (left < 2)
		return -1;
	if (text[at] == '\\')
		return text[at + 1] && strchr("nrtx\n\r", text[at + 1]) ? 2 : 0;
	if (text[at + 1] == '[')
		while (i < left && i < DENSE_SEQUENCE_MAX && text[at + i] >= 0x20 && text[at + i] < 0x40)
			i++;
	else if (text[at + 1] == ']')
		while (i < left && i < DENSE_SEQUENCE_MAX && text[at + i] >= 0x20)
			i++;
	else if (text[at + 1] >= 0x20 && text[at + 1] < 0x30) /* ESC ( B: tput sgr0 writes it */
		while (i < left && i < DENSE_SEQUENCE_MAX && text[at + i] >= 0x20 && text[at + i] < 0x30)
			i++;
	else
		return text[at + 1] >= 0x30 && text[at + 1] < 0x7f ? 2 : 0;
	if (i == DENSE_SEQUENCE_MAX)
		return 0;
	if (i == left)
		return -1;
	/* OSC ends with BEL, or with ESC and a backslash, which is a sequence of its own */
	if (text[at + 1] == ']')
		return text[at + i] == 7 ? (int)i + 1 : text[at + i] == ESC ? (int)i : 0;
	return text[at + i] >= (text[at + 1] == '[' ? 0x40 : 0x30) && text[at + i] < 0x7f ? (int)i + 1 : 0;
}

static void mark(struct dense *d, size_t at, size_t n)
{
	d->marks[d->n_marks++] = (struct dense_mark){.text = (uint32_t)at, .dense = (uint32_t)n};
}

void dense_init(struct dense *d)
{
	for (unsigned int set = 0; set < 256; set++) {
		unsigned int n = 0;

		memset(d->pack[set], 0x80, 8);
		for (uint8_t i = 0; i < 8; i++)
			if (set >> i & 1)
				d->pack[set][n++] = i;
	}
}

static size_t pack_plain(uint8_t *out, size_t n, const uint8_t *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		out[n] = translated[text[i]];
		n += kept[text[i]];
	}
	return n;
}

/* Sixteen bytes at once: which are kept is found by comparing, and they are moved together by a shuffle for each half. out
 * has room for as many as there are in the text. */
static __attribute__((target("ssse3,popcnt"))) size_t pack_ssse3(const struct dense *d, size_t n, const uint8_t *text,
								 size_t len)
{
	size_t i = 0;

	for (; i + 16 <= len; i += 16) {
		__m128i c = _mm_loadu_si128((const __m128i *)(const void *)(text + i));
		__m128i control = _mm_sub_epi8(c, _mm_set1_epi8('\t'));
		__m128i out = _mm_or_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8(' ')),
					   _mm_cmpeq_epi8(_mm_min_epu8(control, _mm_set1_epi8('\r' - '\t')), control));
		unsigned int set;

		out = _mm_or_si128(
			out, _mm_or_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8(':')), _mm_cmpeq_epi8(c, _mm_set1_epi8(','))));
		c = _mm_add_epi8(c, _mm_and_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8('-')), _mm_set1_epi8('+' - '-')));
		c = _mm_add_epi8(c, _mm_and_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8('_')), _mm_set1_epi8('/' - '_')));
		set = ~(unsigned int)_mm_movemask_epi8(out) & 0xffff;
		for (unsigned int half = 0; half < 2; half++, set >>= 8, c = _mm_srli_si128(c, 8)) {
			const void *order = d->pack[set & 0xff];

			_mm_storel_epi64((__m128i *)(void *)(d->bytes + n), _mm_shuffle_epi8(c, _mm_loadl_epi64(order)));
			n += (size_t)__builtin_popcount(set & 0xff);
		}
	}
	return pack_plain(d->bytes, n, text + i, len - i);
}

static size_t plain(struct dense *d, const uint8_t *text, size_t at, size_t end)
{
	bool fast = __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("popcnt");

	while (at < end) {
		size_t n = end - at > DENSE_STEP ? DENSE_STEP : end - at;

		mark(d, at, d->len);
		d->len = fast ? pack_ssse3(d, d->len, text + at, n) : pack_plain(d->bytes, d->len, text + at, n);
		at += n;
	}
	return at;
}

void dense_make(struct dense *d, const uint8_t *text, size_t len, bool final)
{
	size_t at = 0;

	d->len = d->n_marks = 0;
	d->unfinished = len;
	while (at < len) {
		int n;

		at = plain(d, text, at, next_special(text, at, len));
		if (at == len)
			break;
		n = sequence_len(text, at, len);
		if (n < 0 && !final) {
			d->unfinished = at;
			break;
		}
		if (n > 0) {
			at += (size_t)n;
			continue;
		}
		mark(d, at, d->len);
		d->bytes[d->len++] = text[at++];
	}
}

static const struct dense_mark *mark_before(const struct dense *d, size_t i, bool by_text)
{
	size_t low = 0, high = d->n_marks;

	while (low + 1 < high) {
		size_t middle = (low + high) / 2;

		if ((by_text ? d->marks[middle].text : d->marks[middle].dense) <= i)
			low = middle;
		else
			high = middle;
	}
	return &d->marks[low];
}

size_t dense_place(const struct dense *d, const uint8_t *text, size_t i)
{
	const struct dense_mark *m = mark_before(d, i, false);
	size_t at = m->text, n = m->dense;

	for (; n < i || !kept[text[at]]; at++)
		n += kept[text[at]];
	return at;
}

size_t dense_outside(const struct dense *d, const uint8_t *text, size_t len, size_t at)
{
	const struct dense_mark *m;
	size_t start;
	int n;

	if (!d->n_marks || at >= d->unfinished)
		return at > d->unfinished ? d->unfinished : at;
	m = mark_before(d, at, true);
	/* the marked stretch goes on up to the next ESC or backslash, sequences behind that up to the next mark */
	for (start = next_special(text, m->text, len); start < at; start += (size_t)n) {
		n = sequence_len(text, start, len);
		if (n <= 0)
			return at;
		if (start + (size_t)n > at)
			return start;
	}
	return at;
}
