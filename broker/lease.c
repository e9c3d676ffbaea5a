#include "broker/lease.h"

#include "broker/api.h"
#include "broker/broker.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TRY_AT_ONCE 8u	      /* programs for ends that nobody waits for: the others are for those who wait */
#define RETRY_MAX_MS 60000u

enum verb { CREATE, RENEW, REVOKE };
static const char *const verbs[] = {[CREATE] = "create", [RENEW] = "renew", [REVOKE] = "revoke"};

/* One request to an engine. */
struct lease_op {
	struct lease_op *next;
	struct broker *broker;
	struct lease *lease;
	struct call *call; /* NULL: nobody waits, or not any more */
	enum verb verb;
	uint64_t expires_ms; /* of a renewal: what it becomes */
	lease_reply *reply;
	bool started; /* the engine was asked */
	struct {
		char path[LIMIT_PATH_LEN + 1];
		uint64_t version;
		uint8_t *sealed;
		size_t len;
	} secret;
};

/* ---- the list --------------------------------------------------------------------------------------------------- */

void lease_id_text(const struct lease *l, char ret[LEASE_ID_TEXT])
{
	char hex[33];

	sodium_bin2hex(hex, sizeof(hex), l->id, sizeof(l->id));
	snprintf(ret, LEASE_ID_TEXT, "%s/creds/%s/%s", l->engine, l->role, hex);
}

struct lease *lease_find(struct broker *b, const char *text)
{
	const char *hex = strrchr(text, '/');
	char whole[LEASE_ID_TEXT];
	uint8_t id[16];
	size_t n = 0;

	if (!hex || sodium_hex2bin(id, sizeof(id), hex + 1, strlen(hex + 1), NULL, &n, NULL) != 0 || n != sizeof(id))
		return NULL;
	for (struct lease *l = b->leases.list; l; l = l->next) {
		if (l->state != LEASE_LIVE || memcmp(l->id, id, sizeof(id)) != 0)
			continue;
		lease_id_text(l, whole);
		return strcmp(text, whole) == 0 ? l : NULL;
	}
	return NULL;
}

static struct lease *add(struct broker *b, const struct lease *from)
{
	struct lease *l = b->leases.n < LIMIT_LEASES ? malloc(sizeof(*l)) : NULL;

	if (!l)
		return NULL;
	*l = *from;
	l->next = NULL;
	*b->leases.tail = l;
	b->leases.tail = &l->next;
	b->leases.n++;
	return l;
}

static void take_out(struct broker *b, struct lease *lease)
{
	for (struct lease **at = &b->leases.list; *at; at = &(*at)->next) {
		if (*at == lease) {
			*at = lease->next;
			if (!*at)
				b->leases.tail = at;
			b->leases.n--;
			free(lease);
			return;
		}
	}
}

static int load_one(void *ctx, const struct lease *from)
{
	struct lease *l = add(ctx, from);

	if (l && l->state == LEASE_NEW)
		l->state = LEASE_ENDING;
	return 0;
}

int leases_load(struct broker *b, struct err *err)
{
	size_t n_bad = 0;
	int r;

	leases_done(b);
	r = store_leases(&b->store, load_one, b, &n_bad, err);
	if (n_bad)
		log_error("%zu leases in the store are not what cotter wrote: what they stand for is not ended", n_bad);
	return r;
}

void leases_done(struct broker *b)
{
	struct lease_op *op;
	struct lease *l;

	while ((op = b->leases.ops)) {
		b->leases.ops = op->next;
		free(op->secret.sealed);
		free(op);
	}
	while ((l = b->leases.list)) {
		b->leases.list = l->next;
		free(l);
	}
	b->leases.n = 0;
	b->leases.tail = &b->leases.list;
}

static void record(struct broker *b, const struct lease *l, const char *event, const char *result, const char *why)
{
	char text[LEASE_ID_TEXT];
	struct audit_event e = {.event = event, .uid = l->uid, .job = l->job, .secret = text, .result = result, .why = why, .takes = true};

	lease_id_text(l, text);
	audit_write(&b->audit, &e, NULL, NULL);
}

/* ---- what the engine is told ------------------------------------------------------------------------------------- */

static json_t *parameters(const struct config_engine_role *role)
{
	json_t *object = json_object();

	for (size_t i = 0; i < role->n_parameters; i++) {
		const struct config_parameter *p = &role->parameters[i];
		json_t *list = json_array();

		for (size_t k = 0; k < p->n_values; k++)
			json_array_append_new(list, json_string(p->values[k]));
		json_object_set_new(object, p->name, list);
	}
	return object;
}

/* config: the engine's secret, or NULL. */
static int build(const struct lease_op *op, const struct config_engine_role *role, const struct secret *config, struct secret *ret, struct err *err)
{
	CLEANUP(json_cleanup) json_t *object = json_object(), *told = NULL;
	const struct lease *l = op->lease;
	char id[33], expires[40];
	int r = config ? json_parse((const char *)config->data, config->len, &told, err) : 0;

	sodium_bin2hex(id, sizeof(id), l->id, sizeof(l->id));
	api_time(op->expires_ms, expires);
	if (r < 0)
		return err_set(err, ERR_INPUT, "the engine's secret is no JSON object");
	if (json_object_set_new(object, "verb", json_string(verbs[op->verb])) < 0 || json_object_set_new(object, "lease", json_string(id)) < 0 ||
	    json_object_set_new(object, "role", json_string(l->role)) < 0 || json_object_set_new(object, "expires", json_string(expires)) < 0 ||
	    json_object_set_new(object, "parameters", role ? parameters(role) : json_object()) < 0 ||
	    json_object_set(object, "config", told ? told : json_null()) < 0)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	return json_write(object, LIMIT_SECRET_LEN * 2, ret, err);
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

static void op_free(struct lease_op *op)
{
	for (struct lease_op **at = &op->broker->leases.ops; *at; at = &(*at)->next) {
		if (*at == op) {
			*at = op->next;
			break;
		}
	}
	op->lease->busy = false;
	free(op->secret.sealed);
	free(op);
}

static void retry_later(struct lease *l, int code, const char *why)
{
	uint64_t wait_ms = 1000ull << (l->n_failed < 6 ? l->n_failed : 6);
	char text[LEASE_ID_TEXT];

	/* no room is no failure of it */
	if (code == -ERR_BUSY) {
		l->next_try_ms = token_boot_ms() + 250;
		return;
	}
	lease_id_text(l, text);
	if (l->n_failed++ == 0)
		log_warn("the lease %s could not be ended yet: %s", text, why);
	l->next_try_ms = token_boot_ms() + (wait_ms < RETRY_MAX_MS ? wait_ms : RETRY_MAX_MS);
}

/* Whoever waited hears of it; without anybody the lease is ended, or tried again. */
static void fail(struct lease_op *op, int code, const char *message)
{
	struct broker *b = op->broker;
	struct call *call = op->call;
	struct lease *l = op->lease;
	bool unheard = op->verb == CREATE && !op->started;
	char event[24];

	snprintf(event, sizeof(event), "lease.%s", verbs[op->verb]);
	if (code != -ERR_BUSY || call)
		record(b, l, event, "failed", message);
	if (op->verb != RENEW) {
		l->state = LEASE_ENDING;
		retry_later(l, code, message);
	}
	op_free(op);
	/* what the engine never heard of needs no end; if the row cannot go, it is ended as any other */
	if (unheard && store_lease_delete(&b->store, l->id, NULL) == 0)
		take_out(b, l);
	/* what its engine said is nothing for a job */
	if (call)
		call_fail(call, code == -ERR_BUSY ? code : -ERR_FAILED, code == -ERR_BUSY ? "the engine is busy: try again" : "the engine could not do it: the audit log says why");
}

static void created(struct lease_op *op, const json_t *answer)
{
	struct broker *b = op->broker;
	struct call *call = op->call;
	struct lease *l = op->lease;
	lease_reply *reply = op->reply;
	struct err err = {0};

	if (!call || l->state != LEASE_NEW || !json_is_object(json_object_get(answer, "data"))) {
		fail(op, -ERR_FAILED, !call ? "nobody waits for it any more" : l->state != LEASE_NEW ? "it was ended meanwhile" : "the engine's program gave no data");
		return;
	}
	l->state = LEASE_LIVE;
	if (store_lease_put(&b->store, l, &err) < 0) {
		fail(op, -ERR_FAILED, err.msg);
		return;
	}
	op_free(op);
	reply(call, l, answer);
}

static void ended(struct lease_op *op)
{
	struct broker *b = op->broker;
	struct call *call = op->call;
	struct lease *l = op->lease;
	lease_reply *reply = op->reply;
	struct err err = {0};

	if (store_lease_delete(&b->store, l->id, &err) < 0) {
		fail(op, -ERR_FAILED, err.msg);
		return;
	}
	record(b, l, "lease.end", "granted", "");
	op_free(op);
	take_out(b, l);
	if (call)
		reply(call, NULL, NULL);
}

static void renewed(struct lease_op *op, const json_t *answer)
{
	struct call *call = op->call;
	struct lease *l = op->lease;
	lease_reply *reply = op->reply;
	struct err err = {0};
	uint64_t old_ms = l->expires_ms;

	l->expires_ms = op->expires_ms;
	l->renewed_ms = token_wall_ms();
	if (store_lease_put(&op->broker->store, l, &err) < 0) {
		l->expires_ms = old_ms;
		fail(op, -ERR_FAILED, err.msg);
		return;
	}
	op_free(op);
	if (call)
		reply(call, l, answer);
}

static void done(void *ctx, int result, const json_t *answer, const char *message)
{
	struct lease_op *op = ctx;

	if (result < 0)
		fail(op, -ERR_FAILED, message);
	else if (op->verb == CREATE)
		created(op, answer);
	else if (op->verb == RENEW)
		renewed(op, answer);
	else
		ended(op);
}

/* Requests that run, or wait for the engine's secret: ends that nobody waits for, of one engine (NULL: all), or all the others. */
static size_t running(const struct broker *b, const char *engine, bool ends)
{
	size_t n = 0;

	for (const struct lease_op *op = b->leases.ops; op; op = op->next)
		n += (!op->call && op->verb == REVOKE) == ends && (!engine || strcmp(op->lease->engine, engine) == 0);
	return n;
}

static void with_config(struct lease_op *op, const struct secret *config)
{
	struct broker *b = op->broker;
	const struct config_engine *engine = config_engine(&b->config, op->lease->engine);
	CLEANUP(secret_clear) struct secret request = {0};
	struct err err = {0};
	int r = engine ? build(op, config_engine_role(engine, op->lease->role), config, &request, &err)
		       : err_set(&err, ERR_FAILED, "the configuration has no engine of that name any more");

	if (r == 0 && op->call && op->verb != REVOKE && running(b, NULL, false) > LIMIT_ENGINE_RUNS - TRY_AT_ONCE)
		r = err_set(&err, ERR_BUSY, "the other places are for ends");
	if (r == 0)
		r = engine_start(&b->engines, (uint32_t)(engine - b->config.engines), &request, done, op, &err);
	op->started = r == 0;
	if (r < 0)
		fail(op, r, err.msg);
}

/* While the hardware worked, it may have been written anew. */
static bool unchanged(const struct lease_op *op)
{
	struct store_version v = {0};
	bool same = store_get(&op->broker->store, op->secret.path, op->secret.version, &v, NULL) == 0 && v.sealed && v.sealed_len == op->secret.len &&
		    memcmp(v.sealed, op->secret.sealed, v.sealed_len) == 0;

	free(v.sealed);
	return same;
}

static void opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message)
{
	struct lease_op *op = ctx;

	(void)header;
	if (result < 0) {
		fail(op, result, message);
		return;
	}
	if (unchanged(op))
		cache_put(&op->broker->cache, op->secret.path, op->secret.version, token_boot_ms(), plain);
	with_config(op, plain);
}

/* The engine's own secret first, if it has one. */
static void begin(struct lease_op *op)
{
	struct broker *b = op->broker;
	const struct config_engine *engine = config_engine(&b->config, op->lease->engine);
	CLEANUP(secret_clear) struct secret plain = {0};
	struct store_version v = {0};
	struct err err = {0};
	int r;

	if (!engine || !engine->secret[0]) {
		with_config(op, NULL);
		return;
	}
	snprintf(op->secret.path, sizeof(op->secret.path), "%s", engine->secret);
	r = store_get(&b->store, engine->secret, 0, &v, &err);
	if (r == 0 && (v.destroyed || store_deleted(&v, token_wall_ms()) || strcmp(v.meta, "type=json\n") != 0))
		r = err_set(&err, ERR_FAILED, "the engine's secret %.200s is deleted, or no JSON object", engine->secret);
	op->secret.version = v.version;
	if (r < 0)
		fail(op, r == -ERR_NOT_FOUND ? -ERR_FAILED : r, err.msg);
	else if (cache_get(&b->cache, engine->secret, v.version, token_boot_ms(), &plain))
		with_config(op, &plain);
	else {
		op->secret.sealed = steal_ptr(&v.sealed);
		op->secret.len = v.sealed_len;
		unseal_start(&b->unseals, engine->secret, v.version, op->secret.sealed, op->secret.len, true, 0, opened, op);
	}
	free(v.sealed);
}

static int start(struct broker *b, struct lease *l, enum verb verb, uint64_t expires_ms, struct call *call, lease_reply *reply, struct err *err)
{
	struct lease_op *op = calloc(1, sizeof(*op));

	if (!op)
		return err_set(err, ERR_FAILED, "out of memory");
	*op = (struct lease_op){.next = b->leases.ops, .broker = b, .lease = l, .call = call, .verb = verb, .expires_ms = expires_ms, .reply = reply};
	b->leases.ops = op;
	l->busy = true;
	begin(op);
	return 0;
}

/* ---- from outside ------------------------------------------------------------------------------------------------ */

static size_t waiting_of_uid(const struct broker *b, uint32_t uid)
{
	size_t n = 0;

	for (const struct lease_op *op = b->leases.ops; op; op = op->next)
		n += op->lease->uid == uid && op->verb != REVOKE;
	return n;
}

static size_t of_uid(const struct broker *b, uint32_t uid)
{
	size_t n = 0;

	for (const struct lease *l = b->leases.list; l; l = l->next)
		n += l->uid == uid;
	return n;
}

int lease_create(struct call *call, const struct config_engine *engine, const struct config_engine_role *role, uint64_t ttl_ms, lease_reply *reply, struct err *err)
{
	struct broker *b = call->broker;
	struct lease draft = {.uid = call->facts.uid, .created_ms = call->facts.wall_ms}, *l;
	int r;

	if (call->row && of_uid(b, draft.uid) >= LIMIT_LEASES_PER_UID)
		return err_set(err, ERR_BUSY, "this uid has %u leases already", LIMIT_LEASES_PER_UID);
	if (call->row && waiting_of_uid(b, draft.uid) >= LIMIT_ENGINE_RUNS_PER_UID)
		return err_set(err, ERR_BUSY, "this uid waits for %u programs of engines already: try again", LIMIT_ENGINE_RUNS_PER_UID);
	randombytes_buf(draft.id, sizeof(draft.id));
	if (call->row)
		memcpy(draft.token, call->row->id, sizeof(draft.token));
	snprintf(draft.engine, sizeof(draft.engine), "%s", engine->name);
	snprintf(draft.role, sizeof(draft.role), "%s", role->name);
	snprintf(draft.job, sizeof(draft.job), "%s", call->job_id);
	draft.max_ms = draft.created_ms + role->max_ttl_ms;
	draft.expires_ms = draft.created_ms + (ttl_ms < role->max_ttl_ms ? ttl_ms : role->max_ttl_ms);
	l = add(b, &draft);
	if (!l)
		return err_set(err, ERR_BUSY, "there are %u leases already", LIMIT_LEASES);
	/* before the engine is asked: a broker that dies then ends it later */
	r = store_lease_put(&b->store, l, err);
	if (r < 0) {
		take_out(b, l);
		return r;
	}
	r = start(b, l, CREATE, l->expires_ms, call, reply, err);
	if (r < 0 && store_lease_delete(&b->store, l->id, NULL) == 0)
		take_out(b, l);
	return r;
}

int lease_renew(struct call *call, struct lease *l, uint64_t ttl_ms, lease_reply *reply, struct err *err)
{
	uint64_t expires_ms = call->facts.wall_ms + ttl_ms;

	if (l->busy)
		return err_set(err, ERR_BUSY, "the engine is at this lease just now: try again");
	return start(call->broker, l, RENEW, expires_ms < l->max_ms ? expires_ms : l->max_ms, call, reply, err);
}

int lease_doom(struct broker *b, struct lease *l, struct err *err)
{
	l->state = LEASE_ENDING;
	return store_lease_put(&b->store, l, err);
}

int lease_revoke(struct call *call, struct lease *l, lease_reply *reply, struct err *err)
{
	int r = lease_doom(call->broker, l, err);

	if (r == 0 && l->busy)
		return err_set(err, ERR_BUSY, "the engine is at this lease just now: it is ended after that");
	return r < 0 ? r : start(call->broker, l, REVOKE, 0, call, reply, err);
}

int lease_forget(struct broker *b, struct lease *l, struct err *err)
{
	int r = l->busy ? err_set(err, ERR_BUSY, "the engine is at this lease just now: try again") : store_lease_delete(&b->store, l->id, err);

	if (r == 0) {
		record(b, l, "lease.end", "granted", "forgotten, the engine was not asked");
		take_out(b, l);
	}
	return r;
}

void lease_cancel(struct broker *b, const struct call *call)
{
	for (struct lease_op *op = b->leases.ops; op; op = op->next)
		if (op->call == call)
			op->call = NULL;
}

static bool over(struct broker *b, const struct lease *l, uint64_t wall_ms)
{
	if (l->state == LEASE_NEW)
		return false; /* its own request sees to it */
	return l->state == LEASE_ENDING || l->expires_ms <= wall_ms ||
	       (!sodium_is_zero(l->token, sizeof(l->token)) && !token_find(&b->tokens, l->token));
}

void leases_tick(struct broker *b, uint64_t boot_ms)
{
	uint64_t wall_ms = token_wall_ms();
	size_t n = running(b, NULL, true);
	struct lease *next;

	for (struct lease *l = b->leases.list; l && n < TRY_AT_ONCE; l = next) {
		next = l->next;
		/* a server that hangs does not take the places of another's */
		if (l->busy || boot_ms < l->next_try_ms || !over(b, l, wall_ms) || running(b, l->engine, true) >= TRY_AT_ONCE / 2)
			continue;
		l->state = LEASE_ENDING;
		n++;
		/* it may end at once, with a failure that is tried again */
		start(b, l, REVOKE, 0, NULL, NULL, NULL);
	}
}
