#pragma once
/* THE route table, and what a handler needs. A new request: one row in api.c, its handler in api_<area>.c, its test. */
#include "broker/broker.h"
#include "broker/http.h"
#include "broker/json.h"
#include "broker/server.h"

#define CALL_DETAIL_LEN 192u

/* One request being answered. Handlers that wait for hardware keep it; it ends with call_reply or call_fail. */
struct call {
	struct broker *broker;
	struct conn *conn;
	const char *event;	/* for the audit log */
	size_t route;		/* its row */
	enum metrics_outcome outcome;
	uint64_t began_ns;
	uint64_t round;		/* of the loop, in which the peer was looked at */
	struct macaroon *token; /* NULL: an operator, or an open route */
	struct token_row *row;	/* valid only until the loop goes on */
	struct token_facts facts;
	char job_id[2 * JOB_ID_LEN + 1]; /* of the token, for the log; "" */
	uint8_t made_id[16];	/* of the token that it makes, for the log; zeros */
	char alarm[192];	/* for the log of the broker, when it is refused and that gets a record; "" */
	bool checked;		/* call_check passed: the record alone is left */
	bool takes;		/* it gives nothing: a log that cannot be written does not stop it */
	bool gives;		/* it answers with a secret's value: the job has it then */
	char path[LIMIT_PATH_LEN + 1]; /* behind the route's prefix */
	char suffix[16]; /* transit: the word behind the key's name; "" */
	char detail[CALL_DETAIL_LEN]; /* of a grant, for the log: words of ours and checked names, digests */
	uint64_t version;
	void (*then)(struct call *call, const struct secret *object); /* kv: see kv_open */
	/* kv: what is being read or written */
	uint64_t created_ms, deleted_ms, delete_after_ms;
	bool destroyed, custom; /* custom: the secret has metadata of somebody's own */
	int64_t cas;		/* of a write that opens something first */
	uint64_t seal;		/* of what it writes; see store_version */
	struct secret told;	/* a write is answered by this, as data */
	bool carried;		/* from another store: versions may be missing between */
	bool plain;		/* a write is answered by 204, as in KV version 1 */
	char meta[STORE_META_LEN];
	uint8_t *sealed;
	size_t sealed_len;
	uint64_t generation;	/* of the store, when sealed was read from it */
	/* the answer was granted, and could not be told after all: what it told of goes */
	void (*unsaid)(struct call *call);
	uint8_t unsaid_id[16];
	uint32_t wrap_ttl_s; /* of the answer; 0: it is not wrapped */
	char *asked;	     /* where it is wrapped: the path of the request */
	struct call *next_waiting; /* for the same revocation list, or for approvals */
	/* see key_rule_admit */
	void (*go)(struct call *call);
	uint32_t uses;
	uint64_t wait_until_ms;
	/* what a handler keeps while it waits for the hardware; released with the call */
	void *work;
	void (*free_work)(void *work);
};

void api_dispatch(struct broker *b, struct conn *c, const struct request *q);
/* Whether a large body is worth waiting for: route and token, no use counted; a refusal has its record. */
int api_admit(struct broker *b, struct conn *c, const struct request *q, struct err *err);
/* The client is gone. */
void api_cancel(struct call *call);
/* {"errors":["message"]} */
int api_error_body(const char *message, struct secret *ret);

/* The event of a row of the route table, of which several may have the same; NULL: there are no more. */
const char *api_event(size_t row);

/* The connection's call, for what was not asked by HTTP. NULL: out of memory. */
struct call *api_call_new(struct broker *b, struct conn *c, const char *event);

/* Vault's capabilities. */
enum api_capability { API_CREATE = 1, API_DELETE = 2, API_LIST = 4, API_PATCH = 8, API_READ = 16, API_UPDATE = 32 };
/* What the call's token could do with a path of the API (behind /v1/). */
uint32_t api_capabilities(struct call *call, const char *path);
/* Whether it is one of the words that may stand behind a path. */
bool api_is_suffix(const char *word);

/* How a call that failed is counted. */
enum metrics_outcome call_outcome(int code);
/* The record of a refusal, unless too many of them came from there. */
void call_record_refusal(struct call *call, bool denied, const char *why);
/* Whose turn it is with the hardware: the uid in its cgroup. */
uint64_t call_asker(const struct call *call);
/* A record of the call, with an event of its own. */
int call_record(struct call *call, const char *event, const char *result, const char *why, uint64_t *ret_seq, struct err *err);
/* Ends the call. body may be NULL (204 has none). */
void call_reply(struct call *call, int status, const struct secret *body, uint64_t audit_seq);
/* Grants the call and ends it with Vault's envelope around data, JSON text; r < 0: the locked memory was too full to make it. */
void call_reply_data(struct call *call, const struct secret *data, int r);
/* Ends the call with 204, or with what failed where r < 0. */
void call_end(struct call *call, int r, const char *message, uint64_t audit_seq);
/* Ends the call with a body that needs no record and is no secret. */
void call_reply_shared(struct call *call, struct shared_body *body);
/* Ends the call with an error and its record. A denial tells its reason to the audit log alone. */
void call_fail(struct call *call, int code, const char *message);
/* Peer's token and row again, before something is done that cannot be taken back; call_grant then only records. On failure the
 * call was ended and -1 is returned. */
int call_check(struct call *call);
/* What the hardware was asked for and did in vain: one use counted, the failure recorded. The call goes on; when it must not (no use
 * was left), it was ended and -1 is returned. */
int call_spend(struct call *call, const char *why);
/* The last check before an answer: peer's token and row again, one use counted, the record written. On failure the call
 * was ended and -1 is returned. */
int call_grant(struct call *call, uint64_t *ret_seq);
/* The same for a call that is answered at once and leaves nothing behind that its refusal would have to undo: its record is written
 * together with others', before the answers leave, and the answer is a refusal when that fails. */
int call_grant_read(struct call *call, uint64_t *ret_seq);

/* The JSON object of the body, in the arena; an empty body is {}. ERR_INPUT. */
int api_body(const struct request *q, json_t **ret, struct err *err);
/* Vault's envelope. */
struct api_answer {
	const char *data, *auth; /* JSON text; NULL: null */
	size_t data_len, auth_len;
	const char *warning, *lease_id; /* NULL: none */
	uint64_t lease_s;
	bool renewable;
};
int api_answer(const struct api_answer *a, struct secret *ret);
/* The same around data and auth alone. */
int api_envelope(const char *data, size_t data_len, const char *auth, size_t auth_len, struct secret *ret);
int api_append(struct secret *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* RFC 3339 with milliseconds; "" for 0. */
void api_time(uint64_t ms, char ret[40]);
/* "policies" of a body: names joined by commas, all of them configured, and for a holder all of them its own. */
int api_policies(const struct call *call, const json_t *list, char ret[LIMIT_TOKEN_POLICY_TEXT], struct err *err);
/* A duration of a body; absent or 0: fallback_s. ERR_INPUT: it is none, or of more than ten years. */
int api_duration(const json_t *j, uint64_t fallback_s, uint64_t *ret_ms, struct err *err);
/* The same, of what cotter itself asks for: "ttl", at most LIMIT_TOKEN_TTL_S. */
int api_ttl(const json_t *j, uint64_t fallback_s, uint64_t *ret_ms, struct err *err);
/*
 * Makes a token and answers with it: ends the call and the transaction that the caller began. made: the job that was made for it
 * within that, or NULL. Job and token are written, and in the log, before anybody hears of them, or neither lives on. show: of
 * q->job, for "data"; may be NULL.
 */
void api_give(struct call *call, struct token_request *q, struct job *made, int (*show)(struct secret *s, const struct job *job));
/* Before anything is done whose answer is to be wrapped. ERR_BUSY: there is no room for it. */
int api_wrap_room(struct call *call, struct err *err);
/* An answer becomes a token that is good for it once: what is told instead. Nothing is told of the answer itself. */
int api_wrap(struct call *call, const struct secret *body, struct secret *ret, uint64_t *ret_seq, struct err *err);
/* Vault's wrap_info for a wrapping token. */
int api_wrap_info(const struct token_row *row, const struct secret *text, const char *path, struct secret *ret, struct err *err);
/* What can be refused of a job before anything is used up for it. */
int api_job_check(struct call *call, const json_t *body, struct err *err);
/* Makes a job, by what a body says: leader, leader_id, cgroup (a path), name. leader_cgroup: where its leader must stand; 0: anywhere. May leave *ret NULL where neither
 * leader nor cgroup is there and none is demanded. */
int api_job(struct call *call, const json_t *body, uint32_t uid, uint64_t leader_cgroup, uint64_t ttl_ms, struct job **ret, struct err *err);
/* A job, as a JSON object. */
int api_append_job(struct secret *s, const struct job *job);
/* PEM of something public, see pem_put. */
int api_append_pem(struct secret *s, const char *kind, const uint8_t *der, size_t len, const char *newline);
/* base64 with padding, without quotes. */
int api_append_base64(struct secret *s, const void *data, size_t len);
/* A JSON string, quoted. */
int api_append_string(struct secret *s, const char *text);

/* The envelope of those calls of sys/ whose data Vault also copies to the top level: an object in JSON text. */
int api_envelope_twice(const char *data, size_t data_len, struct secret *ret);

typedef void api_handler(struct call *call, const struct request *q);
api_handler transit_keys, transit_key_read, transit_key_write, transit_key_delete, transit_sign, transit_verify, transit_hmac, cotter_keys;
api_handler pki_sign, pki_issue, pki_ca, pki_crl, pki_cert, pki_revoke, ssh_sign, ssh_public_key;
api_handler transit_encrypt, transit_decrypt, transit_rewrap;
api_handler kv_read, kv_write, kv_patch, kv_subkeys, kv_delete, kv_list, kv_metadata, kv_set_metadata, kv_purge, kv_put_sealed;
api_handler kv1_read, kv1_write, cotter_read, cotter_fingerprints;
api_handler engine_creds, lease_renewal, lease_revocation, lease_lookup, lease_list, lease_revoke_prefix, lease_revoke_force;
api_handler totp_read_code, totp_check_code, totp_write_key, totp_read_key;
api_handler carry_export, carry_import;
api_handler kv_rollback, cotter_reseal;
api_handler kv_delete_versions, kv_undelete, kv_destroy;
api_handler sys_metrics, sys_health, sys_seal_status, sys_leader, sys_init;
api_handler sys_mounts, sys_auth, sys_ui_mounts, sys_ui_mount, sys_capabilities_self;
api_handler token_create, token_create_role;
api_handler token_lookup_self, token_lookup, token_lookup_accessor, token_accessors, token_roles, token_role;
api_handler token_renew_self, token_renew_any, token_renew_accessor;
api_handler token_revoke_self, token_revoke_any, token_revoke_accessor, token_revoke_orphan;
api_handler wrapping_wrap, wrapping_unwrap, wrapping_lookup, wrapping_rewrap;
api_handler auth_jwt_login, auth_kernel_login, auth_approle_login;
api_handler approle_list, approle_role, approle_write;
api_handler job_create, job_list, job_show, job_self, job_finish;
api_handler cotter_revoke, cotter_why;
api_handler approval_list, approval_give;
api_handler cotter_status, cotter_unlock;
