/* What a head that parses gives out lies inside it, and it parses the same from just its own bytes and not from fewer. */
#include "fuzz.h"

#include "broker/http.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

static void check_request(const struct request *q, const char *data, size_t head_len)
{
	CHECK(q->method < METHOD_N && q->path[0] == '/' && memchr(q->path, 0, sizeof(q->path)));
	for (const char *p = q->path; *p; p++)
		CHECK(*p > 0x20 && *p < 0x7f && *p != '%' && *p != '?' && *p != '#');
	CHECK(q->body_len <= LIMIT_HTTP_BODY && !q->body);
	CHECK(q->query_version < 1000000000000000ull);
	if (!q->token) {
		CHECK(q->token_len == 0);
		return;
	}
	CHECK(q->token > data && q->token_len < head_len && q->token + q->token_len <= data + head_len - 4);
	for (size_t i = 0; i < q->token_len; i++)
		CHECK((q->token[i] >= 0x20 && q->token[i] < 0x7f) || q->token[i] == '\t');
}

static void check_exact(const struct request *q, const uint8_t *data, size_t head_len)
{
	CLEANUP(cleanup_free) char *head = malloc(head_len);
	struct request again;
	struct err err = {0};

	CHECK(head);
	memcpy(head, data, head_len);
	CHECK(http_parse_head(head, head_len, &again, &err) == (int)head_len);
	CHECK(again.method == q->method && again.body_len == q->body_len && again.keep_alive == q->keep_alive);
	CHECK(strcmp(again.path, q->path) == 0 && again.token_len == q->token_len);
	CHECK(http_parse_head(head, head_len - 1, &again, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct request q;
	struct err err = {0};
	int r = http_parse_head((const char *)data, size, &q, &err);

	if (r > 0) {
		CHECK((size_t)r <= size && (size_t)r <= LIMIT_HTTP_HEAD);
		check_request(&q, (const char *)data, (size_t)r);
		check_exact(&q, data, (size_t)r);
	} else {
		fuzz_check_result(r, &err);
		CHECK(r == 0 || r == -ERR_INPUT || r == -ERR_LIMIT || r == -ERR_UNSUPPORTED);
		CHECK(r < 0 || size < LIMIT_HTTP_HEAD);
	}
	fuzz_end(used);
	return 0;
}
