#include "broker/metrics.h"

#include <time.h>

static const uint64_t bounds_ns[METRICS_BUCKETS - 1] = {25000,	  50000,    100000,   250000,	500000,	   1000000,   2500000,	  5000000,
							10000000, 25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 10000000000};
const char *const histogram_bounds[METRICS_BUCKETS] = {"2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01",
						       "0.025",	  "0.05",  "0.1",    "0.25",	"0.5",	  "1",	   "10",     "+Inf"};

void histogram_add(struct histogram *h, uint64_t ns)
{
	unsigned int i = 0;

	while (i < METRICS_BUCKETS - 1 && ns > bounds_ns[i])
		i++;
	h->buckets[i]++;
	h->sum_ns += ns;
}

uint64_t histogram_count(const struct histogram *h)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < METRICS_BUCKETS; i++)
		n += h->buckets[i];
	return n;
}

const char *metrics_outcome_name(enum metrics_outcome outcome)
{
	static const char *const names[METRICS_OUTCOMES] = {"ok", "denied", "invalid", "failed", "left"};

	return names[outcome];
}

uint64_t metrics_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
