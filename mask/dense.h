#pragma once
/*
 * A text without what does not matter inside base64, hex and PEM: white space, ':' and ',' between hex bytes, terminal
 * sequences (ECMA-48 5.4, ECMA-35 13.2, OSC), and line ends and \x as escapes write them. '-' and '_' become '+' and '/' (RFC 4648 5), so
 * that both alphabets of base64 are one. It knows where in the text each of its bytes stood.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DENSE_SEQUENCE_MAX 256u /* a longer terminal sequence is text */
#define DENSE_STEP 64u

struct dense_mark {
	uint32_t text, dense; /* from here on nothing but white space is left out, up to the next mark */
};

struct dense {
	uint8_t *bytes; /* the caller's, as long as the text */
	size_t len;
	struct dense_mark *marks; /* the caller's, DENSE_MARKS(length of the text) */
	size_t n_marks;
	uint8_t pack[256][8]; /* for each set of eight bytes: those, moved together */
	size_t unfinished;    /* where a sequence begins that the text's end cuts off; its length when there is none */
};

#define DENSE_MARKS(text_len) ((text_len) + 1)

/* Once, before the first text. */
void dense_init(struct dense *d);
void dense_make(struct dense *d, const uint8_t *text, size_t len, bool final);
/* Where byte i stood in the same text. */
size_t dense_place(const struct dense *d, const uint8_t *text, size_t i);
/* If at stands inside of a sequence, where that begins; else at. */
size_t dense_outside(const struct dense *d, const uint8_t *text, size_t len, size_t at);
