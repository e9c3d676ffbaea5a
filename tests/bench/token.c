/* What checking and making a token costs, in this process, without a socket: one line of JSON. */
#include "broker/config.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "broker/token.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 20000

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int narrow(struct secret *text, size_t n)
{
	static const char *const caveats[] = {"op in get,list", "path under a/", "time < 2100-01-01T00:00:00Z", "uid = 1000", "gid = 1000",
					      "op = get", "path = a/b", "time < 2090-01-01T00:00:00Z"};

	for (size_t i = 0; i < n; i++) {
		struct secret narrower = {0};

		if (macaroon_narrow((char *)text->data, text->len, caveats[i], &narrower, NULL) < 0)
			return -1;
		secret_clear(text);
		*text = narrower;
	}
	return 0;
}

/* Parse, row, chain, caveats, policy: as a request pays it. */
static double check_us(struct tokens *t, const struct secret *text)
{
	const struct token_facts facts = {.uid = 1000, .gid = 1000, .op = POLICY_GET, .path = "a/b", .wall_ms = token_wall_ms(), .boot_ms = token_boot_ms()};
	double start = now_us();
	struct token_row *row;
	struct macaroon *m;

	for (int i = 0; i < ROUNDS; i++) {
		if (macaroon_parse((char *)text->data, text->len, &m, NULL) < 0 || token_check(t, m, &facts, &row, NULL, NULL) < 0)
			exit(1);
		secret_free(m);
	}
	return (now_us() - start) / ROUNDS;
}

int main(int argc, char **argv)
{
	static const uint8_t key[32] = {1};
	static struct store store;
	static struct tokens tokens;
	static struct config_rule rule = {.pattern = "a/*", .allow = POLICY_GET};
	static struct config_policy policy = {.name = "p", .rules = &rule, .n_rules = 1};
	static struct config config = {.policies = &policy, .n_policies = 1};
	const struct token_request q = {.policies = "p", .meta = "", .path = "", .display = "", .uid = 1000, .uses = -1, .ttl_ms = 3600000, .by_operator = true};
	struct secret text = {0}, eight = {0};
	struct token_row *row;
	double plain, narrowed, start;
	int n = argc > 2 ? atoi(argv[2]) : 2000;

	if (argc < 2 || secret_arena_init(1u << 20, NULL) < 0 || store_open(argv[1], &store, NULL) < 0 || store_unlock(&store, key, NULL) < 0 ||
	    tokens_load(&tokens, &store, &config, key, NULL) < 0 || token_make(&tokens, &q, &text, &row, NULL) < 0 ||
	    secret_copy(&eight, text.data, text.len, NULL) < 0 || narrow(&eight, 8) < 0)
		return 1;
	plain = check_us(&tokens, &text);
	narrowed = check_us(&tokens, &eight);
	start = now_us();
	for (int i = 0; i < n; i++) {
		struct secret made = {0};

		if (token_make(&tokens, &q, &made, &row, NULL) < 0)
			return 1;
		secret_clear(&made);
	}
	printf("{\"check_us\": %.2f, \"check_8_caveats_us\": %.2f, \"mint_us\": %.1f, \"tokens\": %zu, \"check_8_then_us\": %.2f}\n", plain, narrowed,
	       (now_us() - start) / n, tokens.n, check_us(&tokens, &eight));
	return 0;
}
