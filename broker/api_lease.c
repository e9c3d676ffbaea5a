/* MOUNT/creds of engines, and sys/leases. */
#include "broker/api.h"
#include "broker/lease.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

static uint64_t left_s(const struct call *call, const struct lease *l)
{
	return l->expires_ms > call->facts.wall_ms ? (l->expires_ms - call->facts.wall_ms + 500) / 1000 : 0;
}

/* ---- credentials ------------------------------------------------------------------------------------------------- */

static void end_unsaid(struct call *call)
{
	for (struct lease *l = call->broker->leases.list; l; l = l->next)
		if (memcmp(l->id, call->unsaid_id, sizeof(l->id)) == 0)
			lease_doom(call->broker, l, NULL);
}

/* Whoever cannot be told has nothing: the lease is ended. */
static void reply_created(struct call *call, struct lease *l, const json_t *answer)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	struct broker *b = call->broker;
	char id[LEASE_ID_TEXT];
	struct api_answer a = {.lease_id = id, .lease_s = left_s(call, l), .renewable = true};
	struct err err = {0};
	uint64_t seq = 0;
	int r = json_write(json_object_get(answer, "data"), LIMIT_SECRET_LEN, &data, &err);

	lease_id_text(l, id);
	a.data = (const char *)data.data;
	a.data_len = data.len;
	if (r == 0 && api_answer(&a, &body) < 0)
		r = err_set(&err, ERR_BUSY, "the locked memory for secrets is full: try again");
	snprintf(call->detail, sizeof(call->detail), "lease %.150s", id);
	call->unsaid = end_unsaid;
	memcpy(call->unsaid_id, l->id, sizeof(call->unsaid_id));
	if (r < 0) {
		lease_doom(b, l, NULL);
		call_fail(call, r, err.msg);
	} else if (call_grant(call, &seq) < 0) {
		lease_doom(b, l, NULL);
	} else {
		call_reply(call, 200, &body, seq);
	}
}

/* The path is ENGINE/creds/ROLE. */
void engine_creds(struct call *call, const struct request *q)
{
	const struct config *config = &call->broker->config;
	const struct config_engine *engine;
	const struct config_engine_role *role;
	const char *slash = strchr(call->path, '/');
	char name[LIMIT_NAME_LEN + 1];
	struct err err = {0};
	int r;

	(void)q;
	snprintf(name, sizeof(name), "%.*s", slash ? (int)(slash - call->path) : 0, call->path);
	engine = config_engine(config, name);
	role = slash && strncmp(slash, "/creds/", 7) == 0 ? config_engine_role(engine, slash + 7) : NULL;
	if (!role) {
		call_fail(call, -ERR_INPUT, "unknown role: an engine has creds/ROLE, by the roles of the configuration");
		return;
	}
	r = lease_create(call, engine, role, role->ttl_ms, reply_created, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

/* ---- sys/leases -------------------------------------------------------------------------------------------------- */

/* The one that a body names, or the path behind the route. A token reaches its own leases, and those of tokens made with it. */
static int named(struct call *call, const json_t *body, struct lease **ret, struct err *err)
{
	struct tokens *t = &call->broker->tokens;
	const json_t *said = json_object_get(body, "lease_id");
	const char *text = json_is_string(said) ? json_string_value(said) : call->path;
	struct token_row *row;

	if (!*text)
		return err_set(err, ERR_INPUT, "lease_id must be specified");
	*ret = lease_find(call->broker, text);
	row = *ret ? token_find(t, (*ret)->token) : NULL;
	if (!*ret || (call->row && (!row || !token_descends(t, row, call->row))))
		return err_set(err, ERR_INPUT, "invalid lease");
	return 0;
}

static void reply_renewed(struct call *call, struct lease *l, const json_t *answer)
{
	CLEANUP(secret_clear) struct secret body = {0};
	char id[LEASE_ID_TEXT];
	const struct api_answer a = {.lease_id = id, .lease_s = left_s(call, l), .renewable = true};
	uint64_t seq = 0;

	(void)answer;
	lease_id_text(l, id);
	if (api_answer(&a, &body) < 0)
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* NULL: it was told why, and the call ended. */
static struct lease *take(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct lease *l = NULL;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = named(call, body, &l, &err);
	if (r == 0)
		return l;
	call_fail(call, r, err.msg);
	return NULL;
}

void lease_renewal(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	const struct config_engine_role *role;
	struct lease *l = NULL;
	struct err err = {0};
	uint64_t ttl_ms = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = named(call, body, &l, &err);
	role = l ? config_engine_role(config_engine(&call->broker->config, l->engine), l->role) : NULL;
	if (r == 0 && !role)
		r = err_set(&err, ERR_INPUT, "lease is not renewable: the configuration has no such role any more");
	if (r == 0)
		r = api_duration(json_object_get(body, "increment"), role->ttl_ms / 1000, &ttl_ms, &err);
	if (r == 0)
		r = lease_renew(call, l, ttl_ms, reply_renewed, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

static void reply_revoked(struct call *call, struct lease *l, const json_t *answer)
{
	(void)l;
	(void)answer;
	call_reply(call, 204, NULL, 0);
}

/* Waits for the engine, sync or not: node-vault takes a 202 for an error. */
void lease_revocation(struct call *call, const struct request *q)
{
	struct lease *l = take(call, q);
	struct err err = {0};
	uint64_t seq = 0;
	int r;

	if (!l)
		return;
	call->takes = true;
	if (call_grant(call, &seq) < 0)
		return;
	r = lease_revoke(call, l, reply_revoked, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

void lease_lookup(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	char id[LEASE_ID_TEXT], issued[40], expires[40], renewed[40];
	const struct lease *l = take(call, q);
	int r;

	if (!l)
		return;
	lease_id_text(l, id);
	api_time(l->created_ms, issued);
	api_time(l->expires_ms, expires);
	api_time(l->renewed_ms, renewed);
	r = secret_new(&data, 512, NULL);
	if (r == 0)
		r = api_append(&data, "{\"id\":\"%s\",\"issue_time\":\"%s\",\"expire_time\":\"%s\",\"last_renewal\":%s%s%s,\"renewable\":true,\"ttl\":%llu}", id, issued,
			       expires, *renewed ? "\"" : "", *renewed ? renewed : "null", *renewed ? "\"" : "", (unsigned long long)left_s(call, l));
	call_reply_data(call, &data, r);
}

/* A prefix by whole components. */
static bool below(const char *id, const char *prefix)
{
	size_t n = strlen(prefix);

	return n == 0 || (strncmp(id, prefix, n) == 0 && (id[n] == '/' || !id[n]));
}

/* Of operators: what is below a prefix, a name each. */
void lease_list(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	char id[LEASE_ID_TEXT];
	size_t n = 0, skip = strlen(call->path) + (call->path[0] != '\0');
	int r = secret_new(&data, 1024, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"keys\":[");
	for (const struct lease *l = call->broker->leases.list; r == 0 && l; l = l->next) {
		lease_id_text(l, id);
		if (l->state != LEASE_NEW && below(id, call->path) && strlen(id) > skip)
			r = api_append(&data, "%s\"%s\"", n++ ? "," : "", id + skip);
	}
	if (r == 0)
		r = api_append(&data, "]}");
	if (r == 0 && n == 0)
		call_fail(call, -ERR_NOT_FOUND, "there is none");
	else
		call_reply_data(call, &data, r);
}

static void end_below(struct call *call, bool force)
{
	struct broker *b = call->broker;
	char id[LEASE_ID_TEXT];
	struct err err = {0};
	uint64_t seq = 0;
	struct lease *next;
	int r = 0, one;

	call->takes = true;
	if (call_grant(call, &seq) < 0)
		return;
	for (struct lease *l = b->leases.list; l; l = next) {
		next = l->next;
		lease_id_text(l, id);
		if (!below(id, call->path))
			continue;
		one = force ? lease_forget(b, l, &err) : lease_doom(b, l, &err);
		r = r < 0 ? r : one;
	}
	call_end(call, r, err.msg, seq);
}

void lease_revoke_prefix(struct call *call, const struct request *q)
{
	(void)q;
	end_below(call, false);
}

void lease_revoke_force(struct call *call, const struct request *q)
{
	(void)q;
	end_below(call, true);
}
