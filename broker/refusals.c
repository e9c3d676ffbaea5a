#include "broker/refusals.h"

#include "common/limits.h"

struct rate {
	uint64_t burst, every_ms;
};

static const struct rate of_source = {LIMIT_REFUSALS, LIMIT_REFUSAL_MS}, of_user = {2 * LIMIT_REFUSALS, LIMIT_REFUSAL_MS},
			 of_all = {LIMIT_REFUSALS_ALL, LIMIT_REFUSAL_ALL_MS};

static void refill(struct refusal_bucket *b, struct rate rate, uint64_t now_ms)
{
	uint64_t full = rate.burst * rate.every_ms, passed = now_ms > b->at_ms ? now_ms - b->at_ms : 0;

	b->credit_ms = b->at_ms == 0 || passed > full - b->credit_ms ? full : b->credit_ms + passed;
	b->at_ms = now_ms > b->at_ms ? now_ms : b->at_ms;
}

/* Nothing is remembered in it. */
static bool is_full(struct refusal_bucket *b, struct rate rate, uint64_t now_ms)
{
	refill(b, rate, now_ms);
	return b->credit_ms == rate.burst * rate.every_ms;
}

static struct refusal_user *find_user(struct refusals *r, uint32_t uid, uint64_t now_ms)
{
	struct refusal_user *unused = NULL;

	for (size_t i = 1; i < REFUSAL_USERS; i++) {
		struct refusal_user *u = &r->users[i];

		if (u->bucket.at_ms && u->uid == uid)
			return u;
		if (!unused && is_full(&u->bucket, of_user, now_ms))
			unused = u;
	}
	if (!unused)
		return &r->users[0];
	unused->uid = uid;
	return unused;
}

static bool take_all(struct refusals *r, struct refusal_source *s, uint64_t now_ms)
{
	struct refusal_user *u = find_user(r, s->uid, now_ms);

	refill(&s->bucket, of_source, now_ms);
	refill(&u->bucket, of_user, now_ms);
	refill(&r->all, of_all, now_ms);
	if (s->bucket.credit_ms < of_source.every_ms || u->bucket.credit_ms < of_user.every_ms || r->all.credit_ms < of_all.every_ms)
		return false;
	s->bucket.credit_ms -= of_source.every_ms;
	u->bucket.credit_ms -= of_user.every_ms;
	r->all.credit_ms -= of_all.every_ms;
	return true;
}

/* The source's own place, or an unused one, or NULL. *ret_n: how many the user has. */
static struct refusal_source *find_place(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t now_ms, size_t *ret_n)
{
	struct refusal_source *unused = NULL;

	*ret_n = 0;
	for (size_t i = 1; i < REFUSAL_SOURCES; i++) {
		struct refusal_source *s = &r->sources[i];

		if (s->bucket.at_ms && s->uid == uid && s->cgroup == cgroup)
			return s;
		if (s->folded == 0 && is_full(&s->bucket, of_source, now_ms))
			unused = unused ? unused : s;
		else
			*ret_n += s->uid == uid;
	}
	return unused;
}

static struct refusal_source *find(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t now_ms)
{
	size_t n;
	struct refusal_source *s = find_place(r, uid, cgroup, now_ms, &n);

	if (s && !(s->uid == uid && s->cgroup == cgroup) && n >= REFUSAL_SOURCES_OF_USER) {
		cgroup = REFUSAL_ANY_CGROUP;
		s = find_place(r, uid, cgroup, now_ms, &n);
	}
	if (!s)
		return &r->sources[0];
	s->uid = uid;
	s->cgroup = cgroup;
	return s;
}

bool refusals_take(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t boot_ms)
{
	struct refusal_source *s = find(r, uid, cgroup, boot_ms);

	/* in their order: what was counted comes first */
	if (s->folded == 0 && take_all(r, s, boot_ms))
		return true;
	s->folded++;
	return false;
}

void refusals_flush(struct refusals *r, uint64_t boot_ms, bool all,
		    void (*each)(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n), void *ctx)
{
	size_t first = r->next;

	for (size_t i = 0; i < REFUSAL_SOURCES; i++) {
		size_t at = (first + i) % REFUSAL_SOURCES;
		struct refusal_source *s = &r->sources[at];

		if (s->folded == 0 || !(all || take_all(r, s, boot_ms)))
			continue;
		each(ctx, s->uid, s->cgroup == REFUSAL_ANY_CGROUP ? 0 : s->cgroup, at == 0, s->folded);
		s->folded = 0;
		r->next = at + 1;
	}
}
