#pragma once
/*
 * Whose connection is served next: uids take turns, and within a uid its cgroups, whatever number of connections each has and however
 * fast it asks. What has the same hash shares a turn.
 */
#include "broker/conn.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define TURNS_USERS 256u
#define TURNS 1024u

struct turn {
	TAILQ_HEAD(turn_conns, conn) conns; /* that have something to do, in the order in which they came */
	TAILQ_ENTRY(turn) next;
	struct turn_user *user; /* of the first that came; NULL: nobody waits */
	unsigned int n_calls;	/* of its connections, that have no answer yet */
};

struct turn_user {
	TAILQ_HEAD(turn_list, turn) turns; /* with connections */
	TAILQ_ENTRY(turn_user) next;
};

struct turns {
	struct turn all[TURNS];
	struct turn_user users[TURNS_USERS];
	TAILQ_HEAD(turn_users, turn_user) active; /* with turns */
	uint8_t key[16]; /* random: nobody chooses with whom a turn is shared */
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
/* Whether that user has something to do, and nobody else. */
static inline bool turns_only(const struct turns *t, const struct turn_user *user)
{
	return TAILQ_FIRST(&t->active) == user && !TAILQ_NEXT(user, next);
}
/* The next one, with what it has to do; NULL: nobody waits. */
struct conn *turns_take(struct turns *t, uint32_t *ret_events);
