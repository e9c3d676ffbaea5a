#pragma once
/*
 * Secrets known by fingerprints: whoever has them finds the secrets in a text and cannot tell them. Of each form
 * (mask/forms.h) there are 20 bits of its first eight bytes, which say where to look, and BLAKE2b-128 of all of it under a
 * key of this set; a form whose bits that could be guessed are not enough for that has none.
 */
#include "mask/forms.h"

#define FINGERPRINT_BITS 80u	  /* of a secret that may leave the broker as fingerprints */
#define FINGERPRINT_SLOT_BITS 20u /* of them, that the slot tells: so there have to be as many more */
#define FINGERPRINT_VALUE 16384u  /* bytes of a longer value that are looked for */
#define FINGERPRINT_MIN 12u	  /* bytes of a form */
#define FINGERPRINT_KEY 32u
#define FINGERPRINT_LEN 24u /* of one, as it is carried: slot u32be, length u16be, view, tail, digest */

struct fingerprint {
	uint32_t slot, value;
	uint16_t len;
	bool dense;
	uint8_t tail;
	uint8_t digest[16];
};

struct fingerprints {
	uint8_t key[FINGERPRINT_KEY];
	struct fingerprint *list; /* sorted by slot once built */
	size_t n, cap;
	uint64_t *slots[2]; /* a bit for each: of the plain text, of the dense one */
};

/* How many bits somebody has to guess, cautiously: what is like a word counts for less. */
unsigned int fingerprint_bits(const uint8_t *value, size_t len);
/* All forms of one value, appended to ret as FINGERPRINT_LEN bytes each. Nothing for what is below FINGERPRINT_BITS. */
int fingerprint_make(const uint8_t key[FINGERPRINT_KEY], const uint8_t *value, size_t len, struct secret *ret,
		     struct err *err);

/* bytes: what fingerprint_make made with the same key, of the caller's value number. ERR_INPUT. */
int fingerprints_add(struct fingerprints *f, const uint8_t *bytes, size_t len, uint32_t value, struct err *err);
int fingerprints_build(struct fingerprints *f, struct err *err);
typedef void fingerprint_found(void *context, size_t at, const struct fingerprint *p);
void fingerprints_scan(const struct fingerprints *f, bool dense, const uint8_t *text, size_t len, fingerprint_found *found,
		       void *context);
void fingerprints_done(struct fingerprints *f);
