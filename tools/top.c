#include "tools/top.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static int get(struct client *c, unsigned long long *asked, const char *path, json_t **ret, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	int r = client_ask(c, "GET", path, NULL, &reply, err);

	++*asked;
	if (r == 0)
		*ret = json_incref(client_data(&reply));
	return r;
}

/* RFC 3339: as text and as time the order is the same. */
static int by_age(const void *a, const void *b)
{
	const char *x = json_string_value(json_object_get(*(json_t *const *)a, "created"));
	const char *y = json_string_value(json_object_get(*(json_t *const *)b, "created"));

	return strcmp(x ? x : "", y ? y : "");
}

static json_t *sorted(const json_t *jobs)
{
	size_t n = json_array_size(jobs);
	json_t **list = calloc(n + 1, sizeof(json_t *)), *out = json_array();

	for (size_t i = 0; list && i < n; i++)
		list[i] = json_array_get(jobs, i);
	if (list)
		qsort(list, n, sizeof(json_t *), by_age);
	for (size_t i = 0; list && i < n; i++)
		json_array_append(out, list[i]);
	free(list);
	return out;
}

/* One that ended meanwhile stays as it was listed. */
static int take_details(struct client *c, unsigned long long *asked, json_t *jobs, size_t n, struct err *err)
{
	char path[64];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n && i < json_array_size(jobs); i++) {
		const char *id = json_string_value(json_object_get(json_array_get(jobs, i), "job"));
		json_t *job = NULL;

		snprintf(path, sizeof(path), "/v1/cotter/jobs/%.32s", id ? id : "");
		r = get(c, asked, path, &job, err);
		if (r == 0)
			json_array_set(jobs, i, job);
		else if (r == -ERR_NOT_FOUND)
			r = 0;
		json_decref(job);
	}
	return r;
}

int top_take(struct client *c, unsigned long long *asked, size_t n_details, struct top_sample *ret, struct err *err)
{
	CLEANUP(client_json_free) json_t *listing = NULL;
	CLEANUP(top_clear) struct top_sample s = {0};
	int r = get(c, asked, "/v1/cotter/status", &s.status, err);

	s.at_ms = now_ms();
	s.asked = *asked;
	/* nobody's jobs are known before the store is open */
	if (r == 0 && !json_is_true(json_object_get(s.status, "sealed")))
		r = get(c, asked, "/v1/cotter/jobs", &listing, err);
	if (r < 0)
		return r;
	s.n_jobs = json_integer_value(json_object_get(listing, "n"));
	s.jobs = sorted(json_object_get(listing, "jobs"));
	r = take_details(c, asked, s.jobs, n_details, err);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct top_sample){0};
	return 0;
}

void top_clear(struct top_sample *s)
{
	json_decref(s->status);
	json_decref(s->jobs);
	*s = (struct top_sample){0};
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

static double more(const json_t *before, const json_t *now, const char *key)
{
	return (double)(json_integer_value(json_object_get(now, key)) - json_integer_value(json_object_get(before, key)));
}

static void provider_rates(const json_t *before, const json_t *now, double seconds, struct top_provider *ret)
{
	double n = more(before, now, "measured");

	*ret = (struct top_provider){.operations = n / seconds, .mean_ms = -1, .wait_ms = -1};
	if (n > 0) {
		ret->mean_ms = more(before, now, "busy_us") / n / 1000;
		ret->wait_ms = more(before, now, "waited_us") / n / 1000;
	}
}

void top_rates(const struct top_sample *before, const struct top_sample *now, struct top_rates *ret)
{
	double seconds = (double)(now->at_ms - before->at_ms) / 1000, hits, reads;
	const json_t *a = before->status, *b = now->status;

	*ret = (struct top_rates){.seconds = -1, .requests = -1, .denied = -1, .failed = -1, .hits = -1};
	for (size_t i = 0; i < LIMIT_PROVIDERS; i++)
		ret->providers[i] = (struct top_provider){-1, -1, -1};
	/* numbers that shrink are a new broker's */
	if (!a || seconds <= 0 || more(a, b, "uptime_s") < 0 || more(a, b, "requests") < 0)
		return;
	ret->seconds = seconds;
	ret->requests = (more(a, b, "requests") - (double)(now->asked - before->asked)) / seconds;
	ret->denied = more(a, b, "denied") / seconds;
	ret->failed = more(a, b, "failed") / seconds;
	hits = more(a, b, "hits");
	reads = hits + more(a, b, "misses");
	if (reads > 0)
		ret->hits = hits / reads;
	for (size_t i = 0; i < LIMIT_PROVIDERS; i++)
		provider_rates(json_array_get(json_object_get(a, "providers"), i), json_array_get(json_object_get(b, "providers"), i), seconds,
			       &ret->providers[i]);
}
