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
		       id, job->name, job->uid, a->key, states[answer.state], asked, a->n_waiting, answer.n);
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

struct listing {
	struct secret text;
	size_t n, more;
	struct {
		uint32_t uid;
		size_t n;
	} users[LIMIT_APPROVALS_LISTED];
};

/* Whether one more of that user's jobs is shown: nobody hides what others wait for. */
static bool has_room(struct listing *l, uint32_t uid)
{
	size_t i = 0;

	while (i < LIMIT_APPROVALS_LISTED && l->users[i].n && l->users[i].uid != uid)
		i++;
	if (l->n == LIMIT_APPROVALS_LISTED || i == LIMIT_APPROVALS_LISTED || l->users[i].n == LIMIT_APPROVALS_LISTED_PER_UID) {
		l->more++;
		return false;
	}
	l->users[i].uid = uid;
	l->users[i].n++;
	return true;
}

/* What waits comes first. */
static int append_jobs(struct listing *l, struct broker *b, bool waiting)
{
	int r = 0;

	for (const struct job *job = b->jobs.list; r == 0 && job; job = job->next) {
		for (const struct approval *a = job->approvals; r == 0 && a; a = a->next) {
			if ((a->n_waiting > 0) != waiting || !has_room(l, job->uid))
				continue;
			r = l->n++ ? api_append(&l->text, ",") : 0;
			if (r == 0)
				r = append_approval(&l->text, b, job, a);
		}
	}
	return r;
}

void approval_list(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct listing l = {0};
	int r = secret_new(&l.text, 1024, NULL);

	(void)q;
	key_rules_count_waiting(call->broker);
	if (r == 0)
		r = api_append(&l.text, "{\"approvals\":[");
	if (r == 0)
		r = append_jobs(&l, call->broker, true);
	if (r == 0)
		r = append_jobs(&l, call->broker, false);
	if (r == 0)
		r = api_append(&l.text, "],\"more\":%zu}", l.more);
	if (r == 0)
		r = api_envelope((char *)l.text.data, l.text.len, NULL, 0, &body);
	secret_clear(&l.text);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}

static int check(struct call *call, const char *key, const struct job *job, struct err *err)
{
	uint32_t uid = call->conn->peer.uid;

	if (!key || !path_valid(key) || !key_rule_wants_approval(&call->broker->config, key))
		return err_set(err, ERR_INPUT, "no rule of the configuration's keys wants approvals for that key");
	if (!approval_may(&call->broker->config, key, uid))
		return err_set(err, ERR_APPROVAL, "you (uid %u) are none of that key's approvers ('cotter job end' ends a job)", uid);
	if (job->uid == uid)
		return err_set(err, ERR_APPROVAL, "the job runs as you (uid %u): another operator has to speak of it", uid);
	if (approvals_saw_job(call->broker, uid))
		return err_set(err, ERR_APPROVAL, "a job ran as you (uid %u) since cotterd started, and could speak in your name: an operator without jobs has to", uid);
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
		r = job ? check(call, key, job, &err) : err_set(&err, ERR_NOT_FOUND, "there is no job of that id, or it ended");
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
	key_rules_count_waiting(b);
	r = secret_new(&data, 1024, NULL);
	if (r == 0)
		r = append_approval(&data, b, job, approval_find(job, call->path));
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &reply);
	key_rules_decide(b);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &reply, seq);
}
