#pragma once
/*
 * Leases: credentials that an engine made for somebody. Their rows outlive a boot; they end when their token is gone (with its job), at their
 * time, or when somebody ends them, and an end is tried again until the engine says that it is done. The engine knows a lease by its id alone.
 */
#include "broker/engine.h"
#include "broker/token.h"

#include <stdint.h>

struct broker;
struct call;
struct config_engine;
struct config_engine_role;

enum lease_state {
	LEASE_NEW,    /* the engine may have made it already, or not: nobody was told of it */
	LEASE_LIVE,
	LEASE_ENDING, /* until the engine ended it */
};

struct lease {
	uint8_t id[16], token[16]; /* token: zeros: an operator's */
	char engine[LIMIT_NAME_LEN + 1], role[LIMIT_NAME_LEN + 1];
	char job[2 * JOB_ID_LEN + 1];
	uint32_t uid;
	uint64_t created_ms, expires_ms, max_ms, renewed_ms; /* wall clock; renewed_ms 0: never */
	enum lease_state state;
	/* of the broker's own life */
	bool busy;	      /* the engine is at it */
	uint32_t n_failed;
	uint64_t next_try_ms; /* boot-time clock */
	struct lease *next;
};

struct leases {
	struct lease *list, **tail; /* the oldest first */
	size_t n;
	struct lease_op *ops; /* with the engine */
};

/* "db/creds/role/<32 hex>" */
#define LEASE_ID_TEXT (2 * LIMIT_NAME_LEN + 48u)
void lease_id_text(const struct lease *l, char ret[LEASE_ID_TEXT]);
struct lease *lease_find(struct broker *b, const char *text);

/* After tokens_load: reads the rows. What was being made when the broker ended is ended. */
int leases_load(struct broker *b, struct err *err);
void leases_done(struct broker *b);
/* Ends those that are over, as far as the engine's programs have room. */
void leases_tick(struct broker *b, uint64_t boot_ms);

typedef void lease_reply(struct call *call, struct lease *lease, const json_t *answer);
/* Each: r < 0: the call goes on to be the caller's; 0: reply is called, or the call failed and was ended. reply gets the engine's answer. */
int lease_create(struct call *call, const struct config_engine *engine, const struct config_engine_role *role, uint64_t ttl_ms, lease_reply *reply, struct err *err);
int lease_renew(struct call *call, struct lease *lease, uint64_t ttl_ms, lease_reply *reply, struct err *err);
int lease_revoke(struct call *call, struct lease *lease, lease_reply *reply, struct err *err);
/* Without waiting: leases_tick goes on. */
int lease_doom(struct broker *b, struct lease *lease, struct err *err);
/* Without asking the engine: whatever it made stays. */
int lease_forget(struct broker *b, struct lease *lease, struct err *err);
/* The call's client is gone. */
void lease_cancel(struct broker *b, const struct call *call);
