#pragma once
/* The near side of a cotter-keyd helper: start it, ask it one thing at a time. The broker's own event-driven queue is
 * in hardware.h; the command line uses keyd_call. */
#include "common/wire.h"

#include <sys/types.h>

struct config_provider;
struct err;
struct age_identity;
struct secret;

/* Execs cotter-keyd for a provider with an empty environment; the child's end of sock is its descriptor 3. Between fork
 * and exec: only async-signal-safe calls. Returns the pid. */
int keyd_spawn(const struct config_provider *config, int *ret_fd, pid_t *ret_pid, struct err *err);
/* The program to start: beside this executable (build tree), else where it is installed. */
const char *keyd_path(void);

/* A synchronous helper for the command line; everything in it is released by keyd_done. */
struct keyd {
	const struct config_provider *config;
	const char *state_dir; /* where a refused PIN's hash is remembered; NULL: nowhere */
	int fd;
	pid_t pid;
	struct wire_request *request; /* in the arena */
	struct wire_reply *reply;
};

/* Starts the helper and opens the provider; does not log in. */
int keyd_start(const struct config_provider *config, const char *state_dir, struct keyd *k, struct err *err);
void keyd_done(struct keyd *k);

/* Clears k->request for op; fill in what it needs, then call. ERR_HARDWARE when the helper dies or takes too long. */
void keyd_prepare(struct keyd *k, enum wire_op op);
int keyd_call(struct keyd *k, struct err *err);
/* Logs in with the configured PIN source, or with pin. */
int keyd_login(struct keyd *k, const struct secret *pin, struct err *err);

/* An identity for one sealing key, over this helper; ctx storage is the caller's. */
struct keyd_key {
	struct keyd *keyd;
	const char *ref;
};
void keyd_identity(struct keyd_key *key, const uint8_t point[P256_POINT_LEN], struct age_identity *ret);

/* The file that remembers a provider's refused PIN (a salted hash), so that no restart offers it again. */
void keyd_load_failed_pin(const char *state_dir, const char *name, char ret[128]);
void keyd_store_failed_pin(const char *state_dir, const char *name, const char *hash);
