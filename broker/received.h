#pragma once
/*
 * What secrets a job was given: for people ('cotter top'), and for whoever looks afterwards for what it may have let out. A secret
 * counts once its value was granted, whether or not the answer reached anybody, and also when it is wrapped. The audit log is the
 * authority; this is what of it can be asked at once, bounded, and gone with the job.
 */
#include "common/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct job;
struct jobs;

struct received {
	struct received *next; /* given longer ago */
	uint64_t version;
	bool written; /* it is in the store */
	char path[];
};

/* That version of it is the latest that the job was given. What has no room (LIMIT_RECEIVED, LIMIT_RECEIVED_BYTES) is only counted. Costs
 * no write: received_write follows. */
void received_note(struct jobs *j, struct job *job, const char *path, uint64_t version);
/* The latest first, until each returns something else than 0: that is returned. job->n_received of them; job->n_received_more were
 * answers with others, of which at least that there were some survives a restart. */
int received_list(const struct job *job, int (*each)(void *ctx, const char *path, uint64_t version), void *ctx);

/* Writes what is new to the store, as one write. Within a second of a grant: what a kill takes away of it stands in the audit log. */
void received_write(struct jobs *j);
/* After the jobs: what was given in earlier lives of the broker. */
int received_load(struct jobs *j, struct err *err);
/* Frees it; the job's rows go by store_received_delete. */
void received_forget(struct jobs *j, struct job *job);
