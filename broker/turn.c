#include "broker/turn.h"

#include <sodium.h>

void turns_init(struct turns *t)
{
	TAILQ_INIT(&t->active);
	for (size_t i = 0; i < TURNS; i++)
		TAILQ_INIT(&t->all[i].conns);
	for (size_t i = 0; i < TURNS_USERS; i++)
		TAILQ_INIT(&t->users[i].turns);
	randombytes_buf(t->key, sizeof(t->key));
}

static uint64_t hash(const struct turns *t, const struct conn *c, uint64_t cgroup)
{
	const uint64_t who[3] = {c->peer.uid, c->peer.operator_socket, cgroup};
	uint64_t out;

	crypto_shorthash((uint8_t *)&out, (const uint8_t *)who, sizeof(who), t->key);
	return out;
}

void turns_join(struct turns *t, struct conn *c)
{
	c->turn = &t->all[hash(t, c, c->peer.cgroup) % TURNS];
	c->turn_user = &t->users[hash(t, c, 0) % TURNS_USERS];
}

void turns_add(struct turns *t, struct conn *c, uint32_t events)
{
	struct turn *turn = c->turn;
	struct turn_user *user = c->turn_user;

	c->events |= events;
	if (c->is_ready || c->dead)
		return;
	c->is_ready = true;
	TAILQ_INSERT_TAIL(&turn->conns, c, ready);
	if (turn->user)
		return;
	if (TAILQ_EMPTY(&user->turns))
		TAILQ_INSERT_TAIL(&t->active, user, next);
	TAILQ_INSERT_TAIL(&user->turns, turn, next);
	turn->user = user;
}

void turns_remove(struct turns *t, struct conn *c)
{
	struct turn *turn = c->turn;
	struct turn_user *user = turn->user;

	if (!c->is_ready)
		return;
	c->is_ready = false;
	TAILQ_REMOVE(&turn->conns, c, ready);
	if (!TAILQ_EMPTY(&turn->conns))
		return;
	turn->user = NULL;
	TAILQ_REMOVE(&user->turns, turn, next);
	if (TAILQ_EMPTY(&user->turns))
		TAILQ_REMOVE(&t->active, user, next);
}

struct conn *turns_take(struct turns *t, uint32_t *ret_events)
{
	struct turn_user *user = TAILQ_FIRST(&t->active);
	struct turn *turn = user ? TAILQ_FIRST(&user->turns) : NULL;
	struct conn *c;

	if (!turn)
		return NULL;
	/* both stand behind the others now, if they stay at all */
	TAILQ_REMOVE(&t->active, user, next);
	TAILQ_INSERT_TAIL(&t->active, user, next);
	TAILQ_REMOVE(&user->turns, turn, next);
	TAILQ_INSERT_TAIL(&user->turns, turn, next);
	c = TAILQ_FIRST(&turn->conns);
	*ret_events = c->events;
	c->events = 0;
	turns_remove(t, c);
	return c;
}
