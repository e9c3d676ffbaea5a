/* secret/delete, undelete and destroy of KV version 2, and cotter/rollback: what is done to single versions. */
#include "broker/api_kv.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

/* 0: it is none. */
static uint64_t parse_version(const char *text, size_t len)
{
	uint64_t version = 0;

	if (len > 15)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		version = version * 10 + (uint64_t)(text[i] - '0');
	}
	return version;
}

static uint64_t read_version(const json_t *j)
{
	if (json_is_string(j))
		return parse_version(json_string_value(j), json_string_length(j));
	return json_integer_value(j) > 0 ? (uint64_t)json_integer_value(j) : 0;
}

/* [1, 2], or as some clients send them ["1", "2"] or "1,2". LIMIT_VERSIONS_AT_ONCE + 1: more than that. */
static size_t list_versions(const json_t *list, uint64_t ret[LIMIT_VERSIONS_AT_ONCE + 1])
{
	const char *text = json_string_value(list);
	size_t n = 0, len;

	for (; n < json_array_size(list) && n <= LIMIT_VERSIONS_AT_ONCE; n++)
		ret[n] = read_version(json_array_get(list, n));
	for (; text && *text && n <= LIMIT_VERSIONS_AT_ONCE; text += len + (text[len] == ','), n++) {
		len = strcspn(text, ",");
		ret[n] = parse_version(text, len);
	}
	return n;
}

/* after_ms: how long what is deleted can still be read. */
static int read_versions(const struct request *q, uint64_t ret[LIMIT_VERSIONS_AT_ONCE + 1], size_t *ret_n, uint64_t *ret_after_ms, struct err *err)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	int r = api_body(q, &body, err);

	if (r < 0)
		return r;
	*ret_n = list_versions(json_object_get(body, "versions"), ret);
	if (*ret_n < 1 || *ret_n > LIMIT_VERSIONS_AT_ONCE)
		return err_set(err, ERR_INPUT, "no version number provided: {\"versions\": [...]} takes 1 to %u", LIMIT_VERSIONS_AT_ONCE);
	for (size_t i = 0; i < *ret_n; i++)
		if (!ret[i])
			return err_set(err, ERR_INPUT, "a version is a number from 1");
	return api_duration(json_object_get(body, "cotter_after"), 0, ret_after_ms, err);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Those that there are, in order, each once. */
static size_t keep_existing(uint64_t *versions, size_t n, const struct store_secret *x)
{
	size_t kept = 0;

	qsort(versions, n, sizeof(*versions), compare);
	for (size_t i = 0; i < n; i++)
		if (versions[i] >= x->oldest && versions[i] <= x->current && (kept == 0 || versions[kept - 1] != versions[i]))
			versions[kept++] = versions[i];
	return kept;
}

/* For the record: "versions 1-3,7". ERR_INPUT: it has no room for them. */
static int describe(const uint64_t *versions, size_t n, char ret[CALL_DETAIL_LEN], struct err *err)
{
	struct writer w = writer_init(ret, CALL_DETAIL_LEN - 1);
	size_t last;

	writer_str(&w, n ? "versions " : "no version that is there");
	for (size_t i = 0; i < n; i = last + 1) {
		for (last = i; last + 1 < n && versions[last + 1] == versions[last] + 1; last++)
			;
		writer_printf(&w, i ? ",%llu" : "%llu", (unsigned long long)versions[i]);
		if (last > i)
			writer_printf(&w, "-%llu", (unsigned long long)versions[last]);
	}
	if (w.failed)
		return err_set(err, ERR_INPUT, "too many versions for one record: take fewer at once");
	ret[w.len] = '\0';
	return 0;
}

/* Nothing of what is not there is done, as with Vault. versions: n of them, or the current one. */
static void change(struct call *call, uint64_t *versions, size_t n, bool current, enum store_change what, uint64_t after_ms)
{
	struct store_secret x = {0};
	struct err err = {0};
	uint64_t seq = 0, now_ms = token_wall_ms();
	int r = store_secret(&call->broker->store, call->path, &x, &err);

	if (r == -ERR_NOT_FOUND)
		r = 0;
	if (current)
		versions[n++] = x.current;
	n = keep_existing(versions, n, &x);
	if (r == 0)
		r = describe(versions, n, call->detail, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->version = n == 1 ? versions[0] : 0;
	if (call_grant(call, &seq) < 0)
		return;
	if (n)
		r = store_change(&call->broker->store, call->path, what, versions, n, now_ms + after_ms, now_ms, &err);
	if (n && what != STORE_UNDELETE)
		cache_drop(&call->broker->cache, call->path);
	call_end(call, r == -ERR_NOT_FOUND ? 0 : r, err.msg, seq);
}

static void change_named(struct call *call, const struct request *q, enum store_change what)
{
	uint64_t versions[LIMIT_VERSIONS_AT_ONCE + 1];
	struct err err = {0};
	uint64_t after_ms = 0;
	size_t n = 0;
	int r = read_versions(q, versions, &n, &after_ms, &err);

	if (r < 0)
		call_fail(call, r, err.msg);
	else
		change(call, versions, n, false, what, after_ms);
}

void kv_delete(struct call *call, const struct request *q)
{
	uint64_t version;

	(void)q;
	change(call, &version, 0, true, STORE_DELETE, 0);
}

void kv_delete_versions(struct call *call, const struct request *q)
{
	change_named(call, q, STORE_DELETE);
}

void kv_undelete(struct call *call, const struct request *q)
{
	change_named(call, q, STORE_UNDELETE);
}

void kv_destroy(struct call *call, const struct request *q)
{
	change_named(call, q, STORE_DESTROY);
}

/* ---- an older version as the next one ----------------------------------------------------------------------------- */

static void roll_back(struct call *call, const struct secret *object)
{
	struct err err = {0};
	int r;

	if (!object) {
		call_fail(call, -ERR_INPUT, "that version is deleted or destroyed: there is nothing to go back to");
		return;
	}
	snprintf(call->detail, sizeof(call->detail), "back to version %llu", (unsigned long long)call->version);
	r = kv_next(call, call->cas, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_store_same(call, object);
}

void kv_rollback(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct err err = {0};
	uint64_t version = 0;
	int r = api_body(q, &body, &err);

	version = read_version(json_object_get(body, "version"));
	if (r == 0 && !version)
		r = err_set(&err, ERR_INPUT, "no version number provided: {\"version\": N}");
	if (r == 0)
		r = kv_read_cas(json_object_get(body, "options"), &call->cas, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_open(call, version, roll_back);
}
