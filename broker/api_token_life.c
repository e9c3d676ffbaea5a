/* auth/token: renewing tokens and ending them. */
#include "broker/api_token.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

/* ---- which ------------------------------------------------------------------------------------------------------ */

static int by_accessor(struct call *call, const json_t *j, struct token_row **ret, struct err *err)
{
	struct tokens *t = &call->broker->tokens;
	uint8_t id[16];
	size_t n = 0;

	if (!json_is_string(j) || !json_string_length(j))
		return err_set(err, ERR_INPUT, "missing accessor");
	if (sodium_hex2bin(id, sizeof(id), json_string_value(j), json_string_length(j), NULL, &n, NULL) != 0 || n != sizeof(id))
		return err_set(err, ERR_DENIED, "an accessor that is none");
	*ret = token_find(t, id);
	if (!*ret)
		return err_set(err, ERR_DENIED, "no token has that accessor");
	return call->row && !token_descends(t, *ret, call->row) ? err_set(err, ERR_DENIED, "a token reaches itself and those made with it") : 0;
}

static int by_text(struct call *call, const json_t *j, bool change, struct token_row **ret, struct err *err)
{
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	struct tokens *t = &call->broker->tokens;
	struct token_facts facts = call->facts;
	int r;

	if (!json_is_string(j) || !json_string_length(j))
		return err_set(err, ERR_INPUT, "missing token");
	r = macaroon_parse(json_string_value(j), json_string_length(j), &m, err);
	if (r == -ERR_INPUT)
		return err_set(err, ERR_DENIED, "a malformed token");
	if (r == 0 && change && m->n_caveats)
		r = err_set(err, ERR_DENIED, "a narrowed token renews and ends nothing");
	/* a stolen one is as worthless here as anywhere */
	facts.op = 0;
	facts.path = NULL;
	return r < 0 ? r : call->row ? token_check(t, m, &facts, ret, NULL, err) : token_identify(t, m, ret, err);
}

int token_named(struct call *call, const json_t *body, enum token_by by, bool change, struct token_row **ret, struct err *err)
{
	if (change && call->token && call->token->n_caveats)
		return err_set(err, ERR_DENIED, "a narrowed token renews and ends nothing");
	if (by == TOKEN_BY_TEXT)
		return by_text(call, json_object_get(body, "token"), change, ret, err);
	if (by == TOKEN_BY_ACCESSOR)
		return by_accessor(call, json_object_get(body, "accessor"), ret, err);
	if (!call->row)
		return err_set(err, ERR_INPUT, "an operator on this socket has no token of his own");
	*ret = call->row;
	return 0;
}

/* ---- renewing --------------------------------------------------------------------------------------------------- */

/* What it is answered with: the caller's own token, or the one that it said. */
static int copy_text(const struct request *q, const json_t *body, enum token_by by, struct secret *ret, struct err *err)
{
	const json_t *said = json_object_get(body, "token");

	if (by == TOKEN_BY_SELF)
		return secret_copy(ret, q->token, q->token_len, err);
	return by == TOKEN_BY_TEXT ? secret_copy(ret, json_string_value(said), json_string_length(said), err) : 0;
}

static void renew(struct call *call, const struct request *q, enum token_by by)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret text = {0}, reply = {0};
	struct store *s = &call->broker->store;
	struct token_row *row = NULL, kept;
	struct err err = {0};
	uint64_t increment_ms = 0, seq = 0;
	const char *warning = NULL;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = token_named(call, body, by, true, &row, &err);
	if (r == 0)
		r = api_duration(json_object_get(body, "increment"), 0, &increment_ms, &err);
	if (r == 0)
		r = copy_text(q, body, by, &text, &err);
	if (r == 0)
		r = store_begin(s, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	kept = *row;
	r = token_renew(&call->broker->tokens, row, increment_ms, &err);
	if (r == 0 && increment_ms && row->deadline_ms + 1000 < token_boot_ms() + increment_ms)
		warning = "the TTL was cut: no token outlives the one that made it, its job, or its maximum";
	if (r == 0)
		r = token_answer(row, text.len ? &text : NULL, NULL, warning, &reply, &err);
	if (r == 0 && call_grant(call, &seq) < 0) {
		store_end(s, false, NULL);
		row->deadline_ms = kept.deadline_ms;
		row->renewed_ms = kept.renewed_ms;
		return;
	}
	if (r == 0)
		r = store_end(s, true, &err);
	else
		store_end(s, false, NULL);
	if (r < 0) {
		row->deadline_ms = kept.deadline_ms;
		row->renewed_ms = kept.renewed_ms;
		call_fail(call, r, err.msg);
		return;
	}
	call_reply(call, 200, &reply, seq);
}

void token_renew_self(struct call *call, const struct request *q)
{
	renew(call, q, TOKEN_BY_SELF);
}

void token_renew_any(struct call *call, const struct request *q)
{
	renew(call, q, TOKEN_BY_TEXT);
}

void token_renew_accessor(struct call *call, const struct request *q)
{
	renew(call, q, TOKEN_BY_ACCESSOR);
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

static void end(struct call *call, const struct request *q, enum token_by by, bool alone)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct tokens *t = &call->broker->tokens;
	struct token_row *row = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	size_t n;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = token_named(call, body, by, true, &row, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->takes = true;
	sodium_bin2hex(call->detail, sizeof(call->detail), row->id, sizeof(row->id));
	if (by == TOKEN_BY_SELF)
		call->detail[0] = '\0';
	if (call_grant(call, &seq) < 0)
		return;
	r = alone ? token_revoke_alone(t, row, &err) : token_revoke(t, row, &n, &err);
	call->row = NULL;
	call_end(call, r, err.msg, seq);
}

void token_revoke_self(struct call *call, const struct request *q)
{
	end(call, q, TOKEN_BY_SELF, false);
}

void token_revoke_any(struct call *call, const struct request *q)
{
	end(call, q, TOKEN_BY_TEXT, false);
}

void token_revoke_accessor(struct call *call, const struct request *q)
{
	end(call, q, TOKEN_BY_ACCESSOR, false);
}

void token_revoke_orphan(struct call *call, const struct request *q)
{
	end(call, q, TOKEN_BY_TEXT, true);
}
