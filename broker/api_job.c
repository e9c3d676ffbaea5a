/* cotter/jobs, cotter/revoke, cotter/why: jobs and their tokens, for operators; and a job's own end. */
#include "broker/api.h"

#include "broker/config.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool number(const json_t *j, uint64_t max, uint64_t *ret)
{
	if (!json_is_integer(j) || json_integer_value(j) < 0 || (uint64_t)json_integer_value(j) > max)
		return false;
	*ret = (uint64_t)json_integer_value(j);
	return true;
}

static int parse_job(struct call *call, const json_t *body, struct job_request *q, struct err *err)
{
	const json_t *leader = json_object_get(body, "leader"), *id = json_object_get(body, "leader_id"), *name = json_object_get(body, "name");
	uint64_t pid = 0;

	if (leader && (!number(leader, INT32_MAX, &pid) || pid == 0))
		return err_set(err, ERR_INPUT, "leader is not a process id");
	if (id && !number(id, INT64_MAX, &q->leader_id))
		return err_set(err, ERR_INPUT, "leader_id is not the inode of a pidfd");
	q->leader = (pid_t)pid;
	q->cgroup = pid ? 0 : call->facts.cgroup;
	q->cgroup_hint = json_string_value(json_object_get(body, "cgroup"));
	q->caller = call->conn->peer.pid;
	q->name = name ? json_string_value(name) : "";
	if (!q->name || strlen(q->name) > LIMIT_NAME_LEN || (*q->name && !path_valid(q->name)))
		return err_set(err, ERR_INPUT, "name: letters, digits and ._@+-, at most %u", LIMIT_NAME_LEN);
	if (call->broker->config.require_isolation && !json_is_true(json_object_get(body, "isolated")))
		return err_set(err, ERR_INPUT, "this broker takes only jobs that 'cotter run' isolates (jobs.require_isolation)");
	return 0;
}

int api_job_check(struct call *call, const json_t *body, struct err *err)
{
	struct job_request q = {0};

	return parse_job(call, body, &q, err);
}

int api_job(struct call *call, const json_t *body, uint32_t uid, uint64_t leader_cgroup, uint64_t ttl_ms, struct job **ret, struct err *err)
{
	bool operator_asks = call->conn->peer.operator_socket;
	/* whoever is no operator makes jobs of its own uid alone */
	struct job_request q = {.uid = uid, .leader_uid = operator_asks ? TOKEN_ANY_UID : call->facts.uid,
				.leader_cgroup = leader_cgroup, .ttl_ms = ttl_ms, .by_operator = operator_asks};
	int r = parse_job(call, body, &q, err);

	*ret = NULL;
	if (r == 0 && !q.leader && !q.cgroup && !operator_asks)
		return 0; /* the root cgroup, where that is allowed: bound to its uid alone */
	return r < 0 ? r : job_start(&call->broker->jobs, &q, ret, err);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

static int parse_create(struct call *call, const json_t *body, struct token_request *q, char *policies, struct err *err)
{
	const json_t *uid = json_object_get(body, "uid"), *uses = json_object_get(body, "num_uses");
	uint64_t n = TOKEN_ANY_UID;
	int r = api_policies(call, json_object_get(body, "policies"), policies, err);

	if (r == 0 && json_array_size(json_object_get(body, "policies")) == 0)
		r = err_set(err, ERR_INPUT, "name the job's policies: {\"policies\": [\"...\"]}");
	if (r == 0)
		r = api_ttl(json_object_get(body, "ttl"), LIMIT_TOKEN_TTL_DEFAULT_S, &q->ttl_ms, err);
	if (r == 0 && uid && !number(uid, UINT32_MAX - 1, &n))
		r = err_set(err, ERR_INPUT, "uid is not a uid");
	q->uid = (uint32_t)n;
	if (r == 0 && uses && (!number(uses, 1000000000, &n) || n == 0))
		r = err_set(err, ERR_INPUT, "num_uses is not a number of uses");
	q->uses = r == 0 && uses ? (int64_t)n : -1;
	return r;
}

void job_create(struct call *call, const struct request *http)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	char policies[LIMIT_TOKEN_POLICY_TEXT];
	struct token_request q = {.policies = policies, .meta = "", .path = "cotter/jobs", .display = "job", .by_operator = true};
	struct err err = {0};
	int r = api_body(http, &body, &err);

	if (r == 0)
		r = parse_create(call, body, &q, policies, &err);
	if (r == 0 && !json_object_get(body, "leader"))
		r = err_set(&err, ERR_INPUT, "name the job's leader: {\"leader\": PID}");
	if (r == 0)
		r = store_begin(&b->store, &err); /* job and token are one write */
	if (r == 0 && (r = api_job(call, body, q.uid, 0, q.ttl_ms, &q.job, &err)) < 0)
		store_end(&b->store, false, NULL);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	q.uid = q.job->uid;
	q.cgroup = q.job->cgroup;
	api_give(call, &q, q.job, api_append_job);
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

/* {"job": id} for operators; a job's own token ends its own, named or not. */
void job_finish(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct job *job = NULL;
	struct err err = {0};
	const char *id = NULL;
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	if (r == 0) {
		id = json_string_value(json_object_get(body, "job"));
		job = id ? job_find(&b->jobs, id) : call->row ? call->row->job : NULL;
		if (!job)
			r = err_set(&err, ERR_INPUT, "there is no job of that id, or it ended");
		else if (call->row && call->row->job != job)
			r = err_set(&err, ERR_DENIED, "the token is of another job");
		else if (call->row && call->token->n_caveats)
			r = err_set(&err, ERR_DENIED, "a narrowed token ends nothing");
	}
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	job_id_text(job, call->job_id);
	call->takes = true;
	if (call_grant(call, &seq) < 0)
		return;
	call->row = NULL;
	r = job_end(&b->jobs, job, "it was ended", &err);
	call_end(call, r, err.msg, seq);
}

struct victims {
	struct tokens *tokens;
	const uint8_t *root;
	const char *role;
};

static bool is_root(void *ctx, const struct token_row *row)
{
	const struct victims *v = ctx;

	/* a wrapping token has no row any more once it was unwrapped, and is the parent of what came out */
	return memcmp(row->id, v->root, sizeof(row->id)) == 0 || memcmp(row->parent, v->root, sizeof(row->parent)) == 0;
}

static bool is_of_role(void *ctx, const struct token_row *row)
{
	const struct victims *v = ctx;
	size_t n;
	const char *role = policy_variable(row->meta, "role", 4, &n);

	return role && n == strlen(v->role) && memcmp(role, v->role, n) == 0;
}

/* The first of its lineage that still lives. */
static const struct token_row *first_of(struct tokens *t, const struct token_row *row)
{
	const struct token_row *parent = row;

	for (size_t n = 0; parent && n < LIMIT_TOKENS; n++) {
		row = parent;
		parent = sodium_is_zero(row->parent, sizeof(row->parent)) ? NULL : token_find(t, row->parent);
	}
	return row;
}

static int revoke_token(struct broker *b, const char *accessor, bool lineage, size_t *ret_n, struct err *err)
{
	uint8_t id[16];
	size_t len;
	struct victims v = {.tokens = &b->tokens, .root = id};
	const struct token_row *row = NULL;
	int r;

	if (sodium_hex2bin(id, sizeof(id), accessor, strlen(accessor), NULL, &len, NULL) != 0 || len != sizeof(id) || sodium_is_zero(id, sizeof(id)))
		return err_set(err, ERR_NOT_FOUND, "no token has that accessor: it is 32 hex digits");
	row = token_find(&b->tokens, id);
	if (row && lineage)
		row = first_of(&b->tokens, row);
	if (row)
		memcpy(id, row->id, sizeof(id));
	r = tokens_revoke(&b->tokens, is_root, &v, ret_n, err);
	return r == 0 && *ret_n == 0 ? err_set(err, ERR_NOT_FOUND, "there is no token of that accessor, or it ended") : r;
}

static bool is_any(const struct job *job, int watch)
{
	(void)job;
	(void)watch;
	return true;
}

static int revoke_all(struct broker *b, size_t *ret_n, struct err *err)
{
	bool behind = b->store.behind;
	int r;

	*ret_n = b->tokens.n;
	r = tokens_revoke_all(&b->tokens, err);
	jobs_end(&b->jobs, is_any, 0, true, "everything was revoked");
	return r < 0 || (b->store.behind && !behind) ? -ERR_FAILED : 0;
}

/* Nobody can do anything by it any more. */
static bool is_bereft(const struct job *job, int watch)
{
	(void)watch;
	return job->bereft && job->n_tokens == 0;
}

/* For the record. */
static void describe(const json_t *body, size_t n, char ret[CALL_DETAIL_LEN])
{
	static const char *const keys[] = {"accessor", "job", "role"};
	const char *key = "all", *name = "";

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *value = json_string_value(json_object_get(body, keys[i]));

		if (!value)
			continue;
		key = keys[i];
		name = strlen(value) <= LIMIT_NAME_LEN && path_valid(value) ? value : "of no valid name";
	}
	snprintf(ret, CALL_DETAIL_LEN, "%s %s%s%s%zu tokens", key, name, *name ? " " : "",
		 json_is_true(json_object_get(body, "lineage")) ? "lineage " : "", n);
}

static int revoke_what(struct broker *b, const json_t *body, size_t *ret_n, struct err *err)
{
	const char *accessor = json_string_value(json_object_get(body, "accessor")), *role = json_string_value(json_object_get(body, "role"));
	const char *id = json_string_value(json_object_get(body, "job"));
	bool all = json_is_true(json_object_get(body, "all"));
	struct victims v = {.tokens = &b->tokens, .role = role};
	struct job *job;

	if ((accessor != NULL) + (role != NULL) + (id != NULL) + all != 1)
		return err_set(err, ERR_INPUT, "say one of: accessor (and lineage: true), job, role, all: true");
	if (all)
		return revoke_all(b, ret_n, err);
	if (accessor)
		return revoke_token(b, accessor, json_is_true(json_object_get(body, "lineage")), ret_n, err);
	if (role)
		return tokens_revoke(&b->tokens, is_of_role, &v, ret_n, err);
	job = job_find(&b->jobs, id);
	if (!job)
		return err_set(err, ERR_NOT_FOUND, "there is no job of that id, or it ended");
	*ret_n = job->n_tokens;
	return job_end(&b->jobs, job, "it was revoked", err);
}

void cotter_revoke(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret data = {0}, reply = {0};
	struct err err = {0};
	uint64_t seq = 0;
	size_t n = 0;
	int r = api_body(q, &body, &err);

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->takes = true;
	if (call_check(call) < 0)
		return;
	for (struct job *job = call->broker->jobs.list; job; job = job->next)
		job->bereft = false;
	r = revoke_what(call->broker, body, &n, &err);
	jobs_end(&call->broker->jobs, is_bereft, 0, true, "its tokens were revoked");
	describe(body, n, call->detail);
	if (r == -ERR_NOT_FOUND || r == -ERR_INPUT) {
		call_fail(call, r, err.msg);
		return;
	}
	/* whatever the store says: here they are gone */
	if (call_grant(call, &seq) < 0)
		return;
	if (r < 0) {
		api_error_body("revoked; but the store cannot be written, and a restart before it can would bring them back", &reply);
		call_reply(call, 500, &reply, seq);
		return;
	}
	r = secret_new(&data, 64, NULL);
	if (r == 0)
		r = api_append(&data, "{\"revoked\":%zu,\"epoch\":%u}", n, call->broker->tokens.epoch);
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &reply);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &reply, seq);
}

/* ---- why -------------------------------------------------------------------------------------------------------- */

/* Who asks, in the question: a living process, or numbers; what is not said is as the row wants it. */
static int parse_who(const json_t *body, const struct token_row *row, struct token_facts *f, struct err *err)
{
	const json_t *pid = json_object_get(body, "pid"), *uid = json_object_get(body, "uid"), *gid = json_object_get(body, "gid");
	const json_t *cgroup = json_object_get(body, "cgroup");
	CLEANUP(cleanup_close) int fd = -1;
	struct process p;
	uint64_t n = 0;

	f->uid = !row || row->uid == TOKEN_ANY_UID ? 0 : row->uid;
	f->cgroup = row ? row->cgroup : 0;
	if (pid) {
		fd = number(pid, INT32_MAX, &n) && n ? (int)syscall(SYS_pidfd_open, (pid_t)n, 0) : -1;
		if (fd < 0 || process_read(fd, &p, err) < 0)
			return err_set(err, ERR_INPUT, "pid: no such process, or the kernel does not tell who it is");
		f->uid = p.uid;
		f->gid = p.gid;
		f->cgroup = p.cgroup;
	}
	if (uid && number(uid, UINT32_MAX - 1, &n))
		f->uid = (uint32_t)n;
	if (gid && number(gid, UINT32_MAX - 1, &n))
		f->gid = (uint32_t)n;
	if (cgroup && number(cgroup, INT64_MAX, &n))
		f->cgroup = n;
	return 0;
}

static int parse_why(struct call *call, const json_t *body, struct macaroon **ret_m, struct token_facts *f, struct err *err)
{
	const json_t *token = json_object_get(body, "token");
	const char *path = json_string_value(json_object_get(body, "path")), *op = json_string_value(json_object_get(body, "op"));
	struct store_secret secret;
	int r;

	if (!json_is_string(token) || !path || !path_valid(path))
		return err_set(err, ERR_INPUT, "say token and path");
	*f = (struct token_facts){.path = path, .wall_ms = token_wall_ms(), .boot_ms = token_boot_ms()};
	f->folder = op && strcmp(op, "list") == 0;
	f->op = policy_op(op ? op : "get", strlen(op ? op : "get"));
	if (f->op == POLICY_PUT)
		f->op = store_secret(&call->broker->store, path, &secret, NULL) == -ERR_NOT_FOUND ? POLICY_CREATE : POLICY_UPDATE;
	if (!f->op || f->op == POLICY_DENY)
		return err_set(err, ERR_INPUT, "op is one of get, create, update, delete, list, sign, decrypt");
	r = macaroon_parse(json_string_value(token), json_string_length(token), ret_m, err);
	return r < 0 ? r : parse_who(body, token_find(&call->broker->tokens, (*ret_m)->id + 5), f, err);
}

static int append_verdict(struct secret *s, const struct token_verdict *v, const struct macaroon *m, const struct token_facts *f, int result,
			  const char *why)
{
	char caveat[LIMIT_CAVEAT_LEN + 1] = "";
	int r;

	if (v->caveat) {
		memcpy(caveat, m->caveats[v->caveat - 1].p, m->caveats[v->caveat - 1].len);
		caveat[m->caveats[v->caveat - 1].len] = '\0';
	}
	r = api_append(s, "{\"allowed\":%s,\"step\":\"%s\",\"op\":\"%s\",\"uid\":%u,\"cgroup\":%llu,\"caveat_number\":%zu,\"policy\":\"%s\",\"line\":%zu,"
			  "\"caveat\":",
		       result == 0 ? "true" : "false", v->step, policy_op_name(f->op), f->uid, (unsigned long long)f->cgroup, v->caveat,
		       v->policy ? v->policy : "", v->rule ? v->rule->line : 0);
	if (r == 0)
		r = api_append_string(s, caveat);
	if (r == 0)
		r = api_append(s, ",\"rule\":");
	if (r == 0)
		r = api_append_string(s, v->rule ? v->rule->pattern : "");
	if (r == 0)
		r = api_append(s, ",\"reason\":");
	if (r == 0)
		r = api_append_string(s, result == 0 ? "" : why);
	if (r == 0)
		r = api_append(s, ",\"policies\":");
	if (r == 0)
		r = api_append_string(s, v->row ? v->row->policies : "");
	return r < 0 ? r : api_append(s, "}");
}

void cotter_why(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	CLEANUP(secret_clear) struct secret data = {0}, reply = {0};
	struct token_verdict v;
	struct token_facts facts;
	struct token_row *row = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_body(q, &body, &err), result;

	if (r == 0)
		r = parse_why(call, body, &m, &facts, &err);
	if (r < 0) {
		call_fail(call, r == -ERR_DENIED ? -ERR_INPUT : r, err.msg);
		return;
	}
	result = token_check(&call->broker->tokens, m, &facts, &row, &v, &err);
	if (call_grant(call, &seq) < 0)
		return;
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = append_verdict(&data, &v, m, &facts, result, err.msg);
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &reply);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &reply, seq);
}
