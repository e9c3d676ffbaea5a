#pragma once
/*
 * Many strings looked for at once in a text. A string of length n >= L covers, wherever it stands, one of the positions
 * that are a multiple of L - q + 1; the q bytes at those positions alone are looked up in a table, so that most bytes are
 * never looked at and the time hardly grows with the number of strings. What the table lets through is compared in a sorted
 * list of the strings. The strings are plaintext and lie in the arena (common/secret.h).
 */
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

#define MATCH_SAMPLINGS 3u
#define MATCH_MAX 511u /* bytes of one string */

struct match_entry {
	uint32_t offset; /* in the strings */
	uint32_t parent; /* the longest other entry that this one begins with; UINT32_MAX: none */
	uint32_t value;	 /* whose it is: the caller's number */
	uint16_t len;
	uint8_t tail; /* the caller's */
};

struct match_grams;
struct match_pairs;
struct match_set;

struct match {
	struct secret strings;
	struct match_entry *entries; /* sorted by their bytes once built, each string once */
	size_t n, cap;
	size_t longest; /* bytes */
	bool built;
	struct match_set *begins;		    /* the first eight bytes of what is longer than that */
	struct match_grams *grams[MATCH_SAMPLINGS]; /* of strings of 8 to 15 bytes, 16 to 31, longer ones */
	struct match_pairs *pairs;		    /* of strings below 8 bytes */
};

/* len: 1 to MATCH_MAX. Copies. ERR_BUSY when the arena is full. */
int match_add(struct match *m, const void *string, size_t len, uint32_t value, uint8_t tail, struct err *err);
/* After the last one was added, and before anything is looked for. More may be added later, and built again. */
int match_build(struct match *m, struct err *err);
void match_done(struct match *m);

/* The longest entry that stands at text[at]; NULL: none. */
const struct match_entry *match_at(const struct match *m, const uint8_t *text, size_t len, size_t at);
/* The first position, not before from, from which on the text is the beginning of a longer entry; len when there is none.
 * Looks at the text's end alone. */
size_t match_unfinished(const struct match *m, const uint8_t *text, size_t len, size_t from);

/* Calls found for each place in turn where an entry stands, the longest of those that stand there; places may be named more
 * than once, and out of order. */
typedef void match_found(void *context, size_t at, const struct match_entry *e);
void match_scan(const struct match *m, const uint8_t *text, size_t len, match_found *found, void *context);
