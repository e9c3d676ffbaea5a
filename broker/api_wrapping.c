/* Response wrapping: an answer is kept sealed, and a token that is good for it once is told in its place; sys/wrapping. */
#include "broker/api_wrapping.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NONCE_LEN crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define OVERHEAD (NONCE_LEN + crypto_aead_xchacha20poly1305_ietf_ABYTES)

static int seal(const struct tokens *t, const struct token_row *row, const struct secret *body, uint8_t **ret, size_t *ret_len, struct err *err)
{
	unsigned long long n = 0;
	uint8_t key[32];

	if (body->len > LIMIT_WRAPPED_LEN)
		return err_set(err, ERR_LIMIT, "an answer of more than %u bytes cannot be wrapped", LIMIT_WRAPPED_LEN);
	*ret = malloc(body->len + OVERHEAD);
	if (!*ret)
		return err_set(err, ERR_FAILED, "out of memory");
	token_wrap_key(t, row, key);
	randombytes_buf(*ret, NONCE_LEN);
	crypto_aead_xchacha20poly1305_ietf_encrypt(*ret + NONCE_LEN, &n, body->data, body->len, row->id, sizeof(row->id), NULL, *ret, key);
	sodium_memzero(key, sizeof(key));
	*ret_len = (size_t)n + NONCE_LEN;
	return 0;
}

static int open_sealed(const struct tokens *t, const struct token_row *row, const uint8_t *sealed, size_t len, struct secret *ret, struct err *err)
{
	unsigned long long n = 0;
	uint8_t key[32];
	int r = len < OVERHEAD ? -ERR_TAMPERED : secret_new(ret, len - OVERHEAD, err);

	if (r < 0)
		return r;
	token_wrap_key(t, row, key);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(ret->data, &n, NULL, sealed + NONCE_LEN, len - NONCE_LEN, row->id, sizeof(row->id), sealed, key) != 0)
		r = err_set(err, ERR_TAMPERED, "what is wrapped is not what cotter wrote");
	sodium_memzero(key, sizeof(key));
	ret->len = (size_t)n;
	return r;
}

/* ---- wrapping --------------------------------------------------------------------------------------------------- */

int api_wrap_info(const struct token_row *row, const struct secret *text, const char *path, struct secret *ret, struct err *err)
{
	char accessor[33], created[40];
	int r = secret_new(ret, 1024, NULL);

	sodium_bin2hex(accessor, sizeof(accessor), row->id, sizeof(row->id));
	api_time(row->created_ms, created);
	if (r == 0)
		r = api_append(ret, "{\"request_id\":\"\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":0,\"data\":null,"
				       "\"wrap_info\":{\"token\":\"");
	if (r == 0)
		r = secret_append(ret, text->data, text->len, NULL);
	if (r == 0)
		r = api_append(ret, "\",\"accessor\":\"%s\",\"ttl\":%llu,\"creation_time\":\"%s\",\"creation_path\":", accessor,
			       (unsigned long long)(row->ttl_ms / 1000), created);
	if (r == 0)
		r = api_append_string(ret, path);
	if (r == 0)
		r = api_append(ret, ",\"wrapped_accessor\":\"\"},\"warnings\":null,\"auth\":null}\n");
	return r < 0 ? err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again") : 0;
}

/* Under whose limit an answer is kept: of who asks, whatever the token is bound to. */
static int room(const struct call *call, uint32_t *ret_uid, struct err *err)
{
	*ret_uid = call->conn->peer.operator_socket ? TOKEN_ANY_UID : call->facts.uid;
	return store_wrapped_room(&call->broker->store, *ret_uid, err);
}

/* Within the caller's transaction. body: NULL where nothing is kept. */
static int make(struct call *call, const struct token_request *q, const struct secret *body, struct token_row **ret_row, struct secret *ret,
		uint64_t *ret_seq, struct err *err)
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret text = {0};
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	uint32_t uid = 0;
	size_t len = 0;
	int r = token_make(&b->tokens, q, &text, ret_row, err);

	if (r == 0 && body)
		r = seal(&b->tokens, *ret_row, body, &sealed, &len, err);
	if (r == 0 && body)
		r = room(call, &uid, err);
	if (r == 0 && body)
		r = store_wrapped_put(&b->store, (*ret_row)->id, uid, sealed, len, err);
	if (r == 0)
		r = api_wrap_info(*ret_row, &text, q->path, ret, err);
	if (r < 0)
		return r;
	sodium_bin2hex(call->detail, sizeof(call->detail), (*ret_row)->id, sizeof((*ret_row)->id));
	return call_record(call, "wrap", "granted", call->detail, ret_seq, err);
}

/* replaces: a wrapping token whose row goes with it; NULL: none. */
static int wrap(struct call *call, const struct token_request *q, const struct secret *body, const struct token_row *replaces, struct secret *ret,
		uint64_t *ret_seq, struct err *err)
{
	struct broker *b = call->broker;
	struct token_row *row = NULL;
	uint8_t old[16];
	int r = store_begin(&b->store, err);

	if (r < 0)
		return r;
	/* first: its place is the new one's */
	if (replaces) {
		memcpy(old, replaces->id, sizeof(old));
		r = store_token_delete(&b->store, old, err);
	}
	if (r == 0)
		r = make(call, q, body, &row, ret, ret_seq, err);
	if (r == 0)
		r = store_end(&b->store, true, err);
	else
		store_end(&b->store, false, NULL);
	/* nobody was told of it */
	if (r < 0 && row)
		token_forget(&b->tokens, row->id);
	if (r == 0 && replaces)
		token_forget(&b->tokens, old);
	return r;
}

/* It is bound as the token is that it was asked for with, and ends with it. */
static int fill(struct call *call, struct token_request *q, struct err *err)
{
	struct token_row *row = NULL;
	bool operator = call->conn->peer.operator_socket;

	*q = (struct token_request){.policies = "", .meta = "", .display = "token", .path = call->asked, .uses = -1, .wraps = TOKEN_WRAPS_RESPONSE,
				    .ttl_ms = call->wrap_ttl_s * 1000ull, .by_operator = operator, .uid = operator ? TOKEN_ANY_UID : call->facts.uid,
				    .cgroup = operator ? 0 : call->facts.cgroup};
	if (!call->token)
		return 0;
	row = token_find(&call->broker->tokens, call->token->id + 5);
	if (!row)
		return err_set(err, ERR_DENIED, "the token has ended meanwhile");
	q->uid = row->uid;
	q->cgroup = row->cgroup;
	q->job = row->job;
	q->parent = row;
	return 0;
}

int api_wrap_room(struct call *call, struct err *err)
{
	struct token_request q;
	uint32_t uid;
	int r = fill(call, &q, err);

	if (r == 0)
		r = token_room(&call->broker->tokens, &q, err);
	return r < 0 ? r : room(call, &uid, err);
}

int api_wrap(struct call *call, const struct secret *body, struct secret *ret, uint64_t *ret_seq, struct err *err)
{
	struct token_request q;
	int r = fill(call, &q, err);

	return r < 0 ? r : wrap(call, &q, body, NULL, ret, ret_seq, err);
}

void wrapping_wrap(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *data = NULL;
	CLEANUP(secret_clear) struct secret text = {0};
	struct err err = {0};
	int r = api_body(q, &data, &err);

	if (r == 0 && !call->wrap_ttl_s)
		r = err_set(&err, ERR_INPUT, "endpoint requires response wrapping to be used: send X-Vault-Wrap-TTL");
	if (r == 0)
		r = json_write(data, LIMIT_SECRET_LEN, &text, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply_data(call, &text, 0);
}

/* ---- unwrapping ------------------------------------------------------------------------------------------------- */

static int find(struct call *call, const struct request *q, const json_t *body, struct token_row **ret, struct err *err)
{
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	const json_t *given = json_object_get(body, "token");
	int r;

	call->facts.unwrap = true;
	r = json_is_string(given) ? macaroon_parse(json_string_value(given), json_string_length(given), &m, err)
	    : q->token		  ? macaroon_parse(q->token, q->token_len, &m, err)
				  : err_set(err, ERR_LOGIN, "missing token");
	/* what comes out would not have its caveats */
	if (r == 0 && m->n_caveats)
		r = err_set(err, ERR_DENIED, "a narrowed wrapping token");
	return r < 0 ? r : token_check(&call->broker->tokens, m, &call->facts, ret, NULL, err);
}

static void refuse(struct call *call, int r, const struct err *err)
{
	bool hidden = r == -ERR_DENIED || r == -ERR_INPUT;

	if (r == -ERR_DENIED)
		snprintf(call->alarm, sizeof(call->alarm), "uid %u showed a wrapping token that is not valid (%.60s): if it was never unwrapped, it was stolen",
			 call->facts.uid, err->msg);
	call_fail(call, hidden ? -ERR_LOGIN : r, hidden ? "wrapping token is not valid or does not exist" : err->msg);
}

/* NULL: it was told why, and the call ended. */
static struct token_row *shown(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct token_row *row = NULL;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = find(call, q, body, &row, &err);
	if (r == 0)
		return row;
	refuse(call, r, &err);
	return NULL;
}

static int read_wrapped(struct call *call, const struct token_row *row, struct secret *ret, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	size_t len = 0;
	int r = store_wrapped_get(&call->broker->store, row->id, &sealed, &len, err);

	return r < 0 ? r : open_sealed(&call->broker->tokens, row, sealed, len, ret, err);
}

/* Once exactly: the row is gone, on disk, before the answer leaves. */
static void unwrap_response(struct call *call, struct token_row *row)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct broker *b = call->broker;
	struct err err = {0};
	uint64_t seq = 0;
	uint8_t id[16];
	int r = read_wrapped(call, row, &body, &err);

	memcpy(id, row->id, sizeof(id));
	memcpy(call->made_id, id, sizeof(id));
	if (r == 0)
		r = store_begin(&b->store, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	r = store_token_delete(&b->store, id, &err);
	if (r == 0 && call_grant(call, &seq) < 0) {
		store_end(&b->store, false, NULL);
		return;
	}
	if (r == 0)
		r = store_end(&b->store, true, &err);
	else
		store_end(&b->store, false, NULL);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	token_forget(&b->tokens, id);
	call_reply(call, 200, &body, seq);
}

void wrapping_unwrap(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct token_row *row = NULL;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = api_job_check(call, body, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	r = find(call, q, body, &row, &err);
	if (r < 0)
		refuse(call, r, &err);
	else if (row->wraps == TOKEN_WRAPS_TOKEN)
		auth_unwrap(call, body, row);
	else
		unwrap_response(call, row);
}

void wrapping_lookup(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0};
	const struct token_row *row = shown(call, q);
	char created[40];
	int r;

	if (!row)
		return;
	api_time(row->created_ms, created);
	r = secret_new(&data, 512, NULL);
	if (r == 0)
		r = api_append(&data, "{\"creation_path\":");
	if (r == 0)
		r = api_append_string(&data, row->path);
	if (r == 0)
		r = api_append(&data, ",\"creation_time\":\"%s\",\"creation_ttl\":%llu}", created, (unsigned long long)(row->ttl_ms / 1000));
	call_reply_data(call, &data, r);
}

void wrapping_rewrap(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret kept = {0}, reply = {0};
	struct token_row *row = shown(call, q);
	struct token_request want;
	struct err err = {0};
	char path[LIMIT_TOKEN_PATH_TEXT];
	uint64_t seq = 0;
	int r = 0;

	if (!row)
		return;
	snprintf(path, sizeof(path), "%s", row->path);
	want = (struct token_request){.policies = row->policies, .meta = row->meta, .path = path, .display = row->display, .uid = row->uid,
				      .cgroup = row->cgroup, .job = row->job, .ttl_ms = row->ttl_ms, .uses = -1, .wraps = row->wraps,
				      .wrap_ttl_ms = row->wrap_ttl_ms, .wrap_uses = row->wrap_uses,
				      .parent = token_find(&call->broker->tokens, row->parent), .by_operator = call->conn->peer.operator_socket};
	if (row->wraps == TOKEN_WRAPS_RESPONSE)
		r = read_wrapped(call, row, &kept, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	if (call_check(call) < 0)
		return;
	r = wrap(call, &want, kept.len ? &kept : NULL, row, &reply, &seq, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply(call, 200, &reply, seq);
}
