/* How cotter top looks. Names come from jobs: no byte of theirs reaches a terminal as it is. */
#include "tools/top.h"

#include "broker/cgroup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <string.h>

#define SECRETS_SHOWN 4u
#define KEYS_SHOWN 4u

static long long number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static const char *text(const json_t *j, const char *key)
{
	const char *value = json_string_value(json_object_get(j, key));

	return value ? value : "";
}

#define FIGURE 48u

/* 59s, 12m34s, 3h12m, 12d3h */
static const char *span(char ret[FIGURE], long long s)
{
	if (s < 60)
		snprintf(ret, FIGURE, "%llds", s);
	else if (s < 3600)
		snprintf(ret, FIGURE, "%lldm%llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(ret, FIGURE, "%lldh%lldm", s / 3600, s / 60 % 60);
	else
		snprintf(ret, FIGURE, "%lldd%lldh", s / 86400, s / 3600 % 24);
	return ret;
}

/* "-" where nothing is known yet. */
static const char *decimal(char ret[FIGURE], double value)
{
	if (value < 0)
		return "-";
	snprintf(ret, FIGURE, "%.*f", value < 100 ? 1 : 0, value);
	return ret;
}

static const char *percent(char ret[FIGURE], double value)
{
	if (value < 0)
		return "-";
	snprintf(ret, FIGURE, "%.0f%%", 100 * value);
	return ret;
}

/* ---- the broker ------------------------------------------------------------------------------------------------- */

static size_t print_problem(FILE *f, const char *problem)
{
	if (!*problem)
		return 0;
	fputs("            ", f);
	cli_print_safe(f, problem);
	fputc('\n', f);
	return 1;
}

static size_t print_provider(FILE *f, const json_t *p, const struct top_provider *r)
{
	char ops[FIGURE], mean[FIGURE], wait[FIGURE];

	fprintf(f, "%-11s %-10s %lld waiting   %s op/s   %s ms each, %s ms before   %lld failed   %lld restarts\n", text(p, "name"), text(p, "state"),
		number(p, "queued"), decimal(ops, r->operations), decimal(mean, r->mean_ms), decimal(wait, r->wait_ms), number(p, "failures"),
		number(p, "restarts"));
	return 1 + print_problem(f, text(p, "problem"));
}

/* Returns how many lines. */
static size_t print_broker(FILE *f, const struct top_sample *s, const struct top_rates *r)
{
	const json_t *d = s->status, *p;
	char up[FIGURE], requests[FIGURE], denied[FIGURE], failed[FIGURE], hits[FIGURE];
	bool sealed = json_is_true(json_object_get(d, "sealed"));
	size_t i, lines = 3;

	fprintf(f, "cotterd     %s %s, up %s   %lld jobs   %lld tokens   %lld leases   %lld secrets\n", text(d, "version"), sealed ? "SEALED" : "unsealed",
		span(up, number(d, "uptime_s")), number(d, "jobs"), number(d, "tokens"), number(d, "leases"), number(d, "secrets"));
	if (sealed)
		lines += print_problem(f, text(d, "reason"));
	fprintf(f, "requests    %s/s   %s/s denied   %s/s failed   %s of reads from the cache   %lld connections\n", decimal(requests, r->requests),
		decimal(denied, r->denied), decimal(failed, r->failed), percent(hits, r->hits),
		number(d, "connections"));
	fprintf(f, "memory      %lld of %lld KiB locked   store %lld KiB   audit %lld records%s\n", number(d, "arena_used") / 1024,
		number(d, "arena_size") / 1024, number(d, "store_bytes") / 1024, number(d, "audit_size"),
		json_is_true(json_object_get(d, "audit_failed")) ? ", FAILED: nothing is granted" : "");
	json_array_foreach(json_object_get(d, "providers"), i, p)
		lines += print_provider(f, p, &r->providers[i < LIMIT_PROVIDERS ? i : LIMIT_PROVIDERS - 1]);
	return lines;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

static void print_unit(FILE *f, const char *cgroup_path)
{
	char unit[LIMIT_CGROUP_PATH];

	cli_print_safe(f, cgroup_unit(cgroup_path, unit, sizeof(unit)) ? unit : *cgroup_path ? cgroup_path : "-");
}

static void print_received(FILE *f, const json_t *job)
{
	const json_t *list = json_object_get(job, "received"), *one;
	long long more = number(job, "received_more"), n = number(job, "n_received");
	size_t i;

	fprintf(f, "%lld%s secret%s", n, more ? " and more" : "", n == 1 && !more ? "" : "s");
	json_array_foreach(list, i, one) {
		if (i == SECRETS_SHOWN)
			break;
		fputs(i ? ", " : ": ", f);
		cli_print_safe(f, text(one, "path"));
		fprintf(f, "@%lld", number(one, "version"));
	}
	if (n > (long long)SECRETS_SHOWN || more)
		fputs(", ...", f);
}

static void print_keys(FILE *f, const json_t *keys)
{
	const json_t *key;
	size_t i;

	json_array_foreach(keys, i, key) {
		if (i == KEYS_SHOWN)
			break;
		fputs(i ? ", " : "may use ", f);
		cli_print_safe(f, json_string_value(key));
	}
	if (json_array_size(keys) > KEYS_SHOWN)
		fprintf(f, " and %zu others", json_array_size(keys) - KEYS_SHOWN);
}

static bool holds(const json_t *job)
{
	return number(job, "n_received") || number(job, "received_more") || json_array_size(json_object_get(job, "keys"));
}

static void print_held(FILE *f, const json_t *job)
{
	const json_t *keys = json_object_get(job, "keys");
	bool received = number(job, "n_received") || number(job, "received_more");

	fputs("  ", f);
	if (received)
		print_received(f, job);
	if (received && json_array_size(keys))
		fputs("; ", f);
	print_keys(f, keys);
	fputc('\n', f);
}

static void print_job(FILE *f, const json_t *job)
{
	char age[FIGURE], left[FIGURE];

	fprintf(f, "%-16s %6lld %7lld %7s %7s %6lld %6lld  ", text(job, "job"), number(job, "uid"), number(job, "leader"), span(age, number(job, "age")),
		span(left, number(job, "ttl")), number(job, "tokens"), number(job, "leases"));
	cli_print_safe(f, *text(job, "name") ? text(job, "name") : "-");
	fputs("  ", f);
	print_unit(f, text(job, "cgroup_path"));
	fputc('\n', f);
}

void top_print(FILE *f, const struct top_sample *s, const struct top_rates *r, size_t rows)
{
	size_t lines = print_broker(f, s, r) + 2, i, shown = 0;
	const json_t *job;

	if (s->n_jobs == 0)
		return;
	fprintf(f, "\n%-16s %6s %7s %7s %7s %6s %6s  %s\n", "JOB", "UID", "LEADER", "AGE", "LEFT", "TOKENS", "LEASES", "NAME, UNIT");
	json_array_foreach(s->jobs, i, job) {
		lines += 1 + holds(job);
		/* a line is kept for saying that there are more */
		if (rows && lines + ((long long)i + 1 < s->n_jobs) > rows)
			break;
		print_job(f, job);
		if (holds(job))
			print_held(f, job);
		shown++;
	}
	if ((long long)shown < s->n_jobs)
		fprintf(f, "(%lld more)\n", s->n_jobs - (long long)shown);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static json_t *known(double value)
{
	return value < 0 ? json_null() : json_real(value);
}

int top_print_json(FILE *f, const struct top_sample *s, const struct top_rates *r, struct err *err)
{
	json_t *providers = json_array(), *all;
	const json_t *p;
	size_t i;
	int bad;

	json_array_foreach(json_object_get(s->status, "providers"), i, p)
		if (i < LIMIT_PROVIDERS)
			json_array_append_new(providers, json_pack("{s:s, s:o, s:o, s:o}", "name", text(p, "name"), "operations",
								  known(r->providers[i].operations), "mean_ms", known(r->providers[i].mean_ms),
								  "wait_ms", known(r->providers[i].wait_ms)));
	all = json_pack("{s:O, s:{s:o, s:o, s:o, s:o, s:o, s:o}, s:I, s:O}", "status", s->status, "rates", "seconds", known(r->seconds), "requests",
			known(r->requests), "denied", known(r->denied), "failed", known(r->failed), "hits", known(r->hits), "providers", providers,
			"n_jobs", (json_int_t)s->n_jobs, "jobs", s->jobs);
	bad = !all || json_dumpf(all, f, JSON_COMPACT) < 0;
	json_decref(all);
	fputc('\n', f);
	return bad ? err_set(err, ERR_FAILED, "out of memory") : 0;
}
