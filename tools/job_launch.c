#include "tools/job_launch.h"

#include "broker/cgroup.h"
#include "broker/sandbox.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/agent_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void job_launch_look(struct job_launch *l)
{
	l->isolated = sandbox_can_scope();
	l->cgroup[0] = '\0';
	if (cgroup_root())
		cgroup_hint(0, l->cgroup, NULL);
}

static int write_to(const char *dir, const char *file, const char *text)
{
	char path[LIMIT_CGROUP_PATH + 96];
	CLEANUP(cleanup_close) int fd = -1;
	size_t n = strlen(text);

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, n) == (ssize_t)n ? 0 : -1;
}

/* Ends the cgroup (dir ""; there is none): no process of it outlives its leader, nor does what it left. */
static void reap(int pidfd, const char *dir, const struct job_launch *l, pid_t leader) __attribute__((noreturn));
static void reap(int pidfd, const char *dir, const struct job_launch *l, pid_t leader)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	char beside[LIMIT_FILE_PATH_LEN + 16];

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	for (int i = 0; *dir && i < 500; i++) {
		write_to(dir, "cgroup.kill", "1");
		/* ENOENT: it was never entered, or somebody else removed it */
		if (rmdir(dir) == 0 || errno == ENOENT)
			break;
		usleep(10000);
	}
	for (size_t i = 0; l->files && l->files[i]; i++) {
		unlink(l->files[i]);
		/* or killed before it had this name (tools/delivery.c) */
		snprintf(beside, sizeof(beside), "%s.%d", l->files[i], (int)leader);
		unlink(beside);
	}
	if (l->agent_dir)
		agent_dir_remove(l->agent_dir, true, true);
	_exit(0);
}

/* A grandchild in a session of its own: the command never sees it, no terminal reaches it, and it holds no pipe open. */
static int start_reaper(const char *dir, const struct job_launch *l, struct err *err)
{
	CLEANUP(cleanup_close) int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	pid_t leader = getpid(), pid;
	int null, status;
	sigset_t all;

	if (pidfd < 0)
		return err_errno(err, errno, "pidfd_open");
	pid = fork();
	if (pid < 0)
		return err_errno(err, errno, "fork");
	if (pid == 0) {
		if (setsid() < 0 || fork() != 0)
			_exit(0);
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, NULL);
		prctl(PR_SET_NAME, "cotter-reaper");
		null = open("/dev/null", O_RDWR);
		for (int fd = 0; fd <= 2; fd++)
			dup2(null, fd);
		if (pidfd != 3)
			dup2(pidfd, 3);
		close_range(4, ~0u, 0);
		if (chdir("/") < 0)
			_exit(0);
		/* others of this uid may read it for as long as the job runs */
		for (char **e = environ; *e; e++)
			explicit_bzero(*e, strlen(*e));
		reap(3, dir, l, leader);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return 0;
}

int job_launch_files(const struct job_launch *l, struct err *err)
{
	return l->files && l->files[0] ? start_reaper("", l, err) : 0;
}

int job_launch_cgroup(struct job_launch *l, struct err *err)
{
	char dir[LIMIT_CGROUP_PATH + 64], number[24];
	uint8_t random[6];
	char hex[13];
	const char *root = cgroup_root();
	int r;

	job_launch_look(l);
	if (!root || !l->cgroup[0])
		return job_launch_files(l, err);
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	snprintf(dir, sizeof(dir), "%s%s/cotter-%s", root, strcmp(l->cgroup, "/") == 0 ? "" : l->cgroup, hex);
	if (mkdir(dir, 0755) < 0)
		return job_launch_files(l, err);
	/* from outside: what kills the cgroup must not stand in it */
	r = start_reaper(dir, l, err);
	if (r < 0) {
		rmdir(dir);
		return r;
	}
	/* a cgroup below it would have another id, and its processes another identity */
	snprintf(number, sizeof(number), "%d", (int)getpid());
	if (write_to(dir, "cgroup.max.descendants", "0") < 0 || write_to(dir, "cgroup.procs", number) < 0) {
		rmdir(dir);
		return 0;
	}
	l->own_cgroup = true;
	return cgroup_hint(0, l->cgroup, err);
}

int job_launch_isolate(struct err *err)
{
	int r = sandbox_can_scope() ? sandbox_scope(err) : 0;

	return r < 0 ? r : sandbox_no_typing(err);
}
