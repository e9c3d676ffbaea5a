#pragma once
/* JSON of others, through jansson, in the arena. */
#include <jansson.h>
#include <stddef.h>

struct err;

/* An object without duplicate keys, at most LIMIT_JSON_DEPTH deep. ERR_INPUT with a text that holds no byte of it, ERR_BUSY. */
int json_parse(const char *text, size_t len, json_t **ret, struct err *err);
void json_cleanup(json_t **j);
