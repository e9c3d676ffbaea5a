#include "broker/policy.h"

#include "broker/config.h"
#include "common/bind.h"

#include <string.h>

/* The first word of a bit is its name. */
static const struct {
	const char *word;
	uint32_t bits;
} ops[] = {
	{"get", POLICY_GET},   {"create", POLICY_CREATE}, {"update", POLICY_UPDATE},   {"delete", POLICY_DELETE}, {"list", POLICY_LIST},
	{"sign", POLICY_SIGN}, {"put", POLICY_PUT},	  {"decrypt", POLICY_DECRYPT}, {"deny", POLICY_DENY},	  {"read", POLICY_GET},
};

#define N_OPS (sizeof(ops) / sizeof(ops[0]))

uint32_t policy_op(const char *word, size_t len)
{
	for (size_t i = 0; i < N_OPS; i++)
		if (strlen(ops[i].word) == len && memcmp(ops[i].word, word, len) == 0)
			return ops[i].bits;
	return 0;
}

const char *policy_op_name(uint32_t op)
{
	for (size_t i = 0; i < N_OPS; i++)
		if (ops[i].bits == op)
			return ops[i].word;
	return "?";
}

/* ---- variables ------------------------------------------------------------------------------------------------- */

bool policy_variable_valid(const char *name, size_t len)
{
	if (len == 0 || len > 32)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || name[i] == '_'))
			return false;
	return true;
}

const char *policy_variable(const char *meta, const char *name, size_t len, size_t *ret_len)
{
	for (; meta && *meta; meta += strcspn(meta, "\n") + 1) {
		size_t n = strcspn(meta, "\n");

		if (n > len && memcmp(meta, name, len) == 0 && meta[len] == '=') {
			*ret_len = n - len - 1;
			return meta + len + 1;
		}
		if (!meta[n])
			break;
	}
	return NULL;
}

/* "{{name}}" as a whole component of n bytes: the name's length, else 0. */
static size_t template_name(const char *component, size_t n)
{
	if (n < 5 || memcmp(component, "{{", 2) != 0 || memcmp(component + n - 2, "}}", 2) != 0)
		return 0;
	return policy_variable_valid(component + 2, n - 4) ? n - 4 : 0;
}

/* ---- patterns -------------------------------------------------------------------------------------------------- */

bool policy_pattern_valid(const char *pattern)
{
	char path[LIMIT_PATH_LEN + 1];
	size_t n = strlen(pattern), len = 0, c;

	if (n == 0 || n > LIMIT_PATH_LEN)
		return false;
	if (strcmp(pattern, "*") == 0)
		return true;
	/* with every {{name}} replaced by one valid component, and without the last '*', it is a path; '+' is a valid component */
	for (;; pattern += c + 1) {
		c = strcspn(pattern, "/");
		if (pattern[0] == '*' && !pattern[1] && len) {
			path[len - 1] = '\0';
			return path_valid(path);
		}
		if (template_name(pattern, c)) {
			path[len++] = 'x';
		} else {
			memcpy(path + len, pattern, c);
			len += c;
		}
		path[len] = '\0';
		if (!pattern[c])
			return path_valid(path);
		path[len++] = '/';
	}
}

/* The part of path that the pattern's component of a bytes takes; false: it does not fit. */
static bool take(const char *pattern, size_t a, const char *path, const char *meta, size_t *ret)
{
	size_t name = template_name(pattern, a), b = strcspn(path, "/"), len = a;
	const char *want = pattern;

	if (a == 1 && pattern[0] == '+') {
		*ret = b;
		return b > 0;
	}
	if (name)
		want = policy_variable(meta, pattern + 2, name, &len);
	*ret = len;
	return want && len && strncmp(path, want, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

bool policy_pattern_matches(const char *pattern, const char *path, bool folder, const char *meta, bool unresolved)
{
	size_t a, b;

	for (;;) {
		if (strcmp(pattern, "*") == 0)
			return true;
		a = strcspn(pattern, "/");
		if (template_name(pattern, a) && !policy_variable(meta, pattern + 2, a - 4, &b))
			return unresolved;
		if (!take(pattern, a, path, meta, &b))
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

bool policy_expand(const char *pattern, const char *meta, char *ret, size_t size)
{
	size_t a, len = 0, n;
	const char *value;

	for (;; pattern += a + 1) {
		a = strcspn(pattern, "/");
		value = pattern;
		n = a;
		if (template_name(pattern, a))
			value = policy_variable(meta, pattern + 2, a - 4, &n);
		if (!value || len + n + 2 > size)
			return false;
		memcpy(ret + len, value, n);
		len += n;
		if (!pattern[a])
			break;
		ret[len++] = '/';
	}
	ret[len] = '\0';
	return path_valid(ret);
}

/* ---- index ----------------------------------------------------------------------------------------------------- */

#define HASH_BEGIN 2166136261u /* FNV-1a: whoever writes the policies gains nothing by a collision */

static uint32_t hash_component(uint32_t hash, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)p[i]) * 16777619u;
	return (hash ^ '/') * 16777619u;
}

/* Of the components before the first that stands for several; those of a path that fits begin the same. */
static uint32_t hash_begin(const char *pattern)
{
	uint32_t hash = HASH_BEGIN;

	for (size_t n;; pattern += n + 1) {
		n = strcspn(pattern, "/");
		if ((n == 1 && strchr("+*", pattern[0])) || template_name(pattern, n))
			return hash;
		hash = hash_component(hash, pattern, n);
		if (!pattern[n])
			return hash;
	}
}

void policy_index(struct config_policy *policy)
{
	memset(policy->by_begin, 0, sizeof(policy->by_begin));
	for (size_t i = policy->n_rules; i-- > 0;) {
		struct config_rule *rule = &policy->rules[i];
		uint16_t *head;

		rule->begin = hash_begin(rule->pattern);
		head = &policy->by_begin[rule->begin % CONFIG_RULE_BUCKETS];
		rule->next = *head;
		*head = (uint16_t)(i + 1);
	}
	policy->indexed = true;
}

/* ---- verdicts -------------------------------------------------------------------------------------------------- */

static bool speaks(const struct config_rule *rule, const struct policy_question *q)
{
	const bool denies = rule->allow & POLICY_DENY;

	if (!denies && (!(rule->allow & q->op) || (q->literal && strncmp(rule->pattern, q->literal, strlen(q->literal)) != 0)))
		return false;
	/* what cannot be told from what is denied is denied */
	return policy_pattern_matches(rule->pattern, q->path, q->folder, q->meta, denies);
}

/* The first rule, as they stand in the policy, of those whose patterns begin so, or one before it. */
static void weigh_some(const struct config_policy *policy, uint32_t begin, const struct policy_question *q, enum policy_verdict *verdict,
		       const struct config_rule **found)
{
	const struct config_rule *rule;

	for (size_t i = policy->by_begin[begin % CONFIG_RULE_BUCKETS]; i; i = rule->next) {
		enum policy_verdict says;

		rule = &policy->rules[i - 1];
		says = rule->allow & POLICY_DENY ? POLICY_DENIES : POLICY_ALLOWS;
		/* one that denies counts for more; else the first does */
		if (rule->begin != begin || *verdict > says || (*verdict == says && *found < rule) || !speaks(rule, q))
			continue;
		*verdict = says;
		*found = rule;
	}
}

enum policy_verdict policy_weigh(const struct config_policy *policy, const struct policy_question *q, const struct config_rule **ret_rule)
{
	enum policy_verdict verdict = POLICY_SILENT;
	const struct config_rule *found = NULL;
	const char *path = q->path;
	uint32_t hash = HASH_BEGIN;
	size_t n;

	if (!policy->indexed)
		return POLICY_DENIES;
	for (;; path += n + 1) {
		weigh_some(policy, hash, q, &verdict, &found);
		n = strcspn(path, "/");
		hash = hash_component(hash, path, n);
		if (!path[n])
			break;
	}
	weigh_some(policy, hash, q, &verdict, &found);
	if (ret_rule && found)
		*ret_rule = found;
	return verdict;
}

/* Weighs one more policy; true: nothing can change the answer any more. */
static bool decide_one(const struct config *config, const char *name, size_t len, const struct policy_question *q, struct policy_answer *a)
{
	char text[LIMIT_NAME_LEN + 1];
	const struct config_policy *policy;
	const struct config_rule *rule = NULL;
	enum policy_verdict verdict;

	if (len > LIMIT_NAME_LEN)
		return false;
	memcpy(text, name, len);
	text[len] = '\0';
	policy = config_policy(config, text);
	verdict = policy ? policy_weigh(policy, q, &rule) : POLICY_SILENT;
	if (verdict > a->verdict)
		*a = (struct policy_answer){verdict, policy, rule};
	return a->verdict == POLICY_DENIES;
}

struct policy_answer policy_decide(const struct config *config, const char *policies, const struct policy_question *q)
{
	struct policy_answer a = {0};
	const struct config_scope *scope;
	char name[LIMIT_PATH_LEN + 1];
	size_t n, len = 0;
	const char *own;

	for (;; policies += n + 1) {
		n = strcspn(policies, ",");
		if (decide_one(config, policies, n, q, &a))
			return a;
		if (!policies[n])
			break;
	}
	/* the scope's own, and downward from the organisation */
	own = policy_variable(q->meta, "scope", 5, &len);
	for (size_t i = 1; own && len <= LIMIT_PATH_LEN && i <= len; i++) {
		if (i < len && own[i] != '/')
			continue;
		memcpy(name, own, i);
		name[i] = '\0';
		scope = config_scope(config, name);
		for (size_t k = 0; scope && k < scope->n_policies; k++)
			if (decide_one(config, scope->policies[k], strlen(scope->policies[k]), q, &a))
				return a;
	}
	return a;
}
