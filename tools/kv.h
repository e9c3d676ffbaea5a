#pragma once
/* Reading one secret from the broker, for get and run. */
#include "tools/client.h"

/* PATH#FIELD, or PATH alone. *ret_path is a buffer of LIMIT_PATH_LEN + 1 bytes. */
int kv_parse_ref(const char *ref, char *ret_path, const char **ret_field, struct err *err);
/* The secret's object; ret is cleared by the caller. version 0: the current one. */
int kv_fetch(const char *path, unsigned long long version, struct client_reply *ret, json_t **ret_object, struct err *err);
/* What a mask calls the secret: the last part of its path. */
const char *kv_name(const char *path);
