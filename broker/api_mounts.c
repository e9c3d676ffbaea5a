/* sys/mounts, sys/internal/ui/mounts and sys/capabilities-self: what Vault's tools ask to know where they are and what they may. */
#include "broker/api.h"
#include "broker/mount.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

/* The members of a mount's object; accessor and uuid are made of its type and place, and stay the same. */
static int append_mount(struct secret *s, const struct mount *m)
{
	char options[40] = "null";

	if (m->version)
		snprintf(options, sizeof(options), "{\"version\":\"%u\"}", m->version);
	return api_append(s,
			  "\"type\":\"%s\",\"description\":\"%s\",\"accessor\":\"%s_%08zx\",\"local\":false,\"seal_wrap\":false,"
			  "\"external_entropy_access\":false,\"options\":%s,\"uuid\":\"00000000-0000-0000-0000-%012zx\",\"plugin_version\":\"\","
			  "\"running_plugin_version\":\"\",\"running_sha256\":\"\",\"deprecation_status\":\"supported\","
			  "\"config\":{\"default_lease_ttl\":0,\"max_lease_ttl\":0,\"force_no_cache\":false}",
			  m->type, m->description, m->type, m->number, options, m->number);
}

/* Vault's word for what is mounted below auth/ is its path behind that. */
#define AUTH "auth/"

static bool is_auth(const struct mount *m)
{
	return strncmp(m->path, AUTH, strlen(AUTH)) == 0;
}

/* An object of those that are ways to log in, or of the others. */
static int append_mounts(struct call *call, bool auth, struct secret *s)
{
	struct mount m;
	size_t n = 0;
	int r = api_append(s, "{");

	for (size_t i = 0; r == 0 && mount_at(&call->broker->config, i, &m); i++) {
		if (is_auth(&m) != auth)
			continue;
		r = api_append(s, "%s\"%s/\":{", n++ ? "," : "", m.path + (auth ? strlen(AUTH) : 0));
		if (r == 0)
			r = append_mount(s, &m);
		if (r == 0)
			r = api_append(s, "}");
	}
	return r < 0 ? r : api_append(s, "}");
}

static void reply_twice(struct call *call, struct secret *data, int r)
{
	CLEANUP(secret_clear) struct secret body = {0};
	uint64_t seq = 0;

	if (r == 0)
		r = api_envelope_twice((char *)data->data, data->len, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

static void list(struct call *call, bool auth)
{
	CLEANUP(secret_clear) struct secret data = {0};
	int r = secret_new(&data, 4096, NULL);

	reply_twice(call, &data, r < 0 ? r : append_mounts(call, auth, &data));
}

void sys_mounts(struct call *call, const struct request *q)
{
	(void)q;
	list(call, false);
}

void sys_auth(struct call *call, const struct request *q)
{
	(void)q;
	list(call, true);
}

void sys_ui_mounts(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	int r = secret_new(&data, 4096, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"secret\":");
	if (r == 0)
		r = append_mounts(call, false, &data);
	if (r == 0)
		r = api_append(&data, ",\"auth\":");
	if (r == 0)
		r = append_mounts(call, true, &data);
	if (r == 0)
		r = api_append(&data, "}");
	call_reply_data(call, &data, r);
}

/* The mount that a path is in; the vault command asks before it speaks to one. */
void sys_ui_mount(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	struct mount m;
	int r;

	(void)q;
	if (!mount_of(&call->broker->config, call->path, &m)) {
		/* Vault does not tell whether there is such a mount */
		call_fail(call, -ERR_DENIED, "no mount of that path");
		return;
	}
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = api_append(&data, "{\"path\":\"%s/\",", m.path);
	if (r == 0)
		r = append_mount(&data, &m);
	if (r == 0)
		r = api_append(&data, "}");
	call_reply_data(call, &data, r);
}

static int append_capabilities(struct secret *s, uint32_t capabilities, bool root)
{
	static const char *const names[] = {"create", "delete", "list", "patch", "read", "update"};
	size_t n = 0;
	int r = api_append(s, "[");

	for (size_t i = 0; r == 0 && !root && i < sizeof(names) / sizeof(names[0]); i++)
		if (capabilities & (1u << i))
			r = api_append(s, "%s\"%s\"", n++ ? "," : "", names[i]);
	if (r == 0 && n == 0)
		r = api_append(s, root ? "\"root\"" : "\"deny\"");
	return r < 0 ? r : api_append(s, "]");
}

#define PATHS_AT_ONCE 64u

/* An operator without a token may everything: he is Vault's root. */
static int append_paths(struct call *call, const json_t *paths, struct secret *s, struct err *err)
{
	char text[6 * (LIMIT_PATH_LEN + 64) + 3]; /* every byte escaped */
	size_t n = json_array_size(paths), len;
	int r = secret_new(s, 1024, err);

	for (size_t i = 0; r == 0 && i < n; i++) {
		const char *path = json_string_value(json_array_get(paths, i));
		uint32_t capabilities = path && call->token ? api_capabilities(call, path) : 0;

		if (!path || !*path || strlen(path) > LIMIT_PATH_LEN + 64)
			return err_set(err, ERR_INPUT, "a path has 1 to %u bytes", LIMIT_PATH_LEN + 64);
		r = api_append(s, i ? "," : "{");
		if (r == 0 && n == 1) {
			r = api_append(s, "\"capabilities\":");
			if (r == 0)
				r = append_capabilities(s, capabilities, !call->token);
			if (r == 0)
				r = api_append(s, ",");
		}
		if (r == 0)
			r = (len = json_dumpb(json_array_get(paths, i), text, sizeof(text), JSON_ENCODE_ANY)) ? secret_append(s, text, len, err) : -ERR_BUSY;
		if (r == 0)
			r = api_append(s, ":");
		if (r == 0)
			r = append_capabilities(s, capabilities, !call->token);
	}
	return r < 0 ? r : api_append(s, "}");
}

void sys_capabilities_self(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL, *one = NULL;
	CLEANUP(secret_clear) struct secret data = {0};
	const json_t *paths;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	paths = json_object_get(body, "paths") ? json_object_get(body, "paths") : json_object_get(body, "path");
	if (r == 0 && json_is_string(paths)) { /* as older clients ask */
		one = json_pack("[O]", (json_t *)(size_t)paths);
		paths = one;
		r = one ? 0 : err_set(&err, ERR_BUSY, "the locked memory is full: try again");
	}
	if (r == 0 && (json_array_size(paths) < 1 || json_array_size(paths) > PATHS_AT_ONCE))
		r = err_set(&err, ERR_INPUT, "paths must be supplied, at most %u", PATHS_AT_ONCE);
	if (r == 0)
		r = append_paths(call, paths, &data, &err);
	if (r < 0 && err.code == ERR_INPUT)
		call_fail(call, r, err.msg);
	else
		reply_twice(call, &data, r);
}
