/* GET of cotter/jobs: what jobs there are and what each of them holds, for operators. */
#include "broker/api.h"

#include "broker/policy.h"
#include "broker/received.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

/* All but the brace that ends it. */
static int append_open(struct secret *s, const struct job *job)
{
	char id[2 * JOB_ID_LEN + 1], created[40];
	uint64_t now_ms = token_boot_ms(), wall_ms = token_wall_ms();
	int r;

	job_id_text(job, id);
	api_time(job->created_ms, created);
	r = api_append(s,
		       "{\"job\":\"%s\",\"name\":\"%s\",\"uid\":%u,\"cgroup\":%llu,\"leader\":%d,\"created\":\"%s\",\"age\":%llu,\"ttl\":%llu,"
		       "\"tokens\":%zu,\"cgroup_path\":",
		       id, job->name, job->uid, (unsigned long long)job->cgroup, (int)job->leader, created,
		       (unsigned long long)(wall_ms > job->created_ms ? (wall_ms - job->created_ms) / 1000 : 0),
		       (unsigned long long)(job->deadline_ms > now_ms ? (job->deadline_ms - now_ms + 999) / 1000 : 0), job->n_tokens);
	return r < 0 ? r : api_append_string(s, job->cgroup_path);
}

int api_append_job(struct secret *s, const struct job *job)
{
	int r = append_open(s, job);

	return r < 0 ? r : api_append(s, "}");
}

/* ---- what it was given ------------------------------------------------------------------------------------------ */

struct listing {
	struct secret text;
	size_t n;    /* of this job */
	size_t room; /* bytes */
};

static int add_received(void *ctx, const char *path, uint64_t version)
{
	struct listing *l = ctx;
	size_t before = l->text.len;
	int r;

	if (strlen(path) + 64 > l->room)
		return 1;
	r = api_append(&l->text, "%s{\"path\":\"%s\",\"version\":%llu}", l->n++ ? "," : "", path, (unsigned long long)version);
	l->room -= l->text.len - before;
	return r;
}

static int append_held(struct listing *l, const struct job *job)
{
	int r = api_append(&l->text, ",\"leases\":%zu,\"n_received\":%zu,\"received_more\":%llu,\"received\":[", job->n_leases, job->n_received,
			   (unsigned long long)job->n_received_more);

	l->n = 0;
	if (r == 0)
		r = received_list(job, add_received, l);
	return r < 0 ? r : api_append(&l->text, "]");
}

/* As many as there are now. */
static void count_leases(struct broker *b)
{
	const struct token_row *row;

	for (struct job *job = b->jobs.list; job; job = job->next)
		job->n_leases = 0;
	for (const struct lease *l = b->leases.list; l; l = l->next) {
		row = l->state == LEASE_LIVE ? token_find(&b->tokens, l->token) : NULL;
		if (row && row->job)
			row->job->n_leases++;
	}
}

#define LIST_AT_ONCE 1000u

void job_list(struct call *call, const struct request *q)
{
	struct jobs *jobs = &call->broker->jobs;
	struct listing l = {.room = LIMIT_RECEIVED_LISTED};
	CLEANUP(secret_clear) struct secret body = {0};
	size_t n = 0;
	int r = secret_new(&l.text, 1024, NULL);

	(void)q;
	count_leases(call->broker);
	if (r == 0)
		r = api_append(&l.text, "{\"n\":%zu,\"jobs\":[", jobs->n);
	for (struct job *job = jobs->list; r == 0 && job && n < LIST_AT_ONCE; job = job->next, n++) {
		r = n ? api_append(&l.text, ",") : 0;
		if (r == 0)
			r = append_open(&l.text, job);
		if (r == 0)
			r = append_held(&l, job);
		if (r == 0)
			r = api_append(&l.text, "}");
	}
	if (r == 0)
		r = api_append(&l.text, "]}");
	if (r == 0)
		r = api_envelope((char *)l.text.data, l.text.len, NULL, 0, &body);
	secret_clear(&l.text);
	/* without a record: cotter top asks every second */
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}

/* ---- one job ---------------------------------------------------------------------------------------------------- */

struct usable {
	const struct config *config;
	const struct job *job;
	struct listing *listing;
	char last[LIMIT_PATH_LEN + 1]; /* a key has a row for each version */
};

/* What the policies say: a token's caveats may still stand against it. */
static bool may_use(const struct usable *u, const char *path)
{
	for (const struct token_row *row = u->job->tokens; row; row = row->job_next) {
		struct policy_question q = {.path = path, .op = POLICY_SIGN, .meta = row->meta};
		bool may = policy_decide(u->config, row->policies, &q).verdict == POLICY_ALLOWS;

		q.op = POLICY_DECRYPT;
		if (may || policy_decide(u->config, row->policies, &q).verdict == POLICY_ALLOWS)
			return true;
	}
	return false;
}

static int add_key(void *ctx, const struct store_key *k)
{
	struct usable *u = ctx;

	if (strcmp(u->last, k->path) == 0)
		return 0;
	snprintf(u->last, sizeof(u->last), "%s", k->path);
	return may_use(u, k->path) ? api_append(&u->listing->text, "%s\"%s\"", u->listing->n++ ? "," : "", k->path) : 0;
}

/* The same with all that it was given, and the keys that its policies let it use. */
static void show(struct call *call, const struct job *job)
{
	struct broker *b = call->broker;
	struct listing l = {.room = SIZE_MAX};
	struct usable u = {.config = &b->config, .job = job, .listing = &l};
	int r;

	count_leases(b);
	r = secret_new(&l.text, 1024, NULL);
	if (r == 0)
		r = append_open(&l.text, job);
	if (r == 0)
		r = append_held(&l, job);
	l.n = 0;
	if (r == 0)
		r = api_append(&l.text, ",\"keys\":[");
	if (r == 0)
		r = store_keys(&b->store, "", add_key, &u, NULL);
	if (r == 0)
		r = api_append(&l.text, "]}");
	call_reply_data(call, &l.text, r);
	secret_clear(&l.text);
}

void job_show(struct call *call, const struct request *q)
{
	const struct job *job = job_find(&call->broker->jobs, call->path);

	(void)q;
	if (job)
		show(call, job);
	else
		call_fail(call, -ERR_NOT_FOUND, "there is no job of that id, or it ended");
}

void job_self(struct call *call, const struct request *q)
{
	(void)q;
	if (call->row && call->row->job)
		show(call, call->row->job);
	else
		call_fail(call, -ERR_NOT_FOUND, "this token belongs to no job");
}
