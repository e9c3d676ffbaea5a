#include "broker/refusals.h"

#include "common/limits.h"

struct rate {
	uint64_t burst, every_ms;
};

static const struct rate one_source = {LIMIT_REFUSALS, LIMIT_REFUSAL_MS}, all_sources = {LIMIT_REFUSALS_ALL, LIMIT_REFUSAL_ALL_MS};

static void refill(struct refusal_bucket *b, struct rate rate, uint64_t now_ms)
{
	uint64_t full = rate.burst * rate.every_ms, passed = now_ms > b->at_ms ? now_ms - b->at_ms : 0;

	b->credit_ms = b->at_ms == 0 || passed > full - b->credit_ms ? full : b->credit_ms + passed;
	b->at_ms = now_ms;
}

static bool is_full(const struct refusal_bucket *b, struct rate rate)
{
	return b->credit_ms == rate.burst * rate.every_ms;
}

static bool take_both(struct refusals *r, struct refusal_source *s, uint64_t now_ms)
{
	refill(&s->bucket, one_source, now_ms);
	refill(&r->all, all_sources, now_ms);
	if (s->bucket.credit_ms < one_source.every_ms || r->all.credit_ms < all_sources.every_ms)
		return false;
	s->bucket.credit_ms -= one_source.every_ms;
	r->all.credit_ms -= all_sources.every_ms;
	return true;
}

/* The source's own place, or one that nothing is remembered in, or the one for all others. */
static struct refusal_source *find(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t now_ms)
{
	struct refusal_source *unused = NULL;

	for (size_t i = 1; i < REFUSAL_SOURCES; i++) {
		struct refusal_source *s = &r->sources[i];

		if (s->bucket.at_ms && s->uid == uid && s->cgroup == cgroup)
			return s;
		if (unused || s->folded)
			continue;
		refill(&s->bucket, one_source, now_ms);
		if (is_full(&s->bucket, one_source))
			unused = s;
	}
	if (!unused)
		return &r->sources[0];
	unused->uid = uid;
	unused->cgroup = cgroup;
	return unused;
}

bool refusals_take(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t boot_ms)
{
	struct refusal_source *s = find(r, uid, cgroup, boot_ms);

	/* in their order: what was counted comes first */
	if (s->folded == 0 && take_both(r, s, boot_ms))
		return true;
	s->folded++;
	return false;
}

void refusals_flush(struct refusals *r, uint64_t boot_ms, bool all,
		    void (*each)(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n), void *ctx)
{
	for (size_t i = 0; i < REFUSAL_SOURCES; i++) {
		struct refusal_source *s = &r->sources[i];

		if (s->folded == 0 || !(all || take_both(r, s, boot_ms)))
			continue;
		each(ctx, s->uid, s->cgroup, i == 0, s->folded);
		s->folded = 0;
	}
}
