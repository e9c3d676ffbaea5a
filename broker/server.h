#pragma once
/* Sockets and the one event loop. */
#include "broker/conn.h"
#include "broker/turn.h"
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct err;

struct server {
	struct broker *broker;
	int epoll_fd, signal_fd;
	int peers_fd; /* epoll of those that peer_watch was asked for */
	int listen_fd, operator_fd, tcp_fd, diag_fd;
	int credentials_fd;
	struct shared_body *too_much; /* for systemd; see conn.c */
	struct secret buffer;
	uint64_t round; /* of the loop */
	uint64_t looked_ms; /* boot-time clock: when the kernel was last heard about ends */
	bool is_long;	/* this round: server_round_is_long */
	struct conn *conns, *dead;
	TAILQ_HEAD(answered_conns, conn) answered; /* whose replies leave together */
	const struct turn_user *answering;	   /* whose they all are; NULL: more than one user's */
	size_t n_answered, answered_len; /* bytes of them */
	struct turns turns;
	size_t n_conns;
	unsigned int n_calls; /* that have no answer yet */
	struct server_user {
		uid_t uid;
		unsigned int n;	   /* connections */
		unsigned int patches; /* of secrets, that wait for the hardware */
		size_t in_bytes;   /* of the arena, for requests that are not complete */
	} users[1024];
	size_t n_users; /* places in there that were ever taken */
	size_t in_bytes;
	unsigned int patches;
	size_t max_files; /* descriptors */
	bool has_pidfd;	  /* this kernel tells of its peers */
	bool stop, listening, launcher_died;
};

int server_init(struct server *s, struct broker *b, struct err *err);
int server_run(struct server *s, struct err *err);
void server_done(struct server *s);

/* Whether so much of this round is over (a commit, a rotation of the log) that what was found out about a process before is to be asked for
 * anew. What is told of ends is looked at anyway. */
bool server_round_is_long(struct server *s, uint64_t now_ms);

/* Whether n more descriptors can be had. */
bool server_has_descriptors(const struct server *s, size_t n);

/* What is counted for a user; NULL: too many users at once. */
struct server_user *server_user(struct server *s, uid_t uid);
