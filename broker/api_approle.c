/* auth/approle/role: what the configuration says of AppRoles, and their secret ids. */
#include "broker/api.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

#define PREFIX "auth/approle/role/"
#define UUID_LEN 36u

/* NAME/rest of the call's path. ERR_NOT_FOUND: there is no such role. */
static int take_role(struct call *call, const struct config_role **ret, const char **ret_rest, struct err *err)
{
	const char *path = call->path + strlen(PREFIX);
	char name[LIMIT_NAME_LEN + 1];
	size_t n = strcspn(path, "/");

	if (n < sizeof(name)) {
		snprintf(name, sizeof(name), "%.*s", (int)n, path);
		*ret = config_role(&call->broker->config, name);
	}
	*ret_rest = path[n] ? path + n + 1 : "";
	return n < sizeof(name) && *ret && (*ret)->kind == CONFIG_ROLE_APPROLE ? 0 : err_set(err, ERR_NOT_FOUND, "no AppRole of that name");
}

static void uuid_text(const uint8_t id[16], char ret[UUID_LEN + 1])
{
	char hex[33];

	sodium_bin2hex(hex, sizeof(hex), id, 16);
	snprintf(ret, UUID_LEN + 1, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	sodium_memzero(hex, sizeof(hex));
}

/* ---- roles ------------------------------------------------------------------------------------------------------ */

static int append_role(struct secret *s, const struct config_role *role)
{
	int r = api_append(s, "{\"bind_secret_id\":true,\"local_secret_ids\":false,\"secret_id_bound_cidrs\":null,\"secret_id_num_uses\":%lld,"
			      "\"secret_id_ttl\":%llu,\"token_bound_cidrs\":[],\"token_explicit_max_ttl\":0,\"token_max_ttl\":%llu,"
			      "\"token_no_default_policy\":false,\"token_num_uses\":%lld,\"token_period\":%llu,\"token_ttl\":%llu,"
			      "\"token_type\":\"service\",\"token_policies\":[",
			   role->secret_id_uses < 0 ? 0LL : (long long)role->secret_id_uses, (unsigned long long)(role->secret_id_ttl_ms / 1000),
			   (unsigned long long)((role->max_ttl_ms ? role->max_ttl_ms : role->ttl_ms) / 1000), role->uses < 0 ? 0LL : (long long)role->uses,
			   (unsigned long long)(role->period ? role->ttl_ms / 1000 : 0), (unsigned long long)(role->ttl_ms / 1000));

	for (size_t i = 0; r == 0 && i < role->n_policies; i++)
		r = api_append(s, "%s\"%s\"", i ? "," : "", role->policies[i]);
	return r < 0 ? r : api_append(s, "]}");
}

void approle_role(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	const struct config_role *role = NULL;
	const char *rest;
	struct err err = {0};
	int r = take_role(call, &role, &rest, &err);

	(void)q;
	if (r == 0 && *rest && strcmp(rest, "role-id") != 0)
		r = err_set(&err, ERR_NOT_FOUND, "an AppRole has a role-id, and nothing else to be read there");
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = *rest ? api_append(&data, "{\"role_id\":\"%s\"}", role->role_id) : append_role(&data, role);
	call_reply_data(call, &data, r);
}

struct listing {
	struct secret *text;
	size_t n;
};

static int add_accessor(void *ctx, const struct store_secret_id *x)
{
	struct listing *l = ctx;
	char text[UUID_LEN + 1];

	uuid_text(x->accessor, text);
	return api_append(l->text, "%s\"%s\"", l->n++ ? "," : "", text);
}

static int append_list(struct call *call, struct listing *l, struct err *err)
{
	const struct config *config = &call->broker->config;
	const struct config_role *role = NULL;
	const char *rest;
	int r;

	if (call->path[0]) {
		r = take_role(call, &role, &rest, err);
		if (r == 0 && strcmp(rest, "secret-id") != 0)
			r = err_set(err, ERR_NOT_FOUND, "an AppRole has secret-id to be listed, and nothing else");
		return r < 0 ? r : store_secret_ids(&call->broker->store, role->name, call->facts.wall_ms, add_accessor, l, err);
	}
	r = 0;
	for (size_t i = 0; r == 0 && i < config->n_roles; i++)
		if (config->roles[i].kind == CONFIG_ROLE_APPROLE)
			r = api_append(l->text, "%s\"%s\"", l->n++ ? "," : "", config->roles[i].name);
	return r;
}

void approle_list(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	struct listing l = {.text = &data};
	struct err err = {0};
	int r = secret_new(&data, 1024, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"keys\":[");
	if (r == 0)
		r = append_list(call, &l, &err);
	if (r == 0 && l.n == 0)
		r = err_set(&err, ERR_NOT_FOUND, "there is none");
	if (err.code)
		call_fail(call, r, err.msg);
	else
		call_reply_data(call, &data, r < 0 ? r : api_append(&data, "]}"));
}

/* ---- secret ids ------------------------------------------------------------------------------------------------- */

/* May be stricter than the role says, not laxer. */
static int fill(struct call *call, const json_t *body, const struct config_role *role, struct store_secret_id *x, struct err *err)
{
	const json_t *uses = json_object_get(body, "num_uses");
	const char *metadata = json_string_value(json_object_get(body, "metadata"));
	uint64_t ttl_ms = 0;
	int r = api_duration(json_object_get(body, "ttl"), role->secret_id_ttl_ms / 1000, &ttl_ms, err);

	if (r < 0)
		return r;
	if (metadata && *metadata && strcmp(metadata, "{}") != 0)
		return err_set(err, ERR_INPUT, "a secret id has no metadata here: what a role proves stands in the configuration");
	if (uses && (!json_is_integer(uses) || json_integer_value(uses) < 0 || json_integer_value(uses) > 1000000000))
		return err_set(err, ERR_INPUT, "num_uses is not a number");
	if (role->secret_id_ttl_ms && (ttl_ms == 0 || ttl_ms > role->secret_id_ttl_ms))
		return err_set(err, ERR_INPUT, "ttl cannot be longer than the role's secret_id_ttl");
	x->uses_left = json_integer_value(uses) ? json_integer_value(uses) : role->secret_id_uses;
	if (role->secret_id_uses >= 0 && x->uses_left > role->secret_id_uses)
		return err_set(err, ERR_INPUT, "num_uses cannot be higher than the role's secret_id_num_uses");
	snprintf(x->role, sizeof(x->role), "%s", role->name);
	x->created_ms = call->facts.wall_ms;
	x->expires_ms = ttl_ms ? x->created_ms + ttl_ms : 0;
	randombytes_buf(x->accessor, sizeof(x->accessor));
	return 0;
}

/* The one time that it is told; x keeps its hash. */
static int append_made(struct secret *s, const struct store *store, const uint8_t id[16], struct store_secret_id *x)
{
	CLEANUP(secret_clear) struct secret text = {0};
	char accessor[UUID_LEN + 1];
	int r = secret_new(&text, UUID_LEN + 1, NULL);

	if (r == 0)
		r = secret_new(s, 512, NULL);
	if (r < 0)
		return r;
	uuid_text(id, (char *)text.data);
	store_secret_id_hash(store, (char *)text.data, UUID_LEN, x->hash);
	uuid_text(x->accessor, accessor);
	r = api_append(s, "{\"secret_id\":\"");
	if (r == 0)
		r = secret_append(s, text.data, UUID_LEN, NULL);
	return r < 0 ? r : api_append(s, "\",\"secret_id_accessor\":\"%s\",\"secret_id_num_uses\":%lld,\"secret_id_ttl\":%llu}", accessor,
				      x->uses_left < 0 ? 0LL : (long long)x->uses_left,
				      (unsigned long long)(x->expires_ms ? (x->expires_ms - x->created_ms) / 1000 : 0));
}

static void create(struct call *call, const struct request *q, const struct config_role *role)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret data = {0}, answer = {0};
	struct store_secret_id x = {0};
	struct store *s = &call->broker->store;
	struct err err = {0};
	uint8_t id[16];
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = fill(call, body, role, &x, &err);
	randombytes_buf(id, sizeof(id));
	if (r == 0 && (append_made(&data, s, id, &x) < 0 || api_envelope((char *)data.data, data.len, NULL, 0, &answer) < 0))
		r = err_set(&err, ERR_BUSY, "the locked memory for secrets is full: try again");
	sodium_memzero(id, sizeof(id));
	if (r == 0)
		r = store_begin(s, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	snprintf(call->detail, sizeof(call->detail), "a new secret id");
	r = store_secret_id_put(s, &x, call->facts.wall_ms, &err);
	if (r == 0 && call_grant(call, &seq) < 0) {
		store_end(s, false, NULL);
		return;
	}
	if (r == 0)
		r = store_end(s, true, &err);
	else
		store_end(s, false, NULL);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply(call, 200, &answer, seq);
}

static int named(struct call *call, const json_t *body, const struct config_role *role, bool by_accessor, struct store_secret_id *ret, struct err *err)
{
	const json_t *j = json_object_get(body, by_accessor ? "secret_id_accessor" : "secret_id");
	const char *text = json_string_value(j);
	struct store *s = &call->broker->store;
	uint8_t id[32];
	size_t n = 0;

	if (!text || !*text)
		return err_set(err, ERR_INPUT, by_accessor ? "missing secret_id_accessor" : "missing secret_id");
	if (by_accessor) {
		if (sodium_hex2bin(id, 16, text, strlen(text), "-", &n, NULL) != 0 || n != 16)
			return err_set(err, ERR_NOT_FOUND, "no such secret id");
		return store_secret_id_by_accessor(s, id, role->name, call->facts.wall_ms, ret, err);
	}
	store_secret_id_hash(s, text, json_string_length(j), id);
	return store_secret_id_get(s, id, role->name, call->facts.wall_ms, ret, err);
}

static void show(struct call *call, const struct store_secret_id *x)
{
	CLEANUP(secret_clear) struct secret data = {0};
	char accessor[UUID_LEN + 1], created[40], expires[40];
	int r = secret_new(&data, 512, NULL);

	uuid_text(x->accessor, accessor);
	api_time(x->created_ms, created);
	api_time(x->expires_ms, expires);
	if (r == 0)
		r = api_append(&data, "{\"cidr_list\":[],\"creation_time\":\"%s\",\"expiration_time\":\"%s\",\"last_updated_time\":\"%s\",\"metadata\":{},"
			       "\"secret_id_accessor\":\"%s\",\"secret_id_num_uses\":%lld,\"secret_id_ttl\":%llu,\"token_bound_cidrs\":[]}",
			       created, expires[0] ? expires : "0001-01-01T00:00:00Z", created, accessor, x->uses_left < 0 ? 0LL : (long long)x->uses_left,
			       (unsigned long long)(x->expires_ms ? (x->expires_ms - x->created_ms) / 1000 : 0));
	call_reply_data(call, &data, r);
}

static void destroy(struct call *call, const struct store_secret_id *x)
{
	struct err err = {0};
	uint64_t seq = 0;

	snprintf(call->detail, sizeof(call->detail), "a secret id is destroyed");
	call->takes = true;
	if (call_grant(call, &seq) == 0)
		call_end(call, store_secret_id_delete(&call->broker->store, x->hash, &err), err.msg, seq);
}

static void with_one(struct call *call, const struct request *q, const struct config_role *role, bool by_accessor, bool ends)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct store_secret_id x;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = named(call, body, role, by_accessor, &x, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else if (ends)
		destroy(call, &x);
	else
		show(call, &x);
}

void approle_write(struct call *call, const struct request *q)
{
	static const struct {
		const char *rest;
		bool by_accessor, ends;
	} rows[] = {
		{"secret-id/lookup", false, false},
		{"secret-id/destroy", false, true},
		{"secret-id-accessor/lookup", true, false},
		{"secret-id-accessor/destroy", true, true},
	};
	const struct config_role *role = NULL;
	const char *rest;
	struct err err = {0};
	int r = take_role(call, &role, &rest, &err);

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	if (strcmp(rest, "secret-id") == 0) {
		create(call, q, role);
		return;
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(rest, rows[i].rest) == 0) {
			with_one(call, q, role, rows[i].by_accessor, rows[i].ends);
			return;
		}
	}
	call_fail(call, -ERR_UNSUPPORTED, "unsupported operation: AppRoles stand in the configuration file, and their secret ids are made here");
}
