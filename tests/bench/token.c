/*
 * What checking a token costs, in this process, without a socket, and how that grows with tokens, policies and rules: one object of JSON,
 * microseconds. Argument: a file for the store.
 */
#include "bench/clock.h"

#include "broker/config.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "broker/token.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

#define CHECKS 4000
#define TOKENS 60000 /* LIMIT_TOKENS is 65,536 */
#define POLICIES 391 /* of LIMIT_RULES each: 100,096 rules */

static const uint8_t key[32] = {1};
static const char *const caveats[] = {"op in get,list", "path under a/", "time < 2100-01-01T00:00:00Z", "uid = 1000", "gid = 1000",
				      "op = get", "path = a/b", "time < 2090-01-01T00:00:00Z"};
static struct config_rule rules[LIMIT_RULES], own[LIMIT_RULES];
static struct config_policy policies[POLICIES];
static struct config config = {.policies = policies, .n_policies = 1};
static struct tokens tokens;

static int narrow(struct secret *text)
{
	for (size_t i = 0; i < sizeof(caveats) / sizeof(caveats[0]); i++) {
		struct secret narrower = {0};

		if (macaroon_narrow((char *)text->data, text->len, caveats[i], &narrower, NULL) < 0)
			return -1;
		secret_clear(text);
		*text = narrower;
	}
	return 0;
}

static struct token_facts facts(void)
{
	return (struct token_facts){.uid = 1000, .gid = 1000, .op = POLICY_GET, .path = "a/b", .wall_ms = token_wall_ms(), .boot_ms = token_boot_ms()};
}

/* Parse, row, chain, caveats, policy: as a request pays it. */
static double check_us(const struct secret *text)
{
	const struct token_facts f = facts();
	double start = clock_us();
	struct token_row *row;
	struct macaroon *m;

	for (int i = 0; i < CHECKS; i++) {
		if (macaroon_parse((char *)text->data, text->len, &m, NULL) < 0 || token_check(&tokens, m, &f, &row, NULL, NULL) < 0)
			exit(1);
		secret_free(m);
	}
	return (clock_us() - start) / CHECKS;
}

/* A token that was verified: the same without parsing and without the chain. */
static double again_us(const struct secret *text)
{
	const struct token_facts f = facts();
	struct token_row *row;
	struct macaroon *m;
	double start;

	if (macaroon_parse((char *)text->data, text->len, &m, NULL) < 0 || token_check(&tokens, m, &f, &row, NULL, NULL) < 0)
		exit(1);
	start = clock_us();
	for (int i = 0; i < CHECKS; i++)
		if (!token_may(&tokens, m, &f))
			exit(1);
	start = (clock_us() - start) / CHECKS;
	secret_free(m);
	return start;
}

/* The bare chain: an HMAC for the identifier and one a caveat. */
static double hmac_us(void)
{
	uint8_t mac[32] = {0};
	double start = clock_us();

	for (int i = 0; i < CHECKS; i++)
		for (size_t k = 0; k <= sizeof(caveats) / sizeof(caveats[0]); k++)
			crypto_auth_hmacsha256(mac, (const uint8_t *)caveats[k ? k - 1 : 0], strlen(caveats[k ? k - 1 : 0]), mac);
	return (clock_us() - start) / CHECKS;
}

static double policy_us(const char *name)
{
	const struct policy_question q = {.path = "a/b", .op = POLICY_GET, .meta = ""};
	double start = clock_us();

	for (int i = 0; i < CHECKS; i++)
		if (policy_decide(&config, name, &q).verdict != POLICY_ALLOWS)
			exit(1);
	return (clock_us() - start) / CHECKS;
}

/* The last n. */
static void give_rules(struct config_policy *policy, size_t n)
{
	policy->rules = own + LIMIT_RULES - n;
	policy->n_rules = n;
	policy_index(policy);
}

static void make_policies(void)
{
	/* a folder each, as for the teams of an organisation; the last one is asked for */
	for (size_t i = 0; i < LIMIT_RULES; i++) {
		rules[i].allow = POLICY_GET;
		snprintf(rules[i].pattern, sizeof(rules[i].pattern), "a/team%zu/*", i);
	}
	snprintf(rules[LIMIT_RULES - 1].pattern, sizeof(rules[0].pattern), "a/*");
	for (size_t i = 0; i < POLICIES; i++) {
		policies[i] = (struct config_policy){.rules = rules, .n_rules = LIMIT_RULES};
		snprintf(policies[i].name, sizeof(policies[i].name), "p%05zu", i);
		policy_index(&policies[i]);
	}
	/* one of its own: it is indexed with fewer */
	memcpy(own, rules, sizeof(own));
	give_rules(&policies[0], 1);
}

static void grow_tokens(const struct secret *text, const struct token_request *q)
{
	struct token_row *row;

	printf("\"tokens\": [");
	for (size_t n = 1; n <= TOKENS; n = n == 10000 ? TOKENS : n * 10) {
		while (tokens.n < n) {
			struct secret made = {0};

			if (token_make(&tokens, q, &made, &row, NULL) < 0)
				exit(1);
			secret_clear(&made);
		}
		printf("%s[%zu, %.3f]", n > 1 ? ", " : "", n, check_us(text));
		if (n == TOKENS)
			break;
	}
	printf("]");
}

/* The last of n policies that have 256 rules each, but for the first; and one policy of n rules. */
static void grow_policies(void)
{
	printf(", \"policies\": [");
	for (size_t n = 2; n <= POLICIES; n = n == 2 ? 40 : n == 40 ? POLICIES : POLICIES + 1) {
		config.n_policies = n;
		printf("%s[%zu, %.3f]", n > 2 ? ", " : "", (size_t)LIMIT_RULES * (n - 1), policy_us(policies[n - 1].name));
	}
	printf("], \"rules\": [");
	config.n_policies = 1;
	for (size_t n = 1; n <= LIMIT_RULES; n *= 16) {
		give_rules(&policies[0], n);
		printf("%s[%zu, %.3f]", n > 1 ? ", " : "", n, policy_us(policies[0].name));
	}
	printf("]");
}

int main(int argc, char **argv)
{
	static struct store store;
	const struct token_request q = {.policies = "p00000", .meta = "", .path = "", .display = "", .uid = 1000, .uses = -1, .ttl_ms = 3600000, .by_operator = true};
	struct secret text = {0}, eight = {0};
	struct token_row *row;

	make_policies();
	if (argc < 2 || secret_arena_init(1u << 20, NULL) < 0 || store_open(argv[1], &store, NULL) < 0 || store_unlock(&store, key, NULL) < 0 ||
	    tokens_load(&tokens, &store, &config, key, NULL) < 0 || token_make(&tokens, &q, &text, &row, NULL) < 0 ||
	    secret_copy(&eight, text.data, text.len, NULL) < 0 || narrow(&eight) < 0)
		return 1;
	printf("{\"check\": %.3f, \"check_8\": %.3f, \"again_8\": %.3f, \"hmac_9\": %.3f, ", check_us(&text), check_us(&eight), again_us(&eight), hmac_us());
	grow_tokens(&eight, &q);
	grow_policies();
	puts("}");
	return 0;
}
