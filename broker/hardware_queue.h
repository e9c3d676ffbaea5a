#pragma once
/* What waits for a provider, in the order in which it is served. For hardware.c alone. */
#include "broker/hardware.h"
#include "common/secret.h"
#include "common/wire.h"

struct hardware_op {
	struct hardware_op *next;
	enum wire_op op;
	char text[LIMIT_URI_LEN];
	char text2[96];
	uint32_t number, type, hash, salt_len;
	struct secret pin;
	hardware_done *done; /* NULL: nobody waits */
	void *ctx;
	bool retried;
	uint32_t id; /* of its request */
	uint64_t asker, turn;
	uint64_t queued_ns, began_ns; /* when it came, and when the hardware was free for it; began_ns 0: it is not yet */
	uint64_t deadline_ms;	      /* of what began */
	size_t data_len;
	uint8_t data[]; /* public */
};

/* NULL without memory. data: public, copied. */
struct hardware_op *hardware_op_new(enum wire_op op, hardware_done *done, void *ctx);
struct hardware_op *hardware_op_new_with(enum wire_op op, const char *text, const uint8_t *data, size_t len, hardware_done *done, void *ctx);
void hardware_op_free(struct hardware_op *op);

void hardware_queue_front(struct hardware_provider *p, struct hardware_op *op);
/*
 * Start-time fair queueing: each asker's operations have turns of their own, beginning with that which is being served, so who has a
 * thousand waiting is behind whoever comes with one. ERR_BUSY: the asker has too many.
 */
int hardware_queue_fair(struct hardware_provider *p, struct hardware_op *op, struct err *err);
/* The head, which is the caller's then. */
struct hardware_op *hardware_queue_pop(struct hardware_provider *p);
/* That of those that began whose request has this number, the caller's then; NULL: none has. */
struct hardware_op *hardware_queue_answered(struct hardware_provider *p, uint32_t id);
/* An answer to that request came: what was sent before it, and has none, is at work in a thread of its own. It waits for nobody, or
 * for one that is done alone, and has until then. */
void hardware_queue_overtake(struct hardware_provider *p, uint32_t id, uint64_t latest_ms);
/* The next that waits, the caller's then; NULL: none does. Not what lies with the helper, nor, with keep_logins, logins. */
struct hardware_op *hardware_queue_take(struct hardware_provider *p, bool keep_logins);
/* An operator's login, if one waits, becomes the head: nothing is with the helper. */
bool hardware_queue_login_first(struct hardware_provider *p);
/* Forgets that caller's operations. Tells whether one of them is with the helper. */
bool hardware_queue_forget(struct hardware_provider *p, const void *ctx);
