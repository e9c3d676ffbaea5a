#pragma once
/* The configuration's bytes, for cotterd and for clients: who may have written them. */
#include <stddef.h>

struct err;

/* At most LIMIT_CONFIG_LEN bytes of a file that belongs to root or to this user and is not writable by others. *ret: malloc'ed, zero
 * behind it. err: its code is ERR_FAILED where it cannot be read at all. */
int config_read_text(const char *path, char **ret, size_t *ret_len, struct err *err);
