#pragma once
/*
 * Looks for secrets in texts: values, or fingerprints of values (exact: what is found is one), and by rules the formats of
 * tokens and keys of others. The tables are made once and then only read, by as many threads as there are; a struct
 * scan_text belongs to one.
 */
#include "mask/fingerprint.h"
#include "mask/forms.h"

#include <pthread.h>
#include <stdio.h>

struct err;

#define SCAN_WINDOW (256u << 10)
#define SCAN_OVERLAP (16u << 10) /* one secret may be spread over that */
#define SCAN_FINDINGS 10000u
#define SCAN_NAME_MAX 1024u
#define SCAN_ALLOW "cotter:allow" /* in a line: what a rule finds in it is not told */

struct scan_rule;

struct scan_finding {
	char *place;	     /* a path; "archive!member"; "commit:path" */
	size_t line, column; /* from 1 */
	const char *secret;  /* its name; NULL: by a rule */
	const struct scan_rule *rule;
	uint8_t mark[8]; /* of a secret's name, of a value that a rule found; keyed: the same has the same in one run */
	char shown[16];	 /* the beginning of what a rule found, which is no secret */
};

struct scanner {
	struct forms forms;		  /* values */
	struct fingerprints fingerprints; /* or fingerprints */
	char (*names)[SCAN_NAME_MAX];	  /* of both */
	size_t n_names;
	bool exact, prints, rules;
	struct match leads; /* of the rules */
	uint8_t key[32];    /* of marks */
	pthread_mutex_t lock;
	struct scan_finding *findings;
	size_t n_findings, cap;
	unsigned long long bytes, texts, left_out; /* left_out: could not be read, or findings beyond SCAN_FINDINGS */
};

int scanner_init(struct scanner *s, struct err *err);
/* Named; the name is copied. *ret is its number in forms and fingerprints. */
int scanner_name(struct scanner *s, const char *name, uint32_t *ret, struct err *err);
/* After the last value. */
int scanner_ready(struct scanner *s, struct err *err);
void scanner_done(struct scanner *s);
/* In order of place and line, each secret once a line. */
void scanner_sort(struct scanner *s);
void scanner_left_out(struct scanner *s, const char *place, const char *why);

struct scan_text;
/* NULL: out of memory. */
struct scan_text *scan_text_new(struct scanner *s);
void scan_text_free(struct scan_text **t);
/* A text in pieces: its name, its bytes, its end. place is copied. */
void scan_text_begin(struct scan_text *t, const char *place);
void scan_text_put(struct scan_text *t, const void *bytes, size_t len);
/* Room in the window, for those who read into it; then how many came. */
uint8_t *scan_text_room(struct scan_text *t, size_t *ret_len);
void scan_text_came(struct scan_text *t, size_t len);
void scan_text_end(struct scan_text *t);
