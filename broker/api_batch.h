#pragma once
/* transit's requests with one item or a batch of them, and their replies. */
#include "broker/api.h"

struct batch {
	struct store_key key; /* of the call's path, in the version that "key_version" says, or the latest */
	size_t n;
	bool many; /* batch_input was given */
	char (*errors)[96]; /* of each item; "": none */
	void *items; /* zeros: the caller's, for each */
	uint64_t seq; /* of the last record */
};

/* How each of these calls begins; the call's version is set. item_size: of what the caller keeps of an item. body {"batch_input": […]}, or one item. batch_done releases it, after a
 * failure, too. */
int batch_open(struct call *call, const json_t *body, size_t item_size, struct batch *ret, struct err *err);
void batch_done(struct batch *b);
/* Item i: of batch_input, or the body itself. */
const json_t *batch_item(const struct batch *b, const json_t *body, size_t i);
/* Item i has that error; the others go on. */
void batch_fail(struct batch *b, size_t i, const char *text);
bool batch_failed(const struct batch *b, size_t i);
/* How many have none. */
uint32_t batch_good(const struct batch *b);
/* What failed where there is but one item, as the call's own failure. */
int batch_check(const struct batch *b, struct err *err);
/* Ends the call: append writes the members of item i, which has no error. A batch with a bad item is a 400 that has the results of the
 * others, too. */
void batch_reply(struct call *call, const struct batch *b, int (*append)(void *ctx, struct secret *s, size_t i), void *ctx);
/* "vault:v7:…": the version and what is behind it, or NULL. */
const char *batch_version(const char *text, uint64_t *ret_version);
