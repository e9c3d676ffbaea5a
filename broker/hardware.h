#pragma once
/*
 * The broker's side of its helpers: one queue a provider, a deadline on each operation that the hardware is at: one, or as many as the
 * configuration says (parallel). While it is, the next one lies in the helper's socket already, so that the hardware waits for nobody. A helper
 * that dies is started again and what it was at tried once more; one that hangs is killed. A refused PIN puts the
 * provider to pin-needed, where it stays until an operator acts.
 */
#include "broker/config.h"
#include "broker/metrics.h"
#include "common/wire.h"

#include <stdint.h>

struct hardware;
struct secret;

/* What a reference was seen to mean. */
#define HARDWARE_PROOF_LEN 16u

enum hardware_state { HARDWARE_STARTING, HARDWARE_READY, HARDWARE_PIN_NEEDED, HARDWARE_ABSENT };

/* reply is NULL when result < 0; both are gone after the call. reply lies in the arena: copy what is needed. */
typedef void hardware_done(void *ctx, int result, const struct wire_reply *reply, const char *message);

struct hardware_provider {
	const struct config_provider *config;
	struct hardware *hardware;
	enum hardware_state state;
	char problem[256];
	int fd;
	char failed_pin[128]; /* hash of a refused PIN, or "" */
	bool pin_hold;	      /* no login by ourselves until an operator's succeeded, whatever happens to the helper */
	char pin_problem[256];
	uint32_t index, next_id;
	struct hardware_op *head, *tail; /* the first n_sent of them are with the helper */
	size_t n_queued, n_sent;
	uint64_t turn; /* of what is served: see hardware.c */
	uint64_t answer_ms; /* when the helper has to have answered anything, if something is with it */
	uint64_t looked_ms;   /* when it was looked for last, or found missing */
	bool may_look;	      /* it is absent because it was not there: who asks has it looked for */
	bool renew;	      /* a fresh helper, when this one has nothing to do */
	uint64_t retry_ms;    /* when an absent provider is looked at again */
	unsigned int failures; /* looks for it, in a row, that did not find it ready */
	unsigned int deaths;   /* of its helpers, in a row, that answered nothing but logins */
	uint64_t n_restarts, n_operations;
	uint64_t n_done[WIRE_N], n_failed[WIRE_N]; /* operations that came to an end, and those of them that came to none but an error */
	uint64_t waited_ns;	 /* what operations waited for those before them */
	struct histogram latency; /* of the hardware, from when it was free for an operation; where it is asked for several, what the helper does
				   * one by one waits in it, too */
	uint8_t proven[32][HARDWARE_PROOF_LEN]; /* of this helper */
	size_t next_proven;
};

struct hardware {
	int launcher_fd, epoll_fd;
	uint32_t n_spawned;
	const char *state_dir;
	struct hardware_provider providers[LIMIT_PROVIDERS];
	size_t n_providers;
	struct wire_request *request; /* one of each, in the arena */
	struct wire_reply *reply;
	void (*changed)(void *ctx, const struct hardware_provider *p); /* a provider's state is another one now */
	void *changed_ctx;
};

int hardware_init(struct hardware *h, const struct config *config, int launcher_fd, int epoll_fd, struct err *err);
void hardware_stop(struct hardware *h);

/* Queues one ECDH. done is called exactly once, never from inside this call. ref and peer are copied. asker: the job that it is for, whose
 * operations take turns with the others'; 0: the broker itself. */
int hardware_agree(struct hardware_provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN], uint64_t asker, hardware_done *done,
		   void *ctx, struct err *err);
/* The same for a key's description, for a new key that signs, and for a signature (or a decryption). What is given is copied. */
int hardware_find(struct hardware_provider *p, const char *ref, hardware_done *done, void *ctx, struct err *err);
int hardware_make(struct hardware_provider *p, enum key_type type, const char *label, hardware_done *done, void *ctx, struct err *err);
int hardware_sign(struct hardware_provider *p, const char *ref, enum key_type type, const struct provider_sign *q, uint64_t asker, hardware_done *done,
		  void *ctx, struct err *err);
/* By the configuration's name; NULL: none. */
struct hardware_provider *hardware_provider(struct hardware *h, const char *name);
/* Whether a signature by that reference was seen to be good for that public key, since this helper began. */
bool hardware_proven(const struct hardware_provider *p, const uint8_t proof[HARDWARE_PROOF_LEN]);
void hardware_prove(struct hardware_provider *p, const uint8_t proof[HARDWARE_PROOF_LEN]);
/* Logs in with an operator's PIN, or looks again at the configured source when pin is NULL. */
int hardware_login(struct hardware_provider *p, const struct secret *pin, hardware_done *done, void *ctx, struct err *err);
/* Forgets an operation's caller: done is not called any more. Tells whether the hardware is at it already. */
bool hardware_cancel(struct hardware *h, void *ctx);

/* The helper's socket is readable (or hung up). */
void hardware_event(struct hardware_provider *p);
/* Deadlines and restarts; called at least every 500 ms. */
void hardware_tick(struct hardware *h, uint64_t now_ms);
const char *hardware_state_name(enum hardware_state state);
/* NULL: the broker never asks for it. */
const char *hardware_op_name(enum wire_op op);
