#pragma once
/* What programs write in place of a byte string. Each row of the table makes one such text of a value. */
#include "common/secret.h"

struct err;

struct escape {
	/* The text for one byte: NULL, or its length in out. 0: the byte as it is. */
	size_t (*byte)(uint8_t c, char out[8]);
	/* or of all of it */
	int (*all)(const uint8_t *value, size_t len, struct secret *ret, struct err *err);
};

extern const struct escape escapes[];
extern const size_t n_escapes;

int escape_make(const struct escape *e, const uint8_t *value, size_t len, struct secret *ret, struct err *err);
