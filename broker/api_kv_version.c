/* secret/delete, undelete and destroy of KV version 2: what is done to single versions. */
#include "broker/api_kv.h"
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

static int read_versions(const struct request *q, uint64_t ret[LIMIT_VERSIONS_AT_ONCE], size_t *ret_n, struct err *err)
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
	return 0;
}

static void change(struct call *call, const struct request *q, enum store_change what)
{
	uint64_t versions[LIMIT_VERSIONS_AT_ONCE], seq = 0;
	struct store_secret x;
	struct err err = {0};
	size_t n = 0;
	int r = read_versions(q, versions, &n, &err);

	if (r == 0)
		r = store_secret(&call->broker->store, call->path, &x, &err);
	if (r < 0 && r != -ERR_NOT_FOUND) {
		call_fail(call, r, err.msg);
		return;
	}
	call->version = n == 1 ? versions[0] : 0;
	for (size_t i = 0, len = 0; n > 1 && i < n && len < sizeof(call->detail); i++)
		len += (size_t)snprintf(call->detail + len, sizeof(call->detail) - len, "%s%llu", i ? "," : "versions ", (unsigned long long)versions[i]);
	if (call_grant(call, &seq) < 0)
		return;
	if (r == 0) /* what is not there is done, as in Vault */
		r = store_change(&call->broker->store, call->path, what, versions, n, token_wall_ms(), &err);
	cache_drop(&call->broker->cache, call->path);
	call_end(call, r == -ERR_NOT_FOUND ? 0 : r, err.msg, seq);
}

void kv_delete_versions(struct call *call, const struct request *q)
{
	change(call, q, STORE_DELETE);
}

void kv_undelete(struct call *call, const struct request *q)
{
	change(call, q, STORE_UNDELETE);
}

void kv_destroy(struct call *call, const struct request *q)
{
	change(call, q, STORE_DESTROY);
}
