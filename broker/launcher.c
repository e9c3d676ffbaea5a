#include "broker/launcher.h"

#include "broker/engine_exec.h"
#include "broker/keyd.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum order_kind { ORDER_START, ORDER_KILL, ORDER_RUN_ENGINE, ORDER_KILL_ENGINE };

struct order {
	uint32_t kind, index, number;
};

/* What runs. Only in the launcher are its children reaped: a pid in a table is alive or a zombie, never somebody else. */
struct children {
	pid_t helpers[LIMIT_PROVIDERS];
	struct {
		pid_t pid;
		uint32_t number;
	} engines[LIMIT_ENGINE_RUNS * 2]; /* some may be dying still */
};

struct answer {
	uint32_t number, ok;
};

union control {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void reply(int fd, uint32_t number, int socket)
{
	struct answer a = {number, socket >= 0};
	struct iovec iov = {&a, sizeof(a)};
	union control control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (a.ok) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(socket));
		memcpy(CMSG_DATA(c), &socket, sizeof(socket));
	}
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		_exit(0);
}

static void spawn(const struct config *config, int fd, const struct order *o, pid_t *pid)
{
	struct err err = {0};
	int socket = -1;

	if (keyd_spawn(&config->providers[o->index], &socket, pid, &err) < 0)
		*pid = 0;
	reply(fd, o->number, socket);
	if (socket >= 0)
		close(socket);
}

static void run_engine(const struct config *config, int fd, const struct order *o, struct children *c)
{
	struct err err = {0};
	int socket = -1;

	for (size_t i = 0; i < sizeof(c->engines) / sizeof(c->engines[0]); i++) {
		if (c->engines[i].pid)
			continue;
		if (engine_spawn(&config->engines[o->index], &socket, &c->engines[i].pid, &err) < 0)
			c->engines[i].pid = 0;
		c->engines[i].number = o->number;
		break;
	}
	reply(fd, o->number, socket);
	if (socket >= 0)
		close(socket);
}

static void forget(struct children *c, pid_t dead)
{
	for (size_t i = 0; i < LIMIT_PROVIDERS; i++)
		if (c->helpers[i] == dead)
			c->helpers[i] = 0;
	for (size_t i = 0; i < sizeof(c->engines) / sizeof(c->engines[0]); i++)
		if (c->engines[i].pid == dead)
			c->engines[i].pid = 0;
}

/* With all that it started: it leads a process group. */
static void kill_engine(const struct children *c, uint32_t number)
{
	for (size_t i = 0; i < sizeof(c->engines) / sizeof(c->engines[0]); i++)
		if (c->engines[i].pid > 0 && c->engines[i].number == number)
			kill(-c->engines[i].pid, SIGKILL);
}

static _Noreturn void serve(const struct config *config, int fd)
{
	struct children c = {0};
	struct order o;
	pid_t dead;

	for (;;) {
		if (recv(fd, &o, sizeof(o), 0) != (ssize_t)sizeof(o) || (o.kind <= ORDER_KILL && o.index >= config->n_providers) ||
		    (o.kind == ORDER_RUN_ENGINE && o.index >= config->n_engines))
			_exit(0); /* the broker is gone */
		/* before its leader is reaped: the group's name is its own until then */
		if (o.kind == ORDER_KILL_ENGINE)
			kill_engine(&c, o.number);
		while ((dead = waitpid(-1, NULL, WNOHANG)) > 0)
			forget(&c, dead);
		if (o.kind == ORDER_START)
			spawn(config, fd, &o, &c.helpers[o.index]);
		else if (o.kind == ORDER_RUN_ENGINE)
			run_engine(config, fd, &o, &c);
		else if (o.kind == ORDER_KILL && c.helpers[o.index] > 0)
			kill(c.helpers[o.index], SIGKILL);
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

void launcher_kill(int launcher_fd, uint32_t index)
{
	struct order o = {.kind = ORDER_KILL, .index = index};

	send(launcher_fd, &o, sizeof(o), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* 1: the answer to number; 0: a late one to somebody else. */
static int receive(int launcher_fd, uint32_t number, int *ret_socket)
{
	struct answer a = {0};
	struct iovec iov = {&a, sizeof(a)};
	union control control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = launcher_fd, .events = POLLIN};
	struct cmsghdr *c;

	*ret_socket = -1;
	if (poll(&p, 1, 2000) != 1 || recvmsg(launcher_fd, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(a))
		return -1;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_socket, CMSG_DATA(c), sizeof(int));
	if (a.number == number)
		return a.ok && *ret_socket >= 0 ? 1 : -1;
	if (*ret_socket >= 0)
		close(*ret_socket);
	return 0;
}

#define ENGINE_NUMBER (1u << 31)

static int ask(int launcher_fd, const struct order *o, int *ret_socket)
{
	int r = send(launcher_fd, o, sizeof(*o), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;

	while (r == 0)
		r = receive(launcher_fd, o->number, ret_socket);
	return r == 1 ? 0 : -1;
}

int launcher_spawn(int launcher_fd, uint32_t index, uint32_t number, int *ret_socket, struct err *err)
{
	struct order o = {.kind = ORDER_START, .index = index, .number = number};

	return ask(launcher_fd, &o, ret_socket) == 0 ? 0 : err_set(err, ERR_HARDWARE, "the helper cannot be started: is cotter-keyd installed?");
}

int launcher_run_engine(int launcher_fd, uint32_t index, uint32_t number, int *ret_socket, struct err *err)
{
	/* helpers have numbers of their own */
	struct order o = {.kind = ORDER_RUN_ENGINE, .index = index, .number = number | ENGINE_NUMBER};

	return ask(launcher_fd, &o, ret_socket) == 0 ? 0 : err_set(err, ERR_FAILED, "the engine's program cannot be run");
}

void launcher_kill_engine(int launcher_fd, uint32_t number)
{
	struct order o = {.kind = ORDER_KILL_ENGINE, .number = number | ENGINE_NUMBER};

	send(launcher_fd, &o, sizeof(o), MSG_NOSIGNAL | MSG_DONTWAIT);
}
