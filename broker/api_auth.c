/* auth/jwt, auth/kernel, auth/approle, sys/wrapping/unwrap: from who somebody is, or from a token for one use, to a token of one's own. */
#include "broker/api_wrapping.h"

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
	struct store_secret_id *secret_id; /* of an AppRole */
};

static int use_secret_id(struct call *call, struct store_secret_id *x, struct err *err)
{
	if (x->uses_left < 0)
		return 0;
	if (--x->uses_left == 0)
		return store_secret_id_delete(&call->broker->store, x->hash, err);
	return store_secret_id_put(&call->broker->store, x, call->facts.wall_ms, err);
}

/* As long as its token may be renewed. */
static uint64_t job_ttl_ms(const struct token_request *q)
{
	const uint64_t most_ms = LIMIT_TOKEN_MAX_TTL_S * 1000ull, ms = q->max_ttl_ms > q->ttl_ms ? q->max_ttl_ms : q->ttl_ms;

	return ms < most_ms ? ms : most_ms;
}

/* Within the transaction that the token is made in: job, and what is used up for them. */
static int prepare(struct call *call, const json_t *body, const struct proof *proof, struct token_request *q, struct err *err)
{
	struct broker *b = call->broker;
	const struct config_role *role = proof->id ? proof->id->role : NULL;
	bool here = role && (role->kind == CONFIG_ROLE_KERNEL || role->n_cgroups || role->n_units), jwt = role && role->kind == CONFIG_ROLE_JWT;
	/* an ID token's use is remembered with its token or not at all, and so is that of a secret id */
	int r = jwt ? check_replay(call, proof->id, err) : proof->secret_id ? use_secret_id(call, proof->secret_id, err) : 0;

	/* what the kernel said of the caller's cgroup is true for that one alone */
	if (r == 0)
		r = api_job(call, body, call->facts.uid, here ? call->facts.cgroup : 0, job_ttl_ms(q), &q->job, err);
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

/* The body of a login, which may ask for less time than the role gives. */
static int read_body(struct call *call, const struct request *q, json_t **ret, uint64_t *ret_ttl_ms, struct err *err)
{
	int r = api_body(q, ret, err);

	if (r == 0)
		r = api_job_check(call, *ret, err);
	return r < 0 ? r : api_ttl(json_object_get(*ret, "ttl"), LIMIT_TOKEN_TTL_S, ret_ttl_ms, err);
}

static void give_role(struct call *call, const json_t *body, const struct proof *proof, uint64_t ttl_ms)
{
	static const char *const ways[] = {[CONFIG_ROLE_KERNEL] = "kernel", [CONFIG_ROLE_JWT] = "jwt", [CONFIG_ROLE_APPROLE] = "approle"};
	const struct config_role *role = proof->id->role;
	char policies[LIMIT_TOKEN_POLICY_TEXT], path[40], display[LIMIT_NAME_LEN + 16];
	struct token_request q = {.policies = policies, .meta = proof->id->meta, .path = path, .display = display,
				  .ttl_ms = role->ttl_ms < ttl_ms ? role->ttl_ms : ttl_ms, .uses = role->uses,
				  .max_ttl_ms = role->period ? TOKEN_FOREVER_MS : role->max_ttl_ms};

	join_policies(role, policies);
	snprintf(path, sizeof(path), "auth/%s/login", ways[role->kind]);
	snprintf(display, sizeof(display), "%s-%s", ways[role->kind], role->name);
	snprintf(call->detail, sizeof(call->detail), "role %s", role->name);
	give(call, body, proof, &q);
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
	int r = read_body(call, q, &body, &ttl_ms, &err);

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
		give_role(call, body, &(struct proof){.id = &id}, ttl_ms);
}

/* ---- AppRole ---------------------------------------------------------------------------------------------------- */

/* One sentence for every cause: whoever guesses learns nothing. */
static int check_approle(struct call *call, const json_t *body, struct identity *id, struct store_secret_id *x, struct err *err)
{
	const char *role_id = json_string_value(json_object_get(body, "role_id"));
	const json_t *secret = json_object_get(body, "secret_id");
	const struct config_role *role;
	char path[LIMIT_CGROUP_PATH] = "";
	uint8_t hash[32];

	if (!role_id || !*role_id)
		return err_set(err, ERR_LOGIN, "missing role_id");
	if (!json_string_length(secret))
		return err_set(err, ERR_LOGIN, "missing secret_id");
	role = config_approle(&call->broker->config, role_id);
	store_secret_id_hash(&call->broker->store, json_string_value(secret), json_string_length(secret), hash);
	cgroup_path(call->facts.cgroup, json_string_value(json_object_get(body, "cgroup")), call->conn->peer.pid, path, NULL);
	if (!role || store_secret_id_get(&call->broker->store, hash, role->name, call->facts.wall_ms, x, NULL) < 0 ||
	    identity_of_peer(role, call->facts.uid, call->facts.gid, path[0] ? path : NULL, id, NULL) < 0)
		return err_set(err, ERR_LOGIN, "invalid role or secret ID");
	return 0;
}

void auth_approle_login(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct store_secret_id x;
	struct identity id;
	struct err err = {0};
	uint64_t ttl_ms = 0;
	int r = read_body(call, q, &body, &ttl_ms, &err);

	if (r == 0)
		r = check_approle(call, body, &id, &x, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		give_role(call, body, &(struct proof){.id = &id, .secret_id = &x}, ttl_ms);
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
	int r = read_body(call, q, &body, &ttl_ms, &err);

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
		give_role(call, body, &(struct proof){.id = &id}, ttl_ms);
}

/* ---- unwrapping ------------------------------------------------------------------------------------------------- */

void auth_unwrap(struct call *call, const json_t *body, struct token_row *row)
{
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT], display[LIMIT_TOKEN_PATH_TEXT];
	uint8_t accessor[16];
	struct token_request want = {.policies = policies, .meta = meta, .path = "auth/token/create", .display = display, .unwrapped_from = accessor,
				     .ttl_ms = row->wrap_ttl_ms, .uses = row->wrap_uses};
	const struct proof proof = {.wrapping = row};

	memcpy(accessor, row->id, sizeof(accessor));
	snprintf(policies, sizeof(policies), "%s", row->policies);
	snprintf(meta, sizeof(meta), "%s", row->meta);
	snprintf(display, sizeof(display), "%s", row->display);
	give(call, body, &proof, &want);
}
