#pragma once
/*
 * A strict subset of HTTP/1.1 (RFC 9112) requests: CRLF only, no folding, no transfer coding, one of each header that
 * matters, no percent-encoding in paths. Nothing below struct request sees HTTP.
 */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum request_method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE, METHOD_LIST, METHOD_PATCH, METHOD_N };

/* Slices into the receive buffer. */
struct request {
	enum request_method method;
	char path[LIMIT_PATH_LEN + 64]; /* decoded: as it came, '%' is refused */
	bool query_list;
	uint64_t query_version;		/* 0: not given */
	uint64_t query_depth;		/* of subkeys; 0: not given, or all */
	const char *token;		/* X-Vault-Token or Authorization: Bearer */
	size_t token_len;
	const char *body;
	size_t body_len;
	uint32_t wrap_ttl_s; /* X-Vault-Wrap-TTL; 0: none */
	bool keep_alive, wants_continue, merge_patch;
	bool vault_request; /* X-Vault-Request: true */
};

/* Parses the head in data[0..len). Returns its length with *ret filled (body_len is Content-Length, body NULL), 0 when
 * more bytes are needed, or -ERR_*: ERR_INPUT (400), ERR_LIMIT (413), ERR_UNSUPPORTED (405: method). */
int http_parse_head(const char *data, size_t len, struct request *ret, struct err *err);

/* Writes a status line and headers for a body of body_len bytes (content_type NULL: JSON); returns the length (at most HTTP_HEAD_MAX). */
#define HTTP_HEAD_MAX 256u
size_t http_write_head(char *buf, int status, const char *content_type, size_t body_len, bool keep_alive);
