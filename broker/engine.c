#include "broker/engine.h"

#include "broker/launcher.h"
#include "broker/token.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void engines_init(struct engines *e, int launcher_fd, int epoll_fd)
{
	*e = (struct engines){.launcher_fd = launcher_fd, .epoll_fd = epoll_fd};
	for (size_t i = 0; i < LIMIT_ENGINE_RUNS; i++)
		e->runs[i] = (struct engine_run){.fd = -1, .owner = e};
}

static void release(struct engine_run *run)
{
	close(run->fd);
	run->fd = -1;
	secret_clear(&run->out);
	secret_clear(&run->in);
}

void engines_stop(struct engines *e)
{
	for (size_t i = 0; i < LIMIT_ENGINE_RUNS; i++)
		if (e->runs[i].owner && e->runs[i].fd >= 0)
			release(&e->runs[i]);
}

static void finish(struct engine_run *run, int result, const json_t *answer, const char *message)
{
	engine_done *done = run->done;
	void *ctx = run->ctx;

	/* what it left running goes, too */
	launcher_kill_engine(run->owner->launcher_fd, run->number);
	release(run);
	done(ctx, result, answer, message);
}

int engine_start(struct engines *e, uint32_t index, struct secret *request, engine_done *done, void *ctx, struct err *err)
{
	struct engine_run *run = NULL;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT};
	int r;

	for (size_t i = 0; i < LIMIT_ENGINE_RUNS && !run; i++)
		run = e->runs[i].fd < 0 ? &e->runs[i] : NULL;
	if (!run)
		return err_set(err, ERR_BUSY, "%u programs of engines run already: try again", LIMIT_ENGINE_RUNS);
	run->number = ++e->n_started;
	r = launcher_run_engine(e->launcher_fd, index, run->number, &run->fd, err);
	if (r < 0) {
		run->fd = -1;
		return r;
	}
	run->out = *request;
	*request = (struct secret){0};
	run->sent = 0;
	run->deadline_ms = token_boot_ms() + LIMIT_ENGINE_MS;
	run->done = done;
	run->ctx = ctx;
	ev.data.ptr = run;
	r = secret_new(&run->in, 1024, err);
	if (r == 0 && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, run->fd, &ev) < 0)
		r = err_errno(err, errno, "epoll");
	if (r < 0)
		release(run);
	return r;
}

bool engine_is_run(const struct engines *e, const void *tag)
{
	return (const char *)tag >= (const char *)&e->runs[0] && (const char *)tag < (const char *)&e->runs[LIMIT_ENGINE_RUNS];
}

static void send_some(struct engine_run *run)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = run};
	ssize_t n = send(run->fd, run->out.data + run->sent, run->out.len - run->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		run->sent += (size_t)n;
	/* one that does not read its input is told apart by what it prints */
	if (run->sent < run->out.len && (n >= 0 || errno == EAGAIN))
		return;
	secret_clear(&run->out);
	shutdown(run->fd, SHUT_WR);
	epoll_ctl(run->owner->epoll_fd, EPOLL_CTL_MOD, run->fd, &ev);
}

/* Its word is whole when it ends: an object, with "error" where it failed. */
static void conclude(struct engine_run *run)
{
	CLEANUP(json_cleanup) json_t *answer = NULL;
	struct err err = {0};
	const char *why;
	char text[200] = "";
	int r = run->in.len ? json_parse((char *)run->in.data, run->in.len, &answer, &err) : err_set(&err, ERR_FAILED, "the engine's program printed nothing");

	if (r < 0) {
		finish(run, -ERR_FAILED, NULL, run->in.len ? "what the engine's program printed is no JSON object" : err.msg);
		return;
	}
	why = json_string_value(json_object_get(answer, "error"));
	if (!why && json_object_get(answer, "error"))
		why = "an error that is no text";
	for (size_t i = 0; why && why[i] && i + 1 < sizeof(text); i++)
		text[i] = why[i] >= 0x20 && why[i] < 0x7f ? why[i] : '?';
	finish(run, why ? -ERR_FAILED : 0, answer, text);
}

static void receive_some(struct engine_run *run)
{
	uint8_t buffer[4096];
	ssize_t n = recv(run->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	int r = 0;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0)
		r = run->in.len + (size_t)n > LIMIT_SECRET_LEN ? -ERR_LIMIT : secret_append(&run->in, buffer, (size_t)n, NULL);
	explicit_bzero(buffer, sizeof(buffer));
	if (r < 0)
		finish(run, -ERR_FAILED, NULL, r == -ERR_LIMIT ? "the engine's program prints too much" : "the locked memory for secrets is full");
	else if (n <= 0)
		conclude(run);
}

void engine_event(struct engine_run *run, uint32_t events)
{
	if (run->fd >= 0 && events & EPOLLOUT && run->out.data)
		send_some(run);
	if (run->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive_some(run);
}

void engines_tick(struct engines *e, uint64_t now_ms)
{
	for (size_t i = 0; i < LIMIT_ENGINE_RUNS; i++)
		if (e->runs[i].fd >= 0 && now_ms >= e->runs[i].deadline_ms)
			finish(&e->runs[i], -ERR_FAILED, NULL, "the engine's program took too long");
}
