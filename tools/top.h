#pragma once
/* What cotter top shows: the broker's state and its jobs, and what happened between two looks at them. */
#include "common/limits.h"
#include "tools/client.h"

#include <stdio.h>

struct err;

struct top_sample {
	json_t *status, *jobs; /* jobs: the longest first, an array */
	long long n_jobs;      /* there may be more */
	long long at_ms;
	unsigned long long asked; /* requests of our own, up to status */
};

/* n_details: of so many jobs, all that they hold. */
int top_take(struct client *c, unsigned long long *asked, size_t n_details, struct top_sample *ret, struct err *err);
void top_clear(struct top_sample *s);

/* A second, unless it says otherwise; -1: nothing to tell it by. */
struct top_rates {
	double seconds, requests, denied, failed;
	double hits; /* of all reads, 0 to 1 */
	struct top_provider {
		double operations, mean_ms, wait_ms;
	} providers[LIMIT_PROVIDERS];
};
/* before may be empty; one of another life of the broker counts as that. */
void top_rates(const struct top_sample *before, const struct top_sample *now, struct top_rates *ret);

/* For people. rows: how many lines there is room for; 0: all. */
void top_print(FILE *f, const struct top_sample *s, const struct top_rates *r, size_t rows);
/* One JSON object and a line end. ERR_FAILED. */
int top_print_json(FILE *f, const struct top_sample *s, const struct top_rates *r, struct err *err);
