#pragma once
/* Which operations named policies allow on a path. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct config_policy;
struct config_rule;

enum policy_op_bit {
	POLICY_GET = 1,
	POLICY_CREATE = 2, /* a secret that is not there yet */
	POLICY_UPDATE = 4, /* a new version of one that is */
	POLICY_DELETE = 8,
	POLICY_LIST = 16,
	POLICY_SIGN = 32,
	POLICY_DECRYPT = 64,
	POLICY_DENY = 128, /* in rules alone: nothing at all, whatever else says */
	POLICY_PUT = POLICY_CREATE | POLICY_UPDATE,
};

/* Vault's words (read, create, update, …) and cotter's (get, put) → bits; 0 for any other word. */
uint32_t policy_op(const char *word, size_t len);
/* One bit's word, as caveats and records have it; "?" for none. */
const char *policy_op_name(uint32_t op);

/* a-z, 0-9 and _, at most 32. */
bool policy_variable_valid(const char *name, size_t len);
/* The value of a variable in "name=value\n" lines; NULL: not there. */
const char *policy_variable(const char *meta, const char *name, size_t len, size_t *ret_len);

/* A secret's path where a component may be '+' (any one), {{name}} (a proven value, of one or more components) and the last
 * '*' (any rest). */
bool policy_pattern_valid(const char *pattern);
/*
 * folder: path is a folder to be listed; a pattern for all below it speaks of the folder itself, too. A value is compared byte by
 * byte: a '+' or '*' in it stands for itself. unresolved: the answer where a {{name}} has no value.
 */
bool policy_pattern_matches(const char *pattern, const char *path, bool folder, const char *meta, bool unresolved);

/* After its rules changed: a rule is found by the components that its pattern begins with, up to the first that stands for several, so
 * that a question costs the same whatever number of rules begins otherwise. A policy without its index denies everything. */
void policy_index(struct config_policy *policy);

enum policy_verdict { POLICY_SILENT, POLICY_ALLOWS, POLICY_DENIES };

/* What is asked of policies. */
struct policy_question {
	const char *path;
	bool folder; /* as above */
	uint32_t op;
	const char *meta;
	const char *literal; /* what the pattern of a rule that allows it must begin with, as it stands there; NULL: with anything */
};

/* What one policy says. ret_rule (may be NULL): the rule that decided. */
enum policy_verdict policy_weigh(const struct config_policy *policy, const struct policy_question *q, const struct config_rule **ret_rule);

struct policy_answer {
	enum policy_verdict verdict;
	const struct config_policy *policy; /* that decided; NULL: none did */
	const struct config_rule *rule;
};

/*
 * What all policies of a holder say, by name (joined by commas; those that the configuration no longer has say nothing), those of
 * the scope in meta and of every scope above it included. One that denies wins.
 */
struct policy_answer policy_decide(const struct config *config, const char *policies, const struct policy_question *q);

/* Fills a role's scope template from meta. false: a name has no value, or the result is no scope. */
bool policy_expand(const char *pattern, const char *meta, char *ret, size_t size);
