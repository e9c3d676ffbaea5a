#pragma once
/*
 * A list of what was found before and is not to be told again: "place rule mark" lines behind a random key. The mark is
 * four bytes of a keyed hash of what was found: enough to tell one finding from another in a file, too little to guess what
 * it is.
 */
#include "scan/scan.h"

struct err;

#define BASELINE_MAX (8u << 20)

/* Takes out of the findings those that the file names. Secrets of the store cannot be named in it: they are always told. */
int baseline_apply(const char *file, struct scanner *s, struct err *err);
/* The key of an existing file, before anything is looked at, so that its marks can be compared. No file: 0, and nothing is
 * done. */
int baseline_key(const char *file, struct scanner *s, struct err *err);
/* Writes one with everything that the rules found. *ret_n: how many. */
int baseline_write(const char *file, const struct scanner *s, size_t *ret_n, struct err *err);
