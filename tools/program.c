#include "tools/program.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/limits.h"
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* In the child; never returns. */
static void become(const struct program *p, int in, int out)
{
	char *const environment[] = {(char *)(uintptr_t)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	const struct rlimit no_core = {0};
	char *const argv[] = {(char *)(uintptr_t)p->path, (char *)(uintptr_t)p->verb, (char *)(uintptr_t)p->argument, NULL};

	setpgid(0, 0);
	/* what nobody waits for does nothing more */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
		_exit(126);
	harden_before_exec(p->saved);
	setrlimit(RLIMIT_CORE, &no_core); /* it is told secrets */
	execve(p->path, argv, environment);
	_exit(127);
}

struct pipes {
	int in, out; /* ours; -1: closed */
	size_t written;
};

static void shut(int *fd)
{
	close(*fd);
	*fd = -1;
}

/* One round; what cannot be taken ends it. */
static int transfer(struct pipes *io, const struct secret *in, struct secret *ret, int wait_ms, struct err *err)
{
	struct pollfd fds[2] = {{.fd = io->in, .events = POLLOUT}, {.fd = io->out, .events = POLLIN}};
	char buffer[4096];
	ssize_t n;
	int r = 0;

	if (poll(fds, 2, wait_ms) < 0)
		return errno == EINTR ? 0 : err_errno(err, errno, "poll");
	if (fds[0].revents) {
		n = write(io->in, in->data + io->written, in->len - io->written);
		io->written += n > 0 ? (size_t)n : 0;
		/* a program that does not read its input may still do its work */
		if ((n < 0 && errno != EAGAIN) || io->written == in->len)
			shut(&io->in);
	}
	if (fds[1].revents) {
		n = read(io->out, buffer, sizeof(buffer));
		if (n <= 0 && !(n < 0 && errno == EAGAIN))
			shut(&io->out);
		if (n > 0 && ret)
			r = ret->len + (size_t)n > LIMIT_PROGRAM_OUTPUT ? err_set(err, ERR_LIMIT, "it prints more than %u bytes", LIMIT_PROGRAM_OUTPUT)
									: secret_append(ret, buffer, (size_t)n, err);
		explicit_bzero(buffer, sizeof(buffer));
	}
	return r;
}

/* Its end, at the latest then. */
static int reap(pid_t pid, long long deadline_ms, struct err *err)
{
	struct timespec pause = {.tv_nsec = 5000000};
	pid_t got;
	int status;

	while ((got = waitpid(pid, &status, WNOHANG)) == 0 && now_ms() < deadline_ms)
		nanosleep(&pause, NULL);
	if (got == 0) {
		kill(-pid, SIGKILL);
		waitpid(pid, &status, 0);
		return err_set(err, ERR_FAILED, "its time was over");
	}
	if (got < 0 || !WIFEXITED(status))
		return err_set(err, ERR_FAILED, "it was killed");
	if (WEXITSTATUS(status) == 127)
		return err_set(err, ERR_FAILED, "it cannot be run");
	return WEXITSTATUS(status) ? err_set(err, ERR_FAILED, "its exit status is %d", WEXITSTATUS(status)) : 0;
}

int program_run(const struct program *p, const struct secret *in, struct secret *ret, struct err *err)
{
	CLEANUP(cleanup_close) int child_in = -1;
	CLEANUP(cleanup_close) int child_out = -1;
	long long deadline_ms = now_ms() + p->timeout_ms;
	struct pipes io;
	int a[2], b[2], r, ended;
	pid_t pid;

	if (access(p->path, X_OK) < 0)
		return err_errno(err, errno, "%.200s", p->path);
	if (pipe2(a, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	child_in = a[0];
	io.in = a[1];
	if (pipe2(b, O_CLOEXEC) < 0) {
		close(io.in);
		return err_errno(err, errno, "pipe");
	}
	io.out = b[0];
	child_out = b[1];
	io.written = 0;
	r = ret ? secret_new(ret, 256, err) : 0;
	pid = r < 0 ? -1 : fork();
	if (pid == 0)
		become(p, child_in, child_out);
	shut(&child_in);
	shut(&child_out);
	fcntl(io.in, F_SETFL, O_NONBLOCK);
	fcntl(io.out, F_SETFL, O_NONBLOCK);
	if (pid < 0 && r == 0)
		r = err_errno(err, errno, "fork");
	while (r == 0 && (io.in >= 0 || io.out >= 0) && now_ms() < deadline_ms)
		r = transfer(&io, in, ret, (int)(deadline_ms - now_ms()), err);
	if (io.in >= 0)
		close(io.in);
	if (io.out >= 0)
		close(io.out);
	if (pid < 0)
		return r;
	ended = reap(pid, r < 0 ? 0 : deadline_ms, r < 0 ? NULL : err);
	r = r < 0 ? r : ended;
	return r < 0 ? err_wrap(err, "%.200s %s", p->path, p->verb) : 0;
}
