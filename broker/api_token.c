/* auth/token/create: making tokens. */
#include "broker/api_token.h"

#include "broker/duration.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

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

int api_duration(const json_t *j, uint64_t fallback_s, uint64_t *ret_ms, struct err *err)
{
	uint64_t s = 0;

	if (json_is_string(j) && *json_string_value(j) && !duration_parse_go(json_string_value(j), LIMIT_DURATION_S, &s))
		j = json_null();
	if (json_is_integer(j) && json_integer_value(j) >= 0 && json_integer_value(j) <= LIMIT_DURATION_S)
		s = (uint64_t)json_integer_value(j);
	else if (j && !json_is_string(j))
		return err_set(err, ERR_INPUT, "expected a duration such as 30, 30s, 10m or 2h");
	*ret_ms = (s ? s : fallback_s) * 1000;
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

		/* Vault's name for what every token may */
		bool granted = name && strcmp(name, "default") == 0 && !config_policy(&call->broker->config, name);

		if (!name || (!granted && !config_policy(&call->broker->config, name)))
			return err_set(err, ERR_INPUT, "a policy of that name is not in the configuration");
		if (call->row && !granted && !in_list(call->row->policies, name))
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

/* Of a role's policies those that are asked for; else all of them. */
static int role_policies(const struct call *call, const struct config_role *role, const json_t *list, char ret[LIMIT_TOKEN_POLICY_TEXT], struct err *err)
{
	const json_t *item;
	size_t i, n = 0;

	ret[0] = '\0';
	for (i = 0; !list && i < role->n_policies; i++)
		n += (size_t)snprintf(ret + n, LIMIT_TOKEN_POLICY_TEXT - n, "%s%s", i ? "," : "", role->policies[i]);
	json_array_foreach(list, i, item) {
		const char *name = json_string_value(item);
		bool has = false;

		for (size_t k = 0; name && !has && k < role->n_policies; k++)
			has = strcmp(role->policies[k], name) == 0;
		if (!has)
			return err_set(err, ERR_INPUT, "token policies must be a subset of the role's");
		if (!in_list(ret, name))
			n += (size_t)snprintf(ret + n, LIMIT_TOKEN_POLICY_TEXT - n, "%s%s", n ? "," : "", name);
	}
	if (call->row)
		n = add_denials(call, ret, n);
	return n < LIMIT_TOKEN_POLICY_TEXT ? 0 : err_set(err, ERR_LIMIT, "too many policies for one token");
}

/* What a token's holder asks for must not be wider than the token; one that was narrowed offline makes no others. */
static int check_parent(const struct call *call, const struct token_request *q, struct err *err)
{
	const struct token_row *row = call->row;

	if (!row)
		return 0;
	if (call->token->n_caveats || row->uses_left >= 0)
		return err_set(err, ERR_DENIED, "a narrowed token makes no others: narrow it further offline");
	if (row->uid != TOKEN_ANY_UID && q->uid != row->uid)
		return err_set(err, ERR_DENIED, "the new token would be for another uid");
	return 0;
}

/* What its holder says of a token proves nothing, and is only shown: its names get a '+', which no proven one has. */
static bool sayable(const char *name, const char *text)
{
	if (!*name || strlen(name) > LIMIT_NAME_LEN || !text || strlen(text) > LIMIT_TOKEN_META_VALUE || strchr(name, '='))
		return false;
	for (; *name || *text; name += *name != '\0', text += *text != '\0')
		if ((*name && (unsigned char)*name < 0x20) || (*text && (unsigned char)*text < 0x20))
			return false;
	return true;
}

/* Operators say what is proven of the holder: {"project": "acme/web", "scope": …}. */
static bool provable(const char *name, const char *text)
{
	return policy_variable_valid(name, strlen(name)) && strcmp(name, "role") != 0 && text && strlen(text) <= LIMIT_TOKEN_META_VALUE && path_valid(text);
}

static int parse_meta(const struct call *call, const json_t *meta, char ret[LIMIT_TOKEN_META_TEXT], struct err *err)
{
	const char *own = call->row ? call->row->meta : "", *name;
	size_t n = (size_t)snprintf(ret, LIMIT_TOKEN_META_TEXT, "%s", own), len;
	const json_t *value;

	if (meta && !json_is_object(meta) && !json_is_null(meta))
		return err_set(err, ERR_INPUT, "meta is an object of strings");
	json_object_foreach((json_t *)(uintptr_t)meta, name, value) {
		const char *text = json_string_value(value);

		if (!call->row && !provable(name, text))
			return err_set(err, ERR_INPUT, "meta holds names of a-z, 0-9 and _ (not role), and values that are paths");
		if (call->row && (!sayable(name, text) || policy_variable(own, name, strlen(name), &len)))
			return err_set(err, ERR_INPUT, "meta holds short names and texts, and no name that stands for something proven");
		n += (size_t)snprintf(ret + n, LIMIT_TOKEN_META_TEXT - n, "%s%s=%s\n", call->row ? "+" : "", name, text);
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
		/* a role's uses are its most */
		if (q->uses < 0 || (json_integer_value(uses) && json_integer_value(uses) < q->uses))
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
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT], path[LIMIT_TOKEN_PATH_TEXT], display[LIMIT_TOKEN_PATH_TEXT];
};

static int set_display(const json_t *j, char ret[LIMIT_TOKEN_PATH_TEXT], struct err *err)
{
	const char *name = json_string_value(j);
	int n;

	if (j && !json_is_null(j) && (!name || strlen(name) > LIMIT_NAME_LEN))
		return err_set(err, ERR_INPUT, "display_name has at most %u bytes", LIMIT_NAME_LEN);
	n = snprintf(ret, LIMIT_TOKEN_PATH_TEXT, "token%s%s", name && *name ? "-" : "", name ? name : "");
	for (int i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", ret[i]))
			ret[i] = '-';
	return 0;
}

/* What Vault has and cotter does not. */
static int check_unsupported(const json_t *body, struct err *err)
{
	const char *type = json_string_value(json_object_get(body, "type")), *id = json_string_value(json_object_get(body, "id"));
	const char *alias = json_string_value(json_object_get(body, "entity_alias"));

	if (type && *type && strcmp(type, "service") != 0 && strcmp(type, "default") != 0)
		return err_set(err, ERR_INPUT, "only service tokens are made: each has a row that can be revoked");
	if (id && *id)
		return err_set(err, ERR_INPUT, "a token's id cannot be chosen");
	return alias && *alias ? err_set(err, ERR_INPUT, "there are no entities, so no entity_alias") : 0;
}

/* How long, and with renewals. */
static int parse_times(const struct call *call, const json_t *body, const struct config_role *role, struct token_request *q, struct err *err)
{
	const json_t *renewable = json_object_get(body, "renewable");
	uint64_t explicit_ms = 0, period_ms = 0;
	int r = api_duration(json_object_get(body, "ttl"), role ? (uint32_t)(role->ttl_ms / 1000) : LIMIT_TOKEN_TTL_DEFAULT_S, &q->ttl_ms, err);

	if (r == 0)
		r = api_duration(json_object_get(body, "explicit_max_ttl"), 0, &explicit_ms, err);
	if (r == 0)
		r = api_duration(json_object_get(body, "period"), 0, &period_ms, err);
	if (r < 0)
		return r;
	/* whoever asks for no time gets what there is */
	if (call->row && !json_object_get(body, "ttl") && call->row->deadline_ms < call->facts.boot_ms + q->ttl_ms)
		q->ttl_ms = call->row->deadline_ms - call->facts.boot_ms;
	if (renewable && !json_is_boolean(renewable) && !json_is_null(renewable))
		return err_set(err, ERR_INPUT, "renewable is true or false");
	if (period_ms && call->row)
		return err_set(err, ERR_DENIED, "tokens with a period are made by operators, or by a role");
	if (role && role->period)
		period_ms = role->ttl_ms;
	if (period_ms)
		q->ttl_ms = period_ms;
	q->max_ttl_ms = period_ms ? TOKEN_FOREVER_MS : role && role->max_ttl_ms ? role->max_ttl_ms : LIMIT_TOKEN_MAX_TTL_S * 1000ull;
	if (explicit_ms && explicit_ms < q->max_ttl_ms)
		q->max_ttl_ms = explicit_ms;
	if (role && q->ttl_ms > (role->max_ttl_ms ? role->max_ttl_ms : role->ttl_ms))
		q->ttl_ms = role->max_ttl_ms ? role->max_ttl_ms : role->ttl_ms;
	if (json_is_false(renewable) || (role && !role->renewable)) {
		if (q->ttl_ms > q->max_ttl_ms)
			q->ttl_ms = q->max_ttl_ms;
		q->max_ttl_ms = 0;
	}
	return 0;
}

/* What an operator asks to be wrapped is made when it is unwrapped: so it joins the job of whoever does that. */
static int wrap_request(struct call *call, struct token_request *q, struct err *err)
{
	const uint64_t most_ms = LIMIT_TOKEN_TTL_S * 1000ull, ttl_ms = q->max_ttl_ms && q->ttl_ms > q->max_ttl_ms ? q->max_ttl_ms : q->ttl_ms;

	if (q->job)
		return err_set(err, ERR_INPUT, "a wrapped token joins the job of whoever unwraps it: cotter_job cannot be said");
	q->wraps = TOKEN_WRAPS_TOKEN;
	q->wrap_ttl_ms = ttl_ms < most_ms ? ttl_ms : most_ms;
	q->wrap_uses = q->uses;
	q->ttl_ms = call->wrap_ttl_s * 1000ull;
	q->max_ttl_ms = 0;
	q->uses = -1;
	call->wrap_ttl_s = 0;
	return 0;
}

static int parse_request(struct call *call, const json_t *body, const struct config_role *role, struct token_request *q, struct texts *t,
			 struct err *err)
{
	const struct token_row *row = call->row;
	const json_t *policies = json_object_get(body, "policies");
	int r = check_unsupported(body, err);

	if (r == 0 && policies && !json_is_null(policies) && !json_is_array(policies))
		r = err_set(err, ERR_INPUT, "policies is a list of names");
	if (json_is_null(policies) || json_array_size(policies) == 0)
		policies = NULL;
	*q = (struct token_request){.by_operator = !row, .policies = t->policies, .meta = t->meta, .path = t->path, .display = t->display,
				    .uses = role ? role->uses : -1, .uid = row ? row->uid : TOKEN_ANY_UID, .cgroup = row ? row->cgroup : 0,
				    .job = row ? row->job : NULL, .parent = role && role->orphan ? NULL : call->row};
	if (r == 0)
		r = role ? role_policies(call, role, policies, t->policies, err) : api_policies(call, policies, t->policies, err);
	if (r == 0)
		r = parse_meta(call, json_object_get(body, "meta"), t->meta, err);
	if (r == 0)
		r = set_display(json_object_get(body, "display_name"), t->display, err);
	if (r == 0)
		r = parse_times(call, body, role, q, err);
	if (r == 0)
		r = parse_numbers(call, body, q, err);
	if (r == 0 && call->row && json_is_true(json_object_get(body, "no_parent")))
		r = err_set(err, ERR_DENIED, "tokens without a parent are made by operators, or by a role");
	if (r == 0 && call->wrap_ttl_s && !row)
		r = wrap_request(call, q, err);
	return r < 0 ? r : check_parent(call, q, err);
}

/* Within the transaction: what cannot be told to the caller is not made. */
static int make(struct call *call, struct token_request *q, int (*show)(struct secret *s, const struct job *job), struct token_row **ret_row,
		struct secret *ret_reply, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0}, data = {0};
	char warning[128];
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
	if (q->wraps)
		return api_wrap_info(*ret_row, &text, q->path, ret_reply, err);
	snprintf(warning, sizeof(warning), "the TTL was cut to %llus: no token outlives the one that makes it, its job, or its limit",
		 (unsigned long long)((*ret_row)->ttl_ms / 1000));
	return token_answer(*ret_row, &text, show ? &data : NULL, (*ret_row)->ttl_ms + 1000 < q->ttl_ms ? warning : NULL, ret_reply, err);
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

/* It could not be wrapped. unsaid_id begins with the id of the job that was made for it, or is zeros. */
static void unsay(struct call *call)
{
	struct broker *b = call->broker;
	struct token_row *row = token_find(&b->tokens, call->made_id);

	if (row)
		undo(b, &(struct token_request){.parent = token_find(&b->tokens, row->parent)}, job_by_id(&b->jobs, call->unsaid_id), row);
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
	call->unsaid = unsay;
	if (made) {
		memcpy(call->unsaid_id, made->id, sizeof(made->id));
		job_record(&b->jobs, made);
	}
	call_reply(call, 200, &reply, seq);
}

static void create(struct call *call, const struct request *q, const struct config_role *role)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct token_request want;
	struct texts texts;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	snprintf(texts.path, sizeof(texts.path), "auth/token/create%s%s", role ? "/" : "", role ? role->name : "");
	if (r == 0)
		r = parse_request(call, body, role, &want, &texts, &err);
	if (r == 0)
		r = store_begin(&call->broker->store, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		api_give(call, &want, NULL, NULL);
}

void token_create(struct call *call, const struct request *q)
{
	create(call, q, NULL);
}

void token_create_role(struct call *call, const struct request *q)
{
	const struct config_role *role = config_role(&call->broker->config, call->path + strlen("auth/token/create/"));

	if (role && role->kind == CONFIG_ROLE_TOKEN)
		create(call, q, role);
	else
		call_fail(call, -ERR_INPUT, "unknown role");
}
