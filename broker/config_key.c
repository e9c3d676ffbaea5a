#include "broker/config_key.h"

#include "broker/config.h"
#include "broker/config_role.h"
#include "broker/policy.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_DEFAULT_MS 600000u

void *config_new_key_rule(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_key_rule *k = c->n_key_rules < LIMIT_KEY_RULES ? yaml_append(&c->key_rules, &c->n_key_rules, sizeof(*k)) : NULL;

	(void)name;
	if (k)
		k->wait_ms = WAIT_DEFAULT_MS;
	else
		yaml_fail(at, err, "at most %u rules for keys", LIMIT_KEY_RULES);
	return k;
}

static int set_path(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_key_rule *k = target;

	if (!policy_pattern_valid(text) || strstr(text, "{{"))
		return yaml_fail(at, err, "expected a key's name or a pattern such as release/*, found '%.100s'", text);
	snprintf(k->pattern, sizeof(k->pattern), "%s", text);
	return 0;
}

static int set_approvals(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_count(at, text, LIMIT_APPROVERS, &((struct config_key_rule *)target)->approvals, err);
}

static int add_approver(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_key_rule *k = target;
	int r = config_id(at, text, LIMIT_APPROVERS, &k->approvers, &k->n_approvers, err);

	if (r == 0 && config_has_id(k->approvers, k->n_approvers - 1, k->approvers[k->n_approvers - 1]))
		return yaml_fail(at, err, "%.40s is an approver already", text);
	return r;
}

static int set_wait(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_key_rule *k = target;
	int r = config_duration(at, text, &k->wait_ms, err);

	return r == 0 && k->wait_ms > LIMIT_APPROVAL_WAIT_MS ? yaml_fail(at, err, "a use waits for at most %u m", LIMIT_APPROVAL_WAIT_MS / 60000) : r;
}

/* "100/h", "3/10s" */
static int parse_rate(struct yaml_place at, const char *text, struct config_rate *ret, struct err *err)
{
	char *end, per[32];
	unsigned long n = strtoul(text, &end, 10);
	bool number = *end == '/' && text[0] >= '1' && text[0] <= '9' && n <= 1000000;
	struct err ignored;

	snprintf(per, sizeof(per), "%s%.20s", number && end[1] >= '0' && end[1] <= '9' ? "" : "1", number ? end + 1 : "");
	if (!number || config_duration(at, per, &ret->per_ms, &ignored) < 0 || ret->per_ms < 1000 || ret->per_ms > 86400000)
		return yaml_fail(at, err, "expected a rate such as 100/h or 3/10s, over one second to one day, found '%.40s'", text);
	ret->n = (uint32_t)n;
	return 0;
}

static int set_rate(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return parse_rate(at, text, &((struct config_key_rule *)target)->rate, err);
}

static int set_rate_per_job(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return parse_rate(at, text, &((struct config_key_rule *)target)->rate_per_job, err);
}

const struct yaml_field config_key_fields[] = {
	{"path", YAML_CALL, .required = true, .set = set_path},
	{"approvals", YAML_CALL, .set = set_approvals},
	{"approvers", YAML_LIST, .set = add_approver},
	{"wait", YAML_CALL, .set = set_wait},
	{"rate", YAML_CALL, .set = set_rate},
	{"rate_per_job", YAML_CALL, .set = set_rate_per_job},
	{0},
};

int config_check_keys(const struct config *c, struct err *err)
{
	for (size_t i = 0; i < c->n_key_rules; i++) {
		const struct config_key_rule *k = &c->key_rules[i];
		size_t n = k->n_approvers ? k->n_approvers : c->n_operators;

		if (!k->approvals && !k->rate.n && !k->rate_per_job.n)
			return err_set(err, ERR_INPUT, "%.200s: keys: the rule for %.200s demands nothing: say approvals, rate or rate_per_job", c->file, k->pattern);
		if (!k->approvals && k->n_approvers)
			return err_set(err, ERR_INPUT, "%.200s: keys: the rule for %.200s has approvers: say how many approvals", c->file, k->pattern);
		for (size_t a = 0; a < k->n_approvers; a++)
			if (!config_has_id(c->operators, c->n_operators, k->approvers[a]))
				return err_set(err, ERR_INPUT, "%.200s: keys: the approver %u of %.200s is none of the operators", c->file, k->approvers[a], k->pattern);
		if (k->approvals > n)
			return err_set(err, ERR_INPUT, "%.200s: keys: %.200s demands %u approvals, and there are %zu who could give them", c->file, k->pattern,
				       k->approvals, n);
	}
	return 0;
}

void config_keys_done(struct config *c)
{
	for (size_t i = 0; i < c->n_key_rules; i++)
		free(c->key_rules[i].approvers);
	free(c->key_rules);
}
