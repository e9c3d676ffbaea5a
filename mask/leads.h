#pragma once
/*
 * Secrets that nobody named, known by what stands before them: the values of some parameters of URLs, the password in a
 * URL, tokens with a known prefix. What GitLab's, Azure's and Buildkite's runners hide, too.
 */
#include "mask/match.h"

struct err;

#define LEADS_PREFIXES 64u /* that the caller adds */
#define LEADS_MAX 192u
#define LEADS_PREFIX_MAX 64u
#define LEADS_URL_PART 256u /* a user's name, a password */

enum lead { LEAD_NONE, LEAD_PARAMETER, LEAD_TOKEN, LEAD_URL };

struct leads {
	struct match begins; /* the first bytes of each: what is that short is found fastest */
	struct lead_text {
		char text[LEADS_PREFIX_MAX + 1];
		uint8_t len;
		enum lead lead;
	} list[LEADS_MAX];
	size_t n;
};

/* The known ones, and the caller's prefixes of tokens. */
int leads_make(struct leads *l, const char *const *prefixes, size_t n_prefixes, struct err *err);
void leads_done(struct leads *l);

/* The longest that stands at text[at], where a begin was found, and where its value begins. LEAD_NONE: none, or *ret_cut:
 * the text's end cuts one off. */
enum lead leads_at(const struct leads *l, const uint8_t *text, size_t len, size_t at, size_t *ret_value, bool *ret_cut);

/* Does c belong to the value behind such a lead? A parameter's value may be empty, and is hidden then, too. */
bool lead_has(enum lead lead, uint8_t c);

/* The password behind "://" at text[at]. 1 and its place; 0: there is none; -1: the text's end cuts it off. */
int lead_password(const uint8_t *text, size_t len, size_t at, size_t *ret_start, size_t *ret_end);
