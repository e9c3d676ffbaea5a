#include "broker/job.h"

#include "broker/approval.h"
#include "broker/broker.h"
#include "broker/cgroup.h"
#include "broker/job_watch.h"
#include "broker/key_rule.h"
#include "broker/peer.h"
#include "broker/received.h"
#include "broker/server.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

void job_id_text(const struct job *job, char ret[2 * JOB_ID_LEN + 1])
{
	sodium_bin2hex(ret, 2 * JOB_ID_LEN + 1, job->id, JOB_ID_LEN);
}

static struct job **bucket(struct jobs *j, const uint8_t id[JOB_ID_LEN])
{
	return &j->buckets[((unsigned int)id[0] << 8 | id[1]) % JOB_BUCKETS];
}

struct job *job_by_id(struct jobs *j, const uint8_t id[JOB_ID_LEN])
{
	struct job *job = *bucket(j, id);

	while (job && memcmp(job->id, id, JOB_ID_LEN) != 0)
		job = job->hash_next;
	return job;
}

struct job *job_find(struct jobs *j, const char *hex)
{
	uint8_t id[JOB_ID_LEN];
	size_t n;

	return sodium_hex2bin(id, sizeof(id), hex, strlen(hex), NULL, &n, NULL) == 0 && n == sizeof(id) ? job_by_id(j, id) : NULL;
}

bool job_ended(const struct job *job, uint64_t boot_ms)
{
	return boot_ms >= job->deadline_ms || (job->pidfd >= 0 && !job->jobs->none_told && process_ended(job->pidfd));
}

void job_add_token(struct job *job, struct token_row *row)
{
	row->job_next = job->tokens;
	job->tokens = row;
	job->n_tokens++;
	job->bereft = false;
}

void job_remove_token(struct job *job, struct token_row *row)
{
	struct token_row **at = &job->tokens;

	while (*at && *at != row)
		at = &(*at)->job_next;
	if (!*at)
		return;
	*at = row->job_next;
	job->n_tokens--;
	row->job = NULL;
}

static void audit(struct jobs *j, const struct job *job, const char *event, const char *why)
{
	char id[2 * JOB_ID_LEN + 1];
	struct audit_event e = {.event = event, .uid = job->uid, .job = id, .cgroup = job->cgroup, .pidfd = job->leader_id, .secret = "",
				.result = "granted", .why = why, .takes = strcmp(event, "job.end") == 0};

	job_id_text(job, id);
	audit_write(&j->broker->audit, &e, NULL, NULL);
}

/* ---- one job's life --------------------------------------------------------------------------------------------- */

static void job_free(struct jobs *j, struct job *job)
{
	struct job **at = bucket(j, job->id);
	bool shared = false;

	while (*at && *at != job)
		at = &(*at)->hash_next;
	if (*at)
		*at = job->hash_next;
	if (j->look == job)
		j->look = job->next;
	if (job->prev)
		job->prev->next = job->next;
	else if (j->list == job)
		j->list = job->next;
	if (job->next)
		job->next->prev = job->prev;
	/* jobs of one cgroup share its watch */
	for (struct job *other = j->list; other && job->watch >= 0 && !shared; other = other->next)
		shared = other->watch == job->watch;
	if (job->watch >= 0 && !shared)
		inotify_rm_watch(j->inotify_fd, job->watch);
	if (job->pidfd >= 0)
		close(job->pidfd);
	key_rules_forget_job(j->broker, job);
	received_forget(j, job);
	free(job);
}

/* Within the caller's transaction. */
static int end_one(struct jobs *j, struct job *job, const char *why, struct err *err)
{
	int r;

	if (job->told_of)
		audit(j, job, "job.end", why);
	r = tokens_end_job(&j->broker->tokens, job, err);
	if (r == 0)
		r = store_job_delete(&j->broker->store, job->id, err);
	if (r == 0 && job->approvals)
		r = store_approvals_delete(&j->broker->store, job->id, err);
	if (r == 0 && (job->received || job->n_received_more))
		r = store_received_delete(&j->broker->store, job->id, err);
	j->by_uid[job->uid % JOB_UIDS]--;
	j->n--;
	j->n_ended++;
	job_free(j, job);
	return r;
}

int job_end(struct jobs *j, struct job *job, const char *why, struct err *err)
{
	struct store *s = &j->broker->store;
	int begun = store_begin_removal(s, err), ended = begun, r = end_one(j, job, why, err);

	if (begun == 0)
		ended = store_end(s, r == 0, err);
	return r < 0 ? r : ended;
}

#define END_AT_ONCE 4096u

size_t jobs_end(struct jobs *j, bool (*which)(const struct job *job, int watch), int watch, bool all, const char *why)
{
	int begun = -ERR_FAILED;
	struct job *next;
	size_t n = 0;

	for (struct job *job = j->list; job && (all || n < END_AT_ONCE); job = next) {
		next = job->next;
		if (!which(job, watch))
			continue;
		if (n++ == 0)
			begun = store_begin_removal(&j->broker->store, NULL);
		/* what could not be written is gone here, and catch_up sees to the rest */
		end_one(j, job, why, NULL);
	}
	if (begun == 0)
		store_end(&j->broker->store, true, NULL);
	return n;
}

static struct job *job_new(const struct job *from, const char *cgroup_path)
{
	size_t n = strlen(cgroup_path) + 1;
	struct job *job = malloc(sizeof(*job) + n);

	if (!job)
		return NULL;
	*job = *from;
	memcpy(job + 1, cgroup_path, n);
	job->cgroup_path = (char *)(job + 1);
	job->pidfd = job->watch = -1;
	job->tokens = NULL;
	job->n_tokens = 0;
	job->prev = NULL;
	return job;
}

static void job_link(struct jobs *j, struct job *job)
{
	approvals_see_job(j->broker, job->uid);
	struct job **head = bucket(j, job->id);

	job->jobs = j;
	job->hash_next = *head;
	*head = job;
	job->next = j->list;
	if (j->list)
		j->list->prev = job;
	j->list = job;
	j->by_uid[job->uid % JOB_UIDS]++;
	j->n++;
}

static int pidfd_open_pid(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* ---- starting --------------------------------------------------------------------------------------------------- */

static int take_leader(const struct job_request *q, struct job *job, struct err *err)
{
	CLEANUP(cleanup_close) int fd = pidfd_open_pid(q->leader);
	struct process p;
	int r;

	if (fd < 0)
		return err_set(err, ERR_INPUT, "there is no process %d for a leader", (int)q->leader);
	r = process_read(fd, &p, err);
	if (r < 0)
		return err_set(err, ERR_INPUT, "the leader %d: it is gone, in a foreign namespace, or runs a setuid program", (int)q->leader);
	if (q->leader_id && process_id(fd) != q->leader_id)
		return err_set(err, ERR_INPUT, "process %d is not the one that was meant: that one ended, and its pid was used again", (int)q->leader);
	if (q->leader_uid != TOKEN_ANY_UID && p.uid != q->leader_uid)
		return err_set(err, ERR_DENIED, "the leader runs as another uid");
	if (q->leader_cgroup && p.cgroup != q->leader_cgroup)
		return err_set(err, ERR_INPUT, "the leader stands in another cgroup than the caller: log in from within its own");
	job->leader = q->leader;
	job->leader_id = process_id(fd);
	job->cgroup = p.cgroup;
	job->uid = q->uid == TOKEN_ANY_UID ? p.uid : q->uid;
	job->pidfd = steal_fd(&fd);
	return 0;
}

static int check_request(struct jobs *j, const struct job_request *q, struct err *err)
{
	if (j->n >= LIMIT_JOBS || !server_has_descriptors(j->broker->server, 1))
		return err_set(err, ERR_BUSY, "%zu jobs run already: there is no room or no descriptor for more", j->n);
	if (!q->by_operator && (j->n >= LIMIT_JOBS / 4 * 3 || j->by_uid[q->uid % JOB_UIDS] >= LIMIT_JOBS_PER_UID))
		return err_set(err, ERR_BUSY, "this uid has %u jobs already", j->by_uid[q->uid % JOB_UIDS]);
	if (!q->leader && !q->cgroup)
		return err_set(err, ERR_INPUT, "a job needs a leader or a cgroup of its own: start it in one, or name its leader");
	return 0;
}

int job_start(struct jobs *j, const struct job_request *q, struct job **ret, struct err *err)
{
	struct job draft = {.uid = q->uid, .cgroup = q->cgroup, .pidfd = -1, .watch = -1, .created_ms = token_wall_ms(),
			    .deadline_ms = token_boot_ms() + q->ttl_ms};
	CLEANUP(cleanup_close) int pidfd = -1;
	char path[LIMIT_CGROUP_PATH] = "";
	struct job *job;
	int r = check_request(j, q, err);

	if (r == 0 && q->leader)
		r = take_leader(q, &draft, err);
	pidfd = draft.pidfd;
	if (r == 0 && !draft.cgroup && q->cgroup_hint)
		r = err_set(err, ERR_INPUT, "a cgroup was named, and the leader stands in the root cgroup");
	if (r == 0 && draft.cgroup)
		r = cgroup_path(draft.cgroup, q->cgroup_hint, q->leader ? q->leader : q->caller, path, err);
	if (r < 0 && q->leader && pidfd >= 0 && !q->cgroup_hint)
		r = 0; /* the leader's end is enough; a hint that was given and is wrong is an error */
	if (r < 0)
		return r;
	if (!draft.cgroup && j->broker->config.require_cgroup)
		return err_set(err, ERR_INPUT, "the leader stands in the root cgroup, as everybody does: start the job in a cgroup of its own "
					       "('cotter run' does), or set jobs.require_cgroup: false");
	randombytes_buf(draft.id, sizeof(draft.id));
	snprintf(draft.name, sizeof(draft.name), "%s", q->name);
	job = job_new(&draft, path);
	if (!job)
		return err_set(err, ERR_FAILED, "out of memory");
	job->pidfd = steal_fd(&pidfd);
	r = store_job_put(&j->broker->store, j->broker->tokens.boot_id, job, err);
	if (r == 0)
		r = job_watch(j, job, err);
	if (r < 0) {
		store_job_delete(&j->broker->store, job->id, NULL);
		job_free(j, job);
		return r;
	}
	job_link(j, job);
	*ret = job;
	return 0;
}

void job_record(struct jobs *j, struct job *job)
{
	audit(j, job, "job.start", job->name);
	job->told_of = true;
	j->n_started++;
}

/* ---- restart ---------------------------------------------------------------------------------------------------- */

static void adopt_tokens(struct jobs *j, struct tokens *t)
{
	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		for (struct token_row *row = t->buckets[i]; row; row = row->next) {
			row->job = sodium_is_zero(row->job_id, JOB_ID_LEN) ? NULL : job_by_id(j, row->job_id);
			if (row->job)
				job_add_token(row->job, row);
		}
	}
}

/* The same process as before, by its inode, and alive. */
static bool leader_lives(struct job *job)
{
	if (!job->leader_id)
		return true;
	job->pidfd = pidfd_open_pid(job->leader);
	return job->pidfd >= 0 && process_id(job->pidfd) == job->leader_id && !process_ended(job->pidfd);
}

static int load_job(void *ctx, const struct job *from)
{
	struct jobs *j = ctx;
	struct job *job = j->n < LIMIT_JOBS ? job_new(from, from->cgroup_path) : NULL;
	char path[LIMIT_CGROUP_PATH];

	if (!job)
		return 0;
	job->told_of = true;
	job_link(j, job);
	if (!leader_lives(job) || token_boot_ms() >= job->deadline_ms ||
	    (job->cgroup_path[0] && (cgroup_path(job->cgroup, job->cgroup_path, 0, path, NULL) < 0 || cgroup_empty(job->cgroup_path))) ||
	    job_watch(j, job, NULL) < 0)
		job->deadline_ms = 0; /* ended while nobody looked */
	return 0;
}

static bool orphaned(void *ctx, const struct token_row *row)
{
	(void)ctx;
	return !row->job && !sodium_is_zero(row->job_id, sizeof(row->job_id));
}

int jobs_load(struct jobs *j, struct err *err)
{
	struct job *next;
	size_t n;
	int r = store_jobs(&j->broker->store, j->broker->tokens.boot_id, load_job, j, err);

	if (r < 0)
		return r;
	adopt_tokens(j, &j->broker->tokens);
	for (struct job *job = j->list; job; job = next) {
		next = job->next;
		if (job->deadline_ms == 0)
			job_end(j, job, "it ended while the broker did not run", NULL);
	}
	r = approvals_load(j, err);
	if (r == 0)
		r = received_load(j, err);
	return r < 0 ? r : tokens_revoke(&j->broker->tokens, orphaned, NULL, &n, err);
}

/* ---- ends ------------------------------------------------------------------------------------------------------- */

int jobs_init(struct jobs *j, struct broker *b, struct err *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = j};

	*j = (struct jobs){.broker = b, .epoll_fd = epoll_create1(EPOLL_CLOEXEC), .inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
	if (j->epoll_fd < 0 || j->inotify_fd < 0 || epoll_ctl(j->epoll_fd, EPOLL_CTL_ADD, j->inotify_fd, &ev) < 0)
		return err_errno(err, errno, "cannot watch jobs");
	return 0;
}

void jobs_drop(struct jobs *j)
{
	while (j->list)
		job_free(j, j->list);
	memset(j->by_uid, 0, sizeof(j->by_uid));
	j->n = 0;
}

void jobs_done(struct jobs *j)
{
	jobs_drop(j);
	if (j->inotify_fd > 0)
		close(j->inotify_fd);
	if (j->epoll_fd > 0)
		close(j->epoll_fd);
}

static bool is_empty(const struct job *job, int watch)
{
	(void)watch;
	return job->watch >= 0 && cgroup_empty(job->cgroup_path);
}

/* A leader may lead many: all that watch this very process end as one write. */
static bool has_ended(const struct job *job, int watch)
{
	(void)watch;
	return job->pidfd >= 0 && process_ended(job->pidfd);
}

void jobs_event(struct jobs *j)
{
	struct epoll_event ev[2];
	int n = epoll_wait(j->epoll_fd, ev, 2, 0);
	struct job *job;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr == j) {
			jobs_look(j);
			return; /* it may have freed the other */
		}
	}
	/* many at once: a look at all is cheaper than a write for each */
	if (n == 2) {
		jobs_end(j, has_ended, 0, false, "its leader ended");
	} else if (n == 1) {
		job = ev[0].data.ptr;
		job_end(j, job, "its leader ended", NULL);
	}
}

static bool is_due(const struct job *job, int watch)
{
	(void)watch;
	return token_boot_ms() >= job->deadline_ms;
}

#define LOOK_AT_ONCE 256u

/* The kernel tells of changes at most every 10 ms, the last of them late: when the cgroup is removed meanwhile, never. */
static void look_at_cgroups(struct jobs *j)
{
	for (size_t i = 0; i < LOOK_AT_ONCE && i < j->n; i++) {
		struct job *job = j->look ? j->look : j->list;

		j->look = job->next;
		if (is_empty(job, 0))
			job_end(j, job, "its cgroup is empty", NULL);
	}
}

static bool lives(void *ctx, const uint8_t *id, size_t len)
{
	struct jobs *j = ctx;

	return len == JOB_ID_LEN ? job_by_id(j, id) != NULL : token_find(&j->broker->tokens, id) != NULL;
}

static void audit_store(struct jobs *j, const char *event, const char *result, const char *why)
{
	struct audit_event e = {.event = event, .uid = geteuid(), .job = "", .secret = "", .result = result, .why = why, .takes = true};

	audit_write(&j->broker->audit, &e, NULL, NULL);
}

static void catch_up(struct jobs *j)
{
	struct store *s = &j->broker->store;
	struct err err = {0};

	if (!s->behind || token_boot_ms() < j->retry_ms)
		return;
	j->retry_ms = token_boot_ms() + 2000;
	if (store_catch_up(s, lives, j, &err) < 0 && !j->behind) {
		log_error("the store still has rows of jobs or tokens that ended: %s; they are removed once it can be written", err.msg);
		audit_store(j, "store.behind", "failed", "rows of what ended are still in the store");
		j->behind = true;
	}
	if (!s->behind && j->behind) {
		log_info("the store's rows of jobs and tokens that ended are gone");
		audit_store(j, "store.behind", "granted", "they are gone");
		j->behind = false;
	}
}

void jobs_expire(struct jobs *j)
{
	jobs_end(j, is_due, 0, false, "its deadline");
	look_at_cgroups(j);
	received_write(j);
	catch_up(j);
}
