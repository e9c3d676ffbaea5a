#include "broker/approval.h"

#include "broker/broker.h"
#include "broker/key_rule.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct approval *approval_find(const struct job *job, const char *key)
{
	struct approval *a = job->approvals;

	while (a && strcmp(a->key, key) != 0)
		a = a->next;
	return a;
}

int approval_get(struct job *job, const char *key, struct approval **ret, struct err *err)
{
	struct approval *a = approval_find(job, key);
	size_t n = 0;

	for (const struct approval *other = job->approvals; other; other = other->next)
		n++;
	if (!a && n >= LIMIT_JOB_APPROVALS)
		return err_set(err, ERR_LIMIT, "this job asked for approvals of %u keys already", LIMIT_JOB_APPROVALS);
	if (!a) {
		a = calloc(1, sizeof(*a));
		if (a)
			a->key = strdup(key);
		if (!a || !a->key) {
			free(a);
			return err_set(err, ERR_FAILED, "out of memory");
		}
		a->next = job->approvals;
		job->approvals = a;
	}
	*ret = a;
	return 0;
}

static bool is_approver(const struct config *config, const struct config_key_rule *rule, uint32_t uid)
{
	return rule->n_approvers ? config_has_id(rule->approvers, rule->n_approvers, uid) : config_has_id(config->operators, config->n_operators, uid);
}

bool approval_may(const struct config *config, const char *key, uint32_t uid)
{
	for (size_t i = 0; i < config->n_key_rules; i++)
		if (config->key_rules[i].approvals && key_rule_applies(config, &config->key_rules[i], key) && is_approver(config, &config->key_rules[i], uid))
			return true;
	return false;
}

static uint32_t count(const struct config *config, const struct config_key_rule *rule, const struct job *job, const struct approval *a)
{
	uint32_t n = 0;

	for (size_t i = 0; a && i < a->n_votes; i++)
		n += !a->votes[i].refused && a->votes[i].uid != job->uid && is_approver(config, rule, a->votes[i].uid);
	return n;
}

struct approval_answer approval_weigh(const struct config *config, const struct job *job, const struct approval *a, const char *key)
{
	uint32_t n;

	/* of those who may speak of it now */
	for (size_t i = 0; a && i < a->n_votes; i++)
		if (a->votes[i].refused && approval_may(config, key, a->votes[i].uid))
			return (struct approval_answer){.state = APPROVAL_REFUSED};
	for (size_t i = 0; i < config->n_key_rules; i++) {
		const struct config_key_rule *rule = &config->key_rules[i];

		if (!rule->approvals || !key_rule_applies(config, rule, key))
			continue;
		n = count(config, rule, job, a);
		if (n < rule->approvals)
			return (struct approval_answer){.state = APPROVAL_LACKS, .rule = rule, .n = rule->approvals - n};
	}
	return (struct approval_answer){.state = APPROVAL_GIVEN};
}

static int put_vote(struct approval *a, const struct approval_vote *vote, struct err *err)
{
	size_t i = 0;

	while (i < a->n_votes && a->votes[i].uid != vote->uid)
		i++;
	if (i == LIMIT_APPROVERS)
		return err_set(err, ERR_LIMIT, "%u operators spoke already ('cotter job end' ends the job)", LIMIT_APPROVERS);
	a->votes[i] = *vote;
	a->n_votes += i == a->n_votes;
	return 0;
}

int approval_vote(struct jobs *j, struct job *job, const char *key, uint32_t uid, bool refused, struct err *err)
{
	struct store_approval row = {.uid = uid, .refused = refused, .at_ms = token_wall_ms()};
	struct approval *a = NULL, before;
	int r = approval_get(job, key, &a, err);

	if (r < 0)
		return r;
	memcpy(row.job, job->id, sizeof(row.job));
	snprintf(row.key, sizeof(row.key), "%s", key);
	before = *a;
	r = put_vote(a, &(struct approval_vote){.uid = uid, .refused = refused}, err);
	if (r == 0)
		r = store_approval_put(&j->broker->store, &row, err);
	if (r < 0)
		*a = before;
	return r;
}

bool approvals_saw_job(const struct broker *b, uint32_t uid)
{
	return b->job_uids[uid / 8 % sizeof(b->job_uids)] & (1u << (uid % 8));
}

void approvals_see_job(struct broker *b, uint32_t uid)
{
	if (uid != 0)
		b->job_uids[uid / 8 % sizeof(b->job_uids)] |= (uint8_t)(1u << (uid % 8));
}

static int load(void *ctx, const struct store_approval *row)
{
	struct jobs *j = ctx;
	struct approval *a = NULL;
	struct job *job = job_by_id(j, row->job);
	int r = job ? approval_get(job, row->key, &a, NULL) : 0;

	return r < 0 || !job ? r : put_vote(a, &(struct approval_vote){.uid = row->uid, .refused = row->refused}, NULL);
}

int approvals_load(struct jobs *j, struct err *err)
{
	return store_approvals(&j->broker->store, load, j, err);
}

void approvals_done(struct job *job)
{
	struct approval *next;

	for (struct approval *a = job->approvals; a; a = next) {
		next = a->next;
		free(a->key);
		free(a);
	}
	job->approvals = NULL;
}
