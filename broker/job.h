#pragma once
/*
 * Jobs: a leader held by pidfd, a uid and a cgroup. A job ends, and every token of it, when the leader exits, when its
 * cgroup empties, when somebody ends it, or at its deadline.
 */
#include "broker/token.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct approval;
struct broker;
struct err;
struct process;
struct received;

struct job {
	uint8_t id[JOB_ID_LEN];
	char name[LIMIT_NAME_LEN + 1]; /* for people; "" */
	uint32_t uid;
	uint64_t cgroup;	       /* id; 0: none of its own */
	uint64_t leader_id;	       /* inode of its pidfd; 0: no leader */
	pid_t leader;
	const struct jobs *jobs;
	uint64_t created_ms, deadline_ms; /* wall clock; boot-time clock */
	const char *cgroup_path;       /* "": not known */
	int pidfd, watch;	       /* -1: none */
	uint64_t watched_ms;	       /* boot-time clock: since when */
	bool frozen;		       /* its cgroup, when last looked */
	enum { JOB_TOLD_NOTHING, JOB_TOLD_EMPTY, JOB_TOLD_REFILLED } told; /* of its cgroup, in this round */
	bool bereft;		       /* tokens of it were revoked */
	bool told_of;		       /* its start was recorded */
	struct approval *approvals;    /* of the keys that it asked for */
	struct received *received;     /* see received.h */
	size_t n_received;
	uint64_t n_received_more;
	bool received_new;	       /* not all of it is in the store */
	size_t n_leases;	       /* when they were last counted */
	struct token_row *tokens;
	size_t n_tokens;
	struct job *next, *prev;
	struct job *hash_next;
};

#define JOB_BUCKETS 4096u
#define JOB_UIDS 1024u

struct jobs {
	struct broker *broker;
	int epoll_fd, inotify_fd; /* epoll_fd is readable when a job may have ended */
	bool none_told; /* it was not when this round of the loop began: all leaders that are watched live */
	struct job *look; /* whose cgroup is looked at next */
	struct job *list, *buckets[JOB_BUCKETS];
	size_t n;
	uint64_t n_started, n_ended;
	uint32_t by_uid[JOB_UIDS]; /* uids that share a place share its limit */
	uint64_t drained_ms; /* boot-time clock: all that the kernel had to tell until then was read */
	uint64_t retry_ms;   /* when rows that could not go are tried again */
	size_t received_bytes;
	bool received_new, received_failed;
	bool behind; /* it was said that the store still has rows of what ended */
};

int jobs_init(struct jobs *j, struct broker *b, struct err *err);
void jobs_done(struct jobs *j);
/* Forgets all jobs, in memory alone. */
void jobs_drop(struct jobs *j);
/* After tokens_load: reads the jobs of this boot, drops those that ended meanwhile, and gives tokens to the others. */
int jobs_load(struct jobs *j, struct err *err);
/* The epoll descriptor is readable. */
void jobs_event(struct jobs *j);
/* Deadlines, cgroups whose end inotify did not tell, and rows that the store could not remove. */
void jobs_expire(struct jobs *j);

struct job_request {
	const char *name;
	uint32_t uid;	      /* its processes' */
	pid_t leader;	      /* 0: none, the cgroup alone */
	uint64_t leader_id;   /* 0: not told; else the pidfd's inode must be this: pids are used again */
	uint32_t leader_uid;  /* the leader must run as this; TOKEN_ANY_UID: whoever */
	uint64_t leader_cgroup; /* and stand in this one; 0: in any */
	uint64_t cgroup;      /* without a leader: the job's */
	const char *cgroup_hint; /* path, not believed; may be NULL */
	pid_t caller;	      /* whose /proc entry is looked at for a hint */
	uint64_t ttl_ms;
	bool by_operator;     /* who may take the last places */
};
/* ERR_DENIED, ERR_INPUT, ERR_LIMIT with a text for whoever asked. */
int job_start(struct jobs *j, const struct job_request *q, struct job **ret, struct err *err);
/* Writes the record of its start: once its token is given. */
void job_record(struct jobs *j, struct job *job);
/* Its tokens' rows go, here and in the store; the job is freed. why is for the audit log. A failure means that the store still has
 * rows of it: jobs_expire tries again until they are gone, and a restart before that may bring them back. */
int job_end(struct jobs *j, struct job *job, const char *why, struct err *err);
/* The same for all that which says, as one write. Returns how many: at most 4,096 at once, unless all is set. */
size_t jobs_end(struct jobs *j, bool (*which)(const struct job *job, int watch), int watch, bool all, const char *why);
struct job *job_by_id(struct jobs *j, const uint8_t id[JOB_ID_LEN]);
/* By the id's 16 hex digits. NULL: none. */
struct job *job_find(struct jobs *j, const char *hex);
void job_id_text(const struct job *job, char ret[2 * JOB_ID_LEN + 1]);

/* Whether it is over although nobody told yet. */
bool job_ended(const struct job *job, uint64_t boot_ms);
void job_add_token(struct job *job, struct token_row *row);
void job_remove_token(struct job *job, struct token_row *row);
