#include "broker/peer_tcp.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DIAG_CGROUP_ID 21u /* INET_DIAG_CGROUP_ID, Linux 5.8 */
#define ESTABLISHED 1u	   /* of a socket that waits for its end the kernel tells uid 0 */
#define ROOT_CGROUP 1u

struct question {
	struct nlmsghdr head;
	struct inet_diag_req_v2 body;
};

struct end {
	uint32_t uid, inode;
	uint64_t cgroup;
};

static bool read_attributes(const struct inet_diag_msg *m, size_t len, struct end *ret)
{
	const char *p = (const char *)(m + 1);
	struct rtattr a;

	for (len -= sizeof(*m); len >= sizeof(a); p += RTA_ALIGN(a.rta_len), len -= RTA_ALIGN(a.rta_len)) {
		memcpy(&a, p, sizeof(a));
		if (a.rta_len < sizeof(a) || RTA_ALIGN(a.rta_len) > len)
			return false;
		if (a.rta_type != DIAG_CGROUP_ID || a.rta_len != sizeof(a) + sizeof(ret->cgroup))
			continue;
		memcpy(&ret->cgroup, p + sizeof(a), sizeof(ret->cgroup));
		return true;
	}
	return false;
}

/* The socket that is bound to remote and connected to local. false: there is none, or the kernel does not tell. */
static bool ask(int fd, const struct sockaddr_in *local, const struct sockaddr_in *remote, struct end *ret)
{
	struct question q = {.head = {.nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
			     .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = UINT32_MAX,
				      .id = {.idiag_sport = remote->sin_port, .idiag_dport = local->sin_port,
					     .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}}};
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} a;
	struct inet_diag_msg m;
	ssize_t n;

	q.body.id.idiag_src[0] = remote->sin_addr.s_addr;
	q.body.id.idiag_dst[0] = local->sin_addr.s_addr;
	while (recv(fd, &a, sizeof(a), MSG_DONTWAIT) > 0)
		; /* nothing of an older question is taken for an answer */
	if (send(fd, &q, sizeof(q), 0) != (ssize_t)sizeof(q))
		return false;
	n = recv(fd, &a, sizeof(a), MSG_DONTWAIT);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(m)) || a.head.nlmsg_len > (size_t)n || a.head.nlmsg_len < NLMSG_LENGTH(sizeof(m)) ||
	    a.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return false;
	memcpy(&m, NLMSG_DATA(&a.head), sizeof(m));
	/* a socket of IPv6 may speak IPv4 */
	if ((m.idiag_family != AF_INET && m.idiag_family != AF_INET6) || m.idiag_state != ESTABLISHED || m.idiag_inode == 0 || m.id.idiag_sport != remote->sin_port ||
	    m.id.idiag_dport != local->sin_port)
		return false;
	*ret = (struct end){.uid = m.idiag_uid, .inode = m.idiag_inode};
	return read_attributes(NLMSG_DATA(&a.head), a.head.nlmsg_len - NLMSG_HDRLEN, ret);
}

static int pair(struct sockaddr_in *local, int ret[2])
{
	CLEANUP(cleanup_close) int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*local);

	*local = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	ret[0] = ret[1] = -1;
	if (listener < 0 || bind(listener, (struct sockaddr *)local, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)local, &len) < 0)
		return -1;
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ret[0] < 0 || connect(ret[0], (struct sockaddr *)local, len) < 0)
		return -1;
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return ret[1] < 0 ? -1 : 0;
}

/* Whether the kernel tells the truth of a connection of our own. */
int peer_tcp_open(int *ret, struct err *err)
{
	CLEANUP(cleanup_close) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	CLEANUP(cleanup_close) int a = -1;
	CLEANUP(cleanup_close) int b = -1;
	struct sockaddr_in local;
	struct peer self;
	int ends[2], r;

	if (fd < 0)
		return err_errno(err, errno, "http.listen: a netlink socket");
	r = pair(&local, ends);
	a = ends[0];
	b = ends[1];
	if (r < 0)
		return err_errno(err, errno, "http.listen: a connection to try it");
	if (peer_tcp_init(b, fd, &self) < 0 || self.problem || self.uid != geteuid())
		return err_set(err, ERR_UNSUPPORTED, "http.listen: this kernel does not tell who is at the other end (Linux 5.8, INET_DIAG)");
	*ret = steal_fd(&fd);
	return 0;
}

int peer_tcp_init(int socket, int diag_fd, struct peer *ret)
{
	struct sockaddr_in local = {0}, remote = {0};
	socklen_t n = sizeof(local), m = sizeof(remote);
	struct end end;

	if (getsockname(socket, (struct sockaddr *)&local, &n) < 0 || getpeername(socket, (struct sockaddr *)&remote, &m) < 0 ||
	    local.sin_family != AF_INET || remote.sin_family != AF_INET)
		return -ERR_FAILED;
	*ret = (struct peer){.uid = UINT32_MAX, .gid = UINT32_MAX, .pidfd = -1, .tcp = true, .diag_fd = diag_fd, .local = local, .remote = remote};
	if (!ask(diag_fd, &local, &remote, &end)) {
		ret->problem = "the kernel does not tell who is at the other end of the connection";
		return 0;
	}
	ret->uid = end.uid;
	ret->inode = end.inode;
	ret->cgroup = end.cgroup <= ROOT_CGROUP ? 0 : end.cgroup;
	if (end.uid == PEER_OVERFLOW_ID || end.uid == UINT32_MAX)
		ret->problem = "the caller has no uid that the broker can see: is cotterd in a user namespace?";
	return 0;
}

void peer_tcp_refresh(struct peer *p)
{
	struct end end;

	p->cgroup = 0;
	if (p->problem)
		return;
	if (!ask(p->diag_fd, &p->local, &p->remote, &end) || end.inode != p->inode || end.uid != p->uid)
		p->problem = "the caller is gone";
	else
		p->cgroup = end.cgroup <= ROOT_CGROUP ? 0 : end.cgroup;
}
