#pragma once
/*
 * Whose connection is served next: each peer (a uid in its cgroup) has its turn, whatever number of connections it has and
 * however fast it asks. Peers whose hash is the same share a turn.
 */
#include "broker/conn.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define TURNS 1024u

struct turn {
	TAILQ_HEAD(turn_conns, conn) conns; /* that have something to do, in the order in which they came */
	TAILQ_ENTRY(turn) next;
	bool active;
};

struct turns {
	struct turn all[TURNS];
	TAILQ_HEAD(turn_list, turn) active; /* with connections */
};

void turns_init(struct turns *t);
/* Which turn a new connection has. */
void turns_join(struct turns *t, struct conn *c);
/* It has something to do: events, or 0 for what it has read already. */
void turns_add(struct turns *t, struct conn *c, uint32_t events);
/* It goes away. */
void turns_remove(struct turns *t, struct conn *c);
static inline bool turns_waiting(const struct turns *t)
{
	return !TAILQ_EMPTY(&t->active);
}
/* The next one, with what it has to do; NULL: nobody waits. */
struct conn *turns_take(struct turns *t, uint32_t *ret_events);
