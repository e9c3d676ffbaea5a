#include "broker/api.h"

#include "broker/mount.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum permit {
	PERMIT_OPEN,	 /* no token, even while sealed */
	PERMIT_LOGIN,	 /* no token: the handler proves who asks */
	PERMIT_TOKEN,	 /* a token that allows op on the path, or an operator */
	PERMIT_OPERATOR, /* the operators' socket alone; even while sealed */
	PERMIT_OPERATOR_OPEN, /* the same, once the store is open */
};

#define M(method) (1u << METHOD_##method)
#define HASH_WORDS " sha1 sha2-224 sha2-256 sha2-384 sha2-512 none "

static const struct route {
	uint32_t methods;
	const char *pattern; /* behind /v1/; a '*' at the end takes the secret's path */
	enum permit permit;
	uint32_t op;
	const char *event;
	api_handler *handler;
	const char *suffixes; /* words that may stand behind the path, each between spaces */
	const char *prefix;   /* of the path that policies speak of; NULL: none */
} routes[] = {
	{M(GET) | M(HEAD), "sys/health", PERMIT_OPEN, 0, "health", sys_health, NULL, NULL},
	{M(GET), "sys/seal-status", PERMIT_OPEN, 0, "seal-status", sys_seal_status, NULL, NULL},
	{M(GET), "sys/leader", PERMIT_OPEN, 0, "leader", sys_leader, NULL, NULL},
	{M(GET), "sys/init", PERMIT_OPEN, 0, "init", sys_init, NULL, NULL},
	{M(GET), "sys/metrics", PERMIT_TOKEN, POLICY_GET, "metrics", sys_metrics, NULL, "sys/metrics"},
	{M(GET), "sys/mounts", PERMIT_TOKEN, 0, "mounts", sys_mounts, NULL, NULL},
	{M(GET), "sys/auth", PERMIT_TOKEN, 0, "mounts", sys_auth, NULL, NULL},
	{M(GET), "sys/internal/ui/mounts", PERMIT_TOKEN, 0, "mounts", sys_ui_mounts, NULL, NULL},
	{M(GET), "sys/internal/ui/mounts/*", PERMIT_TOKEN, 0, "mounts", sys_ui_mount, NULL, NULL},
	{M(POST) | M(PUT), "sys/capabilities-self", PERMIT_TOKEN, 0, "capabilities", sys_capabilities_self, NULL, NULL},
	{M(GET), "secret/data/*", PERMIT_TOKEN, POLICY_GET, "get", kv_read, NULL, NULL},
	{M(POST) | M(PUT), "secret/data/*", PERMIT_TOKEN, POLICY_PUT, "put", kv_write, NULL, NULL},
	{M(PATCH), "secret/data/*", PERMIT_TOKEN, POLICY_UPDATE, "patch", kv_patch, NULL, NULL},
	{M(GET), "secret/subkeys/*", PERMIT_TOKEN, POLICY_GET, "subkeys", kv_subkeys, NULL, NULL},
	{M(POST) | M(PUT), "secret/delete/*", PERMIT_TOKEN, POLICY_DELETE, "delete", kv_delete_versions, NULL, NULL},
	{M(POST) | M(PUT), "secret/undelete/*", PERMIT_TOKEN, POLICY_UPDATE, "undelete", kv_undelete, NULL, NULL},
	{M(POST) | M(PUT), "secret/destroy/*", PERMIT_TOKEN, POLICY_DELETE, "destroy", kv_destroy, NULL, NULL},
	{M(DELETE), "secret/data/*", PERMIT_TOKEN, POLICY_DELETE, "delete", kv_delete, NULL, NULL},
	{M(LIST), "secret/metadata/*", PERMIT_TOKEN, POLICY_LIST, "list", kv_list, NULL, NULL},
	{M(GET), "secret/metadata/*", PERMIT_TOKEN, POLICY_LIST, "metadata", kv_metadata, NULL, NULL},
	{M(POST) | M(PUT) | M(PATCH), "secret/metadata/*", PERMIT_TOKEN, POLICY_PUT, "metadata.set", kv_set_metadata, NULL, NULL},
	{M(DELETE), "secret/metadata/*", PERMIT_TOKEN, POLICY_DELETE, "purge", kv_purge, NULL, NULL},
	{M(GET), "totp/code/*", PERMIT_TOKEN, POLICY_GET | POLICY_SIGN, "totp.code", totp_read_code, NULL, "totp/"},
	{M(POST) | M(PUT), "totp/code/*", PERMIT_TOKEN, POLICY_GET | POLICY_SIGN, "totp.check", totp_check_code, NULL, "totp/"},
	{M(POST) | M(PUT), "totp/keys/*", PERMIT_TOKEN, POLICY_PUT, "totp.put", totp_write_key, NULL, "totp/"},
	{M(GET), "totp/keys/*", PERMIT_TOKEN, POLICY_LIST, "totp.key", totp_read_key, NULL, "totp/"},
	{M(LIST), "totp/keys/*", PERMIT_TOKEN, POLICY_LIST, "list", kv_list, NULL, "totp/"},
	{M(DELETE), "totp/keys/*", PERMIT_TOKEN, POLICY_DELETE, "purge", kv_purge, NULL, "totp/"},
	{M(GET), MOUNT_ENGINE "/*", PERMIT_TOKEN, POLICY_GET, "creds", engine_creds, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/renew", PERMIT_TOKEN, 0, "lease.renew", lease_renewal, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/renew/*", PERMIT_TOKEN, 0, "lease.renew", lease_renewal, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/revoke", PERMIT_TOKEN, 0, "lease.revoke", lease_revocation, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/revoke/*", PERMIT_TOKEN, 0, "lease.revoke", lease_revocation, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/lookup", PERMIT_TOKEN, 0, "lease.lookup", lease_lookup, NULL, NULL},
	{M(LIST), "sys/leases/lookup", PERMIT_OPERATOR_OPEN, 0, "lease.list", lease_list, NULL, NULL},
	{M(LIST), "sys/leases/lookup/*", PERMIT_OPERATOR_OPEN, 0, "lease.list", lease_list, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/revoke-prefix/*", PERMIT_OPERATOR_OPEN, 0, "lease.revoke", lease_revoke_prefix, NULL, NULL},
	{M(POST) | M(PUT), "sys/leases/revoke-force/*", PERMIT_OPERATOR_OPEN, 0, "lease.revoke", lease_revoke_force, NULL, NULL},
	{M(POST) | M(PUT), "cotter/read", PERMIT_TOKEN, 0, "get", cotter_read, NULL, NULL},
	{M(POST) | M(PUT), "cotter/fingerprints", PERMIT_OPERATOR_OPEN, 0, "fingerprint", cotter_fingerprints, NULL, NULL},
	{M(POST) | M(PUT), "cotter/rollback/*", PERMIT_TOKEN, POLICY_UPDATE, "rollback", kv_rollback, NULL, NULL},
	{M(GET), MOUNT_KV1 "/*", PERMIT_TOKEN, POLICY_GET, "get", kv1_read, NULL, NULL},
	{M(POST) | M(PUT), MOUNT_KV1 "/*", PERMIT_TOKEN, POLICY_PUT, "put", kv1_write, NULL, NULL},
	{M(LIST), MOUNT_KV1 "/*", PERMIT_TOKEN, POLICY_LIST, "list", kv_list, NULL, NULL},
	{M(DELETE), MOUNT_KV1 "/*", PERMIT_TOKEN, POLICY_DELETE, "purge", kv_purge, NULL, NULL},
	{M(POST) | M(PUT), "cotter/sealed/*", PERMIT_TOKEN, POLICY_PUT, "put-sealed", kv_put_sealed, NULL, NULL},
	{M(GET), "auth/token/lookup-self", PERMIT_TOKEN, 0, "token.lookup", token_lookup_self, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/lookup", PERMIT_TOKEN, 0, "token.lookup", token_lookup, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/lookup-accessor", PERMIT_TOKEN, 0, "token.lookup", token_lookup_accessor, NULL, NULL},
	{M(LIST), "auth/token/accessors", PERMIT_OPERATOR_OPEN, 0, "token.list", token_accessors, NULL, NULL},
	{M(LIST), "auth/token/roles", PERMIT_OPERATOR_OPEN, 0, "token.roles", token_roles, NULL, NULL},
	{M(GET), "auth/token/roles/*", PERMIT_OPERATOR_OPEN, 0, "token.roles", token_role, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/create", PERMIT_TOKEN, 0, "token.create", token_create, NULL, NULL},
	/* an operator's has no parent anyway */
	{M(POST) | M(PUT), "auth/token/create-orphan", PERMIT_OPERATOR_OPEN, 0, "token.create", token_create, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/create/*", PERMIT_TOKEN, POLICY_UPDATE, "token.create", token_create_role, NULL, "auth/token/create/"},
	{M(POST) | M(PUT), "auth/token/renew-self", PERMIT_TOKEN, 0, "token.renew", token_renew_self, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/renew", PERMIT_TOKEN, 0, "token.renew", token_renew_any, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/renew-accessor", PERMIT_TOKEN, 0, "token.renew", token_renew_accessor, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/revoke-self", PERMIT_TOKEN, 0, "token.revoke", token_revoke_self, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/revoke", PERMIT_TOKEN, 0, "token.revoke", token_revoke_any, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/revoke-accessor", PERMIT_TOKEN, 0, "token.revoke", token_revoke_accessor, NULL, NULL},
	{M(POST) | M(PUT), "auth/token/revoke-orphan", PERMIT_OPERATOR_OPEN, 0, "token.revoke", token_revoke_orphan, NULL, NULL},
	{M(POST) | M(PUT), "auth/approle/login", PERMIT_LOGIN, 0, "login.approle", auth_approle_login, NULL, NULL},
	{M(LIST), "auth/approle/role", PERMIT_OPERATOR_OPEN, 0, "approle.list", approle_list, NULL, NULL},
	{M(GET), "auth/approle/role/*", PERMIT_TOKEN, POLICY_GET, "approle.read", approle_role, NULL, "auth/approle/role/"},
	{M(LIST), "auth/approle/role/*", PERMIT_TOKEN, POLICY_LIST, "approle.list", approle_list, NULL, "auth/approle/role/"},
	{M(POST) | M(PUT), "auth/approle/role/*", PERMIT_TOKEN, POLICY_UPDATE, "approle.write", approle_write, NULL, "auth/approle/role/"},
	{M(POST) | M(PUT), "sys/wrapping/wrap", PERMIT_TOKEN, 0, "wrap", wrapping_wrap, NULL, NULL},
	{M(GET) | M(POST) | M(PUT), "sys/wrapping/lookup", PERMIT_LOGIN, 0, "wrap.lookup", wrapping_lookup, NULL, NULL},
	{M(POST) | M(PUT), "sys/wrapping/rewrap", PERMIT_LOGIN, 0, "rewrap", wrapping_rewrap, NULL, NULL},
	{M(POST) | M(PUT), "auth/jwt/login", PERMIT_LOGIN, 0, "login.jwt", auth_jwt_login, NULL, NULL},
	{M(POST) | M(PUT), "auth/kernel/login", PERMIT_LOGIN, 0, "login.kernel", auth_kernel_login, NULL, NULL},
	{M(POST) | M(PUT), "sys/wrapping/unwrap", PERMIT_LOGIN, 0, "unwrap", wrapping_unwrap, NULL, NULL},
	{M(POST) | M(PUT), "cotter/jobs", PERMIT_OPERATOR_OPEN, 0, "job.create", job_create, NULL, NULL},
	{M(GET) | M(LIST), "cotter/jobs", PERMIT_OPERATOR_OPEN, 0, "job.list", job_list, NULL, NULL},
	{M(GET), "cotter/jobs/self", PERMIT_TOKEN, 0, "job.show", job_self, NULL, NULL},
	{M(GET), "cotter/jobs/*", PERMIT_OPERATOR_OPEN, 0, "job.show", job_show, NULL, NULL},
	{M(POST) | M(PUT), "cotter/jobs/end", PERMIT_TOKEN, 0, "job.finish", job_finish, NULL, NULL},
	{M(POST) | M(PUT), "cotter/revoke", PERMIT_OPERATOR_OPEN, 0, "revoke", cotter_revoke, NULL, NULL},
	{M(POST) | M(PUT), "cotter/why", PERMIT_OPERATOR_OPEN, 0, "token.why", cotter_why, NULL, NULL},
	{M(GET) | M(LIST), "cotter/approvals", PERMIT_OPERATOR_OPEN, 0, "approval.list", approval_list, NULL, NULL},
	{M(POST) | M(PUT), "cotter/approve", PERMIT_OPERATOR_OPEN, 0, "approve", approval_give, NULL, NULL},
	{M(GET), "cotter/export/*", PERMIT_OPERATOR_OPEN, 0, "export", carry_export, NULL, NULL},
	{M(POST) | M(PUT), "cotter/import/*", PERMIT_OPERATOR_OPEN, 0, "import", carry_import, NULL, NULL},
	{M(POST) | M(PUT), "cotter/reseal", PERMIT_OPERATOR_OPEN, 0, "reseal", cotter_reseal, NULL, NULL},
	{M(GET), "cotter/status", PERMIT_OPERATOR, 0, "status", cotter_status, NULL, NULL},
	{M(POST) | M(PUT), "cotter/unlock", PERMIT_OPERATOR, 0, "unlock", cotter_unlock, NULL, NULL},
	{M(LIST), "transit/keys", PERMIT_TOKEN, 0, "key.list", transit_keys, NULL, NULL},
	{M(GET), "transit/keys/*", PERMIT_TOKEN, POLICY_GET | POLICY_SIGN | POLICY_DECRYPT, "key.read", transit_key_read, NULL, NULL},
	{M(POST) | M(PUT), "transit/keys/*", PERMIT_OPERATOR_OPEN, 0, "key.write", transit_key_write, " rotate config ", NULL},
	{M(DELETE), "transit/keys/*", PERMIT_OPERATOR_OPEN, 0, "key.delete", transit_key_delete, NULL, NULL},
	{M(POST) | M(PUT), "transit/sign/*", PERMIT_TOKEN, POLICY_SIGN, "sign", transit_sign, HASH_WORDS, NULL},
	{M(POST) | M(PUT), "transit/verify/*", PERMIT_TOKEN, POLICY_GET | POLICY_SIGN, "verify", transit_verify, HASH_WORDS, NULL},
	{M(POST) | M(PUT), "transit/hmac/*", PERMIT_TOKEN, POLICY_SIGN, "hmac", transit_hmac, HASH_WORDS, NULL},
	{M(POST) | M(PUT), "transit/encrypt/*", PERMIT_TOKEN, POLICY_GET | POLICY_DECRYPT, "encrypt", transit_encrypt, NULL, NULL},
	{M(POST) | M(PUT), "transit/decrypt/*", PERMIT_TOKEN, POLICY_DECRYPT, "decrypt", transit_decrypt, NULL, NULL},
	{M(POST) | M(PUT), "transit/rewrap/*", PERMIT_TOKEN, POLICY_DECRYPT, "rewrap", transit_rewrap, NULL, NULL},
	{M(POST) | M(PUT), "pki/sign/*", PERMIT_TOKEN, POLICY_SIGN, "pki.sign", pki_sign, NULL, "pki/"},
	{M(POST) | M(PUT), "pki/issue/*", PERMIT_TOKEN, POLICY_SIGN, "pki.issue", pki_issue, NULL, "pki/"},
	{M(POST) | M(PUT), "pki/revoke", PERMIT_OPERATOR_OPEN, 0, "pki.revoke", pki_revoke, NULL, NULL},
	{M(GET), "pki/ca", PERMIT_OPEN, 0, "pki.ca", pki_ca, NULL, NULL},
	{M(GET), "pki/ca/pem", PERMIT_OPEN, 0, "pki.ca", pki_ca, NULL, NULL},
	{M(GET), "pki/crl", PERMIT_OPEN, 0, "pki.crl", pki_crl, NULL, NULL},
	{M(GET), "pki/crl/pem", PERMIT_OPEN, 0, "pki.crl", pki_crl, NULL, NULL},
	{M(GET), "pki/cert/*", PERMIT_OPEN, 0, "pki.cert", pki_cert, NULL, NULL},
	{M(POST) | M(PUT), "ssh/sign/*", PERMIT_TOKEN, POLICY_SIGN, "ssh.sign", ssh_sign, NULL, "ssh/"},
	{M(GET), "ssh/public_key", PERMIT_OPEN, 0, "ssh.public_key", ssh_public_key, NULL, NULL},
	{M(GET), "cotter/keys", PERMIT_TOKEN, 0, "key.list", cotter_keys, NULL, NULL},
};

static_assert(sizeof(routes) / sizeof(routes[0]) < METRICS_ROUTES, "METRICS_ROUTES has a place for each");

#define N_ROUTES (sizeof(routes) / sizeof(routes[0]))

/* What is asked for by other doors than HTTP: systemd's. */
static const char *const other_events[] = {"credential"}; /* the only one so far: call_init takes it */

const char *api_event(size_t row)
{
	if (row < N_ROUTES)
		return routes[row].event;
	return row < N_ROUTES + sizeof(other_events) / sizeof(other_events[0]) ? other_events[row - N_ROUTES] : NULL;
}

/* ---- dispatch --------------------------------------------------------------------------------------------------- */

/* A pattern's only '*' is its end. */
static bool pattern_matches(const char *pattern, const char *path, const char **ret_rest)
{
	for (; *pattern != '*' && *pattern && *pattern == *path; pattern++)
		path++;
	*ret_rest = path;
	if (*pattern == '*' || (!*pattern && !*path))
		return true;
	/* "secret/metadata" itself, without a slash, is the root folder */
	return !*path && strcmp(pattern, "/*") == 0;
}

/* What a request is for. */
struct target {
	const struct route *route;
	struct mount_place place;
	const char *rest; /* of its path, behind the route's pattern */
	bool known;	  /* there is such a path, if for other methods */
};

static bool find_route(const struct broker *b, const struct request *q, struct target *ret)
{
	enum request_method method = q->method == METHOD_GET && q->query_list ? METHOD_LIST : q->method;

	ret->known = false;
	if (strncmp(q->path, "/v1/", 4) != 0 || !mount_resolve(&b->config, q->path + 4, &ret->place))
		return false;
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		ret->route = &routes[i];
		if (!pattern_matches(routes[i].pattern, ret->place.path, &ret->rest))
			continue;
		ret->known = true;
		if (routes[i].methods & (1u << method))
			return true;
	}
	return false;
}

/* "release/key/sha2-256" is the key release/key and a word. */
static void take_suffix(struct call *call, const char *words)
{
	char *slash = strrchr(call->path, '/'), word[20];

	if (!words || !slash || strlen(slash + 1) >= sizeof(call->suffix))
		return;
	snprintf(word, sizeof(word), " %s ", slash + 1);
	if (!strstr(words, word))
		return;
	snprintf(call->suffix, sizeof(call->suffix), "%s", slash + 1);
	*slash = '\0';
}

bool api_is_suffix(const char *word)
{
	char spaced[20];

	if (strlen(word) > sizeof(spaced) - 3)
		return false;
	snprintf(spaced, sizeof(spaced), " %s ", word);
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (routes[i].suffixes && strstr(routes[i].suffixes, spaced))
			return true;
	return false;
}

/* A rule for secrets, or a proven name that happens to read like it, gives no tokens, and nothing of sys/. */
static const char *literal_of(const char *prefix)
{
	static const char *const literals[] = {"auth/", "sys/"};

	for (size_t i = 0; prefix && i < sizeof(literals) / sizeof(literals[0]); i++)
		if (strncmp(prefix, literals[i], strlen(literals[i])) == 0)
			return literals[i];
	return NULL;
}

static int set_path(struct call *call, const struct route *route, const char *folder, const char *rest, struct err *err)
{
	size_t n = strlen(rest);
	struct writer w = writer_init(call->path, sizeof(call->path));

	if ((route->op == POLICY_LIST || route->handler == sys_ui_mount || route->handler == lease_list) && n && rest[n - 1] == '/')
		n--;
	writer_str(&w, route->prefix ? route->prefix : "");
	writer_str(&w, folder);
	writer_str(&w, *folder && n ? "/" : "");
	writer_bytes(&w, rest, n);
	writer_u8(&w, '\0');
	if (w.failed) {
		call->path[0] = '\0';
		return err_set(err, ERR_INPUT, "the path is longer than %u bytes", LIMIT_PATH_LEN);
	}
	/* the folder that a prefix is, itself */
	if (route->op == POLICY_LIST && n == 0 && w.len > 1 && call->path[w.len - 2] == '/')
		call->path[w.len - 2] = '\0';
	take_suffix(call, route->suffixes);
	if (strchr(route->pattern, '*') && route->permit != PERMIT_OPEN && !(route->op == POLICY_LIST && !*call->path) && !path_valid(call->path)) {
		call->path[0] = '\0'; /* client bytes never reach the log */
		return err_set(err, ERR_INPUT,
			       "not a secret's path: letters, digits and ._@+- in components joined by single slashes");
	}
	call->facts.path = route->op ? call->path : NULL;
	call->facts.folder = route->handler == kv_list;
	call->facts.literal = literal_of(route->prefix);
	return 0;
}

/* What one route adds. */
static uint32_t capabilities_of(struct call *call, const struct route *route, const char *folder, const char *rest)
{
	static const uint32_t plain[METHOD_N] = {[METHOD_GET] = API_READ, [METHOD_HEAD] = API_READ, [METHOD_POST] = API_UPDATE, [METHOD_PUT] = API_UPDATE,
						 [METHOD_DELETE] = API_DELETE, [METHOD_LIST] = API_LIST, [METHOD_PATCH] = API_PATCH};
	struct call probe = {.facts = call->facts};
	uint32_t out = 0;
	bool may = route->op == 0;

	if (route->permit == PERMIT_OPEN)
		return API_READ;
	if (route->permit != PERMIT_TOKEN || set_path(&probe, route, folder, rest, NULL) < 0)
		return 0;
	for (uint32_t op = 1; op <= POLICY_DECRYPT; op <<= 1) {
		probe.facts.op = op;
		if (!(route->op & op) || !token_may(&call->broker->tokens, call->token, &probe.facts))
			continue;
		if (route->op != POLICY_PUT)
			may = true;
		else if (op == POLICY_CREATE)
			out |= API_CREATE;
		else
			out |= API_UPDATE | (route->methods & M(PATCH) ? API_PATCH : 0u);
	}
	for (enum request_method m = 0; may && m < METHOD_N; m++)
		if (route->methods & (1u << m))
			out |= plain[m];
	return out;
}

uint32_t api_capabilities(struct call *call, const char *path)
{
	struct mount_place place;
	uint32_t out = 0;
	const char *rest;

	if (!mount_resolve(&call->broker->config, path, &place))
		return 0;
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (pattern_matches(routes[i].pattern, place.path, &rest))
			out |= capabilities_of(call, &routes[i], place.folder, rest);
	return out;
}

/* Peer first: what the kernel says of it, before any byte of its token is looked at. */
static int check_caller(const struct call *call, const struct route *route, struct err *err)
{
	const struct peer *p = &call->conn->peer;

	if (p->problem)
		return err_set(err, ERR_DENIED, "%s", p->problem);
	/* a reload may have taken it from one whose connection is still open */
	if (p->operator_socket)
		return broker_is_operator(call->broker, p->uid) ? 0 : err_set(err, ERR_DENIED, "no operator any more");
	if (route->permit == PERMIT_OPERATOR || route->permit == PERMIT_OPERATOR_OPEN)
		return err_set(err, ERR_DENIED, "only on the operators' socket");
	if (p->cgroup == 0 && call->broker->config.require_cgroup)
		return err_set(err, ERR_DENIED, "the caller stands in the root cgroup (jobs.require_cgroup)");
	return 0;
}

/* Where one of several operations will do, policy and caveats have to allow the same one. */
static int check_token(struct call *call, struct err *err)
{
	uint32_t left = call->facts.op;
	int r;

	do {
		call->facts.op = left & (~left + 1u);
		left &= left ? left - 1 : 0;
		r = token_check(&call->broker->tokens, call->token, &call->facts, &call->row, NULL, err);
	} while (r == -ERR_DENIED && left);
	return r;
}

static int authorise(struct call *call, const struct route *route, const struct request *q, struct err *err)
{
	struct broker *b = call->broker;
	struct store_secret secret;
	struct macaroon *m = NULL;
	bool seen;
	int r;

	if (route->permit == PERMIT_OPEN)
		return 0;
	r = check_caller(call, route, err);
	if (r < 0 || route->permit == PERMIT_OPERATOR)
		return r;
	if (!b->unsealed)
		return err_set(err, ERR_SEALED, "Vault is sealed: %.200s", b->sealed_reason);
	if (route->permit == PERMIT_OPERATOR_OPEN || route->permit == PERMIT_LOGIN)
		return 0;
	/* whether it is there decides what a write is */
	if (call->facts.op == POLICY_PUT)
		call->facts.op = store_secret(&b->store, call->path, &secret, NULL) == -ERR_NOT_FOUND ? POLICY_CREATE : POLICY_UPDATE;
	if (call->conn->peer.operator_socket && !q->token)
		return 0;
	if (!q->token)
		return err_set(err, ERR_DENIED, "no token");
	if (!conn_may_wait(call->conn))
		return err_set(err, ERR_BUSY, "too many requests wait, of this job or of all: try again");
	r = token_seen_parse(&b->tokens.seen, q->token, q->token_len, &m, err);
	if (r == -ERR_INPUT)
		return err_set(err, ERR_DENIED, "malformed token");
	if (r < 0)
		return r;
	call->token = m;
	seen = m->verified;
	r = check_token(call, err);
	if (m->verified && !seen)
		token_seen_put(&b->tokens.seen, q->token, q->token_len, m);
	if (call->row && call->row->job)
		job_id_text(call->row->job, call->job_id);
	return r;
}

static void refuse(struct conn *c, int status, const char *message)
{
	CLEANUP(secret_clear) struct secret body = {0};

	if (api_error_body(message, &body) == 0)
		conn_reply(c, status, &body, 0);
	else
		conn_reply(c, 503, NULL, 0);
}

static void refuse_route(struct conn *c, bool known)
{
	c->server->broker->metrics.requests[METRICS_ROUTES][METRICS_INVALID]++;
	if (known)
		refuse(c, 405, "unsupported operation: this path does not take that method in cotter");
	else
		refuse(c, 404, "unsupported path: cotter does not have it (see the README for what it speaks)");
}

static void call_init(struct call *call, struct broker *b, struct conn *c, const char *event)
{
	const uint64_t now_ms = token_boot_ms();

	*call = (struct call){.broker = b, .conn = c, .event = event, .route = N_ROUTES, .began_ns = metrics_now_ns(), .round = c->server->round};
	/* who connected just now was asked about just now */
	if (server_round_is_long(c->server, now_ms) || c->accepted != c->server->round)
		peer_refresh(&c->peer);
	/* most ask once, or more than twice */
	if (c->accepted == 0)
		peer_watch(&c->peer, c->server->peers_fd);
	c->accepted = 0;
	call->facts = (struct token_facts){.uid = c->peer.uid, .gid = c->peer.gid, .cgroup = c->peer.cgroup,
					   .wall_ms = token_wall_ms(), .boot_ms = now_ms};
}

struct call *api_call_new(struct broker *b, struct conn *c, const char *event)
{
	struct call *call = calloc(1, sizeof(*call));

	if (call)
		call_init(call, b, c, event);
	conn_set_call(c, call);
	return call;
}

int api_admit(struct broker *b, struct conn *c, const struct request *q, struct err *err)
{
	struct call call;
	struct target t;
	const struct route *route;
	int r;

	if (!find_route(b, q, &t))
		return err_set(err, t.known ? ERR_UNSUPPORTED : ERR_NOT_FOUND, "unsupported path or method");
	route = t.route;
	if (route->permit == PERMIT_OPEN || (route->permit == PERMIT_LOGIN && q->body_len > LIMIT_LOGIN_BODY))
		return err_set(err, ERR_LIMIT, "this request takes no body of that size");
	call_init(&call, b, c, route->event);
	call.route = (size_t)(route - routes);
	call.facts.op = route->op;
	r = set_path(&call, route, t.place.folder, t.rest, err);
	if (r == 0)
		r = authorise(&call, route, q, err);
	if (r < 0) {
		call_record_refusal(&call, r == -ERR_DENIED, err->msg);
		b->metrics.requests[call.route][call_outcome(r)]++;
	}
	secret_free(call.token);
	return r;
}

/* What is answered while sealed is not, when there is nowhere to keep it; what comes out of a wrapping is not again. */
static bool can_wrap(const struct route *route)
{
	return route->permit != PERMIT_OPEN && route->permit != PERMIT_OPERATOR && route->handler != wrapping_unwrap && route->handler != wrapping_rewrap && route->handler != wrapping_lookup;
}

/* What is not known when the answer is there; and whether it will have a place, while nothing is done yet. */
static int prepare_wrap(struct call *call, const struct request *q, struct err *err)
{
	call->asked = strdup(q->path + strlen("/v1/"));
	if (!call->asked)
		return err_set(err, ERR_FAILED, "out of memory");
	call->wrap_ttl_s = q->wrap_ttl_s;
	return api_wrap_room(call, err);
}

void api_dispatch(struct broker *b, struct conn *c, const struct request *q)
{
	const struct route *route;
	struct target t;
	struct call *call;
	struct err err = {0};
	int r;

	b->n_requests++;
	if (b->config.require_request_header && !q->vault_request) {
		b->metrics.requests[METRICS_ROUTES][METRICS_INVALID]++;
		refuse(c, 412, "missing \"X-Vault-Request\" header: send X-Vault-Request: true");
		return;
	}
	if (!find_route(b, q, &t)) {
		refuse_route(c, t.known);
		return;
	}
	route = t.route;
	call = api_call_new(b, c, route->event);
	if (!call) {
		conn_reply(c, 503, NULL, 0);
		return;
	}
	call->route = (size_t)(route - routes);
	call->facts.op = route->op;
	call->version = q->query_version;
	log_debug("%s asked by uid %u, pid %d", route->event, c->peer.uid, (int)c->peer.pid);
	r = set_path(call, route, t.place.folder, t.rest, &err);
	if (r == 0)
		r = authorise(call, route, q, &err);
	if (r == 0 && q->wrap_ttl_s && can_wrap(route))
		r = prepare_wrap(call, q, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		route->handler(call, q);
}
