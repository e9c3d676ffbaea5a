#pragma once
/* transit's requests with one item or a batch of them, and their replies. */
#include "broker/api.h"

struct batch {
	size_t n;
	bool many; /* batch_input was given */
};

/* ERR_INPUT: batch_input is none, or has too many items. */
int batch_parse(const json_t *body, struct batch *ret, struct err *err);
/* How each of these calls begins: the body, the batch, and the key of the call's path in the version that "key_version" says, or the
 * latest; the call's version is set. */
int batch_open(struct call *call, const struct request *q, json_t **ret_body, struct batch *ret_batch, struct store_key *ret_key, struct err *err);
/* Item i: of batch_input, or the body itself. */
const json_t *batch_item(const struct batch *b, const json_t *body, size_t i);
/* Ends the call: append writes the members of item i, and sets *ret_bad when it is an error. A batch with a bad item is a 400 that
 * has the results of the others, too. */
void batch_reply(struct call *call, const struct batch *b, int (*append)(void *ctx, struct secret *s, size_t i, bool *ret_bad), void *ctx, uint64_t seq);
/* "error": text, for append. */
int batch_append_error(struct secret *s, const char *text);
/* "vault:v7:…": the version and what is behind it, or NULL. */
const char *batch_version(const char *text, uint64_t *ret_version);
