/* cotter/approvals and cotter/approve, on the operators' socket: which jobs wait for the use of which keys, and an operator's word on it. */
#include "broker/api.h"
#include "broker/approval.h"
#include "broker/key_rule.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

static int append_votes(struct secret *s, const struct approval *a, bool refused)
{
	int r = 0;

	for (size_t i = 0, n = 0; r == 0 && i < a->n_votes; i++)
		if (a->votes[i].refused == refused)
			r = api_append(s, "%s%u", n++ ? "," : "", a->votes[i].uid);
	return r;
}

static int append_approvers(struct secret *s, const struct config *config, const struct config_key_rule *rule)
{
	size_t n = rule->n_approvers ? rule->n_approvers : config->n_operators;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = api_append(s, "%s%u", i ? "," : "", rule->n_approvers ? rule->approvers[i] : (uint32_t)config->operators[i]);
	return r;
}

static int append_approval(struct secret *s, struct broker *b, const struct job *job, const struct approval *a)
{
	static const char *const states[] = {"approved", "waiting", "refused"};
	struct approval_answer answer = approval_weigh(&b->config, job, a, a->key);
	char id[2 * JOB_ID_LEN + 1], asked[40];
	int r;

	job_id_text(job, id);
	api_time(a->asked_ms, asked);
	r = api_append(s, "{\"job\":\"%s\",\"name\":\"%s\",\"uid\":%u,\"key\":\"%s\",\"state\":\"%s\",\"asked\":\"%s\",\"waiting\":%u,\"lacks\":%u,\"what\":",
		       id, job->name, job->uid, a->key, states[answer.state], asked, key_rule_waiting(b, job, a->key), answer.n);
	if (r == 0)
		r = api_append_string(s, a->what);
	if (r == 0)
		r = api_append(s, ",\"cgroup_path\":");
	if (r == 0)
		r = api_append_string(s, job->cgroup_path);
	if (r == 0)
		r = api_append(s, ",\"approved\":[");
	if (r == 0)
		r = append_votes(s, a, false);
	if (r == 0)
		r = api_append(s, "],\"refused\":[");
	if (r == 0)
		r = append_votes(s, a, true);
	if (r == 0)
		r = api_append(s, "],\"by\":[");
	if (r == 0 && answer.rule)
		r = append_approvers(s, &b->config, answer.rule);
	return r < 0 ? r : api_append(s, "]}");
}

#define LIST_AT_ONCE 500u

void approval_list(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	struct broker *b = call->broker;
	size_t n = 0;
	int r = secret_new(&data, 1024, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&data, "{\"approvals\":[");
	for (const struct job *job = b->jobs.list; r == 0 && job; job = job->next) {
		for (const struct approval *a = job->approvals; r == 0 && a && n < LIST_AT_ONCE; a = a->next) {
			r = n++ ? api_append(&data, ",") : 0;
			if (r == 0)
				r = append_approval(&data, b, job, a);
		}
	}
	if (r == 0)
		r = api_append(&data, "]}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}

/* A job that runs as an operator must not speak as one. */
static bool stands_in_a_job(const struct broker *b, const struct peer *p)
{
	for (const struct job *job = b->jobs.list; job && p->cgroup; job = job->next)
		if (job->cgroup == p->cgroup)
			return true;
	return false;
}

static int check(struct call *call, const char *key, const struct job *job, bool refuse, struct err *err)
{
	const struct peer *p = &call->conn->peer;

	if (!key || !path_valid(key) || !key_rule_wants_approval(&call->broker->config, key))
		return err_set(err, ERR_INPUT, "no rule of the configuration's keys wants approvals for that key");
	if (refuse)
		return 0;
	if (!approval_may(&call->broker->config, key, p->uid))
		return err_set(err, ERR_APPROVAL, "you (uid %u) are none of that key's approvers", p->uid);
	if (job->uid == p->uid)
		return err_set(err, ERR_APPROVAL, "the job runs as you (uid %u): another operator has to approve it", p->uid);
	if (stands_in_a_job(call->broker, p))
		return err_set(err, ERR_APPROVAL, "a process of a job approves nothing");
	return 0;
}

/* {"job": id, "key": name, "refuse": false} */
void approval_give(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret data = {0}, reply = {0};
	bool refuse = false;
	const char *key = NULL, *id = NULL;
	struct job *job = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	if (r == 0) {
		key = json_string_value(json_object_get(body, "key"));
		id = json_string_value(json_object_get(body, "job"));
		refuse = json_is_true(json_object_get(body, "refuse"));
		job = id ? job_find(&b->jobs, id) : NULL;
		r = job ? check(call, key, job, refuse, &err) : err_set(&err, ERR_NOT_FOUND, "there is no job of that id, or it ended");
	}
	if (r < 0 || !job) {
		call_fail(call, r, err.msg);
		return;
	}
	snprintf(call->path, sizeof(call->path), "%s", key);
	job_id_text(job, call->job_id);
	snprintf(call->detail, sizeof(call->detail), "%s of the job", refuse ? "refusal" : "approval");
	call->takes = refuse;
	if (call_grant(call, &seq) < 0)
		return;
	r = approval_vote(&b->jobs, job, call->path, call->conn->peer.uid, refuse, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = append_approval(&data, b, job, approval_find(job, call->path));
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &reply);
	key_rule_decide(b, job, call->path);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &reply, seq);
}
