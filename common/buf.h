#pragma once
/* Bounded reader and writer over memory that somebody else owns. A failure sticks: check once at the end. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const uint8_t *p;
	size_t len, pos;
	bool failed;
};

struct writer {
	uint8_t *p;
	size_t cap, len;
	bool failed;
};

static inline struct reader reader_init(const void *p, size_t len)
{
	return (struct reader){.p = p, .len = len};
}

static inline struct writer writer_init(void *p, size_t cap)
{
	return (struct writer){.p = p, .cap = cap};
}

/* The next n bytes, or NULL and failed. The pointer is into the reader's memory. */
const uint8_t *reader_bytes(struct reader *r, size_t n);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16be(struct reader *r);
uint32_t reader_u32be(struct reader *r);
uint64_t reader_u64be(struct reader *r);
/* True when all was read and nothing failed. */
bool reader_done(const struct reader *r);

/* Here, because a literal's length is known to the compiler: answers and records are made of some forty of them. */
static inline void writer_bytes(struct writer *w, const void *p, size_t n)
{
	if (w->failed || n > w->cap - w->len) {
		w->failed = true;
		return;
	}
	if (n)
		memcpy(w->p + w->len, p, n);
	w->len += n;
}

static inline void writer_str(struct writer *w, const char *s)
{
	writer_bytes(w, s, strlen(s));
}

void writer_u8(struct writer *w, uint8_t v);
void writer_u16be(struct writer *w, uint16_t v);
void writer_u32be(struct writer *w, uint32_t v);
void writer_u64be(struct writer *w, uint64_t v);
/* Decimal; many times faster than writer_printf. */
void writer_decimal(struct writer *w, uint64_t v);
void writer_printf(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
