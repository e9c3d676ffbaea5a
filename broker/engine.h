#pragma once
/*
 * Engines: programs of the operator's, started by the launcher for one request each, confined. JSON on their standard input, JSON on their
 * standard output: see doc/engines.md.
 */
#include "broker/json.h"
#include "common/limits.h"
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>

struct config_engine;
struct engine_run;
struct err;

/* result: 0, or -ERR_*; answer: the object that the program printed, only lent, NULL when result < 0. message is for the audit log. */
typedef void engine_done(void *ctx, int result, const json_t *answer, const char *message);

struct engine_run {
	int fd; /* -1: free */
	struct engines *owner;
	struct secret out, in;
	size_t sent;
	uint32_t number;
	uint64_t deadline_ms;
	engine_done *done;
	void *ctx;
};

struct engines {
	int launcher_fd, epoll_fd;
	uint32_t n_started;
	struct engine_run runs[LIMIT_ENGINE_RUNS];
};

void engines_init(struct engines *e, int launcher_fd, int epoll_fd);
/* Nobody hears of what still runs. */
void engines_stop(struct engines *e);
/* request: taken. done is called later, never before this returns, and only when it returned 0. ERR_BUSY: too many run. index: the engine's place in the
 * configuration that cotterd was started with. */
int engine_start(struct engines *e, uint32_t index, struct secret *request, engine_done *done, void *ctx, struct err *err);
bool engine_is_run(const struct engines *e, const void *tag);
/* Its descriptor is ready. */
void engine_event(struct engine_run *run, uint32_t events);
/* Those whose time is over. */
void engines_tick(struct engines *e, uint64_t now_ms);
