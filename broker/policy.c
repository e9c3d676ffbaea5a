#include "broker/policy.h"

#include "broker/config.h"
#include "common/bind.h"

#include <string.h>

static const struct {
	const char *word;
	uint32_t bit;
} ops[] = {{"get", POLICY_GET}, {"put", POLICY_PUT}, {"delete", POLICY_DELETE}, {"list", POLICY_LIST}};

#define N_OPS (sizeof(ops) / sizeof(ops[0]))

uint32_t policy_op(const char *word, size_t len)
{
	for (size_t i = 0; i < N_OPS; i++)
		if (strlen(ops[i].word) == len && memcmp(ops[i].word, word, len) == 0)
			return ops[i].bit;
	return 0;
}

const char *policy_op_name(uint32_t op)
{
	for (size_t i = 0; i < N_OPS; i++)
		if (ops[i].bit == op)
			return ops[i].word;
	return "?";
}

bool policy_pattern_valid(const char *pattern)
{
	char path[LIMIT_PATH_LEN + 1];
	size_t n = strlen(pattern);

	if (n == 0 || n > LIMIT_PATH_LEN)
		return false;
	if (strcmp(pattern, "*") == 0)
		return true;
	memcpy(path, pattern, n + 1);
	if (n >= 2 && strcmp(path + n - 2, "/*") == 0)
		path[n - 2] = '\0';
	return path_valid(path); /* '+' is a valid component by itself */
}

bool policy_pattern_matches(const char *pattern, const char *path, bool folder)
{
	size_t a, b;

	for (;;) {
		if (strcmp(pattern, "*") == 0)
			return true;
		a = strcspn(pattern, "/");
		b = strcspn(path, "/");
		if (!(a == 1 && pattern[0] == '+' && b > 0) && (a != b || memcmp(pattern, path, a) != 0))
			return false;
		/* a pattern for all below a folder also speaks of the folder itself, for list */
		if (!path[b])
			return !pattern[a] || (folder && strcmp(pattern + a, "/*") == 0);
		if (!pattern[a])
			return false;
		pattern += a + 1;
		path += b + 1;
	}
}

bool policy_allows(const struct config_policy *policy, const char *path, uint32_t op)
{
	for (size_t i = 0; i < policy->n_rules; i++)
		if ((policy->rules[i].allow & op) && policy_pattern_matches(policy->rules[i].pattern, path, op == POLICY_LIST))
			return true;
	return false;
}
