/* secret/metadata of KV version 2: what is known of a secret, and what may be set for it. */
#include "broker/api_kv.h"
#include "broker/duration.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

/* ---- reading ---------------------------------------------------------------------------------------------------- */

struct versions {
	struct secret *text;
	size_t n;
};

static int add_version(void *ctx, const struct store_version *v)
{
	struct versions *versions = ctx;
	char created[40], deleted[40];

	api_time(v->created_ms, created);
	api_time(v->deleted_ms, deleted);
	return api_append(versions->text, "%s\"%llu\":{\"created_time\":\"%s\",\"deletion_time\":\"%s\",\"destroyed\":%s,\"cotter_uid\":%u,\"cotter_job\":\"%s\"}",
			  versions->n++ ? "," : "", (unsigned long long)v->version, created, deleted, v->destroyed ? "true" : "false", v->uid, v->job);
}

static int append_all(struct call *call, const struct store_secret *x, struct secret *s, struct err *err)
{
	struct versions versions = {.text = s};
	char created[40], updated[40], after[DURATION_TEXT];
	int r;

	api_time(x->created_ms, created);
	api_time(x->updated_ms, updated);
	duration_text(x->options.delete_after_ms / 1000, after);
	r = api_append(s, "{\"cas_required\":%s,\"created_time\":\"%s\",\"current_version\":%llu,\"custom_metadata\":",
		       x->options.cas_required ? "true" : "false", created, (unsigned long long)x->current);
	if (r == 0)
		r = kv_append_custom(s, call);
	if (r == 0)
		r = api_append(s, ",\"delete_version_after\":\"%s\",\"max_versions\":%u,\"oldest_version\":%llu,\"updated_time\":\"%s\",\"versions\":{", after,
			       x->options.max_versions ? x->options.max_versions : LIMIT_VERSIONS, (unsigned long long)(x->current ? x->oldest : 0), updated);
	if (r == 0)
		r = store_versions(&call->broker->store, call->path, add_version, &versions, err);
	return r < 0 ? r : api_append(s, "}}");
}

void kv_metadata(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret text = {0}, body = {0};
	struct store_secret x = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = store_secret(&call->broker->store, call->path, &x, &err);

	(void)q;
	if (r == 0)
		r = secret_new(&text, 4096, &err);
	if (r == 0)
		r = append_all(call, &x, &text, &err);
	if (r == 0)
		r = api_envelope((char *)text.data, text.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, r, err.code ? err.msg : "the locked memory is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* ---- setting ---------------------------------------------------------------------------------------------------- */

static int check_custom(const json_t *custom, bool patch, struct err *err)
{
	const char *name;
	const json_t *value;

	if (!json_is_object(custom))
		return err_set(err, ERR_INPUT, "custom_metadata is an object of strings");
	if (json_object_size(custom) > LIMIT_CUSTOM_KEYS)
		return err_set(err, ERR_INPUT, "custom_metadata has at most %u keys", LIMIT_CUSTOM_KEYS);
	json_object_foreach((json_t *)(size_t)custom, name, value) {
		if (!*name || strlen(name) > LIMIT_CUSTOM_KEY)
			return err_set(err, ERR_INPUT, "a key of custom_metadata has 1 to %u bytes", LIMIT_CUSTOM_KEY);
		if (!(json_is_string(value) && json_string_length(value) <= LIMIT_CUSTOM_VALUE) && !(patch && json_is_null(value)))
			return err_set(err, ERR_INPUT, "a value of custom_metadata is a string of at most %u bytes", LIMIT_CUSTOM_VALUE);
	}
	return 0;
}

/* What is there, with the patch's members in their place, and without those that are null in it. */
static int merge_custom(struct call *call, const json_t *patch, json_t **ret, struct err *err)
{
	CLEANUP(cleanup_free) char *text = NULL;
	const char *name;
	json_t *value;
	int r = store_custom(&call->broker->store, call->path, &text, err);

	if (r == 0)
		r = text ? json_parse(text, strlen(text), ret, err) : 0;
	if (r == 0 && !text)
		*ret = json_object();
	if (r < 0 || !*ret)
		return r < 0 ? r : err_set(err, ERR_BUSY, "the locked memory is full: try again");
	json_object_foreach((json_t *)(size_t)patch, name, value) {
		if (json_is_null(value))
			json_object_del(*ret, name);
		else if (json_object_set(*ret, name, value) < 0)
			return err_set(err, ERR_BUSY, "the locked memory is full: try again");
	}
	return check_custom(*ret, false, err);
}

/* As the store keeps it: "" for none. */
static int dump_custom(const json_t *custom, char ret[LIMIT_CUSTOM + 1], struct err *err)
{
	size_t n = json_object_size(custom) ? json_dumpb(custom, ret, LIMIT_CUSTOM, JSON_COMPACT | JSON_SORT_KEYS) : 0;

	if (n == 0 && json_object_size(custom))
		return err_set(err, ERR_BUSY, "the locked memory is full: try again");
	if (n > LIMIT_CUSTOM)
		return err_set(err, ERR_INPUT, "custom_metadata has at most %u bytes", LIMIT_CUSTOM);
	ret[n] = '\0';
	return 0;
}

static int read_custom(struct call *call, const json_t *custom, bool patch, char ret[LIMIT_CUSTOM + 1], struct err *err)
{
	CLEANUP(json_cleanup) json_t *merged = NULL;
	int r;

	ret[0] = '\0'; /* null: none any more */
	if (json_is_null(custom))
		return 0;
	r = check_custom(custom, patch, err);

	if (r == 0 && patch)
		r = merge_custom(call, custom, &merged, err);
	return r < 0 ? r : dump_custom(merged ? merged : custom, ret, err);
}

static int read_options(const json_t *body, struct store_options *o, struct err *err)
{
	const json_t *max = json_object_get(body, "max_versions"), *cas = json_object_get(body, "cas_required");
	const json_t *after = json_object_get(body, "delete_version_after");
	uint64_t s = 0;

	if (max && (!json_is_integer(max) || json_integer_value(max) < 0 || json_integer_value(max) > LIMIT_MAX_VERSIONS))
		return err_set(err, ERR_INPUT, "max_versions is a number from 0 to %u", LIMIT_MAX_VERSIONS);
	if (cas && !json_is_boolean(cas))
		return err_set(err, ERR_INPUT, "cas_required is true or false");
	if (json_is_string(after) ? !duration_parse_go(json_string_value(after), UINT32_MAX, &s)
				  : after && (!json_is_integer(after) || json_integer_value(after) < 0 || json_integer_value(after) > UINT32_MAX))
		return err_set(err, ERR_INPUT, "delete_version_after is a duration such as 3h25m19s, or a number of seconds");
	if (max)
		o->max_versions = (uint32_t)json_integer_value(max);
	if (cas)
		o->cas_required = json_is_true(cas);
	if (after)
		o->delete_after_ms = 1000 * (json_is_string(after) ? s : (uint64_t)json_integer_value(after));
	return 0;
}

/* POST takes custom_metadata as a whole, PATCH merges it (RFC 7396); both leave alone what the body does not name. */
void kv_set_metadata(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct store_secret x = {0};
	struct err err = {0};
	const json_t *custom;
	char text[LIMIT_CUSTOM + 1];
	bool patch = q->method == METHOD_PATCH;
	uint64_t seq = 0;
	int r = patch ? kv_check_patch(q, &err) : 0;

	if (r == 0)
		r = api_body(q, &body, &err);
	custom = json_object_get(body, "custom_metadata");
	if (r == 0)
		r = store_secret(&call->broker->store, call->path, &x, &err);
	if (r == -ERR_NOT_FOUND && !patch)
		r = 0;
	if (r == 0)
		r = read_options(body, &x.options, &err);
	if (r == 0 && custom)
		r = read_custom(call, custom, patch, text, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->version = 0;
	snprintf(call->detail, sizeof(call->detail), "max_versions %u cas_required %d delete_version_after %llu s%s", x.options.max_versions,
		 x.options.cas_required, (unsigned long long)x.options.delete_after_ms / 1000, custom ? " custom_metadata" : "");
	if (call_grant(call, &seq) < 0)
		return;
	r = store_set_options(&call->broker->store, call->path, &x.options, custom ? text : NULL, token_wall_ms(), &err);
	call_end(call, r, err.msg, seq);
}
