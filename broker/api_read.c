/* cotter/read: several secrets in one request, all of them or none. Each is checked, counted and recorded as a read of its own.
 * cotter/fingerprints: the same for operators, who get what finds the secrets in a text in place of the secrets. */
#include "broker/api_kv.h"
#include "broker/policy.h"
#include "broker/token.h"
#include "mask/fingerprint.h"

#include "common/b64.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

struct item {
	char path[LIMIT_PATH_LEN + 1];
	uint64_t version; /* 0: the current one, until it was opened */
};

struct reading {
	struct item items[LIMIT_READ];
	size_t n, at;
	struct secret data; /* the answer as far as it is made */
	bool fingerprints;
	uint8_t key[FINGERPRINT_KEY]; /* of them; the caller's choice */
};

static void reading_free(void *work)
{
	struct reading *w = work;

	secret_clear(&w->data);
	free(w);
}

static int parse(const json_t *body, struct reading *w, struct err *err)
{
	const json_t *list = json_object_get(body, "secrets"), *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > LIMIT_READ)
		return err_set(err, ERR_INPUT, "secrets is a list of 1 to %u objects with path (and version)", LIMIT_READ);
	json_array_foreach (list, i, item) {
		const char *path = json_string_value(json_object_get(item, "path"));
		const json_t *version = json_object_get(item, "version");

		if (!path || !path_valid(path))
			return err_set(err, ERR_INPUT, "item %zu has no path of a secret", i);
		if (version && (!json_is_integer(version) || json_integer_value(version) < 0 || json_integer_value(version) > LIMIT_VERSION_NUMBER))
			return err_set(err, ERR_INPUT, "item %zu: version is a number from 0", i);
		snprintf(w->items[i].path, sizeof(w->items[i].path), "%s", path);
		w->items[i].version = (uint64_t)json_integer_value(version);
	}
	w->n = i;
	return 0;
}

/* From here on the call is about this one: its record, and what its token is asked for. */
static void turn_to(struct call *call, const struct item *item)
{
	strcpy(call->path, item->path);
	call->version = item->version;
	call->facts.path = call->path;
	call->facts.op = POLICY_GET;
}

/* Of each string among the fields. */
static int add_fingerprints(struct reading *w, const struct secret *object)
{
	CLEANUP(json_cleanup) json_t *j = NULL;
	CLEANUP(secret_clear) struct secret list = {0};
	CLEANUP(secret_clear) struct secret raw = {0};
	const char *key;
	json_t *value;
	int r = json_parse((const char *)object->data, object->len, &j, NULL);

	json_object_foreach (j, key, value) {
		if (r < 0 || !json_is_string(value))
			continue;
		if (strcmp(key, "value_base64") != 0) {
			r = fingerprint_make(w->key, (const uint8_t *)json_string_value(value), json_string_length(value), &list, NULL);
			continue;
		}
		r = secret_new(&raw, json_string_length(value) + 1, NULL);
		if (r == 0 && b64_decode_padded(json_string_value(value), json_string_length(value), NULL, raw.data, raw.cap, &raw.len))
			r = fingerprint_make(w->key, raw.data, raw.len, &list, NULL);
	}
	if (r == 0)
		r = secret_append(&w->data, "\"", 1, NULL);
	if (r == 0)
		r = api_append_base64(&w->data, list.data, list.len);
	return r == 0 ? secret_append(&w->data, "\"", 1, NULL) : r;
}

static int add_answer(struct call *call, struct reading *w, const struct secret *object)
{
	int r = api_append(&w->data, "%s{\"path\":", w->data.data[w->data.len - 1] == '[' ? "" : ",");

	if (r == 0)
		r = api_append_string(&w->data, call->path);
	if (r == 0)
		r = api_append(&w->data, ",\"version\":%llu,\"%s\":", (unsigned long long)call->version, w->fingerprints ? "fingerprints" : "data");
	if (r == 0)
		r = w->fingerprints ? add_fingerprints(w, object) : secret_append(&w->data, object->data, object->len, NULL);
	return r == 0 ? api_append(&w->data, "}") : r;
}

static void reply(struct call *call, struct reading *w)
{
	CLEANUP(secret_clear) struct secret body = {0};
	uint64_t seq = 0;
	int r = api_append(&w->data, "]}");

	if (r == 0)
		r = api_envelope((char *)w->data.data, w->data.len, NULL, 0, &body);
	if (r < 0) {
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
		return;
	}
	call->gives = !w->fingerprints;
	for (size_t i = 0; i < w->n; i++) {
		turn_to(call, &w->items[i]);
		if (call_grant_read(call, &seq) < 0)
			return;
	}
	call_reply(call, 200, &body, seq);
}

static void open_next(struct call *call);

static void opened(struct call *call, const struct secret *object)
{
	struct reading *w = call->work;

	if (!object && !w->fingerprints) {
		call_fail(call, -ERR_NOT_FOUND, "this version is deleted");
		return;
	}
	if (object && w->data.len + object->len > LIMIT_READ_LEN) {
		call_fail(call, -ERR_LIMIT, "the secrets are together more than 512 KiB: ask for fewer at once");
		return;
	}
	w->items[w->at].version = call->version;
	if (object && add_answer(call, w, object) < 0) {
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
		return;
	}
	if (++w->at == w->n)
		reply(call, w);
	else
		open_next(call);
}

static void open_next(struct call *call)
{
	struct reading *w = call->work;

	turn_to(call, &w->items[w->at]);
	/* the file of the one before */
	free(call->sealed);
	call->sealed = NULL;
	kv_open(call, call->version, opened);
}

static int parse_key(const json_t *body, struct reading *w, struct err *err)
{
	const json_t *key = json_object_get(body, "key");
	size_t len = 0;

	if (!json_is_string(key) || !b64_decode_padded(json_string_value(key), json_string_length(key), NULL, w->key, sizeof(w->key), &len) || len != sizeof(w->key))
		return err_set(err, ERR_INPUT, "key is %u random bytes in base64", FINGERPRINT_KEY);
	w->fingerprints = true;
	return 0;
}

static void start(struct call *call, const struct request *q, bool fingerprints)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct reading *w = calloc(1, sizeof(*w));
	struct err err = {0};
	int r = w ? api_body(q, &body, &err) : err_set(&err, ERR_FAILED, "out of memory");

	call->work = w;
	call->free_work = reading_free;
	if (r == 0)
		r = parse(body, w, &err);
	if (r == 0 && fingerprints)
		r = parse_key(body, w, &err);
	/* nothing is opened before all of it is allowed */
	for (size_t i = 0; r == 0 && i < w->n; i++) {
		turn_to(call, &w->items[i]);
		if (call->token && !token_may(&call->broker->tokens, call->token, &call->facts))
			r = err_set(&err, ERR_DENIED, "one of the secrets is not allowed");
	}
	if (r == 0)
		r = api_append(&w->data, "{\"secrets\":[");
	if (r < 0)
		call_fail(call, r, r == -ERR_BUSY ? "the locked memory for secrets is full: try again" : err.msg);
	else
		open_next(call);
}

void cotter_read(struct call *call, const struct request *q)
{
	start(call, q, false);
}

void cotter_fingerprints(struct call *call, const struct request *q)
{
	start(call, q, true);
}
