#include "tools/agent.h"

#include "broker/peer.h"
#include "broker/sandbox.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"
#include "pkcs11/token_rpc.h"
#include "tools/agent_dir.h"
#include "tools/agent_keys.h"
#include "tools/ssh_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 64u
#define SEND_TIMEOUT_S 5

enum protocol { PKCS11, SSH };

struct agent_client {
	int fd;
	enum protocol protocol;
	struct token_rpc rpc;
	struct ssh_agent ssh;
	uint8_t *in; /* TOKEN_RPC_MESSAGE bytes */
	size_t len;
};

struct agent {
	struct agent_keys keys;
	struct token token;
	uint64_t cgroup; /* of this process; 0: none of its own, or the kernel does not tell */
	bool has_pidfd;
	int listeners[2], signal_fd, leader;
	struct agent_client clients[CLIENTS];
	size_t n;
	uint8_t *reply;
};

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void drop(struct agent *a, size_t i)
{
	struct agent_client *c = &a->clients[i];

	close(c->fd);
	token_rpc_done(&c->rpc);
	sodium_memzero(c->in, TOKEN_RPC_MESSAGE); /* a PIN that a tool insisted on, what is to be signed */
	free(c->in);
	*c = a->clients[--a->n];
}

/* The job's own processes alone: the broker sees the agent, not who stands behind it. */
static bool is_ours(const struct agent *a, int fd)
{
	struct peer peer;
	bool ours;

	if (peer_init(fd, a->has_pidfd, &peer) < 0)
		return false;
	ours = !peer.problem && peer.uid == geteuid() && peer.cgroup == a->cgroup;
	peer_done(&peer);
	return ours;
}

static void take(struct agent *a, enum protocol protocol)
{
	CLEANUP(cleanup_close) int fd = accept4(a->listeners[protocol], NULL, NULL, SOCK_CLOEXEC);
	struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
	struct agent_client *c = &a->clients[a->n];

	if (fd < 0 || a->n == CLIENTS)
		return;
	if (!is_ours(a, fd)) {
		log_warn("a process that is not of this job was turned away");
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	*c = (struct agent_client){.protocol = protocol, .in = malloc(TOKEN_RPC_MESSAGE),
				   .ssh = {.keys = a->keys.keys, .n_keys = a->keys.n, .sign = agent_keys_sign, .ctx = &a->keys}};
	if (!c->in || token_rpc_init(&c->rpc, &a->token, NULL) < 0) {
		free(c->in);
		return;
	}
	c->fd = steal_fd(&fd);
	a->n++;
}

static bool send_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		p += sent;
		n -= (size_t)sent;
	}
	return true;
}

/* Bytes of the first whole message in c->in; 0: not there yet; below 0: the connection ends. */
static ssize_t whole(const struct agent_client *c)
{
	size_t n;

	if (c->protocol == PKCS11) {
		if (c->rpc.version < 0)
			return c->len >= 1;
		if (c->len < TOKEN_RPC_HEADER)
			return 0;
		if (token_rpc_length(c->in, &n, NULL) < 0)
			return -1;
		n += TOKEN_RPC_HEADER;
	} else {
		if (c->len < 4)
			return 0;
		n = 4 + ((size_t)c->in[0] << 24 | (size_t)c->in[1] << 16 | (size_t)c->in[2] << 8 | c->in[3]);
		if (n > SSH_AGENT_MESSAGE || n == 4)
			return -1;
	}
	return c->len >= n ? (ssize_t)n : 0;
}

static bool answer(struct agent *a, struct agent_client *c, size_t len)
{
	struct client *broker = &a->keys.client;
	struct err why = {0};
	size_t n = 1;
	bool sent;

	/* a request may wait for people: not longer than the client, the job, or we ourselves */
	broker->stop[0] = (struct pollfd){.fd = a->signal_fd, .events = POLLIN};
	broker->stop[1] = (struct pollfd){.fd = a->leader, .events = POLLIN};
	broker->stop[2] = (struct pollfd){.fd = c->fd}; /* POLLHUP: one that sends no more still waits */
	broker->n_stop = 3;

	if (c->protocol == SSH) {
		n = ssh_agent_answer(&c->ssh, c->in + 4, len - 4, a->reply, &why);
		if (why.code)
			log_warn("ssh: %s", why.msg);
	} else if (c->rpc.version < 0) {
		a->reply[0] = token_rpc_hello(&c->rpc, c->in[0]);
	} else if (token_rpc_answer(&c->rpc, c->in, len, a->reply, &n) < 0) {
		return false;
	}
	sent = send_all(c->fd, a->reply, n);
	sodium_memzero(a->reply, n); /* it may be what was decrypted */
	return sent;
}

/* false: the client is to go. */
static bool serve(struct agent *a, struct agent_client *c)
{
	ssize_t n = recv(c->fd, c->in + c->len, TOKEN_RPC_MESSAGE - c->len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	c->len += (size_t)n;
	while ((n = whole(c)) > 0) {
		if (!answer(a, c, (size_t)n))
			return false;
		memmove(c->in, c->in + n, c->len - (size_t)n);
		c->len -= (size_t)n;
	}
	return n == 0 && c->len < TOKEN_RPC_MESSAGE;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static int listen_on(const char *dir, const char *name, int *ret, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	CLEANUP(cleanup_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* p11-kit cuts longer paths off in silence */
	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", dir, name) >= sizeof(addr.sun_path))
		return err_set(err, ERR_LIMIT, "%s: too long for a socket's path", dir);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
		return err_errno(err, errno, "the socket %s", addr.sun_path);
	*ret = steal_fd(&fd);
	return 0;
}

static void own_cgroup(struct agent *a)
{
	struct process self;
	int pair[2];
	struct peer peer;

	a->has_pidfd = peer_supported(NULL) == 0;
	if (!a->has_pidfd || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	if (peer_init(pair[0], true, &peer) == 0) {
		if (process_read(peer.pidfd, &self, NULL) == 0)
			a->cgroup = self.cgroup;
		peer_done(&peer);
	}
	close(pair[0]);
	close(pair[1]);
}

static void loop(struct agent *a)
{
	struct pollfd fds[CLIENTS + 4];
	struct signalfd_siginfo info;

	for (;;) {
		size_t n = 0, clients = a->n;

		fds[n++] = (struct pollfd){.fd = a->signal_fd, .events = POLLIN};
		fds[n++] = (struct pollfd){.fd = a->leader, .events = POLLIN};
		for (int i = 0; i < 2; i++)
			fds[n++] = (struct pollfd){.fd = a->n < CLIENTS ? a->listeners[i] : -1, .events = POLLIN};
		for (size_t i = 0; i < clients; i++)
			fds[n++] = (struct pollfd){.fd = a->clients[i].fd, .events = POLLIN};
		if (poll(fds, n, -1) < 0 && errno != EINTR)
			return;
		if ((fds[0].revents && read(a->signal_fd, &info, sizeof(info)) > 0) || fds[1].revents)
			return;
		/* from the end: dropping one puts the last into its place */
		for (size_t i = clients; i-- > 0;)
			if (fds[4 + i].revents && !serve(a, &a->clients[i]))
				drop(a, i);
		for (int i = 0; i < 2; i++)
			if (fds[2 + i].revents & POLLIN)
				take(a, i == 0 ? PKCS11 : SSH);
	}
}

static int start(struct agent *a, const struct agent_options *o, struct err *err)
{
	CLEANUP(cleanup_free) char *above = strdup(o->dir);
	const struct sandbox_path paths[] = {{o->dir, SANDBOX_WRITE}, {above ? dirname(above) : "", SANDBOX_RMDIR}};
	sigset_t set;
	int level, r;

	own_cgroup(a);
	r = agent_keys_load(&a->keys, o->token, err);
	if (r == 0)
		r = token_init(&a->token, a->keys.keys, a->keys.n, agent_keys_sign, &a->keys, err);
	if (r == 0)
		r = listen_on(o->dir, AGENT_PKCS11_SOCKET, &a->listeners[PKCS11], err);
	if (r == 0)
		r = listen_on(o->dir, AGENT_SSH_SOCKET, &a->listeners[SSH], err);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	a->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	a->reply = malloc(TOKEN_RPC_MESSAGE);
	if (r == 0 && (a->signal_fd < 0 || !a->reply))
		r = err_set(err, ERR_FAILED, "the agent cannot start");
	if (r == 0 && o->confine)
		r = sandbox_files(paths, 2, &level, err);
	if (r == 0 && o->confine)
		r = sandbox_keyd_syscalls(err);
	return r;
}

int agent_run(const struct agent_options *o, void (*ready)(void *ctx), void *ctx, struct err *err)
{
	static const struct sched_param none = {0};
	CLEANUP(cleanup_free) struct agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_set(err, ERR_FAILED, "out of memory");
	/* p11-kit's client writes a message in pieces: who wakes for the first only takes its processor from it before the last */
	sched_setscheduler(0, SCHED_BATCH, &none);
	a->listeners[0] = a->listeners[1] = a->signal_fd = -1;
	a->keys.client.fd = -1;
	a->leader = o->leader_pidfd;
	r = start(a, o, err);
	if (r == 0) {
		ready(ctx);
		loop(a);
	}
	/* only what this one made: another may serve there; a directory that is not empty stays */
	agent_dir_remove(o->dir, a->listeners[PKCS11] >= 0, a->listeners[SSH] >= 0);
	while (a->n)
		drop(a, 0);
	for (int i = 0; i < 2; i++)
		if (a->listeners[i] >= 0)
			close(a->listeners[i]);
	if (a->signal_fd >= 0)
		close(a->signal_fd);
	free(a->reply);
	token_done(&a->token);
	agent_keys_done(&a->keys);
	return r;
}
