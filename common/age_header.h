#pragma once
/* The header of an age v1 file (C2SP age.md, "Header"): strict parse, strict write, MAC. */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct writer;

#define AGE_FILE_KEY_LEN 16u
#define AGE_MAC_LEN 32u

struct age_stanza {
	/* args[0] is the type. Slices of the header's text, not terminated. */
	struct age_arg {
		const char *p;
		size_t len;
	} args[LIMIT_AGE_ARGS];
	size_t n_args;
	const uint8_t *body; /* decoded */
	size_t body_len;
};

struct age_header {
	char *text;	 /* a copy of the header, owned */
	uint8_t *bodies; /* what the stanzas' bodies point to, owned */
	size_t len;	 /* bytes of the whole header, the MAC line's LF included: the payload starts here */
	size_t mac_input_len;
	uint8_t mac[AGE_MAC_LEN];
	struct age_stanza stanzas[LIMIT_AGE_STANZAS];
	size_t n_stanzas;
};

/* Parses the header at the start of data. Everything in it is public. ERR_AGE_HEADER on any fault ("header failure: …"). */
int age_header_parse(const uint8_t *data, size_t len, struct age_header *ret, struct err *err);
void age_header_clear(struct age_header *header);

bool age_stanza_is(const struct age_stanza *stanza, const char *type);
/* Decodes argument i as canonical base64 of exactly len bytes; false if it is anything else. */
bool age_stanza_arg(const struct age_stanza *stanza, size_t i, uint8_t *ret, size_t len);

/* ERR_AGE_HMAC when the header was changed after it was sealed. */
int age_header_verify(const struct age_header *header, const uint8_t file_key[AGE_FILE_KEY_LEN], struct err *err);

/* Writing: intro, any number of stanzas, then end, which adds the MAC over all before it. */
void age_header_write_intro(struct writer *w);
void age_header_write_stanza(struct writer *w, const char *const *args, size_t n_args, const uint8_t *body,
			     size_t body_len);
void age_header_write_end(struct writer *w, const uint8_t file_key[AGE_FILE_KEY_LEN]);
