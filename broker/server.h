#pragma once
/* Sockets and the one event loop. A connection is read into one shared buffer in the arena; what is incomplete waits in
 * a buffer of its own, also there. Buffers are wiped as soon as they are done with. */
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct call;
struct err;

struct peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;	/* for the log only: never looked up */
	bool operator_socket;
};

struct conn {
	int fd;
	struct server *server;
	struct peer peer;
	struct secret in, out;	/* incomplete request; reply not sent yet */
	size_t out_sent;
	struct call *call;	/* an answer that is still being made */
	uint64_t audit_seq;	/* the reply waits for this record to be on disk */
	uint64_t deadline_ms;
	uint32_t watched; /* epoll events */
	bool keep_alive, dead, held, continued, admitted, head_only, resume;
	bool unread, draining; /* refused before all was read: the client must be able to read why */
	struct conn *next, *prev;
};

struct server {
	struct broker *broker;
	int epoll_fd, signal_fd;
	int listen_fd, operator_fd;
	struct secret buffer;
	struct conn *conns, *dead;
	size_t n_conns;
	struct server_user {
		uid_t uid;
		unsigned int n;	   /* connections */
		size_t in_bytes;   /* of the arena, for requests that are not complete */
	} users[1024];
	size_t in_bytes;
	size_t max_conns;
	bool stop, resume, listening, launcher_died;
};

int server_init(struct server *s, struct broker *b, struct err *err);
int server_run(struct server *s, struct err *err);
void server_done(struct server *s);

/* Sends a reply (body may be NULL); audit_seq 0: no record to wait for. Ends the connection's current call. */
void conn_reply(struct conn *c, int status, const struct secret *body, uint64_t audit_seq);
