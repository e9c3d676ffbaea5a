/* auth/token/…: making tokens and looking at one's own. */
#include "broker/api.h"

#include "broker/duration.h"
#include "broker/policy.h"
#include "common/bind.h"
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

/* "name=value" lines as an object; null when there are none. */
static int append_meta(struct secret *s, const char *meta)
{
	int r = api_append(s, *meta ? "{" : "null");

	for (size_t n, name; r == 0 && *meta; meta += n + (meta[n] != '\0')) {
		n = strcspn(meta, "\n");
		name = strcspn(meta, "=");
		r = api_append(s, "\"%.*s\":\"%.*s\"%s", (int)name, meta, (int)(n - name - 1), meta + name + 1,
			       meta[n] && meta[n + 1] ? "," : "}");
	}
	return r;
}

void token_lookup_self(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	const struct token_row *row = call->row;
	char issued[40], expires[40], accessor[33];
	uint64_t left_s, seq = 0;
	int r;

	if (!row) {
		call_fail(call, -ERR_INPUT, "an operator on this socket has no token to look up");
		return;
	}
	left_s = (row->deadline_ms - call->facts.boot_ms) / 1000;
	api_time(row->created_ms, issued);
	api_time(call->facts.wall_ms + left_s * 1000, expires);
	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = api_append(&data, "{\"accessor\":\"%s\",\"creation_time\":%llu,\"creation_ttl\":0,\"display_name\":\"token\","
			       "\"entity_id\":\"\",\"expire_time\":\"%s\",\"explicit_max_ttl\":0,\"id\":\"", accessor,
			       (unsigned long long)(row->created_ms / 1000), expires);
	if (r == 0)
		r = secret_append(&data, q->token, q->token_len, NULL);
	if (r == 0)
		r = api_append(&data, "\",\"issue_time\":\"%s\",\"num_uses\":%lld,\"orphan\":%s,"
			       "\"path\":\"auth/token/create\",\"renewable\":false,\"ttl\":%llu,\"type\":\"service\","
			       "\"cotter_job\":\"%s\",\"cotter_uid\":%lld,\"cotter_cgroup\":%llu,\"meta\":",
			       issued, row->uses_left < 0 ? 0LL : (long long)row->uses_left,
			       sodium_is_zero(row->parent, sizeof(row->parent)) ? "true" : "false", (unsigned long long)left_s, call->job_id,
			       row->uid == TOKEN_ANY_UID ? -1LL : (long long)row->uid, (unsigned long long)row->cgroup);
	if (r == 0)
		r = append_meta(&data, row->meta);
	if (r == 0)
		r = api_append(&data, ",\"policies\":");
	if (r == 0)
		r = append_policies(&data, row->policies);
	if (r == 0)
		r = api_append(&data, "}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

int api_ttl(const json_t *j, uint64_t fallback_s, uint64_t *ret_ms, struct err *err)
{
	uint64_t s = 0;

	if (!j)
		s = fallback_s;
	else if (json_is_integer(j) && json_integer_value(j) > 0 && json_integer_value(j) <= LIMIT_TOKEN_TTL_S)
		s = (uint64_t)json_integer_value(j);
	else if (json_is_string(j))
		s = duration_parse(json_string_value(j), json_string_length(j), LIMIT_TOKEN_TTL_S);
	if (s == 0)
		return err_set(err, ERR_INPUT, "ttl is a duration such as 30s, 10m or 2h, of at most %u hours", LIMIT_TOKEN_TTL_S / 3600);
	*ret_ms = s * 1000;
	return 0;
}

static bool in_list(const char *list, const char *name)
{
	size_t n, len = strlen(name);

	for (;; list += n + 1) {
		n = strcspn(list, ",");
		if (n == len && memcmp(list, name, n) == 0)
			return true;
		if (!list[n])
			return false;
	}
}

static bool denies(const struct config_policy *policy)
{
	for (size_t i = 0; policy && i < policy->n_rules; i++)
		if (policy->rules[i].allow & POLICY_DENY)
			return true;
	return false;
}

/* Without one that denies, a holder's new token would be wider than its own. */
static size_t add_denials(const struct call *call, char ret[LIMIT_TOKEN_POLICY_TEXT], size_t n)
{
	const char *own = call->row->policies;
	char name[LIMIT_NAME_LEN + 1];
	size_t len;

	for (;; own += len + 1) {
		len = strcspn(own, ",");
		snprintf(name, sizeof(name), "%.*s", (int)len, own);
		if (denies(config_policy(&call->broker->config, name)) && !in_list(ret, name) && n < LIMIT_TOKEN_POLICY_TEXT)
			n += (size_t)snprintf(ret + n, LIMIT_TOKEN_POLICY_TEXT - n, "%s%s", n ? "," : "", name);
		if (!own[len])
			return n;
	}
}

int api_policies(const struct call *call, const json_t *list, char ret[LIMIT_TOKEN_POLICY_TEXT], struct err *err)
{
	const json_t *item;
	size_t i, n = 0;

	ret[0] = '\0';
	if (!list && call->row)
		n = (size_t)snprintf(ret, LIMIT_TOKEN_POLICY_TEXT, "%s", call->row->policies);
	json_array_foreach(list, i, item) {
		const char *name = json_string_value(item);

		if (!name || !config_policy(&call->broker->config, name))
			return err_set(err, ERR_INPUT, "a policy of that name is not in the configuration");
		if (call->row && !in_list(call->row->policies, name))
			return err_set(err, ERR_DENIED, "a token gives only policies that it has itself");
		if (i >= LIMIT_TOKEN_POLICIES)
			return err_set(err, ERR_LIMIT, "at most %u policies", LIMIT_TOKEN_POLICIES);
		n += (size_t)snprintf(ret + n, LIMIT_TOKEN_POLICY_TEXT - n, "%s%s", n ? "," : "", name);
	}
	if (call->row)
		n = add_denials(call, ret, n);
	if (n >= LIMIT_TOKEN_POLICY_TEXT)
		return err_set(err, ERR_LIMIT, "too many policies for one token");
	if (!list && call->row && !*call->row->policies)
		ret[0] = '\0'; /* all it has comes from its scope */
	else if (n == 0)
		return err_set(err, ERR_INPUT, "name the token's policies: {\"policies\": [\"...\"]}");
	return 0;
}

/* What a token's holder asks for must not be wider than the token; one that was narrowed offline makes no others. */
static int check_parent(const struct call *call, const struct token_request *q, struct err *err)
{
	const struct token_row *row = call->row;

	if (!row)
		return 0;
	if (call->token->n_caveats || row->uses_left >= 0)
		return err_set(err, ERR_DENIED, "a narrowed token makes no others: narrow it further offline");
	if (q->wrap_ttl_ms)
		return err_set(err, ERR_DENIED, "wrapped tokens are made by operators alone");
	if (q->ttl_ms > row->deadline_ms - call->facts.boot_ms)
		return err_set(err, ERR_DENIED, "the new token would outlive the one that makes it");
	if (row->uid != TOKEN_ANY_UID && q->uid != row->uid)
		return err_set(err, ERR_DENIED, "the new token would be for another uid");
	return 0;
}

/* Operators may say what is proven of the holder: {"project": "acme/web", "scope": …}. */
static int parse_meta(const struct call *call, const json_t *meta, char ret[LIMIT_TOKEN_META_TEXT], struct err *err)
{
	const char *name;
	const json_t *value;
	size_t n = 0;

	ret[0] = '\0';
	if (call->row) {
		if (meta && !json_is_null(meta))
			return err_set(err, ERR_DENIED, "a token's holder proves nothing new by it");
		snprintf(ret, LIMIT_TOKEN_META_TEXT, "%s", call->row->meta);
		return 0;
	}
	json_object_foreach((json_t *)(uintptr_t)meta, name, value) {
		const char *text = json_string_value(value);

		if (!policy_variable_valid(name, strlen(name)) || strcmp(name, "role") == 0 || !text || strlen(text) > LIMIT_TOKEN_META_VALUE ||
		    !path_valid(text))
			return err_set(err, ERR_INPUT, "meta holds names of a-z, 0-9 and _ (not role), and values that are paths");
		n += (size_t)snprintf(ret + n, LIMIT_TOKEN_META_TEXT - n, "%s=%s\n", name, text);
		if (n >= LIMIT_TOKEN_META_TEXT)
			return err_set(err, ERR_LIMIT, "meta has at most %u bytes", LIMIT_TOKEN_META_TEXT - 1);
	}
	return 0;
}

static int parse_numbers(struct call *call, const json_t *body, struct token_request *q, struct err *err)
{
	const json_t *uses = json_object_get(body, "num_uses"), *uid = json_object_get(body, "cotter_uid");
	const json_t *job = json_object_get(body, "cotter_job");

	if (uses) {
		if (!json_is_integer(uses) || json_integer_value(uses) < 0 || json_integer_value(uses) > 1000000000)
			return err_set(err, ERR_INPUT, "num_uses is not a number");
		q->uses = json_integer_value(uses) ? json_integer_value(uses) : -1;
	}
	if (uid) {
		if (!json_is_integer(uid) || json_integer_value(uid) < 0 || json_integer_value(uid) >= UINT32_MAX)
			return err_set(err, ERR_INPUT, "cotter_uid is not a uid");
		q->uid = (uint32_t)json_integer_value(uid);
	}
	if (job) {
		q->job = call->row || !json_is_string(job) ? NULL : job_find(&call->broker->jobs, json_string_value(job));
		if (!q->job)
			return err_set(err, ERR_INPUT, "there is no job of that id, or it ended");
		q->uid = q->job->uid;
		q->cgroup = q->job->cgroup;
	}
	return 0;
}

struct texts {
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT];
};

static int parse_request(struct call *call, const struct request *http, const json_t *body, struct token_request *q, struct texts *t,
			 struct err *err)
{
	const struct token_row *row = call->row;
	int r = api_policies(call, json_object_get(body, "policies"), t->policies, err);

	*q = (struct token_request){.by_operator = !row, .policies = t->policies, .meta = t->meta, .uses = -1, .uid = row ? row->uid : TOKEN_ANY_UID,
				    .cgroup = row ? row->cgroup : 0, .job = row ? row->job : NULL, .parent = call->row};
	if (r == 0)
		r = parse_meta(call, json_object_get(body, "meta"), t->meta, err);
	if (r == 0)
		r = api_ttl(json_object_get(body, "ttl"), LIMIT_TOKEN_TTL_DEFAULT_S, &q->ttl_ms, err);
	if (r == 0)
		r = parse_numbers(call, body, q, err);
	if (r == 0 && http->wrap_ttl_s && q->job)
		return err_set(err, ERR_INPUT, "a wrapped token joins the job of whoever unwraps it: cotter_job cannot be said");
	if (r == 0 && http->wrap_ttl_s) {
		q->wrap_ttl_ms = q->ttl_ms;
		q->wrap_uses = q->uses;
		q->ttl_ms = http->wrap_ttl_s * 1000ull;
		q->uses = -1;
	}
	return r < 0 ? r : check_parent(call, q, err);
}

/* Vault's auth object. data: JSON text for "data", or NULL. */
static int auth_reply(const struct token_row *row, const struct secret *text, const struct secret *data, struct secret *ret, struct err *err)
{
	CLEANUP(secret_clear) struct secret auth = {0};
	uint64_t now_ms = token_boot_ms();
	char accessor[33];
	int r = secret_new(&auth, 1024, NULL);

	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	if (r == 0)
		r = api_append(&auth, "{\"client_token\":\"");
	if (r == 0)
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
			       ",\"lease_duration\":%llu,\"renewable\":false,\"entity_id\":\"\","
			       "\"token_type\":\"service\",\"orphan\":%s,\"mfa_requirement\":null,\"num_uses\":%lld}",
			       (unsigned long long)((row->deadline_ms - now_ms + 999) / 1000),
			       sodium_is_zero(row->parent, sizeof(row->parent)) ? "true" : "false", row->uses_left < 0 ? 0LL : (long long)row->uses_left);
	if (r == 0)
		r = api_envelope(data ? (const char *)data->data : NULL, data ? data->len : 0, (char *)auth.data, auth.len, ret);
	return r < 0 ? err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again") : 0;
}

/* Vault's wrap_info: the token that is good for one unwrapping. */
static int wrap_info(const struct token_row *row, const struct secret *text, uint64_t ttl_ms, struct secret *ret, struct err *err)
{
	char accessor[33], created[40];
	int r = secret_new(ret, 1024, NULL);

	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	api_time(row->created_ms, created);
	if (r == 0)
		r = api_append(ret, "{\"request_id\":\"\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":0,\"data\":null,"
				       "\"wrap_info\":{\"token\":\"");
	if (r == 0)
		r = secret_append(ret, text->data, text->len, NULL);
	if (r == 0)
		r = api_append(ret, "\",\"accessor\":\"%s\",\"ttl\":%llu,\"creation_time\":\"%s\",\"creation_path\":\"auth/token/create\","
				       "\"wrapped_accessor\":\"\"},\"warnings\":null,\"auth\":null}\n",
			       accessor, (unsigned long long)(ttl_ms / 1000), created);
	return r < 0 ? err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again") : 0;
}

/* Within the transaction: what cannot be told to the caller is not made. */
static int make(struct call *call, struct token_request *q, int (*show)(struct secret *s, const struct job *job), struct token_row **ret_row,
		struct secret *ret_reply, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0}, data = {0};
	int r = token_make(&call->broker->tokens, q, &text, ret_row, err);

	if (r < 0)
		return r;
	memcpy(call->made_id, (*ret_row)->id, sizeof(call->made_id));
	if (show)
		r = secret_new(&data, 512, err);
	if (r == 0 && show && show(&data, q->job) < 0)
		r = err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	if (r < 0)
		return r;
	return q->wrap_ttl_ms ? wrap_info(*ret_row, &text, q->ttl_ms, ret_reply, err)
			      : auth_reply(*ret_row, &text, show ? &data : NULL, ret_reply, err);
}

/* Nobody was told of them. */
static void undo(struct broker *b, const struct token_request *q, struct job *made, struct token_row *row)
{
	size_t n;

	if (row && q->parent)
		q->parent->n_children--;
	if (made)
		job_end(&b->jobs, made, "", NULL);
	else if (row)
		token_revoke(&b->tokens, row, &n, NULL);
}

void api_give(struct call *call, struct token_request *q, struct job *made, int (*show)(struct secret *s, const struct job *job))
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret reply = {0};
	struct token_row *row = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	int r;

	if (q->job)
		job_id_text(q->job, call->job_id);
	r = make(call, q, show, &row, &reply, &err);
	if (r == 0 && call_grant(call, &seq) < 0) {
		store_end(&b->store, false, NULL);
		undo(b, q, made, row);
		return;
	}
	if (r == 0)
		r = store_end(&b->store, true, &err);
	else
		store_end(&b->store, false, NULL);
	if (r < 0) {
		undo(b, q, made, row);
		call_fail(call, r, err.msg);
		return;
	}
	if (q->unwrapped_from)
		token_forget(&b->tokens, q->unwrapped_from);
	if (made)
		job_record(&b->jobs, made);
	call_reply(call, 200, &reply, seq);
}

void token_create(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct token_request want;
	struct texts texts;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = parse_request(call, q, body, &want, &texts, &err);
	if (r == 0)
		r = store_begin(&call->broker->store, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		api_give(call, &want, NULL, NULL);
}

void token_revoke_self(struct call *call, const struct request *q)
{
	struct err err = {0};
	uint64_t seq = 0;
	size_t n;
	int r;

	(void)q;
	if (!call->row) {
		call_fail(call, -ERR_INPUT, "an operator on this socket has no token to revoke");
		return;
	}
	if (call->token->n_caveats) {
		call_fail(call, -ERR_DENIED, "a narrowed token ends nothing");
		return;
	}
	call->takes = true;
	if (call_grant(call, &seq) < 0)
		return;
	r = token_revoke(&call->broker->tokens, call->row, &n, &err);
	call->row = NULL;
	call_end(call, r, err.msg, seq);
}
