#pragma once
/*
 * How many records of refusals one source may cause: nobody needs a token to be refused, and each record takes disk. What is
 * beyond that is counted, and becomes one record that says how many there were. A source is a user in one cgroup; all sources of a
 * user share the user's part, so that nobody hides what others were refused behind refusals of his own.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REFUSAL_SOURCES 256u
#define REFUSAL_SOURCES_OF_USER 32u /* then the user's other cgroups share one place */
#define REFUSAL_USERS 128u
#define REFUSAL_ANY_CGROUP UINT64_MAX

/* A token bucket in milliseconds: a record costs as many as lie between two of them in the long run. */
struct refusal_bucket {
	uint64_t credit_ms, at_ms; /* at_ms: of the boot-time clock; 0: not used yet, and full */
};

struct refusal_user {
	uint32_t uid;
	struct refusal_bucket bucket;
};

struct refusal_source {
	uint32_t uid;
	uint64_t cgroup; /* REFUSAL_ANY_CGROUP: of several */
	struct refusal_bucket bucket;
	uint64_t folded; /* refusals that have no record of their own */
};

struct refusals {
	/* the first of each takes those that there is no place for */
	struct refusal_source sources[REFUSAL_SOURCES];
	struct refusal_user users[REFUSAL_USERS];
	struct refusal_bucket all;
	size_t next; /* whose turn it is to be flushed */
};

/* One more refusal. true: it gets a record of its own; false: it was counted. */
bool refusals_take(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t boot_ms);
/* Calls each for what was counted where a record is due again, or for all of it; several is true for users that there was no place
 * for. cgroup is 0 where it is not one. */
void refusals_flush(struct refusals *r, uint64_t boot_ms, bool all,
		    void (*each)(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n), void *ctx);
