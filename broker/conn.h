#pragma once
/*
 * One peer. It is read into one shared buffer in the arena; what is incomplete waits in a buffer of its own, also there.
 * Buffers are wiped as soon as they are done with. One request at a time: the next waits until this one's answer is out.
 */
#include "broker/metrics.h"
#include "broker/peer.h"
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#define CONN_BUFFER_LEN 65536u /* of the shared buffer */

struct call;
struct server;
struct turn;
struct turn_user;

/* A body that is the same for everybody who asks, and no secret. */
struct shared_body {
	size_t refs, len;
	uint8_t data[];
};

/* refs is 1; NULL: out of memory. */
struct shared_body *shared_body_new(size_t len);
/* Takes one reference away; NULL is fine. */
void shared_body_drop(struct shared_body *s);

struct conn {
	int fd;
	struct server *server;
	struct peer peer;
	uint64_t accepted; /* in which round of the loop; 0: it asked for something since */
	struct secret in;	/* incomplete request */
	/* the reply that is not sent yet; without a record it tells nothing that is worth the arena */
	struct secret out;
	bool out_public;	/* malloc'ed */
	struct shared_body *out_body; /* behind out */
	size_t out_sent;
	struct call *call;	/* an answer that is still being made */
	uint64_t audit_seq;	/* the reply waits for this record to be released */
	uint64_t *counts;	/* of requests to its route, by outcome */
	enum metrics_outcome outcome; /* where the reply's is counted */
	uint64_t deadline_ms;
	uint32_t watched; /* epoll events */
	bool in_epoll;	  /* from its first turn on, as most have sent their request by then; a raw one from the beginning */
	const char *content_type; /* of the next reply; NULL: JSON */
	bool keep_alive, dead, held, continued, admitted, head_only;
	bool raw; /* no HTTP: it asks by who it is, and gets the value alone. See credential.h */
	bool waits; /* its request waits for people: nothing that was sent behind it is kept */
	bool more; /* a whole request may wait in in: it has its turn before anything is read */
	bool ahead; /* it sent more while its request is answered: that is left in its socket, and not looked at */
	bool unread, draining; /* refused before all was read: the client must be able to read why */
	bool answered; /* its reply leaves at the end of the loop's round */
	TAILQ_ENTRY(conn) answer;
	struct conn *next, *prev;
	/* of turn.h */
	struct turn *turn;
	struct turn_user *turn_user;
	TAILQ_ENTRY(conn) ready;
	uint32_t events; /* epoll's, that wait for its turn */
	bool is_ready;
};

void conn_event(struct conn *c, uint32_t events);
/* Tells epoll what this connection can use now, and no more: the loop must not spin on bytes that wait for their turn. */
void conn_watch(struct conn *c);
/* Sends what it can of the reply, unless that is held; then whoever waits behind it has a turn. */
void conn_send(struct conn *c);
/* The replies of this round of the loop, once their records are written. */
void conns_send(struct server *s);
/* Cancels its call; the memory is freed at the end of the loop's round. */
void conn_close(struct conn *c);

/* What it is at; NULL: nothing. */
void conn_set_call(struct conn *c, struct call *call);
/* Whether there is room for its call to wait, of all and of its job's: each holds a token in the arena. */
bool conn_may_wait(const struct conn *c);

/* Gives it a reply (body may be NULL), which conns_send sends; audit_seq 0: no record to wait for. Ends the connection's current call. */
void conn_reply(struct conn *c, int status, const struct secret *body, uint64_t audit_seq);
/* The same with a body that others are sent, too; it takes a reference of its own. */
void conn_reply_shared(struct conn *c, struct shared_body *body);
/* Of a raw connection, at the broker's end: waits a moment for a refusal to be read. */
void conn_refuse_unit(struct conn *c);
/* Says why and closes: the request cannot be told from the bytes behind it. */
void conn_refuse(struct conn *c, int code, const char *message);
/* In place of the reply whose record is not written, or not on disk in time. */
void conn_refuse_late(struct conn *c);
