#pragma once
/*
 * Rates: so many uses in a time, and as many at once. Of each one number is kept, the time at which all that was taken is paid
 * back (the generic cell rate algorithm, ITU-T I.371, annex A): once that has passed, nothing is left to remember.
 */
#include "broker/config.h"

#define RATE_ID_LEN 16u

struct rate {
	struct rate *next;
	uint8_t id[RATE_ID_LEN]; /* of what is limited and how: a hash */
	uint32_t uid;		 /* whose share it is; RATE_OF_ALL */
	uint64_t paid_us;	 /* of the boot-time clock */
};

#define RATE_OF_ALL UINT32_MAX

/* In how many milliseconds n uses can be taken; 0: now. UINT64_MAX: never, the rate is smaller than n. */
uint64_t rate_wait(const struct rate *list, const uint8_t id[RATE_ID_LEN], struct config_rate limit, uint32_t n, uint64_t boot_ms);
/* Takes them: rate_wait said 0. ERR_FAILED without memory. */
int rate_take(struct rate **list, const uint8_t id[RATE_ID_LEN], uint32_t uid, struct config_rate limit, uint32_t n, uint64_t boot_ms, struct err *err);
/* Whether there is one of that id, or how many that uid has: of those that are not paid back. */
bool rate_known(const struct rate *list, const uint8_t id[RATE_ID_LEN], uint64_t boot_ms);
size_t rate_count(const struct rate *list, uint32_t uid, uint64_t boot_ms);
void rates_done(struct rate **list);
