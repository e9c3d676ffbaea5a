/* auth/jwt, auth/kernel, sys/wrapping/unwrap: from who somebody is, or from a token for one use, to a token of one's own. */
#include "broker/api.h"

#include "broker/cgroup.h"
#include "broker/identity_kernel.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <string.h>

/* Within the transaction that the token is made in. */
static int check_replay(struct call *call, const struct identity *id, struct err *err)
{
	struct store_seen seen = {.expires_ms = id->expires_ms, .uid = call->facts.uid, .cgroup = call->facts.cgroup,
				  .again = id->role->reuse_in_cgroup};
	int r;

	memcpy(seen.hash, id->seen, sizeof(seen.hash));
	r = store_replay(&call->broker->store, &seen, call->facts.wall_ms, err);
	if (r != -ERR_CONFLICT)
		return r;
	snprintf(call->alarm, sizeof(call->alarm), "an ID token for role '%s' was shown a second time, by uid %u: was it stolen?", id->role->name,
		 call->facts.uid);
	return err_set(err, ERR_LOGIN, "error validating token: it was used before: an ID token is good once");
}

/* What somebody shows: an ID token or the kernel's word, or a wrapping token. */
struct proof {
	const struct identity *id;   /* NULL: a wrapping token */
	struct token_row *wrapping;
};

/* Within the transaction that the token is made in: job, and what is used up for them. */
static int prepare(struct call *call, const json_t *body, const struct proof *proof, struct token_request *q, struct err *err)
{
	struct broker *b = call->broker;
	bool kernel = proof->id && !proof->id->role->issuer[0];
	/* an ID token's use is remembered with its token or not at all */
	int r = proof->id && !kernel ? check_replay(call, proof->id, err) : 0;

	/* what the kernel said of the caller's cgroup is true for that one alone */
	if (r == 0)
		r = api_job(call, body, call->facts.uid, kernel ? call->facts.cgroup : 0, q->ttl_ms, &q->job, err);
	/* here its row goes with the commit: whoever gets nothing keeps the wrapping token */
	if (r == 0 && proof->wrapping) {
		r = store_token_delete(&b->store, proof->wrapping->id, err);
		if (r < 0 && q->job)
			job_end(&b->jobs, q->job, "its token could not be given", NULL);
	}
	return r;
}

/* It becomes a token that is bound to the caller's uid and to its job or cgroup. */
static void give(struct call *call, const json_t *body, const struct proof *proof, struct token_request *q)
{
	struct broker *b = call->broker;
	struct err err = {0};
	int r = store_begin(&b->store, &err);

	if (r == 0 && (r = prepare(call, body, proof, q, &err)) < 0)
		store_end(&b->store, false, NULL);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	q->uid = call->facts.uid;
	q->cgroup = q->job ? q->job->cgroup : call->facts.cgroup;
	api_give(call, q, q->job, NULL);
}

static void join_policies(const struct config_role *role, char ret[LIMIT_TOKEN_POLICY_TEXT])
{
	size_t n = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < role->n_policies; i++)
		n += (size_t)snprintf(ret + n, LIMIT_TOKEN_POLICY_TEXT - n, "%s%s", i ? "," : "", role->policies[i]);
}

/* For less time than the role gives, when it asks for that. */
static int check_body(struct call *call, const json_t *body, uint64_t *ret_ttl_ms, struct err *err)
{
	int r = api_job_check(call, body, err);

	return r < 0 ? r : api_ttl(json_object_get(body, "ttl"), LIMIT_TOKEN_TTL_S, ret_ttl_ms, err);
}

static void give_role(struct call *call, const json_t *body, const struct identity *id, uint64_t ttl_ms)
{
	const struct proof proof = {.id = id};
	char policies[LIMIT_TOKEN_POLICY_TEXT];
	struct token_request q = {.policies = policies, .meta = id->meta, .ttl_ms = id->role->ttl_ms < ttl_ms ? id->role->ttl_ms : ttl_ms,
				  .uses = id->role->uses};

	join_policies(id->role, policies);
	snprintf(call->detail, sizeof(call->detail), "role %s", id->role->name);
	give(call, body, &proof, &q);
}

/* ---- ID tokens -------------------------------------------------------------------------------------------------- */

void auth_jwt_login(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	const char *role = NULL, *jwt = NULL;
	struct identity id;
	struct err err = {0};
	uint64_t ttl_ms = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = check_body(call, body, &ttl_ms, &err);
	if (r == 0) {
		role = json_string_value(json_object_get(body, "role"));
		jwt = json_string_value(json_object_get(body, "jwt"));
		if (!role || !jwt)
			r = err_set(&err, ERR_LOGIN, role ? "missing token" : "missing role");
	}
	if (r == 0)
		r = identity_jwt(&b->config, &b->jwks, role, jwt, call->facts.wall_ms, &id, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		give_role(call, body, &id, ttl_ms);
}

/* ---- the kernel's word ------------------------------------------------------------------------------------------ */

void auth_kernel_login(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	char path[LIMIT_CGROUP_PATH] = "";
	const char *role = NULL;
	struct identity id;
	struct err err = {0};
	uint64_t ttl_ms = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = check_body(call, body, &ttl_ms, &err);
	if (r == 0)
		role = json_string_value(json_object_get(body, "role"));
	if (r == 0 && !role)
		r = err_set(&err, ERR_LOGIN, "missing role");
	/* without one a role by uid alone still fits */
	if (r == 0)
		cgroup_path(call->facts.cgroup, json_string_value(json_object_get(body, "cgroup")), call->conn->peer.pid, path, NULL);
	if (r == 0)
		r = identity_kernel(&b->config, role, call->facts.uid, call->facts.gid, path[0] ? path : NULL, &id, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		give_role(call, body, &id, ttl_ms);
}

/* ---- unwrapping ------------------------------------------------------------------------------------------------- */

void wrapping_unwrap(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT];
	uint8_t accessor[16];
	struct token_request want = {.policies = policies, .meta = meta, .unwrapped_from = accessor};
	struct proof proof = {0};
	struct err err = {0};
	const json_t *given;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = api_job_check(call, body, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	given = json_object_get(body, "token");
	call->facts.unwrap = true;
	r = json_is_string(given) ? macaroon_parse(json_string_value(given), json_string_length(given), &m, &err)
	    : q->token		  ? macaroon_parse(q->token, q->token_len, &m, &err)
				  : err_set(&err, ERR_LOGIN, "missing token");
	/* what comes out would not have its caveats */
	if (r == 0 && m->n_caveats)
		r = err_set(&err, ERR_DENIED, "a narrowed wrapping token");
	if (r == 0)
		r = token_check(&call->broker->tokens, m, &call->facts, &proof.wrapping, NULL, &err);
	if (r == 0) {
		memcpy(accessor, proof.wrapping->id, sizeof(accessor));
		snprintf(policies, sizeof(policies), "%s", proof.wrapping->policies);
		snprintf(meta, sizeof(meta), "%s", proof.wrapping->meta);
		want.ttl_ms = proof.wrapping->wrap_ttl_ms;
		want.uses = proof.wrapping->wrap_uses;
		give(call, body, &proof, &want);
		return;
	}
	if (r == -ERR_DENIED)
		snprintf(call->alarm, sizeof(call->alarm), "uid %u showed a wrapping token that is not valid (%.60s): if it was never unwrapped, it was stolen",
			 call->facts.uid, err.msg);
	call_fail(call, r == -ERR_DENIED || r == -ERR_INPUT ? -ERR_LOGIN : r,
		  r == -ERR_DENIED || r == -ERR_INPUT ? "wrapping token is not valid or does not exist" : err.msg);
}
