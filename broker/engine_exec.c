#include "broker/engine_exec.h"

#include "broker/config.h"
#include "broker/sandbox.h"
#include "broker/spawn.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* What any program needs, and what names of hosts are looked up with. */
static const struct sandbox_path usual[] = {
	{"/usr", SANDBOX_READ}, {"/bin", SANDBOX_READ}, {"/sbin", SANDBOX_READ}, {"/lib", SANDBOX_READ}, {"/lib64", SANDBOX_READ}, {"/etc/ld.so.cache", SANDBOX_READ},
	{"/etc/resolv.conf", SANDBOX_READ}, {"/etc/hosts", SANDBOX_READ}, {"/etc/host.conf", SANDBOX_READ}, {"/etc/nsswitch.conf", SANDBOX_READ},
	{"/etc/services", SANDBOX_READ}, {"/etc/gai.conf", SANDBOX_READ}, {"/etc/ssl", SANDBOX_READ}, {"/etc/passwd", SANDBOX_READ}, {"/etc/localtime", SANDBOX_READ},
	{"/dev/null", SANDBOX_WRITE}, {"/dev/urandom", SANDBOX_READ}, {"/proc/self", SANDBOX_READ}, {"/run/postgresql", SANDBOX_READ},
};
#define N_USUAL (sizeof(usual) / sizeof(usual[0]))

static int confine(const struct config_engine *e)
{
	struct sandbox_path paths[N_USUAL + 33];
	size_t n = 0;
	int level;

	for (; n < N_USUAL; n++)
		paths[n] = usual[n];
	paths[n++] = (struct sandbox_path){e->program, SANDBOX_READ};
	for (size_t i = 0; i < e->n_readable; i++)
		paths[n++] = (struct sandbox_path){e->readable[i], SANDBOX_READ};
	for (size_t i = 0; i < e->n_writable; i++)
		paths[n++] = (struct sandbox_path){e->writable[i], SANDBOX_WRITE};
	return sandbox_files(paths, n, &level, NULL);
}

static _Noreturn void child(const struct config_engine *e, int fd, pid_t parent)
{
	static char *const environment[] = {(char *)(uintptr_t)"PATH=/usr/local/bin:/usr/bin:/bin", NULL};
	char *const argv[] = {(char *)(uintptr_t)e->program, NULL};
	const struct rlimit no_core = {0}, files = {256, 256}, seconds = {60, 60};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(126);
	/* what it writes there could hold what it is told */
	if (null < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0 || dup2(null, 2) < 0)
		_exit(126);
	close_range(3, ~0u, 0);
	setrlimit(RLIMIT_CORE, &no_core);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CPU, &seconds);
	if (chdir("/") < 0 || confine(e) < 0)
		_exit(126);
	execve(argv[0], argv, environment);
	_exit(127);
}

int engine_spawn(const struct config_engine *e, int *ret_fd, pid_t *ret_pid, struct err *err)
{
	pid_t parent = getpid(), pid;
	int fd;

	pid = spawn_fork(SOCK_STREAM, &fd, err);
	if (pid < 0)
		return pid;
	if (pid == 0)
		child(e, fd, parent);
	*ret_fd = fd;
	*ret_pid = pid;
	return 0;
}
