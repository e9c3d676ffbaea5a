#include "broker/launcher.h"

#include "broker/keyd.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static void reply(int fd, int socket, int pidfd)
{
	char ok = socket >= 0;
	struct iovec iov = {&ok, 1};
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[2] = {socket, pidfd};
	struct cmsghdr *c;

	if (ok) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fds));
		memcpy(CMSG_DATA(c), fds, sizeof(fds));
	}
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		_exit(0);
}

static _Noreturn void serve(const struct config *config, int fd)
{
	uint32_t index;
	struct err err = {0};
	int socket, pidfd;
	pid_t pid;

	for (;;) {
		if (recv(fd, &index, sizeof(index), 0) != (ssize_t)sizeof(index))
			_exit(0); /* the broker is gone */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			; /* helpers that ended since */
		socket = pidfd = -1;
		if (index < config->n_providers && keyd_spawn(&config->providers[index], &socket, &pid, &err) == 0)
			pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0 && socket >= 0) {
			close(socket);
			socket = -1;
		}
		reply(fd, socket, pidfd);
		if (socket >= 0)
			close(socket);
		if (pidfd >= 0)
			close(pidfd);
	}
}

int launcher_start(const struct config *config, int *ret_fd, struct err *err)
{
	int sv[2];
	pid_t pid, parent = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, errno, "socketpair");
	keyd_path(); /* resolved now, while /proc/self/exe is ours to read */
	pid = fork();
	if (pid < 0) {
		close(sv[0]);
		close(sv[1]);
		return err_errno(err, errno, "fork");
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
		close(sv[0]);
		serve(config, sv[1]);
	}
	close(sv[1]);
	*ret_fd = sv[0];
	return 0;
}

int launcher_spawn(int launcher_fd, uint32_t index, int *ret_socket, int *ret_pidfd, struct err *err)
{
	char ok = 0;
	struct iovec iov = {&ok, 1};
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = launcher_fd, .events = POLLIN};
	struct cmsghdr *c;
	int fds[2];

	if (send(launcher_fd, &index, sizeof(index), MSG_NOSIGNAL) < 0 || poll(&p, 1, 2000) != 1 ||
	    recvmsg(launcher_fd, &msg, MSG_CMSG_CLOEXEC) != 1 || !ok)
		return err_set(err, ERR_HARDWARE, "the helper cannot be started: is cotter-keyd installed?");
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(fds)))
		return err_set(err, ERR_HARDWARE, "the helper cannot be started");
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	*ret_socket = fds[0];
	*ret_pidfd = fds[1];
	return 0;
}
