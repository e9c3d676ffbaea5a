/* auth/token: looking at tokens, and at the roles that make them. */
#include "broker/api_token.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

static int append_policies(struct secret *s, const char *policies)
{
	int r = api_append(s, "[");
	size_t n;

	for (; r == 0; policies += n + 1) {
		n = strcspn(policies, ",");
		if (n)
			r = api_append(s, "\"%.*s\"%s", (int)n, policies, policies[n] ? "," : "");
		if (!policies[n])
			break;
	}
	return r < 0 ? r : api_append(s, "]");
}

static int append_quoted(struct secret *s, const char *text, size_t len)
{
	char quoted[6 * LIMIT_TOKEN_META_VALUE + 3]; /* every byte escaped */
	json_t *j = json_stringn(text, len);
	size_t n = j ? json_dumpb(j, quoted, sizeof(quoted), JSON_ENCODE_ANY) : 0;

	json_decref(j);
	return n && n <= sizeof(quoted) ? secret_append(s, quoted, n, NULL) : -ERR_BUSY;
}

/* "name=value" lines as an object; null when there are none. */
static int append_meta(struct secret *s, const char *meta)
{
	int r = api_append(s, *meta ? "{" : "null");

	for (size_t n, name; r == 0 && *meta; meta += n + (meta[n] != '\0')) {
		meta += *meta == '+';
		n = strcspn(meta, "\n");
		name = strcspn(meta, "=");
		r = append_quoted(s, meta, name);
		if (r == 0)
			r = api_append(s, ":");
		if (r == 0)
			r = append_quoted(s, meta + name + 1, n - name - 1);
		if (r == 0)
			r = api_append(s, meta[n] && meta[n + 1] ? "," : "}");
	}
	return r;
}

static uint64_t left_s(const struct token_row *row, uint64_t boot_ms)
{
	return row->deadline_ms > boot_ms ? (row->deadline_ms - boot_ms + 999) / 1000 : 0;
}

static const char *truth(bool is)
{
	return is ? "true" : "false";
}

static bool is_orphan(const struct token_row *row)
{
	return sodium_is_zero(row->parent, sizeof(row->parent));
}

int token_answer(const struct token_row *row, const struct secret *text, const struct secret *data, const char *warning, struct secret *ret,
		 struct err *err)
{
	CLEANUP(secret_clear) struct secret auth = {0};
	struct api_answer a = {.data = data ? (const char *)data->data : NULL, .data_len = data ? data->len : 0, .warning = warning};
	char accessor[33];
	int r = secret_new(&auth, 1024, NULL);

	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	if (r == 0)
		r = api_append(&auth, "{\"client_token\":\"");
	if (r == 0 && text)
		r = secret_append(&auth, text->data, text->len, NULL);
	if (r == 0)
		r = api_append(&auth, "\",\"accessor\":\"%s\",\"policies\":", accessor);
	if (r == 0)
		r = append_policies(&auth, row->policies);
	if (r == 0)
		r = api_append(&auth, ",\"token_policies\":");
	if (r == 0)
		r = append_policies(&auth, row->policies);
	if (r == 0)
		r = api_append(&auth, ",\"metadata\":");
	if (r == 0)
		r = append_meta(&auth, row->meta);
	if (r == 0)
		r = api_append(&auth,
			       ",\"lease_duration\":%llu,\"renewable\":%s,\"entity_id\":\"\","
			       "\"token_type\":\"service\",\"orphan\":%s,\"mfa_requirement\":null,\"num_uses\":%lld}",
			       (unsigned long long)left_s(row, token_boot_ms()), truth(row->max_deadline_ms), truth(is_orphan(row)),
			       row->uses_left < 0 ? 0LL : (long long)row->uses_left);
	a.auth = (const char *)auth.data;
	a.auth_len = auth.len;
	if (r == 0)
		r = api_answer(&a, ret);
	return r < 0 ? err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again") : 0;
}

/* What its longest life was at the start, in seconds; 0: not limited by itself. */
static uint64_t max_ttl_s(const struct call *call, const struct token_row *row)
{
	uint64_t s;

	if (!row->max_deadline_ms || row->max_deadline_ms > TOKEN_FOREVER_MS)
		return 0;
	s = (row->max_deadline_ms - call->facts.boot_ms + call->facts.wall_ms - row->created_ms + 500) / 1000;
	return s >= LIMIT_TOKEN_MAX_TTL_S ? 0 : s;
}

/* The members whose values are numbers and times. */
static int append_times(const struct call *call, const struct token_row *row, struct secret *s)
{
	uint64_t left = left_s(row, call->facts.boot_ms);
	char issued[40], expires[40], renewed[40];
	int r;

	api_time(row->created_ms, issued);
	api_time(call->facts.wall_ms + left * 1000, expires);
	api_time(row->renewed_ms, renewed);
	r = api_append(s, ",\"creation_time\":%llu,\"creation_ttl\":%llu,\"expire_time\":\"%s\",\"explicit_max_ttl\":%llu,\"issue_time\":\"%s\",\"ttl\":%llu",
		       (unsigned long long)(row->created_ms / 1000), (unsigned long long)(row->ttl_ms / 1000), expires,
		       (unsigned long long)max_ttl_s(call, row), issued, (unsigned long long)left);
	if (r == 0 && row->max_deadline_ms > TOKEN_FOREVER_MS)
		r = api_append(s, ",\"period\":%llu", (unsigned long long)(row->ttl_ms / 1000));
	if (r == 0 && row->renewed_ms)
		r = api_append(s, ",\"last_renewal\":\"%s\",\"last_renewal_time\":%llu", renewed, (unsigned long long)(row->renewed_ms / 1000));
	return r;
}

static int append_row(const struct call *call, const struct token_row *row, const char *id, size_t id_len, struct secret *s)
{
	char accessor[33], job[2 * JOB_ID_LEN + 1] = "";
	int r;

	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	if (row->job)
		job_id_text(row->job, job);
	r = api_append(s, "{\"accessor\":\"%s\",\"display_name\":\"%s\",\"entity_id\":\"\",\"id\":\"", accessor, row->display);
	if (r == 0 && id)
		r = secret_append(s, id, id_len, NULL);
	if (r == 0)
		r = api_append(s, "\",\"num_uses\":%lld,\"orphan\":%s,\"path\":\"%s\",\"renewable\":%s,\"type\":\"service\",\"cotter_job\":\"%s\","
			       "\"cotter_uid\":%lld,\"cotter_cgroup\":%llu,\"meta\":",
			       row->uses_left < 0 ? 0LL : (long long)row->uses_left, truth(is_orphan(row)), row->path, truth(row->max_deadline_ms), job,
			       row->uid == TOKEN_ANY_UID ? -1LL : (long long)row->uid, (unsigned long long)row->cgroup);
	if (r == 0)
		r = append_meta(s, row->meta);
	if (r == 0)
		r = api_append(s, ",\"policies\":");
	if (r == 0)
		r = append_policies(s, row->policies);
	if (r == 0)
		r = append_times(call, row, s);
	return r < 0 ? r : api_append(s, "}");
}

static void show(struct call *call, const struct token_row *row, const char *id, size_t id_len)
{
	CLEANUP(secret_clear) struct secret data = {0};
	int r = secret_new(&data, 2048, NULL);

	call_reply_data(call, &data, r < 0 ? r : append_row(call, row, id, id_len, &data));
}

void token_lookup_self(struct call *call, const struct request *q)
{
	if (!call->row)
		call_fail(call, -ERR_INPUT, "an operator on this socket has no token to look up");
	else
		show(call, call->row, q->token, q->token_len);
}

static void lookup(struct call *call, const struct request *q, enum token_by by)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct token_row *row = NULL;
	struct err err = {0};
	const json_t *text;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = token_named(call, body, by, false, &row, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	text = by == TOKEN_BY_TEXT ? json_object_get(body, "token") : NULL;
	show(call, row, json_string_value(text), json_string_length(text));
}

void token_lookup(struct call *call, const struct request *q)
{
	lookup(call, q, TOKEN_BY_TEXT);
}

void token_lookup_accessor(struct call *call, const struct request *q)
{
	lookup(call, q, TOKEN_BY_ACCESSOR);
}

static void reply_keys(struct call *call, struct secret *data, size_t n, int r)
{
	if (r == 0)
		r = api_append(data, "]}");
	if (r == 0 && n == 0)
		call_fail(call, -ERR_NOT_FOUND, "there is none");
	else
		call_reply_data(call, data, r);
}

void token_accessors(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	const struct tokens *t = &call->broker->tokens;
	char accessor[33];
	size_t n = 0;
	int r = secret_new(&data, 4096, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"keys\":[");
	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		for (const struct token_row *row = t->buckets[i]; r == 0 && row; row = row->next) {
			sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
			r = api_append(&data, "%s\"%s\"", n++ ? "," : "", accessor);
		}
	}
	reply_keys(call, &data, n, r);
}

/* ---- roles ------------------------------------------------------------------------------------------------------ */

void token_roles(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	const struct config *config = &call->broker->config;
	size_t n = 0;
	int r = secret_new(&data, 1024, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"keys\":[");
	for (size_t i = 0; r == 0 && i < config->n_roles; i++)
		if (config->roles[i].kind == CONFIG_ROLE_TOKEN)
			r = api_append(&data, "%s\"%s\"", n++ ? "," : "", config->roles[i].name);
	reply_keys(call, &data, n, r);
}

void token_role(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	const struct config_role *role = config_role(&call->broker->config, call->path);
	int r = secret_new(&data, 1024, NULL);

	(void)q;
	if (!role || role->kind != CONFIG_ROLE_TOKEN) {
		call_fail(call, -ERR_NOT_FOUND, "no role of that name makes tokens");
		return;
	}
	if (r == 0)
		r = api_append(&data, "{\"name\":\"%s\",\"orphan\":%s,\"renewable\":%s,\"token_period\":%llu,\"token_explicit_max_ttl\":%llu,"
			       "\"token_num_uses\":%lld,\"token_type\":\"service\",\"allowed_policies\":[",
			       role->name, truth(role->orphan), truth(role->renewable), (unsigned long long)(role->period ? role->ttl_ms / 1000 : 0),
			       (unsigned long long)(role->max_ttl_ms / 1000), role->uses < 0 ? 0LL : (long long)role->uses);
	for (size_t i = 0; r == 0 && i < role->n_policies; i++)
		r = api_append(&data, "%s\"%s\"", i ? "," : "", role->policies[i]);
	call_reply_data(call, &data, r < 0 ? r : api_append(&data, "]}"));
}
