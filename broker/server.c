#include "broker/server.h"

#include "broker/api.h"
#include "broker/broker.h"
#include "broker/credential.h"
#include "broker/job_watch.h"
#include "broker/key_rule.h"
#include "broker/peer_tcp.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void listen_again(struct server *s, bool on)
{
	struct epoll_event ev = {.events = on ? EPOLLIN : 0, .data.ptr = &s->listen_fd};
	struct epoll_event operators = {.events = on ? EPOLLIN : 0, .data.ptr = &s->operator_fd};
	struct epoll_event tcp = {.events = on ? EPOLLIN : 0, .data.ptr = &s->tcp_fd};
	struct epoll_event credentials = {.events = on ? EPOLLIN : 0, .data.ptr = &s->credentials_fd};

	s->listening = on;
	epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->listen_fd, &ev);
	epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->operator_fd, &operators);
	if (s->tcp_fd >= 0)
		epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->tcp_fd, &tcp);
	if (s->credentials_fd >= 0)
		epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->credentials_fd, &credentials);
}

#define DESCRIPTORS_OWN 64u /* the store, the log, the helpers */

static bool has_room(struct server *s, const struct server_user *u, bool operator_socket)
{
	if (operator_socket)
		return s->n_conns < LIMIT_CONNECTIONS && server_has_descriptors(s, 2);
	/* some places are the operators' */
	return u && u->n < LIMIT_CONNECTIONS_PER_UID && s->n_conns + LIMIT_OPERATOR_CONNECTIONS < LIMIT_CONNECTIONS &&
	       server_has_descriptors(s, 2 + 2 * LIMIT_OPERATOR_CONNECTIONS);
}

bool server_has_descriptors(const struct server *s, size_t n)
{
	/* a connection has its socket and its peer's pidfd, a job its leader's */
	return DESCRIPTORS_OWN + 2 * s->n_conns + s->broker->jobs.n + n <= s->max_files;
}

static int read_peer(struct server *s, int fd, bool tcp, struct peer *ret)
{
	static const int on = 1;

	if (!tcp)
		return peer_init(fd, s->has_pidfd, ret);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return peer_tcp_init(fd, s->diag_fd, ret);
}

static void accept_one(struct server *s, int listen_fd, bool operator_socket)
{
	const bool raw = listen_fd == s->credentials_fd;
	/* a unit waits for its place: its connection's end would be an empty credential */
	const bool waits = raw && !has_room(s, NULL, true);
	CLEANUP(cleanup_close) int fd = waits ? -1 : accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct server_user *u;
	struct peer peer;
	struct conn *c;

	/* out of descriptors: the listener stays readable, so stop looking at it until the next sweep */
	if (waits || (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)))
		listen_again(s, false);
	if (fd < 0 || read_peer(s, fd, listen_fd == s->tcp_fd, &peer) < 0)
		return;
	/* on the jobs' socket a peer that cannot be told apart hears why it gets nothing */
	if (operator_socket && (peer.problem || !broker_is_operator(s->broker, peer.uid))) {
		peer_done(&peer);
		return;
	}
	u = server_user(s, peer.uid);
	c = has_room(s, u, operator_socket || raw) ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		peer_done(&peer);
		return;
	}
	peer.operator_socket = operator_socket;
	*c = (struct conn){.server = s, .peer = peer, .accepted = s->round, .deadline_ms = token_boot_ms() + LIMIT_REQUEST_TIMEOUT_MS, .next = s->conns,
			   .fd = steal_fd(&fd), .watched = raw ? 0 : EPOLLIN, .raw = raw};
	turns_join(&s->turns, c);
	if (u)
		u->n++;
	if (s->conns)
		s->conns->prev = c;
	s->conns = c;
	s->n_conns++;
	if (raw) {
		conn_watch(c);
		if (!c->dead)
			credential_begin(c);
	} else {
		turns_add(&s->turns, c, EPOLLIN);
	}
}

/* Who waits for us has more time; but whoever never stops sending has something for us always. */
static uint64_t allowance(const struct conn *c)
{
	return c->is_ready && !c->draining ? LIMIT_REQUEST_TIMEOUT_MS : 0;
}

static void sweep(struct server *s, uint64_t now_ms)
{
	struct conn *next;

	if (!s->listening)
		listen_again(s, true);
	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		if (c->held && (now_ms >= c->deadline_ms || audit_failed(&s->broker->audit)))
			conn_refuse_late(c);
		else if (c->raw && !c->call && !c->out.len)
			credential_begin(c);
		else if (!c->call && (!c->more || c->out.len) && now_ms >= c->deadline_ms + allowance(c))
			conn_close(c); /* its own slowness, not ours */
	}
}

static void flush_held(struct server *s)
{
	struct conn *next;

	audit_acknowledge(&s->broker->audit);
	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		if (c->held)
			conn_send(c);
	}
}

static int listen_on(const char *path, mode_t mode, int *ret, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	CLEANUP(cleanup_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char dir[sizeof(addr.sun_path)], *slash;
	struct stat st;

	if (fd < 0)
		return err_errno(err, errno, "socket");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	memcpy(dir, addr.sun_path, sizeof(dir));
	slash = strrchr(dir, '/');
	*slash = '\0';
	if (mkdir(dir, 0755) == 0)
		chmod(dir, 0755); /* whatever the umask is: jobs must reach the socket */
	if (stat(dir, &st) < 0)
		return err_errno(err, errno, "the socket's directory %s", dir);
	if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & S_IWOTH))
		return err_set(err, ERR_FAILED, "the socket's directory %s must belong to cotterd's user and not be writable by others", dir);
	/* a socket that answers belongs to a living broker */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return err_set(err, ERR_FAILED, "another cotterd answers on %s", path);
	close(steal_fd(&fd));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(path, mode) < 0 || listen(fd, LIMIT_BACKLOG) < 0)
		return err_errno(err, errno, "the socket %s", path);
	*ret = steal_fd(&fd);
	return 0;
}

/* Beside the jobs' socket. */
static int credentials_path(const struct server *s, char ret[108], struct err *err)
{
	const char *socket = s->broker->config.socket;
	int dir = (int)(strrchr(socket, '/') - socket);

	return snprintf(ret, 108, "%.*s/" CREDENTIAL_SOCKET, dir, socket) < 108 ? 0 : err_set(err, ERR_INPUT, "the path of the credentials' socket is too long");
}

static int listen_on_tcp(const struct sockaddr_in *address, int *ret, struct err *err)
{
	CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	static const int on = 1;

	/* an older broker's connections may still wait for their end */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 || listen(fd, LIMIT_BACKLOG) < 0)
		return err_errno(err, errno, "http.listen: port %u", ntohs(address->sin_port));
	*ret = steal_fd(&fd);
	return 0;
}

static int add(struct server *s, int fd, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static int listen_for_systemd(struct server *s, struct err *err)
{
	char path[sizeof(s->broker->config.socket)];
	int r = credentials_path(s, path, err);

	s->too_much = r == 0 ? calloc(1, sizeof(*s->too_much) + LIMIT_SYSTEMD_CREDENTIAL) : NULL;
	if (r < 0)
		return r;
	if (!s->too_much)
		return err_set(err, ERR_FAILED, "out of memory");
	s->too_much->refs = 1;
	s->too_much->len = LIMIT_SYSTEMD_CREDENTIAL;
	/* root alone comes there */
	r = listen_on(path, 0600, &s->credentials_fd, err);
	return r == 0 && add(s, s->credentials_fd, &s->credentials_fd) < 0 ? err_errno(err, errno, "epoll") : r;
}

int server_init(struct server *s, struct broker *b, struct err *err)
{
	struct rlimit files = {0};
	sigset_t set;
	int r;

	/* blocked in every thread since main began: signalfd alone sees them */
	*s = (struct server){.broker = b, .epoll_fd = -1, .peers_fd = -1, .signal_fd = -1, .listen_fd = -1, .operator_fd = -1, .tcp_fd = -1, .diag_fd = -1, .credentials_fd = -1};
	s->listening = true;
	TAILQ_INIT(&s->answered);
	turns_init(&s->turns);
	getrlimit(RLIMIT_NOFILE, &files);
	s->max_files = files.rlim_cur < 256 ? 256 : files.rlim_cur;
	r = peer_supported(err);
	s->has_pidfd = r == 0;
	if (r < 0 && b->config.require_cgroup)
		return err_wrap(err, "%s (jobs.require_cgroup: false goes on with the caller's uid alone)", b->config.file);
	if (r < 0)
		log_warn("%s", err->msg);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->peers_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->signal_fd < 0 || s->epoll_fd < 0 || s->peers_fd < 0)
		return err_errno(err, errno, "epoll");
	r = secret_new(&s->buffer, CONN_BUFFER_LEN, err);
	if (r == 0)
		r = listen_on(b->config.operator_socket, 0666, &s->operator_fd, err);
	if (r == 0)
		r = listen_on(b->config.socket, 0666, &s->listen_fd, err);
	if (r == 0 && b->config.listen.sin_family) {
		r = peer_tcp_open(&s->diag_fd, err);
		if (r == 0)
			r = listen_on_tcp(&b->config.listen, &s->tcp_fd, err);
	}
	if (r == 0 && b->config.n_units)
		r = listen_for_systemd(s, err);
	if (r < 0)
		return r;
	if ((s->tcp_fd >= 0 && add(s, s->tcp_fd, &s->tcp_fd) < 0) || add(s, s->signal_fd, &s->signal_fd) < 0 || add(s, s->listen_fd, &s->listen_fd) < 0 ||
	    add(s, s->operator_fd, &s->operator_fd) < 0 || add(s, b->audit.event_fd, &b->audit) < 0 ||
	    add(s, b->jobs.epoll_fd, &b->jobs) < 0 || add(s, s->peers_fd, &s->peers_fd) < 0)
		return err_errno(err, errno, "epoll");
	return 0;
}

static bool is_provider(const struct broker *b, const void *tag)
{
	const char *p = tag, *first = (const char *)&b->hardware.providers[0];

	return p >= first && p < (const char *)&b->hardware.providers[LIMIT_PROVIDERS];
}

static void take_signal(struct server *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			broker_reload(s->broker);
		else
			s->stop = true;
	}
}

static void dispatch(struct server *s, struct epoll_event *ev)
{
	void *tag = ev->data.ptr;

	if (tag == &s->signal_fd)
		take_signal(s);
	else if (tag == &s->listen_fd)
		accept_one(s, s->listen_fd, false);
	else if (tag == &s->tcp_fd)
		accept_one(s, s->tcp_fd, false);
	else if (tag == &s->credentials_fd)
		accept_one(s, s->credentials_fd, false);
	else if (tag == &s->operator_fd)
		accept_one(s, s->operator_fd, true);
	else if (tag == &s->broker->hardware.launcher_fd)
		s->stop = s->launcher_died = true;
	else if (tag == &s->peers_fd)
		; /* see look_for_ends */
	else if (tag == &s->broker->audit)
		flush_held(s);
	else if (tag == &s->broker->jobs)
		jobs_event(&s->broker->jobs);
	else if (engine_is_run(&s->broker->engines, tag))
		engine_event(tag, ev->events);
	else if (is_provider(s->broker, tag))
		hardware_event(tag);
	else
		turns_add(&s->turns, tag, ev->events);
}

#define EVENTS 256 /* of one round */

/* Before anything else of a round: whose end the kernel has told of gets nothing more. What there was no room for may be such an end, too. */
static void look_for_ends(struct server *s, const struct epoll_event *events, int n)
{
	const bool all = n >= 0 && n < EVENTS;
	bool peer = !all, job = !all;

	s->looked_ms = token_boot_ms();
	s->is_long = false;
	for (int i = 0; i < n; i++) {
		peer |= events[i].data.ptr == &s->peers_fd;
		job |= events[i].data.ptr == &s->broker->jobs;
	}
	if (peer)
		peers_look(s->peers_fd);
	s->broker->jobs.none_told = !job;
}

#define LOOK_MS 2u

bool server_round_is_long(struct server *s, uint64_t now_ms)
{
	if (now_ms < s->looked_ms + LOOK_MS)
		return s->is_long;
	peers_look(s->peers_fd);
	s->broker->jobs.none_told = false;
	s->looked_ms = now_ms;
	return s->is_long = true;
}

#define SERVED_AT_ONCE 4u /* before whoever came meanwhile is looked for */
#define SENT_AT_ONCE 16u
#define SENT_AT_ONCE_LEN 65536u /* the arena is for others, too */

static void serve(struct server *s)
{
	struct conn *c;
	uint32_t events;

	for (unsigned int i = 0; i < SERVED_AT_ONCE && (c = turns_take(&s->turns, &events)); i++) {
		/* nobody's answer waits for another user's request */
		if (s->n_answered && s->answering != c->turn_user)
			conns_send(s);
		conn_event(c, events);
	}
}

/* One user's answers wait for the requests that it has behind them, when nobody else has any: each send would wake it for one of them. Only as
 * long as every round adds one, since what is ready may be the end of a connection that is answered already; and as long as all of that is quick. */
static bool may_gather(struct server *s, size_t before, uint64_t now_ms)
{
	return s->n_answered > before && s->answering && turns_only(&s->turns, s->answering) && s->n_answered < SENT_AT_ONCE &&
	       s->answered_len < SENT_AT_ONCE_LEN && !server_round_is_long(s, now_ms) && !s->stop;
}

static void bury(struct server *s)
{
	struct conn *next;

	for (struct conn *c = s->dead; c; c = next) {
		next = c->next;
		free(c);
	}
	s->dead = NULL;
}

int server_run(struct server *s, struct err *err)
{
	/* it never speaks unasked: an event without EPOLLIN is its end */
	struct epoll_event launcher = {.events = EPOLLRDHUP, .data.ptr = &s->broker->hardware.launcher_fd};
	struct epoll_event events[EVENTS];
	size_t before;
	uint64_t now, next_sweep = 0, next_expiry = 0;
	int n;

	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->broker->hardware.launcher_fd, &launcher) < 0)
		return err_errno(err, errno, "epoll");
	while (!s->stop) {
		n = epoll_wait(s->epoll_fd, events, EVENTS, turns_waiting(&s->turns) ? 0 : 250);
		s->round++;
		if (n < 0 && errno != EINTR)
			return err_errno(err, errno, "epoll");
		look_for_ends(s, events, n);
		for (int i = 0; i < n; i++)
			dispatch(s, &events[i]);
		before = s->n_answered;
		serve(s);
		now = token_boot_ms();
		hardware_tick(&s->broker->hardware, now);
		if (now >= next_sweep) {
			sweep(s, now);
			key_rules_tick(s->broker);
			engines_tick(&s->broker->engines, now);
			if (s->broker->unsealed)
				leases_tick(s->broker, now);
			jobs_look(&s->broker->jobs);
			next_sweep = now + 250;
		}
		if (now >= next_expiry) {
			cache_expire(&s->broker->cache, now);
			broker_record_refusals(s->broker, false);
			if (s->broker->unsealed) {
				tokens_expire(&s->broker->tokens, now);
				jobs_expire(&s->broker->jobs);
			}
			next_expiry = now + 1000;
		}
		if (s->launcher_died) {
			conns_send(s);
			return err_set(err, ERR_FAILED, "the launcher died: no helper can be started any more");
		}
		broker_tick(s->broker, now);
		if (!may_gather(s, before, now))
			conns_send(s);
		bury(s);
	}
	return 0;
}

void server_done(struct server *s)
{
	const uint64_t patience_ms = token_boot_ms() + LIMIT_REQUEST_TIMEOUT_MS;

	/* all of them together wait for no more than a few seconds */
	for (struct conn *c = s->conns; c && token_boot_ms() < patience_ms; c = c->next)
		if (c->raw)
			conn_refuse_unit(c);
	while (s->conns)
		conn_close(s->conns);
	bury(s);
	if (s->listen_fd >= 0) {
		unlink(s->broker->config.socket);
		close(s->listen_fd);
	}
	if (s->operator_fd >= 0) {
		unlink(s->broker->config.operator_socket);
		close(s->operator_fd);
	}
	if (s->credentials_fd >= 0) {
		char path[sizeof(s->broker->config.socket)];

		if (credentials_path(s, path, NULL) == 0)
			unlink(path);
		close(s->credentials_fd);
	}
	shared_body_drop(s->too_much);
	cleanup_close(&s->tcp_fd);
	cleanup_close(&s->diag_fd);
	cleanup_close(&s->epoll_fd);
	cleanup_close(&s->peers_fd);
	cleanup_close(&s->signal_fd);
	secret_clear(&s->buffer);
}
