#pragma once
/*
 * What the broker counts, on its one loop, for GET sys/metrics. What a counter is told apart by comes from our own tables and from the
 * configuration, never from a client: there are as many as when it started, whatever is asked.
 */
#include <stdint.h>

#define METRICS_BUCKETS 17u
#define METRICS_ROUTES 160u

/* How long something took; 16 upper bounds, and what is beyond the last. */
struct histogram {
	uint64_t buckets[METRICS_BUCKETS];
	uint64_t sum_ns;
};
void histogram_add(struct histogram *h, uint64_t ns);
uint64_t histogram_count(const struct histogram *h);
/* In seconds, as text; the last one is "+Inf". */
extern const char *const histogram_bounds[METRICS_BUCKETS];

enum metrics_outcome {
	METRICS_OK,	 /* it was answered, if only that nothing is there */
	METRICS_DENIED,	 /* not to whoever asked */
	METRICS_INVALID, /* nor to anybody: what was asked is wrong, or not there */
	METRICS_FAILED,	 /* not now: hardware, audit log, store, sealed */
	METRICS_LEFT,	 /* the client was gone before */
	METRICS_OUTCOMES
};

struct metrics {
	uint64_t requests[METRICS_ROUTES + 1][METRICS_OUTCOMES]; /* by row of the route table; the last: by none */
	struct histogram latency;  /* of requests that have a route */
	uint64_t n_malformed;	   /* bytes that were no request */
	uint64_t n_hits, n_misses; /* of the cache of opened secrets */
	uint64_t n_signatures;	   /* that transit gave away */
};

const char *metrics_outcome_name(enum metrics_outcome outcome);
/* A clock that only grows. */
uint64_t metrics_now_ns(void);
