#include "broker/job_watch.h"

#include "broker/cgroup.h"
#include "broker/job.h"
#include "common/err.h"
#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

int job_watch(struct jobs *j, struct job *job, struct err *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = job};
	char path[LIMIT_CGROUP_PATH + 64];
	struct cgroup_events now;

	if (job->pidfd >= 0 && epoll_ctl(j->epoll_fd, EPOLL_CTL_ADD, job->pidfd, &ev) < 0)
		return err_errno(err, errno, "cannot watch the job's leader");
	if (!job->cgroup_path[0])
		return 0;
	snprintf(path, sizeof(path), "%s%s/cgroup.events", cgroup_root(), job->cgroup_path);
	job->watch = inotify_add_watch(j->inotify_fd, path, IN_MODIFY);
	job->watched_ms = token_boot_ms();
	cgroup_events(job->cgroup_path, &now);
	job->frozen = now.frozen;
	/* emptied before anybody looked */
	if (job->watch >= 0 && now.empty)
		return err_set(err, ERR_DENIED, "the job's cgroup is empty already");
	if (job->watch < 0 && job->pidfd < 0)
		return err_errno(err, errno, "cannot watch the job's cgroup");
	if (job->watch < 0)
		log_warn("the cgroup %s cannot be watched (%s): its job ends with its leader alone", job->cgroup_path, strerror(errno));
	return 0;
}

/* ---- what the kernel tells of cgroups --------------------------------------------------------------------------- */

#define SETTLE_MS 250u /* a change before the watch may still be told of after it */
#define CHANGES 256u   /* that are looked at in one round */

/* A cgroup that the kernel told of. */
struct change {
	int watch;
	bool modified; /* else the watch is gone */
	bool read;
	struct cgroup_events now;
};

static struct change *find_change(struct change *list, size_t n, int watch)
{
	for (size_t i = 0; watch >= 0 && i < n; i++)
		if (list[i].watch == watch)
			return &list[i];
	return NULL;
}

/*
 * What is told changes with "populated" and "frozen" alone, late at times: when both are as before, the cgroup was emptied and
 * filled again meanwhile, and who stands in it now is somebody else. In a frozen one nobody runs, and a freeze above or below it is
 * told of, too. A job with a leader has that to live by.
 */
static void judge(const struct jobs *j, struct job *job, const struct change *c)
{
	if (c->now.empty)
		job->told = JOB_TOLD_EMPTY;
	else if (c->modified && !c->now.unknown && !c->now.frozen && !job->frozen && !job->leader_id && j->drained_ms >= job->watched_ms + SETTLE_MS)
		job->told = JOB_TOLD_REFILLED;
	if (!c->now.unknown)
		job->frozen = c->now.frozen;
}

static bool is_told_empty(const struct job *job, int watch)
{
	(void)watch;
	return job->told == JOB_TOLD_EMPTY;
}

static bool is_told_refilled(const struct job *job, int watch)
{
	(void)watch;
	return job->told == JOB_TOLD_REFILLED;
}

/* One pass over all jobs, however many events there were, and one look at each cgroup. */
static void work_through(struct jobs *j, struct change *list, size_t n)
{
	bool empty = false, refilled = false;

	for (struct job *job = j->list; job && n; job = job->next) {
		struct change *c = find_change(list, n, job->watch);

		if (!c)
			continue;
		if (!c->read)
			cgroup_events(job->cgroup_path, &c->now);
		c->read = true;
		judge(j, job, c);
		empty |= job->told == JOB_TOLD_EMPTY;
		refilled |= job->told == JOB_TOLD_REFILLED;
	}
	if (empty)
		jobs_end(j, is_told_empty, 0, true, "its cgroup is empty");
	if (refilled)
		jobs_end(j, is_told_refilled, 0, true, "its cgroup was empty meanwhile");
}

/* Events were lost: the worst is taken for true. */
static void look_at_all(struct jobs *j)
{
	for (struct job *job = j->list; job; job = job->next)
		job->told = job->watch < 0			? JOB_TOLD_NOTHING
			    : cgroup_empty(job->cgroup_path)	? JOB_TOLD_EMPTY
			    : !job->leader_id			? JOB_TOLD_REFILLED
								: JOB_TOLD_NOTHING;
	jobs_end(j, is_told_empty, 0, true, "its cgroup is empty");
	jobs_end(j, is_told_refilled, 0, true, "too much happened to know that its cgroup was not empty");
}

/* One buffer a round: the loop has others to serve, and hears of what is left at once. */
void jobs_look(struct jobs *j)
{
	char buffer[4096] __attribute__((aligned(8)));
	const struct inotify_event *e;
	struct change list[CHANGES];
	uint64_t now_ms = token_boot_ms();
	ssize_t len = read(j->inotify_fd, buffer, sizeof(buffer));
	size_t n = 0;

	for (char *p = buffer; len > 0 && p < buffer + len; p += sizeof(*e) + e->len) {
		struct change *c;

		e = (const struct inotify_event *)(void *)p;
		if (e->mask & IN_Q_OVERFLOW) {
			look_at_all(j);
			return;
		}
		c = find_change(list, n, e->wd);
		if (c)
			c->modified |= (e->mask & IN_MODIFY) != 0;
		else if (n < CHANGES) /* as many events as fit into the buffer */
			list[n++] = (struct change){.watch = e->wd, .modified = e->mask & IN_MODIFY};
	}
	work_through(j, list, n);
	/* nothing older is on its way any more */
	if (len < (ssize_t)(sizeof(buffer) - sizeof(*e)))
		j->drained_ms = now_ms;
}
