/* The life of a call: its records, its checks, its end. */
#include "broker/api.h"

#include "broker/key_rule.h"
#include "broker/received.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static bool is_denial(int code)
{
	return abs(code) == ERR_DENIED || abs(code) == ERR_LOGIN || abs(code) == ERR_APPROVAL;
}

enum metrics_outcome call_outcome(int code)
{
	return is_denial(code) ? METRICS_DENIED : err_http_status(code) >= 500 ? METRICS_FAILED : METRICS_INVALID;
}

static void call_free(struct call *call)
{
	struct metrics *m = &call->broker->metrics;

	m->requests[call->route][call->outcome]++;
	histogram_add(&m->latency, metrics_now_ns() - call->began_ns);
	secret_free(call->token);
	free(call->sealed);
	free(call->asked);
	secret_clear(&call->told);
	if (call->free_work)
		call->free_work(call->work);
	free(call);
}

static void reply_wrapped(struct call *call, const struct secret *body)
{
	CLEANUP(secret_clear) struct secret wrapped = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_wrap(call, body, &wrapped, &seq, &err);

	call->wrap_ttl_s = 0;
	if (r < 0 && call->unsaid)
		call->unsaid(call);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply(call, 200, &wrapped, seq);
}

void call_reply(struct call *call, int status, const struct secret *body, uint64_t audit_seq)
{
	struct conn *c = call->conn;

	if (call->wrap_ttl_s && status == 200 && body) {
		reply_wrapped(call, body);
		return;
	}
	if (status >= 500)
		call->outcome = METRICS_FAILED;
	c->counts = call->broker->metrics.requests[call->route];
	c->outcome = call->outcome;
	call_free(call);
	conn_reply(c, status, body, audit_seq);
}

void call_reply_shared(struct call *call, struct shared_body *body)
{
	struct conn *c = call->conn;

	call_free(call);
	conn_reply_shared(c, body);
}

static struct audit_event record_of(const struct call *call, const char *event, const char *result, const char *why)
{
	return (struct audit_event){
		.event = event, .uid = call->conn->peer.uid, .job = call->job_id, .cgroup = call->conn->peer.cgroup,
		.pidfd = call->conn->peer.pidfd_id, .secret = call->path, .version = call->version,
		.token_id = call->token ? call->token->id + 5 : sodium_is_zero(call->made_id, sizeof(call->made_id)) ? NULL : call->made_id,
		.result = result, .why = why, .takes = call->takes};
}

int call_record(struct call *call, const char *event, const char *result, const char *why, uint64_t *ret_seq, struct err *err)
{
	const struct audit_event e = record_of(call, event, result, why);

	return audit_write(&call->broker->audit, &e, ret_seq, err);
}

/* A refusal that cannot be logged is still one. Whoever is refused too often is only counted, and has to connect anew. */
void call_record_refusal(struct call *call, bool denied, const char *why)
{
	const struct peer *p = &call->conn->peer;

	call->broker->n_denied += denied;
	if (!(p->operator_socket && broker_is_operator(call->broker, p->uid)) &&
	    !refusals_take(&call->broker->refusals, p->uid, p->cgroup, token_boot_ms())) {
		call->conn->keep_alive = false;
		return;
	}
	call_record(call, call->event, denied ? "denied" : "failed", why, NULL, NULL);
	if (call->alarm[0])
		log_warn("%s", call->alarm);
}

uint64_t call_asker(const struct call *call)
{
	return (call->facts.cgroup ^ ((uint64_t)call->facts.uid << 32)) | 1ull << 63;
}

static int spend(struct call *call, const char *why, struct err *err)
{
	call->facts.wall_ms = token_wall_ms();
	call->facts.boot_ms = token_boot_ms();
	call_record_refusal(call, false, why);
	return call->token ? token_use(&call->broker->tokens, call->token, &call->facts, err) : 0;
}

void api_cancel(struct call *call)
{
	unseal_cancel(&call->broker->unseals, call);
	lease_cancel(call->broker, call);
	crl_cancel(call->broker, call);
	key_rule_cancel(call->broker, call);
	if (hardware_cancel(&call->broker->hardware, call))
		spend(call, "the client left while the hardware worked", NULL);
	call->outcome = METRICS_LEFT;
	call_free(call);
}

void call_fail(struct call *call, int code, const char *message)
{
	CLEANUP(secret_clear) struct secret body = {0};
	bool hidden = code == -ERR_DENIED || code == ERR_DENIED, denied = is_denial(code);
	char text[600];

	call_record_refusal(call, denied, message);
	call->outcome = call_outcome(code);
	snprintf(text, sizeof(text), "%s", hidden ? "permission denied" : message);
	if (code == -ERR_NOT_FOUND)
		text[0] = '\0'; /* Vault's 404 has an empty list */
	if (api_error_body(text, &body) < 0)
		call_reply(call, 503, NULL, 0);
	else
		call_reply(call, err_http_status(code), &body, 0);
}

void call_reply_data(struct call *call, const struct secret *data, int r)
{
	CLEANUP(secret_clear) struct secret body = {0};
	uint64_t seq = 0;

	if (r == 0)
		r = api_envelope((const char *)data->data, data->len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
	else if (call_grant_read(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* The kernel's word again: while the hardware worked, the peer may have gone, or moved. Within the loop's same round it was asked
 * microseconds ago, and would be asked for nothing, unless the round is a long one. */
static int check_peer_again(struct call *call, struct err *err)
{
	struct peer *p = &call->conn->peer;

	if (server_round_is_long(call->conn->server, call->facts.boot_ms) || call->round != call->conn->server->round)
		peer_refresh(p);
	call->round = call->conn->server->round;
	if (p->problem)
		return err_set(err, ERR_DENIED, "%s", p->problem);
	if (p->cgroup != call->facts.cgroup)
		return err_set(err, ERR_DENIED, "the caller moved to another cgroup meanwhile");
	return 0;
}

void call_end(struct call *call, int r, const char *message, uint64_t audit_seq)
{
	if (r < 0)
		call_fail(call, r, message);
	else
		call_reply(call, 204, NULL, audit_seq);
}

static int check_again(struct call *call, struct err *err)
{
	int r;

	call->facts.wall_ms = token_wall_ms();
	call->facts.boot_ms = token_boot_ms();
	r = check_peer_again(call, err);
	return r == 0 && call->token ? token_use(&call->broker->tokens, call->token, &call->facts, err) : r;
}

int call_spend(struct call *call, const char *why)
{
	struct err err = {0};
	int r = spend(call, why, &err);

	if (r < 0)
		call_fail(call, r, err.msg);
	return r < 0 ? -1 : 0;
}

int call_check(struct call *call)
{
	struct err err = {0};
	int r = check_again(call, &err);

	call->checked = r == 0;
	if (r < 0)
		call_fail(call, r, err.msg);
	return r < 0 ? -1 : 0;
}

static void note_received(struct call *call)
{
	const struct token_row *row = call->token ? token_find(&call->broker->tokens, call->token->id + 5) : NULL;

	if (row && row->job)
		received_note(&call->broker->jobs, row->job, call->path, call->version);
}

static int grant(struct call *call, bool with_others, uint64_t *ret_seq)
{
	struct broker *b = call->broker;
	struct audit_event e;
	struct err err = {0};
	int r = call->checked ? 0 : check_again(call, &err);

	if (r == 0) {
		e = record_of(call, call->event, "granted", call->detail);
		r = with_others ? audit_queue(&b->audit, &e, ret_seq, &err) : audit_write(&b->audit, &e, ret_seq, &err);
	}
	if (r < 0 && call->takes && err.code == ERR_AUDIT) {
		log_error("%s: %s", call->event, err.msg);
		r = 0;
	}
	if (r == 0) {
		b->n_granted++;
		if (call->gives)
			note_received(call);
		return 0;
	}
	call_fail(call, r, err.msg);
	return -1;
}

int call_grant(struct call *call, uint64_t *ret_seq)
{
	return grant(call, false, ret_seq);
}

int call_grant_read(struct call *call, uint64_t *ret_seq)
{
	return grant(call, true, ret_seq);
}
