/* cotter/export, cotter/import: sealed versions as they are, from one store to another. Nothing is opened to give them out. */
#include "broker/api_kv.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

static int append_version(struct secret *s, const struct store_version *v)
{
	char created[40];
	int r = secret_new(s, v->sealed_len * 2, NULL);

	api_time(v->created_ms, created);
	if (r == 0)
		r = api_append(s, "{\"version\":%llu,\"created_time\":\"%s\",\"sealed\":\"", (unsigned long long)v->version, created);
	if (r == 0)
		r = api_append_base64(s, v->sealed, v->sealed_len);
	return r < 0 ? r : api_append(s, "\"}");
}

void carry_export(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	struct store_version v = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = store_get(&call->broker->store, call->path, q->query_version, &v, &err);

	if (r == 0 && (v.destroyed || store_deleted(&v, call->facts.wall_ms)))
		r = err_set(&err, ERR_NOT_FOUND, "that version is deleted or destroyed");
	call->version = v.version;
	if (r == 0 && (append_version(&data, &v) < 0 || api_envelope((char *)data.data, data.len, NULL, 0, &body) < 0))
		r = err_set(&err, ERR_BUSY, "the locked memory is full: try again");
	free(v.sealed);
	if (r < 0)
		call_fail(call, r, err.msg);
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* What is not taken: state says why. */
static void reply_state(struct call *call, const char *state, uint64_t current)
{
	CLEANUP(secret_clear) struct secret data = {0};
	int r = secret_new(&data, 128, NULL);

	snprintf(call->detail, sizeof(call->detail), "%s", state);
	if (r == 0)
		r = api_append(&data, "{\"state\":\"%s\",\"current\":%llu}", state, (unsigned long long)current);
	call_reply_data(call, &data, r);
}

static bool is_current(struct call *call)
{
	struct store_version v = {0};
	bool same = store_get(&call->broker->store, call->path, call->version, &v, NULL) == 0 && v.sealed && v.sealed_len == call->sealed_len &&
		    memcmp(v.sealed, call->sealed, v.sealed_len) == 0;

	free(v.sealed);
	return same;
}

/* Only what is newer is taken: nothing that was carried here late puts an old version back. */
void carry_import(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct store_secret x = {0};
	struct err err = {0};
	const json_t *version;
	int r = api_body(q, &body, &err);

	version = json_object_get(body, "version");
	if (r == 0 && (!json_is_integer(version) || json_integer_value(version) < 1 || json_integer_value(version) > LIMIT_VERSION_NUMBER))
		r = err_set(&err, ERR_INPUT, "version is a number from 1");
	if (r == 0)
		r = kv_take_sealed(call, json_object_get(body, "sealed"), &err);
	if (r == 0 && (r = store_secret(&call->broker->store, call->path, &x, &err)) == -ERR_NOT_FOUND)
		r = 0;
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->version = (uint64_t)json_integer_value(version);
	call->delete_after_ms = x.options.delete_after_ms;
	call->carried = true;
	if (call->version < x.current)
		reply_state(call, "older", x.current);
	else if (call->version == x.current)
		reply_state(call, is_current(call) ? "same" : "differs", x.current);
	else
		unseal_start(&call->broker->unseals, call->path, call->version, call->sealed, call->sealed_len, false, call_asker(call), kv_sealed_opened, call);
}
