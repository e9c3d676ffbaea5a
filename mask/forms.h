#pragma once
/*
 * The disguises in which a secret turns up in a log: as it is, its lines, the leaves of JSON, what shells, JSON, XML and
 * URLs write for it, UTF-16, and for the dense text (mask/dense.h) base64 in each alignment, hex, base64 of UTF-16 and of
 * base64. A longer form is cut into pieces that are looked for by themselves, so that a part of a long secret is found,
 * too.
 */
#include "mask/match.h"

#define FORMS_MIN_DEFAULT 4u	 /* bytes below which a secret is no secret: words of a log would be hidden */
#define FORMS_LARGE 4096u	 /* of larger values only the usual forms are looked for */
#define FORMS_STRINGS (1u << 20) /* bytes of one kind of forms of all secrets together */

struct forms {
	struct match plain, dense;
	size_t min; /* bytes of a value; below it nothing is added */
};

/* number comes back in the entries. Adds nothing for white space alone and for what is below min: *ret_added says so.
 * ERR_LIMIT when the forms of all are too many, ERR_BUSY when the arena is full. */
int forms_add(struct forms *f, const void *value, size_t len, uint32_t number, bool *ret_added, struct err *err);
int forms_build(struct forms *f, struct err *err);
void forms_done(struct forms *f);
