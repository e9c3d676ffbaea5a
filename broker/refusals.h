#pragma once
/*
 * How many records of refusals one source may cause: nobody needs a token to be refused, and each record takes disk. What is
 * beyond that is counted, and becomes one record that says how many there were.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REFUSAL_SOURCES 256u

/* A token bucket in milliseconds: a record costs as many as lie between two of them in the long run. */
struct refusal_bucket {
	uint64_t credit_ms, at_ms; /* at_ms: of the boot-time clock; 0: not used yet, and full */
};

struct refusal_source {
	uint32_t uid;
	uint64_t cgroup;
	struct refusal_bucket bucket;
	uint64_t folded; /* refusals that have no record of their own */
};

struct refusals {
	/* the first takes those that there is no place for */
	struct refusal_source sources[REFUSAL_SOURCES];
	struct refusal_bucket all;
};

/* One more refusal. true: it gets a record of its own; false: it was counted. */
bool refusals_take(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t boot_ms);
/* Calls each for what was counted where a record is due again, or for all of it; uid and cgroup are 0 and 0, and several is
 * true, for those that there was no place for. */
void refusals_flush(struct refusals *r, uint64_t boot_ms, bool all,
		    void (*each)(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n), void *ctx);
