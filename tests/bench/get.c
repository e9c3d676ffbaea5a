/*
 * The time of a GET beside a bare AF_UNIX round trip of 64/256 bytes through epoll, in one run, round by round, since these
 * machines are noisy. Reads lines "label socket path token" on standard input; prints one JSON object a label.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <signal.h>
#include <unistd.h>

#define ROUNDS 15
#define TARGETS 16
#define ECHO_IN 64
#define ECHO_OUT 256

struct target {
	char label[32], request[4096], reply_to[108];
	size_t request_len;
	int fd, calls;
	double p50[ROUNDS], per_s[ROUNDS];
};

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static _Noreturn void echo_server(int listen_fd)
{
	char buf[ECHO_OUT] = {0};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0), fd = accept(listen_fd, NULL, NULL);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ev.data.fd = fd;
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	while (epoll_wait(ep, &ev, 1, -1) == 1)
		if (recv(fd, buf, ECHO_IN, 0) <= 0 || send(fd, buf, ECHO_OUT, MSG_NOSIGNAL) != ECHO_OUT)
			break;
	_exit(0);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die(path);
	return fd;
}

static void start_echo(struct target *t)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/cotter-echo.%d", getpid());
	unlink(addr.sun_path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0)
		die("echo");
	if (fork() == 0)
		echo_server(fd);
	*t = (struct target){.label = "echo", .request_len = ECHO_IN, .calls = 2000};
	t->fd = connect_to(addr.sun_path);
	unlink(addr.sun_path);
}

/* The end of a reply: the echo's fixed length, else the head's Content-Length. */
static bool whole(const struct target *t, const char *buf, size_t len)
{
	const char *end, *length;

	if (strcmp(t->label, "echo") == 0)
		return len >= ECHO_OUT;
	end = memmem(buf, len, "\r\n\r\n", 4);
	length = memmem(buf, len, "Content-Length: ", 16);
	return end && length && len >= (size_t)(end - buf) + 4 + strtoul(length + 16, NULL, 10);
}

static void call(struct target *t)
{
	char buf[65536];
	size_t len = 0;
	ssize_t n;

	if (send(t->fd, t->request, t->request_len, MSG_NOSIGNAL) != (ssize_t)t->request_len)
		die(t->label);
	do {
		n = recv(t->fd, buf + len, sizeof(buf) - len, 0);
		if (n <= 0)
			die(t->label);
		len += (size_t)n;
	} while (!whole(t, buf, len));
	if (strcmp(t->label, "echo") != 0 && memcmp(buf, "HTTP/1.1 200", 12) != 0) {
		fprintf(stderr, "%s: %.200s\n", t->label, buf);
		exit(1);
	}
}

static void run_round(struct target *t, int round)
{
	static double us[4096];
	double start = now_us(), at;

	for (int i = 0; i < t->calls; i++) {
		at = now_us();
		call(t);
		us[i] = now_us() - at;
	}
	t->per_s[round] = t->calls / ((now_us() - start) / 1e6);
	qsort(us, (size_t)t->calls, sizeof(us[0]), by_value);
	t->p50[round] = us[t->calls / 2];
}

int main(void)
{
	static struct target targets[TARGETS];
	static char line[4096], path[600], token[2000];
	int n = 1;

	start_echo(&targets[0]);
	while (n < TARGETS && fgets(line, sizeof(line), stdin)) {
		struct target *t = &targets[n];

		if (sscanf(line, "%31s %107s %599s %1999s", t->label, t->reply_to, path, token) != 4)
			continue;
		t->fd = connect_to(t->reply_to);
		t->request_len = (size_t)snprintf(t->request, sizeof(t->request), "GET /v1/secret/data/%s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\n\r\n", path, token);
		t->calls = strstr(t->label, "cold") ? 60 : 2000;
		call(t);
		n++;
	}
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < n; i++)
			run_round(&targets[i], round);
	for (int i = 0; i < n; i++) {
		struct target *t = &targets[i];

		qsort(t->p50, ROUNDS, sizeof(double), by_value);
		qsort(t->per_s, ROUNDS, sizeof(double), by_value);
		printf("{\"label\": \"%s\", \"p50_us\": %.1f, \"p50_best_us\": %.1f, \"per_s\": %.0f}\n", t->label, t->p50[ROUNDS / 2], t->p50[0], t->per_s[ROUNDS / 2]);
	}
	return 0;
}
