/* The thread that brings records to the disk, and who waits for it. */
#include "broker/audit_sync.h"

#include "broker/audit.h"
#include "broker/metrics.h"
#include "common/err.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SYNC_WITHIN_MS 50
#define COMPANY_MS 5u

/* Until when, and for which record, the next one waits. */
struct last_flush {
	uint64_t expected;
	struct timespec patience;
};

/*
 * Whose records reached the disk a moment ago ask again at once, while others wait already. A flush without them would leave them for the
 * one behind it, and everybody would be answered by every second one only. So it begins when as many are there, or half a
 * flush's time after the last one, but no more than COMPANY_MS: whoever does not ask again delays nobody for long.
 */
static void wait_for_company(struct audit *a, const struct last_flush *last)
{
	while (!a->stop && a->want_synced < last->expected && pthread_cond_timedwait(&a->wake, &a->lock, &last->patience) == 0)
		;
}

static void note_flush(const struct audit *a, uint64_t began_ns, uint64_t released, struct last_flush *last)
{
	const uint64_t now_ns = metrics_now_ns(), half_ns = (now_ns - began_ns) / 2;
	const uint64_t until_ns = now_ns + (half_ns < COMPANY_MS * 1000000 ? half_ns : COMPANY_MS * 1000000);

	last->expected = a->want_synced + released;
	last->patience = (struct timespec){.tv_sec = (time_t)(until_ns / 1000000000), .tv_nsec = (long)(until_ns % 1000000000)};
}

static void *sync_thread(void *arg)
{
	struct audit *a = arg;
	struct timespec pause = {.tv_nsec = SYNC_WITHIN_MS * 1000000L / 2};
	struct last_flush last = {0};
	uint64_t target, began_ns;
	int fd, failed;

	pthread_mutex_lock(&a->lock);
	while (!a->stop) {
		if (a->want_synced == a->synced || a->sync_failed) {
			pthread_cond_wait(&a->wake, &a->lock);
			continue;
		}
		if (a->sync == CONFIG_AUDIT_WRITE) {
			/* many records, one flush */
			pthread_mutex_unlock(&a->lock);
			nanosleep(&pause, NULL);
			pthread_mutex_lock(&a->lock);
		} else {
			wait_for_company(a, &last);
		}
		target = a->want_synced;
		fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 3); /* a rotation may close the original */
		pthread_mutex_unlock(&a->lock);
		began_ns = metrics_now_ns();
		failed = fd >= 0 && fdatasync(fd) < 0;
		if (fd >= 0)
			close(fd);
		else
			nanosleep(&pause, NULL); /* out of descriptors: that is no failure of the log */
		pthread_mutex_lock(&a->lock);
		if (fd < 0)
			continue;
		if (failed) {
			a->sync_failed = true; /* the kernel may have dropped the pages: never try again */
		} else {
			note_flush(a, began_ns, target - a->synced, &last);
			a->synced = target;
		}
		eventfd_write(a->event_fd, 1);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

void audit_sync_init(struct audit *a)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	/* which nobody sets */
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
}

int audit_start_sync(struct audit *a, struct err *err)
{
	a->thread_runs = pthread_create(&a->thread, NULL, sync_thread, a) == 0;
	return a->thread_runs ? 0 : err_set(err, ERR_FAILED, "cannot start the audit log's sync thread");
}

void audit_sync_want(struct audit *a)
{
	pthread_mutex_lock(&a->lock);
	a->want_synced = a->written.size;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

void audit_sync_stop(struct audit *a)
{
	if (!a->thread_runs)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	fdatasync(a->fd);
	a->thread_runs = false;
}

bool audit_released(struct audit *a, uint64_t seq)
{
	bool released;

	if (a->sync == CONFIG_AUDIT_WRITE)
		return audit_written(a, seq);
	pthread_mutex_lock(&a->lock);
	released = a->synced >= seq;
	pthread_mutex_unlock(&a->lock);
	return released;
}

bool audit_failed(struct audit *a)
{
	bool failed;

	pthread_mutex_lock(&a->lock);
	failed = a->broken || a->sync_failed;
	pthread_mutex_unlock(&a->lock);
	return failed;
}

void audit_acknowledge(struct audit *a)
{
	eventfd_t n;

	eventfd_read(a->event_fd, &n);
}
