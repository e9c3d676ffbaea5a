#include "broker/spawn.h"

#include "common/err.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

pid_t spawn_fork(int type, int *ret_fd, struct err *err)
{
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, errno, "socketpair");
	pid = fork();
	if (pid < 0) {
		pid = err_errno(err, errno, "fork");
		close(sv[0]);
		close(sv[1]);
		return pid;
	}
	*ret_fd = sv[pid == 0];
	close(sv[pid != 0]);
	return pid;
}
