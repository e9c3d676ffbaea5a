#include "broker/config_role.h"

#include "broker/config.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_uid(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	return config_id(at, text, LIMIT_BOUND_VALUES, &r->uids, &r->n_uids, err);
}

static int add_gid(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	return config_id(at, text, LIMIT_BOUND_VALUES, &r->gids, &r->n_gids, err);
}

static int add_cgroup(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	if (text[0] != '/' || strlen(text) >= LIMIT_CGROUP_PATH)
		return yaml_fail(at, err, "expected a cgroup's path such as /system.slice/runner-*.service, found '%.80s'", text);
	return config_string(at, text, LIMIT_BOUND_VALUES, &r->cgroups, &r->n_cgroups, err);
}

static int add_unit(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	if (strchr(text, '/') || !strchr(text, '.') || strlen(text) > 255)
		return yaml_fail(at, err, "expected a systemd unit such as runner.service, found '%.80s'", text);
	return config_string(at, text, LIMIT_BOUND_VALUES, &r->units, &r->n_units, err);
}

static int add_value(struct yaml_place at, const char *text, size_t max, char ***list, size_t *n, struct err *err)
{
	if (!*text || strlen(text) > LIMIT_BOUND_LEN)
		return yaml_fail(at, err, "expected 1 to %u bytes", LIMIT_BOUND_LEN);
	return config_string(at, text, max, list, n, err);
}

static int add_audience(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	return add_value(at, text, LIMIT_BOUND_VALUES, &r->audiences, &r->n_audiences, err);
}

static int add_claim_value(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_claim *c = target;

	return add_value(at, text, LIMIT_BOUND_VALUES, &c->values, &c->n_values, err);
}

static void *new_claim(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_role *r = target;
	struct config_claim *c = NULL;

	if (!*name || strlen(name) > LIMIT_BOUND_LEN) {
		yaml_fail(at, err, "expected a claim's name");
		return NULL;
	}
	if (r->n_claims < LIMIT_BOUND_CLAIMS)
		c = yaml_append(&r->claims, &r->n_claims, sizeof(*c));
	if (!c || !(c->name = strdup(name))) {
		yaml_fail(at, err, "at most %u claims", LIMIT_BOUND_CLAIMS);
		return NULL;
	}
	return c;
}

static void *new_mapping(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_role *r = target;
	struct config_mapping *m = NULL;

	if (r->n_mappings < LIMIT_MAPPINGS)
		m = yaml_append(&r->mappings, &r->n_mappings, sizeof(*m));
	if (!m || !(m->claim = strdup(name))) {
		yaml_fail(at, err, "at most %u mappings", LIMIT_MAPPINGS);
		return NULL;
	}
	return m;
}

static int set_mapping(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_mapping *m = target;

	if (!policy_variable_valid(text, strlen(text)) || strcmp(text, "role") == 0 || strcmp(text, "scope") == 0)
		return yaml_fail(at, err, "expected a name of a-z, 0-9 and _ (not role or scope), found '%.40s'", text);
	if (m->name)
		return yaml_fail(at, err, "one name a claim");
	m->name = strdup(text);
	return m->name ? 0 : yaml_fail(at, err, "out of memory");
}

static int set_claims_type(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->glob = strcmp(text, "glob") == 0;
	return r->glob || strcmp(text, "string") == 0 ? 0 : yaml_fail(at, err, "expected 'string' or 'glob', found '%.40s'", text);
}

static int set_replay(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->reuse_in_cgroup = strcmp(text, "same-cgroup") == 0;
	return r->reuse_in_cgroup || strcmp(text, "refuse") == 0 ? 0
		: yaml_fail(at, err, "expected 'refuse' or 'same-cgroup', found '%.40s'", text);
}

static int set_leeway(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	int e = config_duration(at, text, &r->leeway_ms, err);

	return e == 0 && r->leeway_ms > LIMIT_JWT_LEEWAY_MS ? yaml_fail(at, err, "a leeway of more than 10m: set the clock instead") : e;
}

static int set_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	int e = config_duration(at, text, &r->ttl_ms, err);

	return e == 0 && (r->ttl_ms == 0 || r->ttl_ms > LIMIT_TOKEN_TTL_S * 1000ull)
		? yaml_fail(at, err, "a token lives for 1 second to %u hours", LIMIT_TOKEN_TTL_S / 3600) : e;
}

static int set_uses(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || text[0] < '1' || text[0] > '9' || n > 1000000000)
		return yaml_fail(at, err, "expected a number of uses, found '%.40s'", text);
	r->uses = (int64_t)n;
	return 0;
}

static int set_max_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	int e = config_duration(at, text, &r->max_ttl_ms, err);

	return e == 0 && r->max_ttl_ms == 0 ? yaml_fail(at, err, "expected more than no time") : e;
}

/* Vault's token_period: the time that each renewal gives, without an end. */
static int set_period(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->period = true;
	return set_ttl(at, text, target, err);
}

static int set_role_id(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	int e = config_name(at, text, err);

	if (e == 0)
		snprintf(r->role_id, sizeof(r->role_id), "%s", text);
	r->has_approle = true;
	return e;
}

static int set_secret_id_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->has_approle = true;
	return config_duration(at, text, &r->secret_id_ttl_ms, err);
}

static int set_secret_id_uses(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;
	int64_t kept = r->uses;
	int e = set_uses(at, text, target, err);

	r->has_approle = true;
	r->secret_id_uses = r->uses;
	r->uses = kept;
	return e;
}

static int set_orphan(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->has_token = true;
	return config_bool(at, text, &r->orphan, err);
}

static int set_renewable(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	r->has_token = true;
	return config_bool(at, text, &r->renewable, err);
}

static int add_role_policy(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	return config_string(at, text, LIMIT_TOKEN_POLICIES, &r->policies, &r->n_policies, err);
}

static int add_scope_policy(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_scope *s = target;

	return config_string(at, text, LIMIT_TOKEN_POLICIES, &s->policies, &s->n_policies, err);
}

static int set_scope(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_role *r = target;

	if (!policy_pattern_valid(text) || strpbrk(text, "*") || strcmp(text, "+") == 0)
		return yaml_fail(at, err, "expected a scope such as acme/web or {{project}}, found '%.80s'", text);
	snprintf(r->scope, sizeof(r->scope), "%s", text);
	return 0;
}

static int set_max_age(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_issuer *i = target;

	return config_duration(at, text, &i->max_age_ms, err);
}

static void *append_named(struct yaml_place at, const char *name, void *list, size_t *n, size_t max, size_t size, struct err *err)
{
	void *item;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (*n == max) {
		yaml_fail(at, err, "at most %zu of them", max);
		return NULL;
	}
	item = yaml_append(list, n, size);
	if (!item)
		yaml_fail(at, err, "out of memory");
	return item;
}

void *config_new_issuer(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_issuer *i = append_named(at, name, &c->issuers, &c->n_issuers, LIMIT_ISSUERS, sizeof(*i), err);

	if (i) {
		snprintf(i->name, sizeof(i->name), "%s", name);
		i->max_age_ms = 30ull * 86400000;
	}
	return i;
}

void *config_new_role(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_role *r = append_named(at, name, &c->roles, &c->n_roles, LIMIT_ROLES, sizeof(*r), err);

	if (r) {
		snprintf(r->name, sizeof(r->name), "%s", name);
		r->leeway_ms = 60000;
		r->ttl_ms = LIMIT_TOKEN_TTL_DEFAULT_S * 1000ull;
		r->uses = -1;
		r->secret_id_uses = -1;
		r->renewable = true;
	}
	return r;
}

void *config_new_scope(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_scope *s;

	if (!path_valid(name)) {
		yaml_fail(at, err, "expected a scope such as acme/web, found '%.80s'", name);
		return NULL;
	}
	s = c->n_scopes < LIMIT_SCOPES ? yaml_append(&c->scopes, &c->n_scopes, sizeof(*s)) : NULL;
	if (!s)
		yaml_fail(at, err, "at most %u scopes", LIMIT_SCOPES);
	else
		snprintf(s->name, sizeof(s->name), "%s", name);
	return s;
}

#define TEXT(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

const struct yaml_field config_issuer_fields[] = {
	{"issuer", YAML_TEXT, .required = true, TEXT(config_issuer, issuer)},
	{"jwks_file", YAML_PATH, .required = true, TEXT(config_issuer, jwks_file)},
	{"max_age", YAML_CALL, .set = set_max_age},
	{0},
};
static const struct yaml_field kernel_fields[] = {
	{"uids", YAML_LIST, .set = add_uid},
	{"gids", YAML_LIST, .set = add_gid},
	{"cgroups", YAML_LIST, .set = add_cgroup},
	{"units", YAML_LIST, .set = add_unit},
	{0},
};
static const struct yaml_field jwt_fields[] = {
	{"issuer", YAML_TEXT, .required = true, TEXT(config_role, issuer)},
	{"bound_audiences", YAML_LIST, .required = true, .set = add_audience},
	{"bound_subject", YAML_TEXT, TEXT(config_role, subject)},
	{"bound_claims_type", YAML_CALL, .set = set_claims_type},
	{"bound_claims", YAML_MAP_OF_LISTS, .item = new_claim, .set = add_claim_value},
	{"claim_mappings", YAML_MAP_OF_LISTS, .item = new_mapping, .set = set_mapping},
	{"leeway", YAML_CALL, .set = set_leeway},
	{"replay", YAML_CALL, .set = set_replay},
	{0},
};
static const struct yaml_field approle_fields[] = {
	{"role_id", YAML_CALL, .required = true, .set = set_role_id},
	{"secret_id_ttl", YAML_CALL, .set = set_secret_id_ttl},
	{"secret_id_num_uses", YAML_CALL, .set = set_secret_id_uses},
	{0},
};
static const struct yaml_field token_fields[] = {
	{"orphan", YAML_CALL, .required = true, .set = set_orphan},
	{"renewable", YAML_CALL, .set = set_renewable},
	{0},
};
const struct yaml_field config_role_fields[] = {
	{"kernel", YAML_STRUCT, .fields = kernel_fields},
	{"jwt", YAML_STRUCT, .fields = jwt_fields},
	{"approle", YAML_STRUCT, .fields = approle_fields},
	{"token", YAML_STRUCT, .fields = token_fields},
	{"policies", YAML_LIST, .set = add_role_policy},
	{"scope", YAML_CALL, .set = set_scope},
	{"ttl", YAML_CALL, .set = set_ttl},
	{"max_ttl", YAML_CALL, .set = set_max_ttl},
	{"period", YAML_CALL, .set = set_period},
	{"uses", YAML_CALL, .set = set_uses},
	{0},
};
const struct yaml_field config_scope_fields[] = {
	{"policies", YAML_LIST, .required = true, .set = add_scope_policy},
	{0},
};

static int check_policies(const struct config *c, char *const *policies, size_t n, const char *of, struct err *err)
{
	for (size_t i = 0; i < n; i++)
		if (!config_policy(c, policies[i]))
			return err_set(err, ERR_INPUT, "%.200s: '%.80s' names the policy '%.80s', which is not there", c->file, of, policies[i]);
	return 0;
}

/* How one comes to it, by what it says. */
static int set_kind(const struct config *c, struct config_role *role, struct err *err)
{
	bool kernel = role->n_uids || role->n_gids || role->n_cgroups || role->n_units, jwt = role->issuer[0];

	if (jwt + role->has_approle + role->has_token > 1 || (kernel && (jwt || role->has_token)) || (!kernel && !jwt && !role->has_approle && !role->has_token))
		return err_set(err, ERR_INPUT,
			       "%.200s: role '%s' says whom it is for by one of 'kernel', 'jwt', 'approle' and 'token' (an approle may say 'kernel', too), "
			       "and at least one thing there", c->file, role->name);
	role->kind = jwt ? CONFIG_ROLE_JWT : role->has_approle ? CONFIG_ROLE_APPROLE : role->has_token ? CONFIG_ROLE_TOKEN : CONFIG_ROLE_KERNEL;
	if (role->max_ttl_ms && (role->period || role->max_ttl_ms < role->ttl_ms))
		return err_set(err, ERR_INPUT, "%.200s: role '%s': max_ttl is less than ttl, or a period has one", c->file, role->name);
	for (const struct config_role *other = c->roles; other < role; other++)
		if (role->has_approle && strcmp(other->role_id, role->role_id) == 0)
			return err_set(err, ERR_INPUT, "%.200s: the roles '%s' and '%s' have one role_id", c->file, other->name, role->name);
	return 0;
}

static int check_role(const struct config *c, struct config_role *role, struct err *err)
{
	int r = set_kind(c, role, err);

	if (r < 0)
		return r;
	if (role->issuer[0] && !config_issuer(c, role->issuer))
		return err_set(err, ERR_INPUT, "%.200s: role '%s': there is no issuer '%.80s'", c->file, role->name, role->issuer);
	/* an audience alone would let in every job of that issuer */
	if (role->issuer[0] && !role->subject[0] && !role->n_claims)
		return err_set(err, ERR_INPUT, "%.200s: role '%s' takes any job of its issuer: bind claims, such as the project's id", c->file,
			       role->name);
	for (size_t i = 0; i < role->n_claims; i++)
		if (!role->claims[i].n_values)
			return err_set(err, ERR_INPUT, "%.200s: role '%s': the claim '%.80s' has no values", c->file, role->name, role->claims[i].name);
	for (size_t i = 0; i < role->n_mappings; i++) {
		if (!role->mappings[i].name)
			return err_set(err, ERR_INPUT, "%.200s: role '%s': the claim '%.80s' is mapped to nothing", c->file, role->name,
				       role->mappings[i].claim);
		for (size_t k = 0; k < i; k++)
			if (strcmp(role->mappings[i].name, role->mappings[k].name) == 0)
				return err_set(err, ERR_INPUT, "%.200s: role '%s' maps two claims to '%s'", c->file, role->name,
					       role->mappings[i].name);
	}
	if (!role->n_policies && !role->scope[0])
		return err_set(err, ERR_INPUT, "%.200s: role '%s' gives no policies and no scope", c->file, role->name);
	return check_policies(c, role->policies, role->n_policies, role->name, err);
}

int config_check_roles(const struct config *c, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->n_roles; i++)
		r = check_role(c, &c->roles[i], err);
	for (size_t i = 0; r == 0 && i < c->n_scopes; i++)
		r = check_policies(c, c->scopes[i].policies, c->scopes[i].n_policies, c->scopes[i].name, err);
	return r;
}

static void role_done(struct config_role *r)
{
	config_free_strings(r->cgroups, r->n_cgroups);
	config_free_strings(r->units, r->n_units);
	config_free_strings(r->audiences, r->n_audiences);
	config_free_strings(r->policies, r->n_policies);
	for (size_t i = 0; i < r->n_claims; i++) {
		free(r->claims[i].name);
		config_free_strings(r->claims[i].values, r->claims[i].n_values);
	}
	for (size_t i = 0; i < r->n_mappings; i++) {
		free(r->mappings[i].claim);
		free(r->mappings[i].name);
	}
	free(r->claims);
	free(r->mappings);
	free(r->uids);
	free(r->gids);
}

void config_roles_done(struct config *c)
{
	for (size_t i = 0; i < c->n_roles; i++)
		role_done(&c->roles[i]);
	for (size_t i = 0; i < c->n_scopes; i++)
		config_free_strings(c->scopes[i].policies, c->scopes[i].n_policies);
	free(c->roles);
	free(c->scopes);
	free(c->issuers);
}

const struct config_role *config_role(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_roles; i++)
		if (strcmp(c->roles[i].name, name) == 0)
			return &c->roles[i];
	return NULL;
}

const struct config_role *config_approle(const struct config *c, const char *role_id)
{
	for (size_t i = 0; i < c->n_roles; i++)
		if (c->roles[i].kind == CONFIG_ROLE_APPROLE && strcmp(c->roles[i].role_id, role_id) == 0)
			return &c->roles[i];
	return NULL;
}

const struct config_issuer *config_issuer(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_issuers; i++)
		if (strcmp(c->issuers[i].name, name) == 0)
			return &c->issuers[i];
	return NULL;
}

const struct config_scope *config_scope(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_scopes; i++)
		if (strcmp(c->scopes[i].name, name) == 0)
			return &c->scopes[i];
	return NULL;
}
