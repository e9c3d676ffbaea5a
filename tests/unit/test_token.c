/* Tokens against clocks, epochs and their lineage; and the small parts that identities are weighed with. */
#include "broker/cgroup.h"
#include "broker/config.h"
#include "broker/duration.h"
#include "broker/glob.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "broker/token.h"
#include "common/cleanup.h"
#include "tests/unit/unit.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct world {
	struct store store;
	struct tokens tokens;
	struct config config;
	struct config_policy policy;
	struct config_rule rule;
	char dir[32], path[64];
};

static void world_init(struct world *w)
{
	static const uint8_t key[32] = {1};
	struct err err = {0};

	memset(w, 0, sizeof(*w));
	snprintf(w->dir, sizeof(w->dir), "/tmp/cotter-unit-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/store.db", w->dir);
	snprintf(w->policy.name, sizeof(w->policy.name), "p");
	snprintf(w->rule.pattern, sizeof(w->rule.pattern), "a/*");
	w->rule.allow = POLICY_GET;
	w->policy.rules = &w->rule;
	w->policy.n_rules = 1;
	policy_index(&w->policy);
	w->config.policies = &w->policy;
	w->config.n_policies = 1;
	assert_int_equal(store_open(w->path, &w->store, &err), 0);
	assert_int_equal(store_unlock(&w->store, key, &err), 0);
	assert_int_equal(tokens_load(&w->tokens, &w->store, &w->config, key, &err), 0);
}

static void world_done(struct world *w)
{
	char command[64];

	tokens_done(&w->tokens);
	store_close(&w->store);
	snprintf(command, sizeof(command), "rm -r %s", w->dir);
	assert_int_equal(system(command), 0);
}

static struct token_row *make(struct world *w, struct token_row *parent, uint64_t ttl_ms, struct secret *ret_text)
{
	const struct token_request q = {.policies = "p", .meta = "", .path = "", .display = "", .uid = 1000, .uses = -1, .ttl_ms = ttl_ms, .parent = parent};
	struct token_row *row = NULL;

	assert_int_equal(token_make(&w->tokens, &q, ret_text, &row, NULL), 0);
	return row;
}

static int check(struct world *w, const struct secret *text, uint32_t uid, uint64_t wall_ms, uint64_t boot_ms)
{
	const struct token_facts facts = {.uid = uid, .op = POLICY_GET, .path = "a/b", .wall_ms = wall_ms, .boot_ms = boot_ms};
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	struct token_row *row;

	assert_int_equal(macaroon_parse((const char *)text->data, text->len, &m, NULL), 0);
	return token_check(&w->tokens, m, &facts, &row, NULL, NULL);
}

static void test_a_clock_set_back_revives_nothing(void **state)
{
	static struct world w;
	CLEANUP(secret_clear) struct secret text = {0}, narrowed = {0};
	uint64_t boot = token_boot_ms(), wall = token_wall_ms();

	(void)state;
	world_init(&w);
	make(&w, NULL, 60000, &text);
	assert_int_equal(check(&w, &text, 1000, wall, boot), 0);
	assert_int_equal(check(&w, &text, 1001, wall, boot), -ERR_DENIED);
	assert_int_equal(check(&w, &text, 1000, wall, boot + 61000), -ERR_DENIED);
	/* a day back by the wall clock, a minute on by the other */
	assert_int_equal(check(&w, &text, 1000, wall - 86400000, boot + 61000), -ERR_DENIED);
	/* the caveat goes by the wall clock, and the deadline holds beside it */
	assert_int_equal(macaroon_narrow((char *)text.data, text.len, "time < 2100-01-01T00:00:00Z", &narrowed, NULL), 0);
	assert_int_equal(check(&w, &narrowed, 1000, wall, boot), 0);
	assert_int_equal(check(&w, &narrowed, 1000, 4102444800000, boot), -ERR_DENIED);
	assert_int_equal(check(&w, &narrowed, 1000, wall - 86400000, boot + 61000), -ERR_DENIED);
	world_done(&w);
}

static void test_a_lineage_goes_together(void **state)
{
	static struct world w;
	CLEANUP(secret_clear) struct secret a = {0}, b = {0}, c = {0}, other = {0};
	uint64_t boot = token_boot_ms(), wall = token_wall_ms();
	struct token_row *first, *second;
	size_t n = 0;

	(void)state;
	world_init(&w);
	first = make(&w, NULL, 60000, &a);
	second = make(&w, first, 60000, &b);
	make(&w, second, 60000, &c);
	make(&w, NULL, 60000, &other);
	assert_int_equal(token_revoke(&w.tokens, second, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_int_equal(check(&w, &a, 1000, wall, boot), 0);
	assert_int_equal(check(&w, &b, 1000, wall, boot), -ERR_DENIED);
	assert_int_equal(check(&w, &c, 1000, wall, boot), -ERR_DENIED);
	assert_int_equal(tokens_revoke_all(&w.tokens, NULL), 0);
	assert_int_equal(w.tokens.n, 0);
	assert_int_equal(w.tokens.epoch, 2);
	assert_int_equal(check(&w, &a, 1000, wall, boot), -ERR_DENIED);
	assert_int_equal(check(&w, &other, 1000, wall, boot), -ERR_DENIED);
	world_done(&w);
}

/* What was verified is known by every byte of its text; that it is genuine says nothing of its row. */
static void test_a_token_that_was_seen(void **state)
{
	static struct world w;
	static char forged[LIMIT_TOKEN_TEXT];
	CLEANUP(secret_clear) struct secret text = {0}, narrowed = {0};
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL, *again = NULL, *other = NULL;
	struct token_facts facts = {.uid = 1000, .op = POLICY_GET, .path = "a/b", .wall_ms = token_wall_ms(), .boot_ms = token_boot_ms()};
	struct token_row *row, *made;

	(void)state;
	world_init(&w);
	made = make(&w, NULL, 60000, &text);
	assert_int_equal(macaroon_narrow((char *)text.data, text.len, "path = a/b", &narrowed, NULL), 0);
	assert_int_equal(token_seen_parse(&w.tokens.seen, (char *)narrowed.data, narrowed.len, &m, NULL), 0);
	assert_false(m->verified);
	assert_int_equal(token_check(&w.tokens, m, &facts, &row, NULL, NULL), 0);
	token_seen_put(&w.tokens.seen, (char *)narrowed.data, narrowed.len, m);
	assert_int_equal(token_seen_parse(&w.tokens.seen, (char *)narrowed.data, narrowed.len, &again, NULL), 0);
	assert_true(again->verified);
	assert_ptr_equal(again->caveats[0].p, again->raw + (m->caveats[0].p - m->raw));
	assert_memory_equal(again->sigs[0], m->sigs[0], MACAROON_SIG_LEN);
	assert_int_equal(token_check(&w.tokens, again, &facts, &row, NULL, NULL), 0);
	/* its caveat holds as before */
	facts.path = "a/c";
	assert_int_equal(token_check(&w.tokens, again, &facts, &row, NULL, NULL), -ERR_DENIED);
	facts.path = "a/b";
	/* the same end, and so the same place, behind another caveat: "path = a/b" becomes "path = a/c" */
	memcpy(forged, narrowed.data, narrowed.len);
	for (size_t i = sizeof(MACAROON_PREFIX) - 1; i < narrowed.len - 48 && !other; i++) {
		forged[i] = forged[i] == 'A' ? 'B' : 'A';
		if (token_seen_parse(&w.tokens.seen, forged, narrowed.len, &other, NULL) == 0) {
			assert_false(other->verified);
			assert_int_equal(token_check(&w.tokens, other, &facts, &row, NULL, NULL), -ERR_DENIED);
		}
		forged[i] = (char)narrowed.data[i];
	}
	assert_non_null(other);
	assert_int_equal(token_revoke(&w.tokens, made, &(size_t){0}, NULL), 0);
	assert_int_equal(token_check(&w.tokens, again, &facts, &row, NULL, NULL), -ERR_DENIED);
	assert_int_equal(tokens_revoke_all(&w.tokens, NULL), 0);
	secret_free(m);
	assert_int_equal(token_seen_parse(&w.tokens.seen, (char *)narrowed.data, narrowed.len, &m, NULL), 0);
	assert_false(m->verified);
	world_done(&w);
}

static void test_globs(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool whole, by_component;
	} rows[] = {
		{"a", "a", true, true}, {"a", "b", false, false}, {"*", "", true, true}, {"*", "a/b", true, false}, {"a*", "abc", true, true},
		{"a*c", "abc", true, true}, {"a*c", "a/c", true, false}, {"a*c", "ab", false, false}, {"*a*b*", "xaxbx", true, true},
		{"**", "a/b", true, true}, {"a/**", "a/b/c", true, true}, {"a/**", "a", false, false}, {"a/*", "a/b", true, true}, {"", "", true, true},
		{"a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(glob_match(rows[i].pattern, rows[i].text), rows[i].whole);
		assert_int_equal(glob_match_path(rows[i].pattern, rows[i].text), rows[i].by_component);
	}
}

static void test_units(void **state)
{
	static const struct {
		const char *path, *unit;
	} rows[] = {
		{"/system.slice/runner.service", "runner.service"}, {"/a.slice/a-b.slice/x.scope/y/z", "x.scope"}, {"/x.service", "x.service"},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/runner.service", "user@1000.service"}, {"/", NULL}, {"/a.slice", NULL}, {"", NULL},
		{"/.slice/x", ".slice"},
	};
	char unit[64];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(cgroup_unit(rows[i].path, unit, sizeof(unit)), rows[i].unit != NULL);
		if (rows[i].unit)
			assert_string_equal(unit, rows[i].unit);
	}
	assert_false(cgroup_unit("/abcdefgh", unit, 4));
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t s;
	} rows[] = {{"90", 90}, {"30s", 30}, {"5m", 300}, {"2h", 7200}, {"1d", 86400}, {"", 0}, {"s", 0}, {"-1", 0}, {"1x", 0}, {"1 s", 0},
		    {"2d", 0}, {"99999999999999999999", 0}, {"0", 0}, {"1e3", 0}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(duration_parse(rows[i].text, strlen(rows[i].text), 86400), rows[i].s);
}

static void test_templates(void **state)
{
	static const char meta[] = "role=r\nproject=acme/web\nid=+\nscope=acme/web\n";
	static const struct {
		const char *pattern, *path;
		bool matches, unresolved;
	} rows[] = {
		{"{{project}}/*", "acme/web/x", true, true}, {"{{project}}/*", "acme/web", false, false}, {"{{project}}/*", "acme/webx/x", false, false},
		{"{{project}}", "acme/web", true, true}, {"x/{{project}}/y", "x/acme/web/y", true, true}, {"{{id}}/*", "a/b", false, false},
		{"{{id}}/*", "+/b", true, true}, {"{{none}}/*", "a/b", false, true}, {"{{proj}}/*", "acme/web/x", false, true},
		{"a/{{none}}", "b/c", false, false},
	};
	char scope[64];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(policy_pattern_valid(rows[i].pattern));
		assert_int_equal(policy_pattern_matches(rows[i].pattern, rows[i].path, false, meta, false), rows[i].matches);
		assert_int_equal(policy_pattern_matches(rows[i].pattern, rows[i].path, false, meta, true), rows[i].unresolved);
	}
	assert_false(policy_pattern_valid("x{{a}}"));
	assert_false(policy_pattern_valid("{{A}}"));
	assert_false(policy_pattern_valid("{{}}"));
	assert_true(policy_expand("org/{{project}}", meta, scope, sizeof(scope)));
	assert_string_equal(scope, "org/acme/web");
	assert_false(policy_expand("{{none}}", meta, scope, sizeof(scope)));
	assert_false(policy_expand("{{project}}", meta, scope, 4));
}

/* One rule after the other. */
static enum policy_verdict weigh_all(const struct config_policy *p, const struct policy_question *q, const struct config_rule **ret_rule)
{
	enum policy_verdict verdict = POLICY_SILENT;

	for (size_t i = 0; i < p->n_rules && verdict != POLICY_DENIES; i++) {
		const struct config_rule *rule = &p->rules[i];
		bool denies = rule->allow & POLICY_DENY;

		if (!denies && (verdict == POLICY_ALLOWS || !(rule->allow & q->op) || (q->literal && strncmp(rule->pattern, q->literal, strlen(q->literal)) != 0)))
			continue;
		if (!policy_pattern_matches(rule->pattern, q->path, q->folder, q->meta, denies))
			continue;
		verdict = denies ? POLICY_DENIES : POLICY_ALLOWS;
		*ret_rule = rule;
	}
	return verdict;
}

/* Some components of a pattern, or of a path; last: what may only stand at its end. */
static void make_path(char ret[LIMIT_PATH_LEN + 1], const char *const *parts, uint32_t n_parts, const char *last)
{
	uint32_t n = randombytes_uniform(4);

	ret[0] = '\0';
	for (uint32_t i = 0; i <= n; i++)
		snprintf(ret + strlen(ret), LIMIT_PATH_LEN + 1 - strlen(ret), "%s%s", i ? "/" : "", parts[randombytes_uniform(n_parts)]);
	if (last && randombytes_uniform(2))
		snprintf(ret + strlen(ret), LIMIT_PATH_LEN + 1 - strlen(ret), "/%s", last);
}

/* Whatever the rules and the question, the index finds what a look at every rule finds, and the same rule. */
static void test_the_index_of_rules(void **state)
{
	static const char *const parts[] = {"a", "b", "ab", "+", "{{x}}", "{{y}}", "{{none}}"};
	static struct config_rule rules[LIMIT_RULES];
	static struct config_policy policy = {.rules = rules};
	size_t counts[3] = {0};

	(void)state;
	for (int round = 0; round < 2000; round++) {
		policy.n_rules = 1 + randombytes_uniform(round % 10 ? 12 : LIMIT_RULES);
		for (size_t i = 0; i < policy.n_rules; i++) {
			make_path(rules[i].pattern, parts, 7, "*");
			if (randombytes_uniform(30) == 0)
				strcpy(rules[i].pattern, "*");
			assert_true(policy_pattern_valid(rules[i].pattern));
			rules[i].allow = randombytes_uniform(4) ? 1u << randombytes_uniform(3) : (uint32_t)POLICY_DENY;
		}
		policy_index(&policy);
		for (int i = 0; i < 20; i++) {
			char path[LIMIT_PATH_LEN + 1];
			const struct policy_question q = {.path = path, .folder = randombytes_uniform(2), .op = 1u << randombytes_uniform(3),
							  .meta = "x=a\ny=a/b\n", .literal = randombytes_uniform(3) ? NULL : "a/"};
			const struct config_rule *found = NULL, *want = NULL;
			enum policy_verdict verdict;

			make_path(path, parts, 3, NULL);
			verdict = policy_weigh(&policy, &q, &found);
			assert_int_equal(verdict, weigh_all(&policy, &q, &want));
			assert_ptr_equal(found, want);
			counts[verdict]++;
		}
	}
	assert_true(counts[POLICY_SILENT] > 100 && counts[POLICY_ALLOWS] > 100 && counts[POLICY_DENIES] > 100);
}

UNIT_MAIN(cmocka_unit_test(test_a_clock_set_back_revives_nothing), cmocka_unit_test(test_a_lineage_goes_together), cmocka_unit_test(test_a_token_that_was_seen), cmocka_unit_test(test_globs),
	  cmocka_unit_test(test_units), cmocka_unit_test(test_durations), cmocka_unit_test(test_templates), cmocka_unit_test(test_the_index_of_rules))
