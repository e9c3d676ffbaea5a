#include "tools/client.h"

#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/settings.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define REPLY_MAX (1u << 20)
#define TIMEOUT_S 60
#define PATIENCE_MS (1000 * TIMEOUT_S + (int)LIMIT_APPROVAL_WAIT_MS) /* signatures may wait for approvals */

/* $COTTER_SOCKET, else what the configuration says if it can be read, else the default; the operators' socket stands
 * beside it unless $COTTER_OPERATOR_SOCKET names it. */
static void socket_path(bool operators, char ret[108])
{
	const char *env = getenv("COTTER_SOCKET"), *operator_env = getenv("COTTER_OPERATOR_SOCKET");
	struct settings settings;

	if (operators && operator_env && *operator_env) {
		snprintf(ret, 108, "%s", operator_env);
	} else if (env && *env && operators) {
		settings_operator_socket(env, ret);
	} else if (env && *env) {
		snprintf(ret, 108, "%s", env);
	} else {
		settings_load(&settings);
		snprintf(ret, 108, "%s", operators ? settings.operator_socket : settings.socket);
	}
}

static int connect_to(const char *path, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = TIMEOUT_S};
	CLEANUP(cleanup_close) int fd = -1;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct stat st;

	if (lstat(path, &st) < 0)
		return err_set(err, ERR_NO_BROKER, "no broker at %s (%s): is cotterd running, is COTTER_SOCKET right?", path,
			       strerror(errno));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return err_set(err, ERR_NO_BROKER, "no broker answers at %s: %s", path, strerror(errno));
	/* whoever bound the socket must be whoever owns it */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != st.st_uid)
		return err_set(err, ERR_NO_BROKER, "%s does not belong to the process behind it: not talking to it", path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	return steal_fd(&fd);
}

static int token_header(const char *token, size_t n, struct secret *request, struct err *err)
{
	int r;

	if (n > LIMIT_TOKEN_TEXT || memchr(token, '\r', n) || memchr(token, '\n', n))
		return err_set(err, ERR_INPUT, "COTTER_TOKEN is not a token");
	r = secret_append(request, "X-Vault-Token: ", 15, err);
	if (r == 0)
		r = secret_append(request, token, n, err);
	return r < 0 ? r : secret_append(request, "\r\n", 2, err);
}

struct asked {
	const char *method, *path, *wrap_ttl;
	const json_t *body; /* or, in its place: */
	const char *text;
	size_t text_len;
	const char *token;
	size_t token_len;
	bool operators;
	bool keep; /* the connection, for the next */
};

static int build(const struct asked *q, struct secret *ret, struct err *err)
{
	size_t body_len = q->body ? json_dumpb(q->body, NULL, 0, JSON_COMPACT) : q->text_len;
	char head[LIMIT_PATH_LEN + 256];
	int n = snprintf(head, sizeof(head),
			 "%s %s HTTP/1.1\r\nHost: localhost\r\n%sX-Vault-Request: true\r\nContent-Length: %zu\r\n%s%.20s%s",
			 q->method, q->path, q->keep ? "" : "Connection: close\r\n", body_len, q->wrap_ttl ? "X-Vault-Wrap-TTL: " : "", q->wrap_ttl ? q->wrap_ttl : "",
			 q->wrap_ttl ? "\r\n" : "");
	int r;

	if (n < 0 || (size_t)n >= sizeof(head))
		return err_set(err, ERR_USAGE, "the path is too long");
	r = secret_new(ret, (size_t)n + LIMIT_TOKEN_TEXT + body_len + 64, err);
	if (r == 0)
		r = secret_append(ret, head, (size_t)n, err);
	if (r == 0 && q->token)
		r = token_header(q->token, q->token_len, ret, err);
	if (r == 0)
		r = secret_append(ret, "\r\n", 2, err);
	if (r == 0 && q->body) {
		/* it takes memory, and writes nothing where there is none */
		if (json_dumpb(q->body, (char *)ret->data + ret->len, body_len, JSON_COMPACT) != body_len)
			return err_set(err, ERR_BUSY, "the locked memory for secrets is full");
		ret->len += body_len;
	} else if (r == 0 && body_len) {
		r = secret_append(ret, q->text, body_len, err);
	}
	return r;
}

static int send_all(int fd, const struct secret *s, struct err *err)
{
	size_t sent = 0;
	ssize_t n;

	while (sent < s->len) {
		n = send(fd, s->data + sent, s->len - sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_NO_BROKER, "the broker went away: %s", strerror(errno));
		sent += (size_t)n;
	}
	return 0;
}

/* The head is there and as many bytes behind it as it says. */
static bool is_complete(const struct secret *s)
{
	const char *text = (const char *)s->data, *end = memmem(text, s->len, "\r\n\r\n", 4), *length;

	if (!end || s->len < 12)
		return false;
	length = memmem(text, (size_t)(end - text), "Content-Length: ", 16);
	return s->len - (size_t)(end + 4 - text) >= (length && memcmp(text + 9, "204", 3) != 0 ? strtoul(length + 16, NULL, 10) : 0);
}

static int wait_for_answer(const struct client *c, struct err *err)
{
	struct pollfd fds[1 + sizeof(c->stop) / sizeof(c->stop[0])] = {{.fd = c->fd, .events = POLLIN}};
	int ready;

	if (c->n_stop == 0)
		return 0; /* recv has a time-out of its own */
	memcpy(fds + 1, c->stop, sizeof(c->stop));
	while ((ready = poll(fds, 1 + c->n_stop, c->patience_ms ? c->patience_ms : PATIENCE_MS)) < 0 && errno == EINTR)
		;
	if (ready == 0)
		return err_set(err, ERR_NO_BROKER, "the broker does not answer");
	for (nfds_t i = 1; i <= c->n_stop; i++)
		if (fds[i].revents && !fds[0].revents)
			return err_set(err, ERR_NO_BROKER, "the request was given up");
	return 0;
}

static int receive(const struct client *c, struct secret *ret, struct err *err)
{
	ssize_t n;
	int r = secret_new(ret, 8192, err);

	while (r == 0 && !is_complete(ret)) {
		if (ret->len == ret->cap) {
			struct secret bigger = {0};

			r = ret->cap >= REPLY_MAX ? err_set(err, ERR_LIMIT, "the broker's reply is too long")
						  : secret_new(&bigger, ret->cap * 2, err);
			if (r < 0)
				break;
			memcpy(bigger.data, ret->data, ret->len);
			bigger.len = ret->len;
			secret_clear(ret);
			*ret = bigger;
		}
		r = wait_for_answer(c, err);
		if (r < 0)
			return r;
		n = recv(c->fd, ret->data + ret->len, ret->cap - ret->len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ECONNRESET)
			return 0; /* it closed before all was taken; what it said before stands in ret */
		if (n < 0)
			return err_set(err, ERR_NO_BROKER, "the broker does not answer: %s", strerror(errno));
		if (n == 0)
			return 0;
		ret->len += (size_t)n;
	}
	return r;
}

static int split(const struct secret *raw, struct client_reply *ret, struct err *err)
{
	const char *text = (const char *)raw->data, *end = memmem(text, raw->len, "\r\n\r\n", 4), *length;

	if (!end || raw->len < 12 || memcmp(text, "HTTP/1.1 ", 9) != 0)
		return err_set(err, ERR_NO_BROKER, "what answers there is not a broker");
	ret->status = (text[9] - '0') * 100 + (text[10] - '0') * 10 + (text[11] - '0');
	length = memmem(text, (size_t)(end - text), "Content-Length: ", 16);
	end += 4;
	if (length && strtoul(length + 16, NULL, 10) != raw->len - (size_t)(end - text))
		return err_set(err, ERR_NO_BROKER, "the broker's reply was cut off");
	return secret_copy(&ret->body, end, raw->len - (size_t)(end - text), err);
}

static int parse(struct client_reply *r, struct err *err)
{
	if (r->body.len)
		json_parse((const char *)r->body.data, r->body.len, &r->json, NULL);
	return r->body.len && !r->json ? err_set(err, ERR_LIMIT, "the broker's reply is no JSON, or too much for the locked memory: list a folder below") : 0;
}

static int check_status(const struct client_reply *r, struct err *err)
{
	static const struct {
		int status;
		enum err_code code;
		const char *text;
	} rows[] = {
		{400, ERR_INPUT, "the broker refused the request"}, {403, ERR_DENIED, "permission denied"},
		{404, ERR_NOT_FOUND, "not found"},		    {405, ERR_UNSUPPORTED, "not supported"},
		{413, ERR_LIMIT, "too large"},			    {429, ERR_BUSY, "the broker is busy"},
		{503, ERR_SEALED, "unavailable"},
	};
	const char *message = json_string_value(json_array_get(json_object_get(r->json, "errors"), 0));

	if (r->status >= 200 && r->status < 300)
		return 0;
	if (r->status == 503 && message && strstr(message, "audit log"))
		return err_set(err, ERR_AUDIT, "%s", message); /* no hardware is at fault */
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].status == r->status)
			return err_set(err, rows[i].code, "%s", message ? message : rows[i].text);
	return err_set(err, ERR_FAILED, "%s", message ? message : "the broker failed");
}

/* Over c's connection, made anew when the broker closed it meanwhile (or was restarted). An empty answer: it closed a new one, too. */
static int exchange(struct client *c, const struct secret *request, struct secret *ret_raw, struct err *err)
{
	struct err ignored;
	int sent, r = 0;

	for (bool fresh = false; !fresh;) {
		fresh = c->fd < 0;
		secret_clear(ret_raw);
		if (fresh)
			c->fd = connect_to(c->address, err);
		if (c->fd < 0)
			return c->fd;
		/* a refusal may be there to be read though not all was taken */
		sent = send_all(c->fd, request, err);
		r = receive(c, ret_raw, sent < 0 ? &ignored : err);
		if (r == 0 && ret_raw->len && !memmem(ret_raw->data, ret_raw->len, "Connection: close", 17))
			return 0;
		client_close(c);
		if (r == 0 && ret_raw->len)
			return 0;
		if (r < 0 && sent == 0)
			return r; /* it took the request: it is not asked twice */
		if (r < 0)
			r = sent;
	}
	return r;
}

static int ask(struct client *c, const struct asked *q, struct client_reply *ret, struct err *err)
{
	CLEANUP(secret_clear) struct secret request = {0}, raw = {0};
	int r = build(q, &request, err);

	*ret = (struct client_reply){0};
	if (r == 0)
		r = exchange(c, &request, &raw, err);
	/* the operators' socket closes at once on whoever is none */
	if (r == 0 && raw.len == 0)
		r = q->operators ? err_set(err, ERR_DENIED, "the operators' socket refuses uid %u: set COTTER_TOKEN, or become an operator", geteuid())
				 : err_set(err, ERR_NO_BROKER, "the broker closed the connection");
	if (r == 0)
		r = split(&raw, ret, err);
	/* whoever asks with text reads the answer as text */
	if (r == 0 && !(q->text && ret->status == 200))
		r = parse(ret, err);
	return r < 0 ? r : check_status(ret, err);
}

/* Over a connection for this request alone. */
static int ask_once(const struct asked *q, struct client_reply *ret, struct err *err)
{
	struct client c = {.fd = -1};
	int r;

	socket_path(q->operators, c.address);
	r = ask(&c, q, ret, err);
	client_close(&c);
	return r;
}

int client_call_wrapped(enum client_socket which, const char *method, const char *path, const json_t *body, const char *wrap_ttl,
			struct client_reply *ret, struct err *err)
{
	struct asked q = {.method = method, .path = path, .body = body, .wrap_ttl = wrap_ttl};
	const char *token = getenv("COTTER_TOKEN");

	if (wrap_ttl && strspn(wrap_ttl, "0123456789smhd") != strlen(wrap_ttl))
		return err_set(err, ERR_USAGE, "'%.20s' is not a duration", wrap_ttl);
	if (which == CLIENT_JOB && token && *token) {
		q.token = token;
		q.token_len = strlen(token);
	}
	q.operators = which != CLIENT_LOGIN && !q.token;
	return ask_once(&q, ret, err);
}

int client_call(enum client_socket which, const char *method, const char *path, const json_t *body, struct client_reply *ret,
		struct err *err)
{
	return client_call_wrapped(which, method, path, body, NULL, ret, err);
}

int client_call_token(const struct secret *token, const char *method, const char *path, struct client_reply *ret, struct err *err)
{
	const struct asked q = {.method = method, .path = path, .token = (const char *)token->data, .token_len = token->len};

	return ask_once(&q, ret, err);
}

void client_open(struct client *c, const struct secret *token)
{
	*c = (struct client){.fd = -1, .token = token};
	socket_path(false, c->address);
}

void client_open_operators(struct client *c)
{
	*c = (struct client){.fd = -1};
	socket_path(true, c->address);
}

int client_ask(struct client *c, const char *method, const char *path, const json_t *body, struct client_reply *ret, struct err *err)
{
	const struct asked q = {.method = method, .path = path, .body = body, .token = c->token ? (const char *)c->token->data : NULL,
				.token_len = c->token ? c->token->len : 0, .operators = !c->token, .keep = true};

	return ask(c, &q, ret, err);
}

int client_ask_text(struct client *c, const char *path, const char *text, size_t len, struct client_reply *ret, struct err *err)
{
	const struct asked q = {.method = "POST", .path = path, .text = text, .text_len = len, .token = (const char *)c->token->data,
				.token_len = c->token->len, .keep = true};

	return ask(c, &q, ret, err);
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void client_reply_done(struct client_reply *r)
{
	json_decref(r->json);
	secret_clear(&r->body);
	*r = (struct client_reply){0};
}

json_t *client_data(const struct client_reply *r)
{
	return json_object_get(r->json, "data");
}

json_t *client_at(const json_t *j, const char *dotted)
{
	char key[64];
	size_t n;
	json_t *at = NULL;

	for (;; dotted += n + 1) {
		n = strcspn(dotted, ".");
		if (n >= sizeof(key))
			return NULL;
		memcpy(key, dotted, n);
		key[n] = '\0';
		at = json_object_get(j, key);
		if (!dotted[n] || !at)
			return at;
		j = at;
	}
}

void client_json_free(json_t **j)
{
	json_decref(*j);
}
