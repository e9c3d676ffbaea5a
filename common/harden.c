#include "common/harden.h"

#include "common/err.h"
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Missing from Debian 12's headers. */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static int standard_fds(struct err *err)
{
	int fd;

	/* a file opened as descriptor 2 would receive error messages */
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return err_errno(err, errno, "cannot open /dev/null");
		if (fd <= 2)
			fcntl(fd, F_SETFD, 0);
	} while (fd <= 2);
	close(fd);
	return 0;
}

int harden_start(const struct harden *h, struct err *err)
{
	struct rlimit no_core = {0, 0}, files;
	mode_t mask;
	int r = standard_fds(err);

	if (r < 0)
		return r;
	if (h->keep_fd_below && close_range((unsigned int)h->keep_fd_below, ~0u, 0) < 0)
		return err_errno(err, errno, "cannot close inherited descriptors");
	if (h->clear_environment && clearenv() != 0)
		return err_set(err, ERR_FAILED, "cannot clear the environment");
	if (h->saved) {
		getrlimit(RLIMIT_CORE, &h->saved->core);
		getrlimit(RLIMIT_NOFILE, &h->saved->files);
	}
	mask = umask(077);
	if (h->saved)
		h->saved->umask = mask;
#ifndef COTTER_SANITIZE
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return err_errno(err, errno, "cannot forbid dumping this process");
#endif
	/* a hard limit could not be raised again for the job's command; not dumpable is what counts */
	no_core.rlim_max = h->saved ? h->saved->core.rlim_max : 0;
	if (setrlimit(RLIMIT_CORE, &no_core) < 0)
		return err_errno(err, errno, "cannot forbid core files");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* whatever a library frees is overwritten */
	mallopt(M_PERTURB, 0xa5);
	r = secret_arena_init(h->arena_size, err);
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(err, errno, "cannot set no_new_privs");
	/* since kernel 6.3; older ones lack it. It would outlive an exec: a job's JIT compiler could not run */
	if (h->keep_fd_below && prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) < 0 && errno != EINVAL)
		return err_errno(err, errno, "cannot refuse writable and executable memory");
	return 0;
}

void harden_before_exec(const struct harden_saved *saved)
{
	umask(saved->umask);
	setrlimit(RLIMIT_CORE, &saved->core);
	setrlimit(RLIMIT_NOFILE, &saved->files);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
}
