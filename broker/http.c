#include "broker/http.h"

#include "broker/duration.h"
#include "common/buf.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const methods[METHOD_N] = {
	[METHOD_GET] = "GET", [METHOD_HEAD] = "HEAD",	  [METHOD_POST] = "POST",   [METHOD_PUT] = "PUT",
	[METHOD_DELETE] = "DELETE", [METHOD_LIST] = "LIST", [METHOD_PATCH] = "PATCH",
};

struct head {
	struct request *q;
	bool have_length, have_vault_token, have_bearer, have_host, have_vault_request, have_wrap, close_asked, http10;
};

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_INPUT, "bad request: %s", what);
}

static bool token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool parse_number(const char *p, size_t len, uint64_t *ret)
{
	*ret = 0;
	for (size_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9' || len > 15)
			return false;
		*ret = *ret * 10 + (uint64_t)(p[i] - '0');
	}
	return true;
}

/* As Go reads a bool. */
static bool is_true(const char *p, size_t len)
{
	return (len == 1 && strchr("1tT", *p)) || (len == 4 && (memcmp(p, "true", 4) == 0 || memcmp(p, "TRUE", 4) == 0 || memcmp(p, "True", 4) == 0));
}

static int parse_query(const char *p, size_t len, struct request *q, struct err *err)
{
	size_t n;

	for (const char *end = p + len; p < end; p += n + 1) {
		n = strcspn(p, "& ");
		if (n > (size_t)(end - p))
			n = (size_t)(end - p);
		if (n > 5 && memcmp(p, "list=", 5) == 0) {
			q->query_list = is_true(p + 5, n - 5);
		} else if (n > 8 && memcmp(p, "version=", 8) == 0) {
			if (!parse_number(p + 8, n - 8, &q->query_version))
				return bad(err, "version is not a number");
		} else if (n > 6 && memcmp(p, "depth=", 6) == 0) {
			if (!parse_number(p + 6, n - 6, &q->query_depth))
				return bad(err, "depth is not a number");
		}
		/* unknown keys are ignored, as Vault does: its clients send some */
	}
	return 0;
}

static int parse_target(const char *p, size_t len, struct request *q, struct err *err)
{
	const char *mark = memchr(p, '?', len);
	size_t path_len = mark ? (size_t)(mark - p) : len;

	if (len == 0 || p[0] != '/')
		return bad(err, "the target is not a path");
	for (size_t i = 0; i < len; i++)
		if (p[i] <= 0x20 || p[i] >= 0x7f || p[i] == '#')
			return bad(err, "a byte in the target that does not belong there");
	if (memchr(p, '%', path_len))
		return bad(err, "percent-encoding in the path: cotter's paths never need it");
	if (path_len >= sizeof(q->path))
		return err_set(err, ERR_INPUT, "bad request: the path is too long");
	memcpy(q->path, p, path_len);
	q->path[path_len] = '\0';
	return mark ? parse_query(mark + 1, len - path_len - 1, q, err) : 0;
}

static int parse_request_line(const char *p, size_t len, struct head *h, struct err *err)
{
	const char *sp = memchr(p, ' ', len), *sp2;
	size_t n;

	if (!sp)
		return bad(err, "no request line");
	n = (size_t)(sp - p);
	sp2 = memchr(sp + 1, ' ', len - n - 1);
	if (!sp2)
		return bad(err, "no request line");
	for (h->q->method = 0; h->q->method < METHOD_N; h->q->method++)
		if (strlen(methods[h->q->method]) == n && memcmp(methods[h->q->method], p, n) == 0)
			break;
	if (h->q->method == METHOD_N)
		return err_set(err, ERR_UNSUPPORTED, "unsupported method");
	n = len - (size_t)(sp2 + 1 - p);
	if (n != 8 || (memcmp(sp2 + 1, "HTTP/1.1", 8) != 0 && memcmp(sp2 + 1, "HTTP/1.0", 8) != 0))
		return bad(err, "not HTTP/1.1");
	h->http10 = sp2[8] == '0';
	return parse_target(sp + 1, (size_t)(sp2 - sp) - 1, h->q, err);
}

static int set_length(struct head *h, const char *value, size_t len, struct err *err)
{
	size_t n = 0;

	if (h->have_length || len == 0 || len > 10)
		return bad(err, "Content-Length");
	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return bad(err, "Content-Length");
		n = n * 10 + (size_t)(value[i] - '0');
	}
	h->have_length = true;
	h->q->body_len = n;
	return n > LIMIT_HTTP_BODY ? err_set(err, ERR_LIMIT, "the body is larger than %u bytes", LIMIT_HTTP_BODY) : 0;
}

static int set_coding(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)h;
	(void)value;
	(void)len;
	return bad(err, "transfer codings are not supported: send Content-Length");
}

static int set_vault_token(struct head *h, const char *value, size_t len, struct err *err)
{
	if (h->have_vault_token)
		return bad(err, "two tokens");
	h->have_vault_token = true;
	h->q->token = value;
	h->q->token_len = len;
	return 0;
}

static int set_authorization(struct head *h, const char *value, size_t len, struct err *err)
{
	if (h->have_bearer)
		return bad(err, "two tokens");
	h->have_bearer = true;
	if (len < 7 || strncasecmp(value, "Bearer ", 7) != 0)
		return bad(err, "Authorization is not Bearer");
	if (!h->have_vault_token) {
		h->q->token = value + 7;
		h->q->token_len = len - 7;
	}
	return 0;
}

static bool has_word(const char *value, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= len; i++)
		if (strncasecmp(value + i, word, n) == 0)
			return true;
	return false;
}

static int set_connection(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)err;
	h->close_asked |= has_word(value, len, "close");
	if (h->http10 && has_word(value, len, "keep-alive"))
		h->http10 = false;
	return 0;
}

static int set_expect(struct head *h, const char *value, size_t len, struct err *err)
{
	if (len != 12 || strncasecmp(value, "100-continue", 12) != 0)
		return bad(err, "Expect");
	h->q->wants_continue = true;
	return 0;
}

static int set_host(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)value;
	(void)len;
	if (h->have_host)
		return bad(err, "two Host headers");
	h->have_host = true;
	return 0;
}

static int set_namespace(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)h;
	(void)value;
	return len ? bad(err, "cotter has no namespaces") : 0;
}

static int set_type(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)err;
	h->q->merge_patch = len >= 28 && strncasecmp(value, "application/merge-patch+json", 28) == 0;
	return 0;
}

/* Once, and just that. */
static int set_vault_request(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)err;
	h->q->vault_request = !h->have_vault_request && len == 4 && memcmp(value, "true", 4) == 0;
	h->have_vault_request = true;
	return 0;
}

/* Only browsers send it: a page has no business here. */
static int set_origin(struct head *h, const char *value, size_t len, struct err *err)
{
	(void)h;
	(void)value;
	(void)len;
	return bad(err, "a browser's request");
}

/* Of no time, or empty: the answer is not wrapped, as with Vault. */
static int set_wrap(struct head *h, const char *value, size_t len, struct err *err)
{
	char text[24];
	uint64_t s = 0;

	if (h->have_wrap)
		return bad(err, "two X-Vault-Wrap-TTL headers");
	h->have_wrap = true;
	snprintf(text, sizeof(text), "%.*s", (int)len, value);
	if (len && (len >= sizeof(text) || !duration_parse_go(text, LIMIT_WRAP_TTL_S, &s)))
		return bad(err, "error parsing X-Vault-Wrap-TTL header: a duration such as 60s, of at most a day");
	h->q->wrap_ttl_s = (uint32_t)s;
	return 0;
}

static const struct {
	const char *name;
	int (*set)(struct head *h, const char *value, size_t len, struct err *err);
} headers[] = {
	{"content-length", set_length},	   {"transfer-encoding", set_coding},	 {"x-vault-token", set_vault_token},
	{"authorization", set_authorization}, {"connection", set_connection},	 {"expect", set_expect},
	{"host", set_host},		   {"x-vault-namespace", set_namespace}, {"content-type", set_type},
	{"x-vault-wrap-ttl", set_wrap},    {"x-vault-request", set_vault_request}, {"origin", set_origin},
};

/* Printable ASCII and tabs; eight bytes at a time, since a token has hundreds. */
static bool is_text(const char *p, size_t n)
{
	const uint64_t ones = 0x0101010101010101;
	uint64_t eight;

	for (; n >= sizeof(eight); p += sizeof(eight), n -= sizeof(eight)) {
		memcpy(&eight, p, sizeof(eight));
		/* the highest bit of a byte: from 0x80 on, of 0x7f, below 0x20 */
		if ((eight | (eight + ones) | (eight - 0x20 * ones)) & 0x80 * ones)
			break;
	}
	for (; n; p++, n--)
		if (((unsigned char)*p < 0x20 && *p != '\t') || (unsigned char)*p >= 0x7f)
			return false;
	return true;
}

static int parse_header(const char *p, size_t len, struct head *h, struct err *err)
{
	const char *name = p, *colon = memchr(p, ':', len);
	size_t name_len = colon ? (size_t)(colon - p) : 0, n;

	if (!colon || name_len == 0)
		return bad(err, "a header has no name");
	for (size_t i = 0; i < name_len; i++)
		if (!token_char(p[i]))
			return bad(err, "a header's name");
	n = len - name_len - 1;
	for (p = colon + 1; n && (*p == ' ' || *p == '\t'); p++)
		n--;
	while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
		n--;
	if (!is_text(p, n))
		return bad(err, "a header's value");
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		if (strlen(headers[i].name) == name_len && strncasecmp(headers[i].name, name, name_len) == 0)
			return headers[i].set(h, p, n, err);
	return 0;
}

/* Its empty line, with the line end before; NULL: not all of it is there. */
static const char *find_end(const char *data, size_t len)
{
	const char *p = data;

	for (; (p = memchr(p, '\n', len - (size_t)(p - data))); p++)
		if (p - data >= 3 && memcmp(p - 3, "\r\n\r\n", 4) == 0)
			return p - 3;
	return NULL;
}

int http_parse_head(const char *data, size_t len, struct request *ret, struct err *err)
{
	const char *end = find_end(data, len < LIMIT_HTTP_HEAD ? len : LIMIT_HTTP_HEAD), *p, *eol;
	struct head h = {.q = ret};
	size_t head_len, n;
	int r, count = 0;

	*ret = (struct request){0};
	if (!end)
		return len >= LIMIT_HTTP_HEAD ? err_set(err, ERR_LIMIT, "the request's head is larger than %u bytes", LIMIT_HTTP_HEAD) : 0;
	head_len = (size_t)(end - data) + 4;
	for (p = data; p < end + 2; p = eol + 1) {
		eol = memchr(p, '\n', (size_t)(end + 2 - p));
		n = (size_t)(eol - p);
		if (n == 0 || p[--n] != '\r' || memchr(p, '\r', n) || memchr(p, 0, n))
			return bad(err, "a line end that is not CRLF, or a NUL");
		if ((size_t)count > LIMIT_HTTP_HEADERS)
			return err_set(err, ERR_LIMIT, "more than %u headers", LIMIT_HTTP_HEADERS);
		r = count++ == 0 ? parse_request_line(p, n, &h, err) : parse_header(p, n, &h, err);
		if (r < 0)
			return r;
	}
	ret->keep_alive = !h.close_asked && !h.http10;
	return (int)head_len;
}

size_t http_write_head(char *buf, int status, const char *content_type, size_t body_len, bool keep_alive)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{200, "OK"}, {204, "No Content"}, {400, "Bad Request"}, {403, "Forbidden"}, {404, "Not Found"},
		{405, "Method Not Allowed"}, {408, "Request Timeout"}, {412, "Precondition Failed"}, {413, "Content Too Large"}, {415, "Unsupported Media Type"},
		{429, "Too Many Requests"}, {500, "Internal Server Error"}, {503, "Service Unavailable"},
	};
	const char *reason = "Error";
	struct writer w = writer_init(buf, HTTP_HEAD_MAX);

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			reason = reasons[i].reason;
	writer_str(&w, "HTTP/1.1 ");
	writer_decimal(&w, (uint64_t)status);
	writer_str(&w, " ");
	writer_str(&w, reason);
	writer_str(&w, "\r\nContent-Type: ");
	writer_str(&w, content_type ? content_type : "application/json");
	writer_str(&w, "\r\nCache-Control: no-store\r\n");
	/* a 204 has none (RFC 9110 section 8.6) */
	if (status != 204) {
		writer_str(&w, "Content-Length: ");
		writer_decimal(&w, body_len);
		writer_str(&w, "\r\n");
	}
	writer_str(&w, keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
	return w.failed ? 0 : w.len;
}
