/* GET sys/metrics: everything that is counted, in the text format of Prometheus (version 0.0.4). */
#include "broker/api.h"

#include "common/cleanup.h"
#include "common/err.h"

#include "build-config.h"

#include <string.h>

static int family(struct secret *s, const char *name, const char *type, const char *help)
{
	return api_append(s, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* ns as seconds. */
static int append_seconds(struct secret *s, uint64_t ns)
{
	return api_append(s, " %llu.%09llu\n", (unsigned long long)(ns / 1000000000), (unsigned long long)(ns % 1000000000));
}

/* label: "name=\"value\"", or "". */
static int append_histogram(struct secret *s, const char *name, const char *label, const struct histogram *h)
{
	uint64_t n = 0;
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < METRICS_BUCKETS; i++) {
		n += h->buckets[i];
		r = api_append(s, "%s_bucket{%s%sle=\"%s\"} %llu\n", name, label, *label ? "," : "", histogram_bounds[i], (unsigned long long)n);
	}
	if (r == 0)
		r = api_append(s, *label ? "%s_sum{%s}" : "%s_sum%s", name, label);
	if (r == 0)
		r = append_seconds(s, h->sum_ns);
	return r < 0 ? r : api_append(s, *label ? "%s_count{%s} %llu\n" : "%s_count%s %llu\n", name, label, (unsigned long long)n);
}

/* ---- what stands alone ------------------------------------------------------------------------------------------ */

struct sample {
	const char *name, *type, *help;
	uint64_t value;
};

static int append_samples(struct secret *s, struct broker *b)
{
	uint64_t n_secrets = 0, store_bytes = 0;
	const uint64_t up_ms = token_boot_ms() - b->started_ms;
	/* before the array: it reads them */
	int r = store_measure(&b->store, &n_secrets, &store_bytes, NULL);
	const struct sample all[] = {
		{"cotter_start_time_seconds", "gauge", "When cotterd started, since 1970.", (token_wall_ms() - up_ms) / 1000},
		{"cotter_unsealed", "gauge", "1: the hardware has opened the store's own keys.", b->unsealed},
		{"cotter_connections", "gauge", "Open connections.", b->server->n_conns},
		{"cotter_malformed_requests_total", "counter", "What was sent and is no request.", b->metrics.n_malformed},
		{"cotter_cache_hits_total", "counter", "Secrets that were still open.", b->metrics.n_hits},
		{"cotter_cache_misses_total", "counter", "Secrets that the hardware had to open.", b->metrics.n_misses},
		{"cotter_cache_entries", "gauge", "Secrets that are open.", b->cache.n},
		{"cotter_signatures_total", "counter", "Signatures that transit gave away.", b->metrics.n_signatures},
		{"cotter_jobs", "gauge", "Jobs alive.", b->jobs.n},
		{"cotter_jobs_started_total", "counter", "Jobs that began.", b->jobs.n_started},
		{"cotter_jobs_ended_total", "counter", "Jobs that ended.", b->jobs.n_ended},
		{"cotter_tokens", "gauge", "Tokens alive.", b->tokens.n},
		{"cotter_leases", "gauge", "Leases that did not end yet.", b->leases.n},
		{"cotter_secrets", "gauge", "Secrets in the store.", n_secrets},
		{"cotter_store_bytes", "gauge", "Size of the store's file.", store_bytes},
		{"cotter_arena_used_bytes", "gauge", "Locked memory in use.", secret_arena_used()},
		{"cotter_arena_size_bytes", "gauge", "Locked memory.", secret_arena_size()},
		{"cotter_audit_records_total", "counter", "Records in the audit log.", b->audit.written.size},
		{"cotter_audit_failures_total", "counter", "Records that could not be written.", b->audit.n_failed},
		{"cotter_audit_failed", "gauge", "1: the audit log cannot be written, and nothing is granted.", audit_failed(&b->audit)},
	};

	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(all[0]); i++) {
		r = family(s, all[i].name, all[i].type, all[i].help);
		if (r == 0)
			r = api_append(s, "%s %llu\n", all[i].name, (unsigned long long)all[i].value);
	}
	return r;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

static bool is_first(size_t row)
{
	for (size_t i = 0; i < row; i++)
		if (strcmp(api_event(i), api_event(row)) == 0)
			return false;
	return true;
}

static uint64_t requests_of(const struct metrics *m, const char *event, enum metrics_outcome outcome)
{
	uint64_t n = 0;

	for (size_t i = 0; api_event(i); i++)
		if (strcmp(api_event(i), event) == 0)
			n += m->requests[i][outcome];
	return n;
}

static int append_requests(struct secret *s, const struct metrics *m)
{
	static const char name[] = "cotter_requests_total";
	int r = family(s, name, "counter", "Requests that were answered, by the audit log's event and by how.");

	for (size_t i = 0; r == 0 && api_event(i); i++)
		for (enum metrics_outcome o = 0; is_first(i) && r == 0 && o < METRICS_OUTCOMES; o++)
			r = api_append(s, "%s{event=\"%s\",outcome=\"%s\"} %llu\n", name, api_event(i), metrics_outcome_name(o),
				       (unsigned long long)requests_of(m, api_event(i), o));
	if (r == 0)
		r = api_append(s, "%s{event=\"none\",outcome=\"invalid\"} %llu\n", name,
			       (unsigned long long)m->requests[METRICS_ROUTES][METRICS_INVALID]);
	if (r == 0)
		r = family(s, "cotter_request_duration_seconds", "histogram", "From a whole request to its answer.");
	return r < 0 ? r : append_histogram(s, "cotter_request_duration_seconds", "", &m->latency);
}

/* ---- hardware --------------------------------------------------------------------------------------------------- */

static int each_state(struct secret *s, const char *name, const struct hardware_provider *p)
{
	int r = 0;

	for (enum hardware_state state = 0; r == 0 && state <= HARDWARE_ABSENT; state++)
		r = api_append(s, "%s{provider=\"%s\",state=\"%s\"} %d\n", name, p->config->name, hardware_state_name(state), p->state == state);
	return r;
}

static int each_op(struct secret *s, const char *name, const struct hardware_provider *p, const uint64_t n[WIRE_N])
{
	int r = 0;

	for (enum wire_op op = 0; r == 0 && op < WIRE_N; op++)
		if (hardware_op_name(op))
			r = api_append(s, "%s{provider=\"%s\",operation=\"%s\"} %llu\n", name, p->config->name, hardware_op_name(op),
				       (unsigned long long)n[op]);
	return r;
}

static int each_done(struct secret *s, const char *name, const struct hardware_provider *p)
{
	return each_op(s, name, p, p->n_done);
}

static int each_failed(struct secret *s, const char *name, const struct hardware_provider *p)
{
	return each_op(s, name, p, p->n_failed);
}

static int each_queue(struct secret *s, const char *name, const struct hardware_provider *p)
{
	return api_append(s, "%s{provider=\"%s\"} %zu\n", name, p->config->name, p->n_queued);
}

static int each_restarts(struct secret *s, const char *name, const struct hardware_provider *p)
{
	return api_append(s, "%s{provider=\"%s\"} %llu\n", name, p->config->name, (unsigned long long)p->n_restarts);
}

static int each_wait(struct secret *s, const char *name, const struct hardware_provider *p)
{
	int r = api_append(s, "%s{provider=\"%s\"}", name, p->config->name);

	return r < 0 ? r : append_seconds(s, p->waited_ns);
}

static int each_latency(struct secret *s, const char *name, const struct hardware_provider *p)
{
	char label[LIMIT_NAME_LEN + 16];

	snprintf(label, sizeof(label), "provider=\"%s\"", p->config->name);
	return append_histogram(s, name, label, &p->latency);
}

static int append_hardware(struct secret *s, const struct hardware *h)
{
	static const struct {
		const char *name, *type, *help;
		int (*each)(struct secret *s, const char *name, const struct hardware_provider *p);
	} families[] = {
		{"cotter_hardware_state", "gauge", "1: the provider is in that state.", each_state},
		{"cotter_hardware_queue", "gauge", "Operations that wait for a provider, or that it is at.", each_queue},
		{"cotter_hardware_operations_total", "counter", "Operations that came to an end.", each_done},
		{"cotter_hardware_failures_total", "counter", "Operations that ended with an error.", each_failed},
		{"cotter_hardware_wait_seconds_total", "counter", "What operations waited for those before them.", each_wait},
		{"cotter_hardware_operation_duration_seconds", "histogram", "What an operation took the hardware.", each_latency},
		{"cotter_hardware_helper_restarts_total", "counter", "Ends of a provider's helper, cotter-keyd, that nobody wanted.", each_restarts},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(families) / sizeof(families[0]); i++) {
		r = family(s, families[i].name, families[i].type, families[i].help);
		for (size_t k = 0; r == 0 && k < h->n_providers; k++)
			r = families[i].each(s, families[i].name, &h->providers[k]);
	}
	return r;
}

/* No record of its own, as with cotter/status: a log that is stuck must not hide that it is, nor fill with this. */
void sys_metrics(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret body = {0};
	int r;

	(void)q;
	if (call->wrap_ttl_s) {
		call_fail(call, -ERR_INPUT, "the metrics are no JSON: they are not wrapped");
		return;
	}
	if (call_check(call) < 0)
		return;
	r = secret_new(&body, 32768, NULL);
	if (r == 0)
		r = family(&body, "cotter_build_info", "gauge", "1, and which cotterd this is.");
	if (r == 0)
		r = api_append(&body, "cotter_build_info{version=\"" COTTER_VERSION "\"} 1\n");
	if (r == 0)
		r = append_samples(&body, b);
	if (r == 0)
		r = append_requests(&body, &b->metrics);
	if (r == 0)
		r = append_hardware(&body, &b->hardware);
	if (r == 0)
		call->conn->content_type = "text/plain; version=0.0.4";
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}
