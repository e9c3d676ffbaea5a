#pragma once
/* THE route table, and what a handler needs. A new request: one row in api.c, its handler in api_<area>.c, its test. */
#include "broker/broker.h"
#include "broker/http.h"
#include "broker/server.h"

#include <jansson.h>

/* One request being answered. Handlers that wait for hardware keep it; it ends with call_reply or call_fail. */
struct call {
	struct broker *broker;
	struct conn *conn;
	const char *event;	/* for the audit log */
	struct macaroon *token; /* NULL: an operator, or an open route */
	struct token_row *row;	/* valid only until the loop goes on */
	struct token_facts facts;
	char path[LIMIT_PATH_LEN + 1]; /* behind the route's prefix */
	uint64_t version;
	int status;		/* kv: of the reply (404 for a deleted version) */
	/* kv: what is being read or written */
	uint64_t created_ms, deleted_ms;
	char meta[STORE_META_LEN];
	uint8_t *sealed;
	size_t sealed_len;
};

void api_dispatch(struct broker *b, struct conn *c, const struct request *q);
/* Whether a large body is worth waiting for: route and token, no use counted; a refusal has its record. */
int api_admit(struct broker *b, struct conn *c, const struct request *q, struct err *err);
/* The client is gone. */
void api_cancel(struct call *call);
/* {"errors":["message"]} */
int api_error_body(const char *message, struct secret *ret);

/* Ends the call. body may be NULL (204 has none). */
void call_reply(struct call *call, int status, const struct secret *body, uint64_t audit_seq);
/* Ends the call with an error and its record. A denial tells its reason to the audit log alone. */
void call_fail(struct call *call, int code, const char *message);
/* The last check before an answer: peer's token and row again, one use counted, the record written. On failure the call
 * was ended and -1 is returned. */
int call_grant(struct call *call, uint64_t *ret_seq);

/* The JSON object of the body, in the arena; an empty body is {}. ERR_INPUT. */
int api_body(const struct request *q, json_t **ret, struct err *err);
/* Vault's envelope around data (JSON text or NULL) and auth. */
int api_envelope(const char *data, size_t data_len, const char *auth, size_t auth_len, struct secret *ret);
int api_append(struct secret *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* RFC 3339 with milliseconds; "" for 0. */
void api_time(uint64_t ms, char ret[40]);
/* A JSON string, quoted. */
int api_append_string(struct secret *s, const char *text);
void cleanup_json(json_t **j);

typedef void api_handler(struct call *call, const struct request *q);
api_handler kv_read, kv_write, kv_delete, kv_list, kv_metadata, kv_purge, kv_put_sealed;
api_handler sys_health, sys_seal_status, sys_leader, sys_init;
api_handler token_lookup_self, token_create;
api_handler cotter_status, cotter_unlock;
