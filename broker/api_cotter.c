/* cotter/…: what operators ask, on their own socket. */
#include "broker/api.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"

#include "build-config.h"

#include <sodium.h>
#include <string.h>

static int append_provider(struct secret *s, const struct hardware_provider *p)
{
	uint64_t failures = 0;
	int r;

	for (enum wire_op op = 0; op < WIRE_N; op++)
		failures += p->n_failed[op];
	r = api_append(s, "{\"name\":\"%s\",\"state\":\"%s\",\"queued\":%zu,\"operations\":%llu,\"restarts\":%llu,\"keys\":%zu,"
			   "\"failures\":%llu,\"measured\":%llu,\"busy_us\":%llu,\"waited_us\":%llu,\"problem\":", p->config->name,
			   hardware_state_name(p->state), p->n_queued, (unsigned long long)p->n_operations, (unsigned long long)p->n_restarts,
			   p->config->n_keys, (unsigned long long)failures, (unsigned long long)histogram_count(&p->latency),
			   (unsigned long long)(p->latency.sum_ns / 1000), (unsigned long long)(p->waited_ns / 1000));

	if (r == 0)
		r = api_append_string(s, p->problem);
	return r < 0 ? r : api_append(s, "}");
}

static int append_counters(struct secret *s, struct broker *b)
{
	const struct metrics *m = &b->metrics;
	uint64_t n_secrets = 0, store_bytes = 0, failed = 0;
	int r = store_measure(&b->store, &n_secrets, &store_bytes, NULL);

	for (size_t i = 0; i < METRICS_ROUTES; i++)
		failed += m->requests[i][METRICS_FAILED];
	return r < 0 ? r : api_append(s, ",\"failed\":%llu,\"hits\":%llu,\"misses\":%llu,\"signatures\":%llu,\"leases\":%zu,\"secrets\":%llu,"
				      "\"store_bytes\":%llu,\"arena_size\":%zu,\"audit_failures\":%llu",
				      (unsigned long long)failed, (unsigned long long)m->n_hits, (unsigned long long)m->n_misses,
				      (unsigned long long)m->n_signatures, b->leases.n, (unsigned long long)n_secrets, (unsigned long long)store_bytes,
				      secret_arena_size(), (unsigned long long)b->audit.n_failed);
}

/* How old the pinned key sets are; -1: a set cannot be used. */
static int append_issuers(struct secret *s, struct broker *b)
{
	const struct jwks_set *set = NULL;
	uint64_t now_ms = token_wall_ms();
	int r = api_append(s, "],\"issuers\":[");

	for (size_t i = 0; r == 0 && i < b->config.n_issuers; i++) {
		const struct config_issuer *issuer = &b->config.issuers[i];
		bool good = jwks_get(&b->jwks, issuer, now_ms, &set, NULL) == 0;

		r = api_append(s, "%s{\"name\":\"%s\",\"keys\":%zu,\"age_days\":%d,\"old\":%s}", i ? "," : "", issuer->name, good ? set->n_keys : 0,
			       good ? (int)jwks_age_days(set, now_ms) : -1, good && now_ms >= set->mtime_ms + issuer->max_age_ms ? "true" : "false");
	}
	return r < 0 ? r : api_append(s, "]");
}

/* Secrets that should have been rotated: all are counted, the first are named. */
struct overdue {
	struct broker *broker;
	struct secret *text;
	uint64_t now_ms;
	size_t n;
};

static int add_overdue(void *ctx, const char *path, uint64_t created_ms)
{
	struct overdue *o = ctx;
	const struct config_rotation *rotation = config_rotation(&o->broker->config, path);

	if (!rotation || !rotation->every_ms || created_ms + rotation->every_ms > o->now_ms || o->n++ >= LIMIT_OVERDUE)
		return 0;
	return api_append(o->text, "%s{\"path\":\"%s\",\"days\":%llu}", o->n > 1 ? "," : "", path,
			  (unsigned long long)((o->now_ms - created_ms - rotation->every_ms) / 86400000));
}

static int append_overdue(struct secret *s, struct broker *b)
{
	struct overdue o = {.broker = b, .text = s, .now_ms = token_wall_ms()};
	int r = api_append(s, ",\"overdue\":[");

	if (r == 0 && b->unsealed && b->config.n_rotations)
		r = store_ages(&b->store, add_overdue, &o, NULL);
	return r < 0 ? r : api_append(s, "],\"n_overdue\":%zu", o.n);
}

void cotter_status(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	uint8_t root[32];
	char hex[65];
	int r = secret_new(&data, 2048, NULL);

	(void)q;
	merkle_root(&b->audit.written, root);
	sodium_bin2hex(hex, sizeof(hex), root, sizeof(root));
	if (r == 0)
		r = api_append(&data, "{\"version\":\"" COTTER_VERSION "\",\"sealed\":%s,\"reason\":", b->unsealed ? "false" : "true");
	if (r == 0)
		r = api_append_string(&data, b->unsealed ? "" : b->sealed_reason);
	if (r == 0)
		r = api_append(&data,
			       ",\"uptime_s\":%llu,\"requests\":%llu,\"granted\":%llu,\"denied\":%llu,\"connections\":%zu,\"tokens\":%zu,"
			       "\"cached\":%zu,\"arena\":\"%s\",\"arena_used\":%zu,\"audit_size\":%llu,\"audit_root\":\"%s\","
			       "\"audit_failed\":%s,\"providers\":[",
			       (unsigned long long)((token_boot_ms() - b->started_ms) / 1000), (unsigned long long)b->n_requests,
			       (unsigned long long)b->n_granted, (unsigned long long)b->n_denied, b->server->n_conns, b->tokens.n,
			       b->cache.n, secret_arena_kind(), secret_arena_used(), (unsigned long long)b->audit.written.size, hex,
			       audit_failed(&b->audit) ? "true" : "false");
	for (size_t i = 0; r == 0 && i < b->hardware.n_providers; i++) {
		r = append_provider(&data, &b->hardware.providers[i]);
		if (r == 0 && i + 1 < b->hardware.n_providers)
			r = api_append(&data, ",");
	}
	if (r == 0)
		r = append_issuers(&data, b);
	if (r == 0)
		r = append_overdue(&data, b);
	if (r == 0)
		r = append_counters(&data, b);
	if (r == 0)
		r = api_append(&data, ",\"jobs\":%zu,\"jobs_ended\":%llu,\"epoch\":%u}", b->jobs.n, (unsigned long long)b->jobs.n_ended, b->tokens.epoch);
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}

static void unlocked(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct call *call = ctx;
	uint64_t seq = 0;

	(void)reply;
	if (result < 0)
		call_fail(call, result, message);
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 204, NULL, seq);
}

/* {"provider": "hsm", "pin": "…"}; without a pin the configured source is looked at again. */
void cotter_unlock(struct call *call, const struct request *q)
{
	struct broker *b = call->broker;
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret pin = {0};
	struct hardware_provider *p = NULL;
	struct err err = {0};
	const char *name, *text;
	int r = api_body(q, &body, &err);

	name = json_string_value(json_object_get(body, "provider"));
	text = json_string_value(json_object_get(body, "pin"));
	for (size_t i = 0; name && i < b->hardware.n_providers; i++)
		if (strcmp(b->hardware.providers[i].config->name, name) == 0)
			p = &b->hardware.providers[i];
	if (r == 0 && !p)
		r = err_set(&err, ERR_INPUT, "no such provider is configured");
	/* without one it logs in anew, which sets right a token's counter of wrong PINs that another program gave */
	if (r == 0 && text && p->state == HARDWARE_READY)
		r = err_set(&err, ERR_INPUT, "that provider is ready: it needs no PIN");
	if (r == 0 && text && (strlen(text) == 0 || strlen(text) > LIMIT_PIN_LEN))
		r = err_set(&err, ERR_INPUT, "a PIN has 1 to %u bytes", LIMIT_PIN_LEN);
	if (r == 0 && text)
		r = secret_copy(&pin, text, strlen(text), &err);
	if (r == 0)
		r = hardware_login(p, text ? &pin : NULL, unlocked, call, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}
