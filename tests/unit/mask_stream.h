#pragma once
/* What the tests of the masker share: a stream's end, and how bytes come to its begin. */
#include "unit.h"

#include "mask/mask.h"

#include <stdlib.h>
#include <string.h>

struct bytes {
	char *data;
	size_t len;
};

static inline int collect(void *context, const void *data, size_t len, struct err *err)
{
	struct bytes *b = context;

	(void)err;
	b->data = realloc(b->data, b->len + len + 1);
	assert_non_null(b->data);
	memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

static inline void put(struct mask *m, const char *data, size_t len)
{
	struct err err = {0};

	while (len) {
		size_t room;
		uint8_t *to = mask_room(m, &room);
		size_t n = len < room ? len : room;

		memcpy(to, data, n);
		assert_int_equal(mask_put(m, n, &err), 0);
		data += n;
		len -= n;
	}
}

static inline void finish(struct mask *m)
{
	struct err err = {0};

	assert_int_equal(mask_end(m, &err), 0);
	mask_free(&m);
}

/* The forms of many secrets are more than other tests need. */
static inline int mask_arena(void **state)
{
	struct err err = {0};

	(void)state;
	return secret_arena_init(4u << 20, &err);
}
