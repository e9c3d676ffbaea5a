#pragma once
/* THE rules: formats of tokens and keys, as their issuers document them. A rule: what it begins with, what may follow, how
 * long. */
#include "mask/match.h"

struct err;

struct scan_rule {
	const char *id, *what;
	const char *begin;   /* the bytes that it begins with; several rules may share them */
	const char *charset; /* of what follows: see rule_charsets */
	size_t min, max;     /* of that */
	double entropy;	     /* bits a character of it, at least; 0: any */
	/* Says whether what was found is one, and may change its length. NULL: it is. */
	bool (*check)(const uint8_t *text, size_t len, size_t at, size_t *length);
};

extern const struct scan_rule scan_rules[];
extern const size_t n_scan_rules;

int rules_make(struct match *m, struct err *err);
/* Whether rule i holds at text[at]; *ret_len: of the whole. */
bool rule_holds(const struct scan_rule *rule, const uint8_t *text, size_t len, size_t at, size_t *ret_len);
