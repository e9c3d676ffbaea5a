#include "broker/api_batch.h"

#include "broker/api_ca.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

int batch_parse(const json_t *body, struct batch *ret, struct err *err)
{
	const json_t *list = json_object_get(body, "batch_input");

	*ret = (struct batch){.n = 1, .many = list != NULL};
	if (!list)
		return 0;
	ret->n = json_array_size(list);
	if (ret->n >= 1 && ret->n <= LIMIT_BATCH)
		return 0;
	ret->n = 0;
	return err_set(err, ERR_INPUT, "batch_input is a list of 1 to %u items", LIMIT_BATCH);
}

int batch_open(struct call *call, const struct request *q, json_t **ret_body, struct batch *ret_batch, struct store_key *ret_key, struct err *err)
{
	int r = api_body(q, ret_body, err);
	json_int_t version;

	if (r == 0)
		r = batch_parse(*ret_body, ret_batch, err);
	if (r < 0)
		return r;
	if (call->token && ca_is_key(call->broker, call->path))
		return err_set(err, ERR_DENIED, "that key is a CA's: it signs by pki/sign and ssh/sign alone");
	version = json_integer_value(json_object_get(*ret_body, "key_version"));
	r = store_key_get(&call->broker->store, call->path, version > 0 ? (uint64_t)version : 0, ret_key, err);
	call->version = ret_key->version;
	return r == -ERR_NOT_FOUND ? err_set(err, ERR_INPUT, "there is no key of that name, or not of that version") : r;
}

const json_t *batch_item(const struct batch *b, const json_t *body, size_t i)
{
	return b->many ? json_array_get(json_object_get(body, "batch_input"), i) : body;
}

int batch_append_error(struct secret *s, const char *text)
{
	int r = api_append(s, "\"error\":");

	return r < 0 ? r : api_append_string(s, text);
}

void batch_reply(struct call *call, const struct batch *b, int (*append)(void *ctx, struct secret *s, size_t i, bool *ret_bad), void *ctx, uint64_t seq)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	bool bad = false;
	int r = secret_new(&data, 1024, NULL);

	if (r == 0)
		r = api_append(&data, b->many ? "{\"batch_results\":[" : "{");
	for (size_t i = 0; r == 0 && i < b->n; i++) {
		if (b->many)
			r = api_append(&data, i ? ",{" : "{");
		if (r == 0)
			r = append(ctx, &data, i, &bad);
		if (r == 0 && b->many)
			r = api_append(&data, "}");
	}
	if (r == 0)
		r = api_append(&data, b->many ? "]}" : "}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
	else
		call_reply(call, bad ? 400 : 200, &body, seq);
}

const char *batch_version(const char *text, uint64_t *ret_version)
{
	char *end;

	if (!text || strncmp(text, "vault:v", 7) != 0 || text[7] < '1' || text[7] > '9')
		return NULL;
	*ret_version = strtoull(text + 7, &end, 10);
	return *end == ':' ? end + 1 : NULL;
}
