#pragma once
/* How the benchmarks' clients take times and tell them. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Says that all is ready and waits for a line, so that several begin at once. */
static inline double clock_start(void)
{
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		exit(1);
	return clock_us();
}

static inline int clock_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Median of the times, in microseconds; when it began, and now, in seconds. */
static inline void clock_report(double *times, size_t n, double began)
{
	double ended = clock_us();

	qsort(times, n, sizeof(*times), clock_compare);
	printf("%f %f %f\n", times[n / 2], began / 1e6, ended / 1e6);
}
