#pragma once
/*
 * Approvals: what operators said of a job's use of a key that wants their word (the configuration's keys). They live as long as the job
 * does, in memory and in the store. The user that a job runs as does not speak for it.
 */
#include "broker/config.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct err;
struct job;
struct jobs;

struct approval_vote {
	uint32_t uid;
	bool refused;
};

struct approval {
	struct approval *next; /* of the same job */
	char *key;	       /* as the job asks for it: a name, pki/ROLE, ssh/ROLE */
	char what[192];	       /* it was first asked for: for the log and for people */
	uint64_t asked_ms;     /* wall clock; 0: not yet */
	uint32_t n_waiting;    /* requests, when they were last counted */
	struct approval_vote votes[LIMIT_APPROVERS];
	size_t n_votes;
};

/* NULL: nobody asked and nobody spoke. */
struct approval *approval_find(const struct job *job, const char *key);
/* Makes it where there is none. ERR_LIMIT. */
int approval_get(struct job *job, const char *key, struct approval **ret, struct err *err);

enum approval_state { APPROVAL_GIVEN, APPROVAL_LACKS, APPROVAL_REFUSED };

struct approval_answer {
	enum approval_state state;
	/* APPROVAL_LACKS: of the first rule that is not satisfied */
	const struct config_key_rule *rule;
	uint32_t n; /* so many more */
};
/* What was said so far, weighed by the configuration as it is now. a may be NULL. */
struct approval_answer approval_weigh(const struct config *config, const struct job *job, const struct approval *a, const char *key);
/* Whether that operator is one of those whom a rule of that key asks. */
bool approval_may(const struct config *config, const char *key, uint32_t uid);
/* An operator's word, in the store before it counts; it replaces an earlier one of the same. */
int approval_vote(struct jobs *j, struct job *job, const char *key, uint32_t uid, bool refused, struct err *err);

/* A job runs as that user: but root he approves nothing any more in this life of the broker, as a process of that job could speak for
 * him. */
void approvals_see_job(struct broker *b, uint32_t uid);
bool approvals_saw_job(const struct broker *b, uint32_t uid);

/* After jobs_load: what was said in earlier lives of the broker. */
int approvals_load(struct jobs *j, struct err *err);
void approvals_done(struct job *job);
