#include "broker/api_batch.h"

#include "broker/api_ca.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

static int parse(const json_t *body, size_t item_size, struct batch *b, struct err *err)
{
	const json_t *list = json_object_get(body, "batch_input");

	b->many = list != NULL;
	b->n = list ? json_array_size(list) : 1;
	if (b->n < 1 || b->n > LIMIT_BATCH)
		return err_set(err, ERR_INPUT, "batch_input is a list of 1 to %u items", LIMIT_BATCH);
	b->errors = calloc(b->n, sizeof(*b->errors));
	b->items = calloc(b->n, item_size);
	return b->errors && b->items ? 0 : err_set(err, ERR_FAILED, "out of memory");
}

int batch_open(struct call *call, const json_t *body, size_t item_size, struct batch *ret, struct err *err)
{
	json_int_t version = json_integer_value(json_object_get(body, "key_version"));
	int r = parse(body, item_size, ret, err);

	if (r < 0)
		return r;
	if (call->token && ca_is_key(call->broker, call->path))
		return err_set(err, ERR_DENIED, "that key is a CA's: it signs by pki/sign and ssh/sign alone");
	r = store_key_look(&call->broker->store, call->path, version > 0 ? (uint64_t)version : 0, token_boot_ms(), &ret->key, err);
	call->version = ret->key.version;
	return r == -ERR_NOT_FOUND ? err_set(err, ERR_INPUT, "there is no key of that name, or not of that version") : r;
}

void batch_done(struct batch *b)
{
	free(b->errors);
	free(b->items);
}

const json_t *batch_item(const struct batch *b, const json_t *body, size_t i)
{
	return b->many ? json_array_get(json_object_get(body, "batch_input"), i) : body;
}

void batch_fail(struct batch *b, size_t i, const char *text)
{
	snprintf(b->errors[i], sizeof(b->errors[i]), "%.95s", text);
}

bool batch_failed(const struct batch *b, size_t i)
{
	return b->errors[i][0];
}

uint32_t batch_good(const struct batch *b)
{
	uint32_t n = 0;

	for (size_t i = 0; i < b->n; i++)
		n += !batch_failed(b, i);
	return n;
}

int batch_check(const struct batch *b, struct err *err)
{
	return !b->many && batch_failed(b, 0) ? err_set(err, ERR_INPUT, "%s", b->errors[0]) : 0;
}

static int append_item(const struct batch *b, int (*append)(void *ctx, struct secret *s, size_t i), void *ctx, struct secret *s, size_t i)
{
	int r = b->many ? api_append(s, i ? ",{" : "{") : 0;

	if (r == 0 && batch_failed(b, i)) {
		r = api_append(s, "\"error\":");
		if (r == 0)
			r = api_append_string(s, b->errors[i]);
	} else if (r == 0) {
		r = append(ctx, s, i);
	}
	return r == 0 && b->many ? api_append(s, "}") : r;
}

void batch_reply(struct call *call, const struct batch *b, int (*append)(void *ctx, struct secret *s, size_t i), void *ctx)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	bool bad = false;
	int r = secret_new(&data, 1024, NULL);

	if (r == 0)
		r = api_append(&data, b->many ? "{\"batch_results\":[" : "{");
	for (size_t i = 0; r == 0 && i < b->n; i++) {
		bad |= batch_failed(b, i);
		r = append_item(b, append, ctx, &data, i);
	}
	if (r == 0)
		r = api_append(&data, b->many ? "]}" : "}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
	else
		call_reply(call, bad ? 400 : 200, &body, b->seq);
}

const char *batch_version(const char *text, uint64_t *ret_version)
{
	char *end;

	if (!text || strncmp(text, "vault:v", 7) != 0 || text[7] < '1' || text[7] > '9')
		return NULL;
	*ret_version = strtoull(text + 7, &end, 10);
	return *end == ':' ? end + 1 : NULL;
}
