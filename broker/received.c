#include "broker/received.h"

#include "broker/broker.h"
#include "common/err.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

static size_t size_of(const struct received *x)
{
	return sizeof(*x) + strlen(x->path) + 1;
}

static void more(struct jobs *j, struct job *job)
{
	/* the first is worth a row: the list must not look whole after a restart */
	job->received_new |= job->n_received_more++ == 0;
	j->received_new |= job->received_new;
}

static struct received *add(struct jobs *j, struct job *job, const char *path, uint64_t version)
{
	size_t size = sizeof(struct received) + strlen(path) + 1;
	struct received *x = job->n_received < LIMIT_RECEIVED && j->received_bytes + size <= LIMIT_RECEIVED_BYTES ? malloc(size) : NULL;

	if (!x)
		return NULL;
	*x = (struct received){.next = job->received, .version = version};
	memcpy(x->path, path, strlen(path) + 1);
	job->received = x;
	job->n_received++;
	j->received_bytes += size;
	return x;
}

void received_note(struct jobs *j, struct job *job, const char *path, uint64_t version)
{
	struct received **at = &job->received, *x;

	while (*at && !((*at)->version == version && strcmp((*at)->path, path) == 0))
		at = &(*at)->next;
	x = *at;
	if (x) {
		*at = x->next;
		x->next = job->received;
		job->received = x;
	} else if (add(j, job, path, version)) {
		job->received_new = j->received_new = true;
	} else {
		more(j, job);
	}
}

int received_list(const struct job *job, int (*each)(void *ctx, const char *path, uint64_t version), void *ctx)
{
	int r = 0;

	for (const struct received *x = job->received; r == 0 && x; x = x->next)
		r = each(ctx, x->path, x->version);
	return r;
}

void received_forget(struct jobs *j, struct job *job)
{
	struct received *next;

	for (struct received *x = job->received; x; x = next) {
		next = x->next;
		j->received_bytes -= size_of(x);
		free(x);
	}
	job->received = NULL;
}

/* ---- the store -------------------------------------------------------------------------------------------------- */

#define WRITE_AT_ONCE 512u /* jobs: the loop has others to serve */

/* Row "" says that there were more. */
static int write_job(struct store *s, const struct job *job, struct err *err)
{
	int r = job->n_received_more ? store_received_put(s, job->id, "", 0, err) : 0;

	for (const struct received *x = job->received; r == 0 && x; x = x->next)
		if (!x->written)
			r = store_received_put(s, job->id, x->path, x->version, err);
	return r;
}

/* What the write that ended has in it. */
static void written(struct jobs *j, size_t n)
{
	for (struct job *job = j->list; job && n; job = job->next) {
		if (!job->received_new)
			continue;
		for (struct received *x = job->received; x; x = x->next)
			x->written = true;
		job->received_new = false;
		n--;
	}
}

void received_write(struct jobs *j)
{
	struct store *s = &j->broker->store;
	struct err err = {0};
	size_t n = 0;
	int r;

	if (!j->received_new)
		return;
	r = store_begin(s, &err);
	if (r == 0) {
		for (struct job *job = j->list; r == 0 && job && n < WRITE_AT_ONCE; job = job->next) {
			if (!job->received_new)
				continue;
			r = write_job(s, job, &err);
			n++;
		}
		r = store_end(s, r == 0, &err) < 0 ? -ERR_FAILED : r;
	}
	if (r == 0) {
		written(j, n);
		j->received_new = n == WRITE_AT_ONCE;
	} else if (!j->received_failed) {
		log_warn("what jobs were given is not in the store yet: %s; it is in the audit log", err.msg);
	}
	j->received_failed = r < 0;
}

static int load(void *ctx, const uint8_t id[JOB_ID_LEN], const char *path, uint64_t version)
{
	struct jobs *j = ctx;
	struct job *job = job_by_id(j, id);
	struct received *x = job && *path ? add(j, job, path, version) : NULL;

	if (x)
		x->written = true;
	else if (job)
		job->n_received_more++;
	return 0;
}

int received_load(struct jobs *j, struct err *err)
{
	return store_received(&j->broker->store, load, j, err);
}
