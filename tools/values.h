#pragma once
/* The values file of cotter mask and cotter scan: a JSON array of strings, or of objects with a value (a string, or base64:
 * RFC 4648, padded) and perhaps a name. */
#include <stddef.h>

struct err;

/* number: from 0; name: NULL when it has none. What it is called with is wiped when it returns; < 0 ends the parsing with
 * that. */
typedef int values_found(void *context, size_t number, const char *name, const void *value, size_t len, struct err *err);

int values_parse(const void *text, size_t len, values_found *found, void *context, struct err *err);
/* A file, or standard input ("-"), of at most LIMIT_MASK_FILE bytes. */
int values_read(const char *path, values_found *found, void *context, struct err *err);
