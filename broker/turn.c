#include "broker/turn.h"

void turns_init(struct turns *t)
{
	TAILQ_INIT(&t->active);
	for (size_t i = 0; i < TURNS; i++)
		TAILQ_INIT(&t->all[i].conns);
}

void turns_join(struct turns *t, struct conn *c)
{
	uint64_t who = (c->peer.cgroup ^ (uint64_t)c->peer.uid << 32) + c->peer.operator_socket;

	c->turn = &t->all[(who * 0x9e3779b97f4a7c15u) >> 32 & (TURNS - 1)];
}

void turns_add(struct turns *t, struct conn *c, uint32_t events)
{
	struct turn *turn = c->turn;

	c->events |= events;
	if (c->is_ready || c->dead)
		return;
	c->is_ready = true;
	TAILQ_INSERT_TAIL(&turn->conns, c, ready);
	if (turn->active)
		return;
	turn->active = true;
	TAILQ_INSERT_TAIL(&t->active, turn, next);
}

void turns_remove(struct turns *t, struct conn *c)
{
	struct turn *turn = c->turn;

	if (!c->is_ready)
		return;
	c->is_ready = false;
	TAILQ_REMOVE(&turn->conns, c, ready);
	if (!TAILQ_EMPTY(&turn->conns))
		return;
	turn->active = false;
	TAILQ_REMOVE(&t->active, turn, next);
}

struct conn *turns_take(struct turns *t, uint32_t *ret_events)
{
	struct turn *turn = TAILQ_FIRST(&t->active);
	struct conn *c;

	if (!turn)
		return NULL;
	c = TAILQ_FIRST(&turn->conns);
	*ret_events = c->events;
	c->events = 0;
	turns_remove(t, c);
	if (turn->active) {
		TAILQ_REMOVE(&t->active, turn, next);
		TAILQ_INSERT_TAIL(&t->active, turn, next);
	}
	return c;
}
