/* auth/token/…: making tokens and looking at one's own. */
#include "broker/api.h"

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
		r = api_append(&data, "\",\"issue_time\":\"%s\",\"meta\":null,\"num_uses\":%lld,\"orphan\":true,"
			       "\"path\":\"auth/token/create\",\"renewable\":false,\"ttl\":%llu,\"type\":\"service\",\"policies\":",
			       issued, row->uses_left < 0 ? 0LL : (long long)row->uses_left, (unsigned long long)left_s);
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

/* Seconds as a number, or "90", "30s", "5m", "1h", "1d". */
static int parse_ttl(const json_t *j, uint64_t *ret_ms, struct err *err)
{
	static const struct {
		const char *unit;
		uint64_t s;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	unsigned long long n = 0;
	const char *text = json_string_value(j);
	char *end = NULL;

	if (!j) {
		*ret_ms = LIMIT_TOKEN_TTL_DEFAULT_S * 1000ull;
		return 0;
	}
	if (json_is_integer(j) && json_integer_value(j) > 0)
		n = (unsigned long long)json_integer_value(j);
	else if (text && text[0] >= '0' && text[0] <= '9')
		n = strtoull(text, &end, 10);
	for (size_t i = 0; n && end && i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) == 0 && n <= LIMIT_TOKEN_TTL_S) {
			n *= units[i].s;
			end = NULL;
		}
	}
	if (n == 0 || end || n > LIMIT_TOKEN_TTL_S)
		return err_set(err, ERR_INPUT, "ttl is a duration such as 30s, 10m or 2h, of at most %u hours", LIMIT_TOKEN_TTL_S / 3600);
	*ret_ms = n * 1000;
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

static int parse_policies(struct call *call, const json_t *list, char ret[LIMIT_TOKEN_POLICY_TEXT], struct err *err)
{
	const json_t *item;
	size_t i, n = 0;

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
	return n ? 0 : err_set(err, ERR_INPUT, "name the token's policies: {\"policies\": [\"...\"]}");
}

/* What a token's holder asks for must not be wider than the token; one that was narrowed offline makes no others. */
static int check_parent(const struct call *call, const struct token_request *q, struct err *err)
{
	const struct token_row *row = call->row;

	if (!row)
		return 0;
	if (call->token->n_caveats || row->uses_left >= 0)
		return err_set(err, ERR_DENIED, "a narrowed token makes no others: narrow it further offline");
	if (q->ttl_ms > row->deadline_ms - call->facts.boot_ms)
		return err_set(err, ERR_DENIED, "the new token would outlive the one that makes it");
	if (row->uid != TOKEN_ANY_UID && q->uid != row->uid)
		return err_set(err, ERR_DENIED, "the new token would be for another uid");
	return 0;
}

static int parse_request(struct call *call, const json_t *body, struct token_request *q, char *policies, struct err *err)
{
	const json_t *uses = json_object_get(body, "num_uses"), *uid = json_object_get(body, "cotter_uid");
	int r = parse_policies(call, json_object_get(body, "policies"), policies, err);

	q->policies = policies;
	if (r == 0)
		r = parse_ttl(json_object_get(body, "ttl"), &q->ttl_ms, err);
	if (r == 0 && uses) {
		if (!json_is_integer(uses) || json_integer_value(uses) < 0 || json_integer_value(uses) > 1000000000)
			return err_set(err, ERR_INPUT, "num_uses is not a number");
		q->uses = json_integer_value(uses) ? json_integer_value(uses) : -1;
	}
	if (r == 0 && uid) {
		if (!json_is_integer(uid) || json_integer_value(uid) < 0 || json_integer_value(uid) >= UINT32_MAX)
			return err_set(err, ERR_INPUT, "cotter_uid is not a uid");
		q->uid = (uint32_t)json_integer_value(uid);
	}
	return r < 0 ? r : check_parent(call, q, err);
}

void token_create(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(cleanup_json) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret text = {0}, auth = {0}, reply = {0};
	struct token_request want = {.uses = -1, .uid = call->row ? call->row->uid : TOKEN_ANY_UID,
				     .parent = call->row};
	char policies[LIMIT_TOKEN_POLICY_TEXT], accessor[33];
	struct token_row *row = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = parse_request(call, body, &want, policies, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	if (call_grant(call, &seq) < 0)
		return;
	r = token_make(&b->tokens, &b->store, &want, &text, &row, &err);
	if (r == 0)
		r = secret_new(&auth, 1024, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	r = api_append(&auth, "{\"client_token\":\"");
	if (r == 0)
		r = secret_append(&auth, text.data, text.len, NULL);
	if (r == 0)
		r = api_append(&auth, "\",\"accessor\":\"%s\",\"policies\":", accessor);
	if (r == 0)
		r = append_policies(&auth, row->policies);
	if (r == 0)
		r = api_append(&auth, ",\"token_policies\":");
	if (r == 0)
		r = append_policies(&auth, row->policies);
	if (r == 0)
		r = api_append(&auth,
			       ",\"metadata\":null,\"lease_duration\":%llu,\"renewable\":false,\"entity_id\":\"\","
			       "\"token_type\":\"service\",\"orphan\":true,\"mfa_requirement\":null,\"num_uses\":%lld}",
			       (unsigned long long)(want.ttl_ms / 1000), want.uses < 0 ? 0LL : (long long)want.uses);
	if (r == 0)
		r = api_envelope(NULL, 0, (char *)auth.data, auth.len, &reply);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
	else
		call_reply(call, 200, &reply, seq);
}
