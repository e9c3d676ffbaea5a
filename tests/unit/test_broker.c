/* The broker's small parts, each against its own rules. */
#include "broker/cache.h"
#include "broker/store.h"
#include "broker/caveat.h"
#include "broker/config.h"
#include "broker/http.h"
#include "broker/merkle.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/wire.h"
#include "tests/unit/unit.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static void test_paths(void **state)
{
	static const char *const good[] = {"a", "a/b", "a.b/c_d/e-f@g+h", "..a", "a/...", "A/0"};
	static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\n", "a\\b", "a%2fb", "\xc3\xa4", "a*"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(path_valid(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(path_valid(bad[i]));
}

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern, *path;
		bool matches;
	} rows[] = {
		{"*", "a/b", true}, {"a", "a", true}, {"a", "a/b", false}, {"a/*", "a/b", true}, {"a/*", "a/b/c", true}, {"a/*", "a", false},
		{"a/*", "ab", false}, {"a/*", "ab/c", false}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"a/+/c", "a/c", false},
		{"+", "a", true}, {"+", "a/b", false}, {"+/*", "a/b/c", true}, {"a/b", "a", false}, {"a/b/*", "a", false}, {"a/+", "a/", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(policy_pattern_matches(rows[i].pattern, rows[i].path, false, "", false), rows[i].matches);
	assert_true(policy_pattern_matches("a/*", "a", true, "", false));
	assert_false(policy_pattern_matches("a/b/*", "a", true, "", false));
	assert_false(policy_pattern_valid("a*"));
	assert_false(policy_pattern_valid("*/a"));
	assert_false(policy_pattern_valid(""));
	assert_true(policy_pattern_valid("a/+/*"));
	assert_int_equal(policy_op("get", 3), POLICY_GET);
	assert_int_equal(policy_op("gett", 4), 0);
	assert_int_equal(policy_op("", 0), 0);
}

static int weigh(const char *text, uint32_t op, const char *path, uint64_t wall_ms)
{
	size_t n = strlen(path);
	bool folder = n && path[n - 1] == '/';
	char plain[64];
	struct token_facts facts = {.uid = 1000, .gid = 100, .op = op, .path = plain, .folder = folder, .wall_ms = wall_ms};
	const struct token_row row = {.policies = "", .meta = ""};
	struct caveat_context c = {.facts = &facts, .row = &row};
	struct macaroon_caveat caveat = {(const uint8_t *)text, strlen(text)};
	struct err err = {0};

	snprintf(plain, sizeof(plain), "%.*s", (int)(n - folder), path);
	return caveat_check(&caveat, &c, &err);
}

static void test_caveats_hold_and_refuse(void **state)
{
	static const uint64_t noon = 1795521600000; /* 2026-11-24T12:00:00Z */

	(void)state;
	assert_int_equal(weigh("op = get", POLICY_GET, "a/b", 0), 0);
	assert_int_equal(weigh("op = get", POLICY_PUT, "a/b", 0), -ERR_DENIED);
	assert_int_equal(weigh("op in put,get", POLICY_GET, "a/b", 0), 0);
	assert_int_equal(weigh("op in put,get,", POLICY_GET, "a/b", 0), -ERR_DENIED);
	assert_int_equal(weigh("op = get,put", POLICY_GET, "a/b", 0), -ERR_DENIED);
	assert_int_equal(weigh("path under a/", POLICY_GET, "a/b", 0), 0);
	assert_int_equal(weigh("path under a/", POLICY_GET, "ab/b", 0), -ERR_DENIED);
	/* the folder itself, when it is to be listed; a secret of that name is another thing */
	assert_int_equal(weigh("path under a/", POLICY_LIST, "a/", 0), 0);
	assert_int_equal(weigh("path under a/", POLICY_LIST, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("path under a/", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("path under a", POLICY_GET, "a/b", 0), -ERR_DENIED);
	assert_int_equal(weigh("path under ../", POLICY_GET, "a/b", 0), -ERR_DENIED);
	assert_int_equal(weigh("time < 2026-11-24T12:00:00Z", POLICY_GET, "a", noon - 1), 0);
	assert_int_equal(weigh("time < 2026-11-24T12:00:00Z", POLICY_GET, "a", noon), -ERR_DENIED);
	assert_int_equal(weigh("time < 2026-02-30T12:00:00Z", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("time < 2026-11-24 12:00:00Z", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("uid = 1000", POLICY_GET, "a", 0), 0);
	assert_int_equal(weigh("uid = 1001", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("uid = 01000", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("uid = 4294968296", POLICY_GET, "a", 0), -ERR_DENIED); /* 1000 + 2^32 */
	assert_int_equal(weigh("uid = 18446744073709552616", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("gid = 100", POLICY_GET, "a", 0), 0);
	assert_int_equal(weigh("cgroup = 1", POLICY_GET, "a", 0), -ERR_DENIED); /* the root is nobody's */
	assert_int_equal(weigh("job = 0123456789abcdef", POLICY_GET, "a", 0), -ERR_DENIED); /* of no job */
	assert_int_equal(weigh("op in read,create", POLICY_CREATE, "a", 0), 0);
	assert_int_equal(weigh("op = put", POLICY_UPDATE, "a", 0), 0);
	assert_int_equal(weigh("op = deny", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("", POLICY_GET, "a", 0), -ERR_DENIED);
	assert_int_equal(weigh("op = get\r", POLICY_GET, "a", 0), -ERR_DENIED);
}

static void test_merkle_rfc6962(void **state)
{
	/* roots of the well-known list of eight leaves of the certificate-transparency reference tests */
	static const struct {
		const char *leaf, *root;
	} rows[] = {
		{"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
		{"00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
		{"10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
		{"2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
		{"3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
		{"40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
		{"5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
		{"606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
	};
	struct merkle m = {0};
	uint8_t leaf[16], root[32];
	char hex[65];
	size_t n;

	(void)state;
	merkle_root(&m, root);
	sodium_bin2hex(hex, sizeof(hex), root, 32);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	for (size_t i = 0; i < 8; i++) {
		sodium_hex2bin(leaf, sizeof(leaf), rows[i].leaf, strlen(rows[i].leaf), NULL, &n, NULL);
		merkle_add(&m, leaf, n);
		merkle_root(&m, root);
		sodium_bin2hex(hex, sizeof(hex), root, 32);
		assert_string_equal(hex, rows[i].root);
	}
}

static void test_cache_keeps_and_forgets(void **state)
{
	static struct cache c;
	struct secret plain, out = {0};
	struct err err;

	(void)state;
	assert_int_equal(cache_init(&c, 1000, &err), 0);
	assert_int_equal(secret_copy(&plain, "value", 5, &err), 0);
	cache_put(&c, "a/b", 1, 100, &plain);
	assert_true(cache_get(&c, "a/b", 1, 1099, &out));
	assert_memory_equal(out.data, "value", 5);
	secret_clear(&out);
	assert_false(cache_get(&c, "a/b", 2, 200, &out));
	assert_false(cache_get(&c, "a/c", 1, 200, &out));
	assert_false(cache_get(&c, "a/b", 1, 1100, &out));
	cache_expire(&c, 1100);
	assert_int_equal(c.n, 0);
	cache_put(&c, "a/b", 1, 100, &plain);
	cache_put(&c, "a/b", 2, 100, &plain);
	cache_drop(&c, "a/b");
	assert_int_equal(c.n, 0);
	secret_clear(&plain);
	cache_done(&c);
}

/* What the store told of it stands at that generation alone. */
static void test_cache_knows_what_was_told(void **state)
{
	static struct cache c;
	const struct store_version one = {.version = 1, .created_ms = 7}, two = {.version = 2, .created_ms = 8};
	struct store_version v;
	struct secret plain, out = {0};
	struct err err;

	(void)state;
	assert_int_equal(cache_init(&c, 1000, &err), 0);
	assert_int_equal(secret_copy(&plain, "value", 5, &err), 0);
	cache_note(&c, "a/b", &one, 1, true); /* is not there */
	cache_put(&c, "a/b", 1, 100, &plain);
	assert_false(cache_find(&c, "a/b", 0, 0, 200, &v, &out));
	cache_note(&c, "a/b", &one, 5, true);
	assert_false(cache_find(&c, "a/b", 0, 4, 200, &v, &out));
	assert_false(cache_find(&c, "a/b", 0, 6, 200, &v, &out));
	assert_false(cache_find(&c, "a/b", 2, 5, 200, &v, &out));
	assert_false(cache_find(&c, "a/b", 0, 5, 1100, &v, &out));
	assert_true(cache_find(&c, "a/b", 0, 5, 200, &v, &out));
	assert_int_equal(v.created_ms, 7);
	assert_memory_equal(out.data, "value", 5);
	secret_clear(&out);
	/* asked for by its number it is the current one all the same */
	cache_note(&c, "a/b", &one, 5, false);
	assert_true(cache_find(&c, "a/b", 0, 5, 200, &v, &out));
	secret_clear(&out);
	/* a new version, and the old one by its number */
	cache_put(&c, "a/b", 2, 100, &plain);
	cache_note(&c, "a/b", &two, 6, true);
	cache_note(&c, "a/b", &one, 6, false);
	assert_true(cache_find(&c, "a/b", 0, 6, 200, &v, &out));
	assert_int_equal(v.version, 2);
	secret_clear(&out);
	assert_true(cache_find(&c, "a/b", 1, 6, 200, &v, &out));
	assert_int_equal(v.version, 1);
	secret_clear(&out);
	secret_clear(&plain);
	cache_done(&c);
}

static void test_wire_refuses_other_layouts(void **state)
{
	static struct wire_request q;
	static struct wire_reply a;

	(void)state;
	q = (struct wire_request){.magic = WIRE_MAGIC, .op = WIRE_AGREE};
	assert_true(wire_request_valid(&q, wire_request_len(&q)));
	assert_false(wire_request_valid(&q, wire_request_len(&q) - 1));
	assert_false(wire_request_valid(&q, wire_request_len(&q) + 1));
	assert_false(wire_request_valid(&q, 0));
	q.data_len = LIMIT_WIRE_DATA;
	assert_int_equal(wire_request_len(&q), sizeof(q));
	assert_true(wire_request_valid(&q, sizeof(q)));
	q.data_len = LIMIT_WIRE_DATA + 1;
	assert_false(wire_request_valid(&q, wire_request_len(&q)));
	q.data_len = 0;
	q.op = WIRE_N;
	assert_false(wire_request_valid(&q, wire_request_len(&q)));
	q.op = WIRE_AGREE;
	memset(q.text, 'x', sizeof(q.text));
	assert_false(wire_request_valid(&q, wire_request_len(&q)));
	a = (struct wire_reply){.magic = WIRE_MAGIC, .id = 7};
	assert_true(wire_reply_valid(&a, wire_reply_len(&a), 7));
	assert_false(wire_reply_valid(&a, wire_reply_len(&a), 8));
	assert_false(wire_reply_valid(&a, wire_reply_len(&a) - 1, 7));
	a.data_len = 1;
	assert_false(wire_reply_valid(&a, wire_reply_len(&a) - 1, 7));
	a.data_len = LIMIT_WIRE_DATA + 1;
	assert_false(wire_reply_valid(&a, wire_reply_len(&a), 7));
	a.data_len = 0;
	memset(a.status.problem, 'x', sizeof(a.status.problem));
	assert_false(wire_reply_valid(&a, wire_reply_len(&a), 7));
}

static void test_http_lengths(void **state)
{
	static char head[LIMIT_HTTP_HEAD + 100];
	struct request q;
	struct err err;
	int n;

	(void)state;
	/* one byte short of the whole head is not yet a request; at the limit it is one; beyond it never will be */
	n = snprintf(head, sizeof(head), "GET /v1/sys/health HTTP/1.1\r\nA: ");
	memset(head + n, 'x', sizeof(head) - (size_t)n);
	memcpy(head + LIMIT_HTTP_HEAD - 4, "\r\n\r\n", 4);
	assert_int_equal(http_parse_head(head, LIMIT_HTTP_HEAD - 1, &q, &err), 0);
	assert_int_equal(http_parse_head(head, LIMIT_HTTP_HEAD, &q, &err), LIMIT_HTTP_HEAD);
	memcpy(head + LIMIT_HTTP_HEAD - 4, "xxxx\r\n\r\n", 8);
	assert_int_equal(http_parse_head(head, LIMIT_HTTP_HEAD + 4, &q, &err), -ERR_LIMIT);
	n = snprintf(head, sizeof(head), "POST /v1/a HTTP/1.1\r\nContent-Length: %u\r\n\r\n", LIMIT_HTTP_BODY);
	assert_int_equal(http_parse_head(head, (size_t)n, &q, &err), n);
	assert_int_equal(q.body_len, LIMIT_HTTP_BODY);
	n = snprintf(head, sizeof(head), "POST /v1/a HTTP/1.1\r\nContent-Length: %u\r\n\r\n", LIMIT_HTTP_BODY + 1);
	assert_int_equal(http_parse_head(head, (size_t)n, &q, &err), -ERR_LIMIT);
}

/* Every byte at every place of values of many lengths: they are looked at eight at a time. */
static void test_http_bytes(void **state)
{
	char head[80];
	struct request q;
	struct err err;
	size_t n;

	(void)state;
	for (size_t len = 1; len <= 26; len++)
		for (size_t at = 0; at < len; at++)
			for (int byte = 0; byte < 256; byte++) {
				bool text = (byte >= 0x20 && byte < 0x7f) || byte == '\t';

				n = (size_t)snprintf(head, sizeof(head), "GET /v1/a HTTP/1.1\r\nA: ");
				memset(head + n, 'x', len);
				head[n + at] = (char)byte;
				memcpy(head + n + len, "\r\n\r\n", 4);
				n += len + 4;
				assert_int_equal(http_parse_head(head, n, &q, &err), text ? (int)n : -ERR_INPUT);
			}
}

static void test_http_line_ends(void **state)
{
	static const struct {
		const char *head;
		int result; /* 1: all of it */
	} rows[] = {
		{"GET /v1/a HTTP/1.1\r\n\r\n", 1}, {"GET /v1/a HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n", 1}, {"GET /v1/a HTTP/1.1\r\nA:\r\n\r\n", 1},
		{"GET /v1/a HTTP/1.1\r\n", 0}, {"GET /v1/a HTTP/1.1\n\n", 0}, {"GET /v1/a HTTP/1.1\n\r\n", 0}, {"\n\r\n", 0}, {"", 0},
		{"\r\n\r\n", -ERR_INPUT}, {"GET /v1/a HTTP/1.1\nA: b\r\n\r\n", -ERR_INPUT}, {"GET /v1/a HTTP/1.1\r\r\n\r\n", -ERR_INPUT},
		{"GET /v1/a HTTP/1.1\r\nA: b\nC: d\r\n\r\n", -ERR_INPUT}, {"GET /v1/a HTTP/1.1\r\nA: b\rC: d\r\n\r\n", -ERR_INPUT},
		{"GET /v1/a HTTP/1.1\r\nA: b\n\r\n\r\n", -ERR_INPUT}, {"\nGET /v1/a HTTP/1.1\r\n\r\n", -ERR_INPUT},
	};
	struct request q;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n = strlen(rows[i].head);

		assert_int_equal(http_parse_head(rows[i].head, n, &q, &err), rows[i].result == 1 ? (int)n : rows[i].result);
	}
}

UNIT_MAIN(cmocka_unit_test(test_paths), cmocka_unit_test(test_patterns), cmocka_unit_test(test_caveats_hold_and_refuse),
	  cmocka_unit_test(test_merkle_rfc6962), cmocka_unit_test(test_cache_keeps_and_forgets), cmocka_unit_test(test_cache_knows_what_was_told), cmocka_unit_test(test_wire_refuses_other_layouts),
	  cmocka_unit_test(test_http_lengths), cmocka_unit_test(test_http_bytes), cmocka_unit_test(test_http_line_ends))
