#pragma once
/* JSON of others, through jansson, in the arena. */
#include <jansson.h>
#include <stddef.h>

struct err;
struct secret;

/* An object without duplicate keys, at most LIMIT_JSON_DEPTH deep. ERR_INPUT with a text that holds no byte of it, ERR_BUSY. */
int json_parse(const char *text, size_t len, json_t **ret, struct err *err);
void json_cleanup(json_t **j);
/* A value as text, whole or not at all: ERR_LIMIT, ERR_BUSY. */
int json_write(const json_t *j, size_t max, struct secret *ret, struct err *err);
/* A secret's field as text: field NULL takes "value", or the only field there is. Strings as they are, all else as JSON. path: for err. */
int json_field(const json_t *object, const char *field, const char *path, struct secret *ret, struct err *err);
