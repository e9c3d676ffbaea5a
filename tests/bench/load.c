/*
 * Asks a server over an AF_UNIX socket, and the bare server that everything is measured beside.
 *
 * echo SOCKET: takes 64 bytes, answers 256, through epoll; reads the peer's credentials at each accept. Until its standard input ends.
 * Without arguments: reads lines "SOCKET CONNECTIONS COUNT MS keep|close REPLY REQUEST" and answers each with a line of JSON. It asks until
 * COUNT answers or MS milliseconds (0: no limit) came to an end; close: a connection each; REPLY: bytes of an answer, 0: it is HTTP;
 * REQUEST: hexadecimal, ##### in it is the request's number. One connection waits in recv(), several in epoll.
 */
#include "bench/clock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ECHO_IN 64
#define ECHO_OUT 256
#define REQUEST_MAX 8192
#define CONNECTIONS_MAX 1024
#define TIMES_MAX 4000000u

struct connection {
	int fd;
	double sent_us;
	size_t got, want;	/* bytes of the answer; want 0: its head is not whole */
	char buf[4096];
};

struct run {
	struct sockaddr_un to;
	char request[REQUEST_MAX];
	size_t request_len, reply_len, number_at; /* number_at 0: there is none */
	unsigned long sent, answered, refused, count;
	double until_us;
	bool close;
};

static double *times;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(to.sun_path))
		die(path);
	memcpy(to.sun_path, path, strlen(path));
	return to;
}

static void watch(int epoll_fd, int fd, void *what)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = what};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("epoll_ctl");
}

static void echo_accept(int epoll_fd, int listen_fd)
{
	int *fd = malloc(sizeof(*fd));
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (!fd)
		die("echo");
	*fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*fd < 0 || getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		die("accept");
	watch(epoll_fd, *fd, fd);
}

static int echo(const char *path)
{
	static char buf[ECHO_OUT];
	struct sockaddr_un at = address(path);
	struct epoll_event ev[64];
	int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), epoll_fd = epoll_create1(EPOLL_CLOEXEC), standard_input = 0, n;

	if (bind(listen_fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listen_fd, 1024) < 0)
		die(path);
	watch(epoll_fd, listen_fd, &listen_fd);
	watch(epoll_fd, 0, &standard_input);
	puts("ready");
	fflush(stdout);
	while ((n = epoll_wait(epoll_fd, ev, 64, -1)) > 0)
		for (int i = 0; i < n; i++) {
			int *fd = ev[i].data.ptr;

			if (*fd == 0)
				return 0;
			if (*fd == listen_fd) {
				echo_accept(epoll_fd, listen_fd);
			} else if (recv(*fd, buf, ECHO_IN, 0) != ECHO_IN || send(*fd, buf, ECHO_OUT, MSG_NOSIGNAL) != ECHO_OUT) {
				close(*fd);
				free(fd);
			}
		}
	return 1;
}

static bool may_send(const struct run *r)
{
	return (!r->count || r->sent < r->count) && (r->until_us <= 0 || clock_us() < r->until_us);
}

static void send_next(struct run *r, struct connection *c)
{
	char number[16];

	if (r->number_at) {
		snprintf(number, sizeof(number), "%05lu", r->sent % 100000);
		memcpy(r->request + r->number_at, number, 5);
	}
	c->got = c->want = 0;
	c->sent_us = clock_us();
	if (c->fd < 0) {
		c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(c->fd, (const struct sockaddr *)&r->to, sizeof(r->to)) < 0)
			die(r->to.sun_path);
	}
	if (send(c->fd, r->request, r->request_len, MSG_NOSIGNAL) != (ssize_t)r->request_len)
		die("send");
	r->sent++;
}

/* Takes what is there; true: the answer is whole. */
static bool receive(struct run *r, struct connection *c)
{
	ssize_t n = recv(c->fd, c->buf + c->got, sizeof(c->buf) - 1 - c->got, 0);
	const char *end, *length;

	if (n <= 0)
		die("the server closed the connection");
	c->got += (size_t)n;
	c->buf[c->got] = '\0';
	if (!c->want && r->reply_len) {
		c->want = r->reply_len;
	} else if (!c->want && (end = strstr(c->buf, "\r\n\r\n")) && (length = strstr(c->buf, "Content-Length: "))) {
		c->want = (size_t)(end - c->buf) + 4 + strtoul(length + 16, NULL, 10);
		r->refused += strncmp(c->buf, "HTTP/1.1 200", 12) != 0;
	}
	if (!c->want || c->got < c->want)
		return false;
	if (r->answered < TIMES_MAX)
		times[r->answered] = clock_us() - c->sent_us;
	r->answered++;
	return true;
}

static void ask_one(struct run *r, struct connection *c)
{
	while (may_send(r)) {
		send_next(r, c);
		while (!receive(r, c))
			;
		if (r->close) {
			close(c->fd);
			c->fd = -1;
		}
	}
}

static void ask_many(struct run *r, struct connection *all, size_t n)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), k;
	struct epoll_event ev[64];

	for (size_t i = 0; i < n && may_send(r); i++) {
		send_next(r, &all[i]);
		watch(epoll_fd, all[i].fd, &all[i]);
	}
	while (r->answered < r->sent) {
		k = epoll_wait(epoll_fd, ev, 64, -1);
		for (int i = 0; i < k; i++) {
			struct connection *c = ev[i].data.ptr;

			if (!receive(r, c))
				continue;
			if (r->close) {
				close(c->fd);
				c->fd = -1;
			}
			if (!may_send(r))
				continue;
			send_next(r, c);
			if (r->close)
				watch(epoll_fd, c->fd, c);
		}
	}
	close(epoll_fd);
}

static void run(struct run *r, size_t connections, double ms)
{
	static struct connection all[CONNECTIONS_MAX];
	double began, ended;
	size_t n;

	if (connections < 1 || connections > CONNECTIONS_MAX)
		die("connections");
	for (size_t i = 0; i < connections; i++) {
		all[i].fd = -1;
		if (!r->close) {
			all[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (connect(all[i].fd, (const struct sockaddr *)&r->to, sizeof(r->to)) < 0)
				die(r->to.sun_path);
		}
	}
	began = clock_us();
	r->until_us = ms > 0 ? began + ms * 1e3 : 0;
	if (connections == 1)
		ask_one(r, all);
	else
		ask_many(r, all, connections);
	ended = clock_us();
	for (size_t i = 0; i < connections; i++)
		if (all[i].fd >= 0)
			close(all[i].fd);
	n = r->answered < TIMES_MAX ? r->answered : TIMES_MAX;
	qsort(times, n, sizeof(*times), clock_compare);
	printf("{\"n\": %lu, \"refused\": %lu, \"s\": %.6f, \"per_s\": %.1f, \"p50\": %.2f, \"p99\": %.2f}\n", r->answered, r->refused, (ended - began) / 1e6,
	       (double)r->answered / ((ended - began) / 1e6), n ? times[n / 2] : 0, n ? times[n * 99 / 100] : 0);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static char line[2 * REQUEST_MAX + 512], hex[2 * REQUEST_MAX + 1], path[128], how[8];
	unsigned long connections;
	double ms;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return echo(argv[2]);
	times = calloc(TIMES_MAX, sizeof(*times));
	while (times && fgets(line, sizeof(line), stdin)) {
		struct run r = {0};
		char *number;

		if (sscanf(line, "%107s %lu %lu %lf %7s %zu %16384s", path, &connections, &r.count, &ms, how, &r.reply_len, hex) != 7)
			die("a line");
		r.to = address(path);
		r.close = strcmp(how, "close") == 0;
		for (const char *p = hex; sscanf(p, "%2hhx", (unsigned char *)&r.request[r.request_len]) == 1; p += 2)
			r.request_len++;
		number = memmem(r.request, r.request_len, "#####", 5);
		r.number_at = number ? (size_t)(number - r.request) : 0;
		run(&r, connections, ms);
	}
	free(times);
	return 0;
}
