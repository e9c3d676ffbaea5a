#include "broker/conn.h"

#include "broker/api.h"
#include "broker/broker.h"
#include "broker/http.h"
#include "broker/server.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* NULL: too many users at once. */
struct server_user *server_user(struct server *s, uid_t uid)
{
	struct server_user *unused = NULL;

	for (size_t i = 0; i < s->n_users; i++) {
		if (s->users[i].n && s->users[i].uid == uid)
			return &s->users[i];
		if (!s->users[i].n && !unused)
			unused = &s->users[i];
	}
	if (!unused && s->n_users < sizeof(s->users) / sizeof(s->users[0]))
		unused = &s->users[s->n_users++];
	if (unused)
		*unused = (struct server_user){.uid = uid};
	return unused;
}

/* Incomplete requests wait in the arena: nobody may fill it with them. Tells whether n bytes more are allowed. */
static bool in_reserve(struct conn *c, size_t n)
{
	struct server_user *u = server_user(c->server, c->peer.uid);

	return c->peer.operator_socket || (u && u->in_bytes + n <= LIMIT_IN_BYTES_PER_UID && c->server->in_bytes + n <= LIMIT_IN_BYTES);
}

static void in_account(struct conn *c, size_t before)
{
	struct server_user *u = server_user(c->server, c->peer.uid);

	if (u)
		u->in_bytes += c->in.cap - before;
	c->server->in_bytes += c->in.cap - before;
}

static void in_clear(struct conn *c)
{
	size_t before = c->in.cap;

	secret_clear(&c->in);
	c->more = false;
	in_account(c, before);
}

/* What is incomplete has a deadline from its first byte on, wherever that came from. */
static int in_append(struct conn *c, const void *data, size_t len)
{
	size_t before = c->in.cap, grown;
	int r;

	for (grown = before ? before : 64; grown < c->in.len + len; grown *= 2)
		; /* as the arena's blocks grow */
	if (!in_reserve(c, grown > before && c->in.len + len > before ? 2 * grown - before : 0))
		return -ERR_BUSY;
	if (c->in.len == 0 && !c->out.len)
		c->deadline_ms = token_boot_ms() + LIMIT_REQUEST_TIMEOUT_MS;
	r = c->in.data ? secret_append(&c->in, data, len, NULL) : secret_copy(&c->in, data, len, NULL);
	in_account(c, before);
	return r;
}

void conn_set_call(struct conn *c, struct call *call)
{
	const int change = (call != NULL) - (c->call != NULL);

	c->turn->n_calls += (unsigned int)change;
	c->server->n_calls += (unsigned int)change;
	c->call = call;
}

bool conn_may_wait(const struct conn *c)
{
	const struct server *s = c->server;

	return c->peer.operator_socket ||
	       (s->n_calls <= LIMIT_CALLS_ALL && c->turn->n_calls <= (s->n_calls <= LIMIT_CALLS ? LIMIT_CALLS_PER_JOB : LIMIT_CALLS_BEYOND));
}

struct shared_body *shared_body_new(size_t len)
{
	struct shared_body *s = malloc(sizeof(*s) + len);

	if (s)
		*s = (struct shared_body){.refs = 1, .len = len};
	return s;
}

void shared_body_drop(struct shared_body *s)
{
	if (s && --s->refs == 0)
		free(s);
}

static void out_clear(struct conn *c)
{
	if (c->out_public) {
		free(c->out.data);
		c->out = (struct secret){0};
	}
	secret_clear(&c->out);
	shared_body_drop(c->out_body);
	c->out_body = NULL;
	c->out_public = false;
	c->out_sent = 0;
}

static int out_new(struct conn *c, size_t len)
{
	c->out_public = c->audit_seq == 0;
	if (!c->out_public)
		return secret_new(&c->out, len, NULL);
	c->out.data = malloc(len);
	c->out.cap = len;
	return c->out.data ? 0 : -ERR_FAILED;
}

static void join_answered(struct conn *c)
{
	struct server *s = c->server;

	if (s->n_answered++ == 0) {
		s->answering = c->turn_user;
		s->answered_len = 0;
	} else if (s->answering != c->turn_user) {
		s->answering = NULL;
	}
	s->answered_len += c->out.len;
	TAILQ_INSERT_TAIL(&s->answered, c, answer);
	c->answered = true;
}

static void leave_answered(struct conn *c)
{
	c->server->n_answered--;
	TAILQ_REMOVE(&c->server->answered, c, answer);
	c->answered = false;
}

void conn_close(struct conn *c)
{
	struct server *s = c->server;
	struct server_user *u;

	if (c->dead)
		return;
	turns_remove(&s->turns, c);
	if (c->answered)
		leave_answered(c);
	c->dead = true;
	if (c->call)
		api_cancel(c->call);
	conn_set_call(c, NULL);
	in_clear(c);
	u = server_user(s, c->peer.uid);
	if (u && u->n)
		u->n--;
	close(c->fd);
	peer_done(&c->peer);
	out_clear(c);
	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	s->n_conns--;
	/* events of this round may still point here */
	c->next = s->dead;
	s->dead = c;
}

void conn_watch(struct conn *c)
{
	uint32_t want = c->out.len ? (c->held ? 0 : (uint32_t)EPOLLOUT) : c->call || c->raw || c->more ? 0 : (uint32_t)EPOLLIN;
	struct epoll_event ev = {.data.ptr = c};

	/* hardly anybody sends ahead: epoll need not be told twice a request */
	if (want == 0 && c->watched == EPOLLIN && !c->ahead && !c->raw)
		want = EPOLLIN;
	if (c->dead || c->answered || (c->in_epoll && c->watched == want))
		return;
	ev.events = want;
	c->ahead = false;
	c->watched = want;
	if (epoll_ctl(c->server->epoll_fd, c->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &ev) == 0)
		c->in_epoll = true;
	else
		conn_close(c);
}

/* What is left of the reply, in one piece if it can be. */
static ssize_t out_send(const struct conn *c)
{
	bool head = c->out_sent < c->out.len || !c->out_body;
	const uint8_t *p = head ? c->out.data + c->out_sent : c->out_body->data + (c->out_sent - c->out.len);
	size_t n = head ? c->out.len - c->out_sent : c->out_body->len - (c->out_sent - c->out.len);

	return send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT | (head && c->out_body ? MSG_MORE : 0));
}

/* Sends what it can of the reply, unless its audit record must reach the disk first. */
static void flush(struct conn *c)
{
	size_t len = c->out.len + (c->out_body ? c->out_body->len : 0);
	ssize_t n;

	if (c->dead || c->answered || !c->out.len)
		return;
	c->held = c->audit_seq && !audit_released(&c->server->broker->audit, c->audit_seq);
	if (c->held)
		return;
	if (c->audit_seq && !c->out_sent)
		c->deadline_ms = token_boot_ms() + LIMIT_REPLY_TIMEOUT_MS;
	do {
		n = out_send(c);
		c->out_sent += n > 0 ? (size_t)n : 0;
	} while (n > 0 && c->out_sent < len);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		conn_close(c);
		return;
	}
	if (c->out_sent < len)
		return;
	out_clear(c);
	c->deadline_ms = token_boot_ms() + (c->in.len ? LIMIT_REQUEST_TIMEOUT_MS : LIMIT_IDLE_TIMEOUT_MS);
	if (c->keep_alive)
		return;
	/* closing with bytes unread would take the reply back; over TCP also what is on its way */
	if ((!c->unread && !c->peer.tcp) || shutdown(c->fd, SHUT_WR) < 0) {
		conn_close(c);
		return;
	}
	in_clear(c);
	c->draining = true;
	c->deadline_ms = token_boot_ms() + (c->peer.tcp ? LIMIT_REPLY_TIMEOUT_MS : 1000);
}

void conn_send(struct conn *c)
{
	flush(c);
	/* a request that waited behind this one */
	if (c->in.len)
		turns_add(&c->server->turns, c, 0);
	conn_watch(c);
}

/* body_len is what the head tells; copied are len bytes of body. */
static void reply(struct conn *c, int status, size_t body_len, const uint8_t *body, size_t len, struct shared_body *shared, uint64_t audit_seq)
{
	char head[HTTP_HEAD_MAX];
	size_t n = c->raw ? 0 : http_write_head(head, status, c->content_type, body_len, c->keep_alive);

	/* a Unix socket's end cannot be told from an empty value, and cannot be reset by who was sent nothing: a refusal is more bytes
	 * than are taken */
	if (c->raw && status != 200) {
		head[n++] = '\n';
		len = 0;
		shared = c->server->too_much;
	}
	c->content_type = NULL;
	conn_set_call(c, NULL);
	c->waits = false;
	if (c->dead)
		return;
	c->audit_seq = audit_seq;
	c->deadline_ms = token_boot_ms() + (audit_seq ? LIMIT_AUDIT_WAIT_MS : c->raw ? LIMIT_REFUSED_UNIT_MS : LIMIT_REPLY_TIMEOUT_MS);
	if (out_new(c, n + len) < 0) {
		/* not even room to say so */
		if (c->raw && audit_seq)
			conn_reply(c, 503, NULL, 0);
		else
			conn_close(c);
		return;
	}
	memcpy(c->out.data, head, n);
	if (len)
		memcpy(c->out.data + n, body, len);
	c->out.len = n + len;
	c->out_body = shared;
	if (shared)
		shared->refs++;
	if (!c->answered)
		join_answered(c);
}

void conn_reply(struct conn *c, int status, const struct secret *body, uint64_t audit_seq)
{
	size_t len = body ? body->len : 0;

	/* to HEAD, its length is told and no more */
	reply(c, status, len, body ? body->data : NULL, c->head_only ? 0 : len, NULL, audit_seq);
}

void conn_reply_shared(struct conn *c, struct shared_body *body)
{
	reply(c, 200, body->len, NULL, 0, c->head_only ? NULL : body, 0);
}

void conn_refuse(struct conn *c, int code, const char *message)
{
	CLEANUP(secret_clear) struct secret body = {0};

	c->keep_alive = false;
	c->unread = !c->raw;
	in_clear(c);
	if (api_error_body(message, &body) == 0 || c->raw)
		conn_reply(c, err_http_status(code), &body, 0);
	else
		conn_close(c);
}

void conn_refuse_unit(struct conn *c)
{
	static const struct timeval patience = {.tv_sec = 1};
	const struct shared_body *s = c->server->too_much;
	size_t sent = c->out_sent;
	ssize_t n = 1;

	fcntl(c->fd, F_SETFL, 0);
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	for (; n > 0 && sent <= s->len; sent += n > 0 ? (size_t)n : 0)
		n = send(c->fd, s->data, s->len, MSG_NOSIGNAL);
}

void conn_refuse_late(struct conn *c)
{
	secret_clear(&c->out);
	c->audit_seq = 0;
	c->held = false;
	c->counts[c->outcome]--;
	c->counts[METRICS_FAILED]++;
	conn_refuse(c, ERR_AUDIT, "the audit log cannot be written, or does not reach the disk: nothing is granted until it does");
}

void conns_send(struct server *s)
{
	struct audit *a = &s->broker->audit;
	const bool lost = audit_flush(a, NULL) < 0;
	struct conn *c;

	while ((c = TAILQ_FIRST(&s->answered))) {
		leave_answered(c);
		if (lost && !audit_written(a, c->audit_seq))
			conn_refuse_late(c);
		else
			conn_send(c);
	}
}

/* One request from data; returns the bytes it took, 0 when it is incomplete. After a failure the connection ends. */
static size_t handle(struct conn *c, const char *data, size_t len)
{
	struct request q;
	struct err err = {0};
	int head = http_parse_head(data, len, &q, &err);

	if (head < 0) {
		c->server->broker->metrics.n_malformed++;
		conn_refuse(c, err.code, err.msg);
		return len;
	}
	if (head == 0)
		return 0;
	c->head_only = q.method == METHOD_HEAD;
	if (len - (size_t)head < q.body_len) {
		/* a large body is taken only from whom it would be answered to */
		if (q.body_len > LIMIT_HTTP_HEAD && !c->admitted) {
			head = api_admit(c->server->broker, c, &q, &err);
			if (head < 0) {
				conn_refuse(c, err.code, err.code == ERR_DENIED ? "permission denied" : err.msg);
				return len;
			}
			c->admitted = true;
		}
		if (q.wants_continue && !c->continued)
			c->continued = send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL | MSG_DONTWAIT) == 25;
		return 0;
	}
	c->continued = c->admitted = false;
	c->keep_alive = q.keep_alive;
	q.body = data + head;
	api_dispatch(c->server->broker, c, &q);
	return (size_t)head + q.body_len;
}

/* It was told the last thing that it is told: nothing more of it is served. */
static bool ends(const struct conn *c)
{
	return c->unread || c->draining;
}

#define REQUESTS_A_TURN 4u

/* As many requests as there are, up to a turn's; how many bytes they took. One at a time: the next waits until this one's answer is out. */
static size_t handle_some(struct conn *c, const char *data, size_t len)
{
	size_t used = 0, n = 1;

	for (unsigned int i = 0; i < REQUESTS_A_TURN && n && used < len; i++) {
		if (c->answered)
			conns_send(c->server);
		if (c->dead || c->call || c->out.len || ends(c))
			break;
		n = handle(c, data + used, len - used);
		used += n;
	}
	/* what was kept is gone, and nothing behind it is taken */
	if (ends(c))
		used = len;
	/* it may be for long */
	if (!c->dead && c->waits && used < len) {
		used = len;
		c->keep_alive = false;
	}
	c->more = n && used < len;
	return used;
}

/* There is no room for the rest of a request. An answer that is being made, or sent, is the last. */
static void no_room(struct conn *c)
{
	c->keep_alive = c->more = false;
	if (!c->call && !c->out.len)
		conn_refuse(c, ERR_BUSY, "this user's requests that are not complete fill their place: send this one again");
}

/* Works through c->in, or through the shared buffer when nothing is kept. */
static void consume(struct conn *c, char *data, size_t len, bool shared)
{
	size_t used = handle_some(c, data, len);

	if (shared && !c->dead && used < len && in_append(c, data + used, len - used) < 0)
		no_room(c);
	if (c->dead)
		return;
	if (c->more)
		turns_add(&c->server->turns, c, 0);
	if (shared)
		return;
	if (used == len) {
		in_clear(c);
	} else if (used) {
		if (!c->out.len)
			c->deadline_ms = token_boot_ms() + LIMIT_REQUEST_TIMEOUT_MS;
		memmove(c->in.data, c->in.data + used, len - used);
		sodium_memzero(c->in.data + len - used, used);
		c->in.len = len - used;
	}
}

/* Goes on with what waits in c->in. */
static void process(struct conn *c)
{
	if (!c->dead && c->in.len && !c->call && !c->out.len)
		consume(c, (char *)c->in.data, c->in.len, false);
}

/* What was kept goes in front of what came, so that only what is incomplete still has to be kept. */
static void consume_joined(struct conn *c, size_t len)
{
	struct server *s = c->server;
	uint64_t deadline_ms = c->in.len ? c->deadline_ms : 0;

	if (c->in.len) {
		memcpy(s->buffer.data, c->in.data, c->in.len);
		in_clear(c);
	}
	consume(c, (char *)s->buffer.data, len, true);
	/* the same request, and its first byte came then */
	if (deadline_ms && !c->dead && c->in.len == len)
		c->deadline_ms = deadline_ms;
}

/* Takes n bytes, which are there, out of the socket. */
static bool take(const struct conn *c, char *to, size_t n)
{
	while (n) {
		ssize_t taken = recv(c->fd, to, n, MSG_DONTWAIT);

		if (taken <= 0)
			return false;
		to += taken;
		n -= (size_t)taken;
	}
	return true;
}

/* The same where nothing more can be kept: of len bytes, all but the first kept of which are still in the socket, what is behind this
 * turn's requests stays there. */
static void consume_in_place(struct conn *c, size_t kept, size_t len)
{
	char *data = (char *)c->server->buffer.data;
	size_t used, n;

	if (kept)
		memcpy(data, c->in.data, kept);
	used = handle_some(c, data, len);
	if (c->dead)
		return;
	c->more = false;
	if (used)
		in_clear(c);
	n = used ? used : len;
	if (!take(c, data + kept, n > kept ? n - kept : 0))
		conn_close(c);
	else if (!used && in_append(c, data + kept, len - kept) < 0)
		no_room(c);
}

/* A large body grows where it is. */
static void consume_behind(struct conn *c, size_t len)
{
	if (c->in.len + len > LIMIT_HTTP_HEAD + LIMIT_HTTP_BODY + CONN_BUFFER_LEN || in_append(c, c->server->buffer.data, len) < 0)
		no_room(c);
	else
		process(c);
}

#define KEPT_JOINED 16384u

static void conn_read(struct conn *c)
{
	static const int on = 1;
	struct server *s = c->server;
	const bool joins = c->in.len <= KEPT_JOINED;
	const size_t kept = joins ? c->in.len : 0;
	bool stays;
	ssize_t n;

	/* what a client sends ahead stays in its socket until it is its turn */
	if (c->call || c->out.len || c->more) {
		c->ahead = true;
		return;
	}
	stays = joins && !c->draining && !in_reserve(c, 2 * CONN_BUFFER_LEN);
	/* else a byte out of band is not seen by a look, but taken along */
	if (stays)
		setsockopt(c->fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
	n = recv(c->fd, s->buffer.data + kept, CONN_BUFFER_LEN - kept, MSG_DONTWAIT | (stays ? MSG_PEEK : 0));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	if (stays)
		consume_in_place(c, kept, kept + (size_t)n);
	else if (joins && !c->draining)
		consume_joined(c, kept + (size_t)n);
	else if (!c->draining)
		consume_behind(c, (size_t)n);
	sodium_memzero(s->buffer.data, kept + (size_t)n);
}

void conn_event(struct conn *c, uint32_t events)
{
	if (c->dead)
		return;
	if (events & (EPOLLERR | EPOLLHUP)) {
		/* what is unread would take back what is on its way */
		if (c->draining)
			conn_read(c);
		conn_close(c);
		return;
	}
	if (events & EPOLLOUT)
		flush(c);
	/* what was read before comes first: behind it may be the end of all that was sent */
	process(c);
	if (!c->dead && (events & EPOLLIN))
		conn_read(c);
	conn_watch(c);
}
