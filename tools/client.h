#pragma once
/* Talking to cotterd over its sockets: one request, one reply, JSON both ways. */
#include "common/secret.h"

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>

struct err;

struct client_reply {
	int status;
	struct secret body; /* in the arena */
	json_t *json;	    /* of it; NULL for an empty body. Strings in it are in the arena too */
};

enum client_socket {
	CLIENT_JOB,	 /* with $COTTER_TOKEN when it is set, else the operators' socket */
	CLIENT_OPERATOR, /* the operators' socket */
	CLIENT_LOGIN,	 /* the jobs' socket, without a token */
};

/* Only socket files of root or of this user's broker are spoken to. ERR_NO_BROKER when nobody answers; ERR_DENIED,
 * ERR_NOT_FOUND and so on by the reply's status, with its text. body may be NULL. *ret is cleared by client_reply_done. */
int client_call(enum client_socket which, const char *method, const char *path, const json_t *body, struct client_reply *ret,
		struct err *err);
/* The same, with X-Vault-Wrap-TTL (NULL: without). */
int client_call_wrapped(enum client_socket which, const char *method, const char *path, const json_t *body, const char *wrap_ttl,
			struct client_reply *ret, struct err *err);
/* On the jobs' socket with this token, whatever COTTER_TOKEN is. */
int client_call_token(const struct secret *token, const char *method, const char *path, struct client_reply *ret, struct err *err);
void client_reply_done(struct client_reply *r);

/* A connection to the jobs' socket that is kept, and a token (lent): for whoever asks often. */
struct client {
	char address[108];
	int fd; /* -1: not connected */
	const struct secret *token; /* NULL: on the operators' socket */
	/* what ends the wait for an answer: the request is withdrawn then */
	struct pollfd stop[3];
	nfds_t n_stop;
	int patience_ms; /* with stop: how long an answer may take; 0: as long as approvals may */
};
/* Where the broker is, is looked up here and not again. */
void client_open(struct client *c, const struct secret *token);
void client_open_operators(struct client *c);
int client_ask(struct client *c, const char *method, const char *path, const json_t *body, struct client_reply *ret, struct err *err);
/* A POST of JSON text; of a reply with status 200 only the body is there. */
int client_ask_text(struct client *c, const char *path, const char *text, size_t len, struct client_reply *ret, struct err *err);
void client_close(struct client *c);

/* data.… of a reply's envelope; NULL when absent. */
json_t *client_data(const struct client_reply *r);
/* The value at "a.b.c". */
json_t *client_at(const json_t *j, const char *dotted);
void client_json_free(json_t **j);
