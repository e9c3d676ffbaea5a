#include "broker/peer.h"

#include "broker/peer_tcp.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Missing from Debian 12's headers: Linux 6.5 and 6.13. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

struct pidfd_info {
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};
_Static_assert(sizeof(struct pidfd_info) == 64, "the kernel's first version of it");

#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#define PIDFD_INFO_PID 1u
#define PIDFD_INFO_CREDS 2u
#define PIDFD_INFO_CGROUPID 4u
#define WANTED (PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_CGROUPID)

#define GONE "the caller is gone"
#define ROOT_CGROUP 1u /* every process stands there until somebody moves it: no identity */

bool process_ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

/* Of a zombie, too. */
static int process_info(int pidfd, struct process *ret, struct err *err)
{
	struct pidfd_info info = {.mask = WANTED};

	if (ioctl(pidfd, PIDFD_GET_INFO, &info) != 0)
		return err_set(err, ERR_DENIED, errno == ESRCH	   ? "the process is gone"
						: errno == EREMOTE ? "the process is in a pid namespace that the broker cannot see"
								   : "the kernel does not tell who the process is");
	if ((info.mask & WANTED) != WANTED || info.pid == 0)
		return err_set(err, ERR_DENIED, "the kernel does not tell who the process is");
	if (info.ruid != info.euid || info.rgid != info.egid)
		return err_set(err, ERR_DENIED, "the process runs a setuid or setgid program");
	if (info.euid == PEER_OVERFLOW_ID || info.euid == UINT32_MAX)
		return err_set(err, ERR_DENIED, "the process has no uid that the broker can see: is cotterd in a user namespace?");
	*ret = (struct process){.pid = info.tgid, .uid = info.euid, .gid = info.egid,
				.cgroup = info.cgroupid <= ROOT_CGROUP ? 0 : info.cgroupid};
	return 0;
}

int process_read(int pidfd, struct process *ret, struct err *err)
{
	int r = process_info(pidfd, ret, err);

	return r == 0 && process_ended(pidfd) ? err_set(err, ERR_DENIED, "the process is gone") : r;
}

uint64_t process_id(int pidfd)
{
	struct stat st;

	return pidfd >= 0 && fstat(pidfd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static int peer_pidfd(int socket)
{
	int fd = -1;
	socklen_t len = sizeof(fd);

	return getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0 ? fd : -1;
}

int peer_supported(struct err *err)
{
	CLEANUP(cleanup_close) int a = -1;
	CLEANUP(cleanup_close) int b = -1;
	CLEANUP(cleanup_close) int pidfd = -1;
	struct process self;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	a = pair[0];
	b = pair[1];
	pidfd = peer_pidfd(a);
	if (pidfd < 0)
		return err_set(err, ERR_UNSUPPORTED, "this kernel has no SO_PEERPIDFD (Linux 6.5): tokens cannot be bound to a job's cgroup");
	if (process_read(pidfd, &self, NULL) < 0 || self.pid != (uint32_t)getpid())
		return err_set(err, ERR_UNSUPPORTED, "this kernel has no PIDFD_GET_INFO (Linux 6.13): tokens cannot be bound to a job's cgroup");
	return 0;
}

int peer_init(int socket, bool has_pidfd, struct peer *ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
		return -ERR_FAILED;
	*ret = (struct peer){.uid = cred.uid, .gid = cred.gid, .pid = cred.pid, .pidfd = -1};
	if (cred.uid == PEER_OVERFLOW_ID || cred.uid == UINT32_MAX)
		ret->problem = "the caller has no uid that the broker can see: is cotterd in a user namespace?";
	else if (cred.pid <= 0)
		ret->problem = "the caller is in a pid namespace that the broker cannot see";
	if (!has_pidfd || ret->problem)
		return 0;
	ret->pidfd = peer_pidfd(socket);
	ret->pidfd_id = process_id(ret->pidfd);
	if (ret->pidfd < 0)
		ret->problem = "the kernel does not tell who the caller is";
	else
		peer_refresh(ret);
	return 0;
}

void peer_refresh(struct peer *p)
{
	struct process now;

	if (p->tcp) {
		peer_tcp_refresh(p);
		return;
	}
	p->cgroup = 0;
	if (p->pidfd < 0 || p->problem)
		return;
	if ((p->watched ? process_info : process_read)(p->pidfd, &now, NULL) < 0)
		p->problem = process_ended(p->pidfd) ? GONE
						     : "the kernel does not tell who the caller is, or it runs a setuid program";
	else if (now.uid != p->uid || now.gid != p->gid) /* it connected, and then became somebody else */
		p->problem = "the caller is not the user any more that it was when it connected";
	else
		p->cgroup = now.cgroup;
}

void peer_watch(struct peer *p, int epoll_fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = p};

	if (!p->watched && p->pidfd >= 0 && !p->problem)
		p->watched = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, p->pidfd, &ev) == 0;
}

void peers_look(int epoll_fd)
{
	struct epoll_event ev[64];
	int n;

	do {
		n = epoll_wait(epoll_fd, ev, 64, 0);
		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;

			p->problem = p->problem ? p->problem : GONE;
			p->cgroup = 0;
		}
	} while (n == 64);
}

void peer_done(struct peer *p)
{
	if (p->pidfd >= 0)
		close(p->pidfd);
	p->pidfd = -1;
}
