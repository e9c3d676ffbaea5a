#pragma once
/*
 * Hides secrets in a stream, whatever their disguise (mask/forms.h) and however the stream is cut. What may be the
 * beginning of one is kept back, and nothing else; a run of hidden bytes is written as one mask, which names the secret
 * that begins it. Memory is bounded: MASK_WINDOW bytes of the stream, and the forms.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct mask;
struct mask_values;

#define MASK_WINDOW 65536u
#define MASK_SPAN 16384u /* of the stream, that one secret may be spread over by white space */
#define MASK_NAME_MAX 128u
#define MASK_VALUES 4096u
#define MASK_IDLE_MS 100 /* after which mask_idle is to be called */

/* What is to be hidden: shared by the streams of a job. min: bytes; values below it are not hidden. leads: also what is no
 * value: passwords in URLs, tokens with a known prefix (mask/leads.h), or with one of these (lent). */
int mask_values_new(size_t min, bool leads, const char *const *prefixes, size_t n_prefixes, struct mask_values **ret,
		    struct err *err);
void mask_values_free(struct mask_values **v);
/* name may be NULL. *ret_added is false for what is too short or white space. Before the first byte of a stream or later;
 * mask_values_ready after the last one. */
int mask_values_add(struct mask_values *v, const void *value, size_t len, const char *name, bool *ret_added,
		    struct err *err);
int mask_values_ready(struct mask_values *v, struct err *err);

struct mask_options {
	const char *text; /* in place of a secret, lent; NULL: ***(name)***, or *** */
	/* Takes what is to be shown; < 0: mask_… fails with that. */
	int (*write)(void *context, const void *data, size_t len, struct err *err);
	void *context;
};

/* One stream. The values are lent. */
int mask_new(struct mask_values *v, const struct mask_options *o, struct mask **ret, struct err *err);
void mask_free(struct mask **m);

/* Room for the next bytes of the stream (never none), and how many were put there. */
uint8_t *mask_room(struct mask *m, size_t *ret_len);
int mask_put(struct mask *m, size_t len, struct err *err);
/* Nothing came for MASK_IDLE_MS: shows what is kept back for up to three bytes that a secret begins with, too. */
int mask_idle(struct mask *m, struct err *err);
bool mask_waits(const struct mask *m); /* is there something that mask_idle would look at? */
/* The stream has ended. */
int mask_end(struct mask *m, struct err *err);
