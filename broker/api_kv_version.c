/* secret/delete, undelete and destroy of KV version 2, and cotter/rollback: what is done to single versions. */
#include "broker/api_kv.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

/* Numbers, or, as some clients send them, strings of digits. */
static bool read_version(const json_t *j, uint64_t *ret)
{
	const char *text = json_string_value(j);
	char *end;

	if (json_is_integer(j)) {
		*ret = json_integer_value(j) > 0 ? (uint64_t)json_integer_value(j) : 0;
		return *ret > 0;
	}
	if (!text || text[0] < '1' || text[0] > '9' || strlen(text) > 15)
		return false;
	*ret = strtoull(text, &end, 10);
	return !*end;
}

/* after_ms: how long what is deleted can still be read. */
static int read_versions(const struct request *q, uint64_t ret[LIMIT_VERSIONS_AT_ONCE], size_t *ret_n, uint64_t *ret_after_ms, struct err *err)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	const json_t *list;
	int r = api_body(q, &body, err);

	if (r < 0)
		return r;
	list = json_object_get(body, "versions");
	*ret_n = json_array_size(list);
	if (*ret_n < 1 || *ret_n > LIMIT_VERSIONS_AT_ONCE)
		return err_set(err, ERR_INPUT, "no version number provided: {\"versions\": [...]} takes 1 to %u", LIMIT_VERSIONS_AT_ONCE);
	for (size_t i = 0; i < *ret_n; i++)
		if (!read_version(json_array_get(list, i), &ret[i]))
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
	uint64_t versions[LIMIT_VERSIONS_AT_ONCE];
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

	if (r == 0 && !read_version(json_object_get(body, "version"), &version))
		r = err_set(&err, ERR_INPUT, "no version number provided: {\"version\": N}");
	if (r == 0)
		r = kv_read_cas(json_object_get(body, "options"), &call->cas, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_open(call, version, roll_back);
}
