#include "broker/config.h"

#include "broker/config_credential.h"
#include "broker/config_engine.h"
#include "broker/config_http.h"
#include "broker/config_key.h"
#include "broker/config_mount.h"
#include "broker/config_pki.h"
#include "broker/config_role.h"
#include "broker/config_rotation.h"
#include "broker/config_text.h"
#include "broker/policy.h"
#include "broker/providers.h"
#include "broker/yaml_schema.h"
#include "common/age_p256tag.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

int config_duration(struct yaml_place at, const char *text, uint64_t *ret_ms, struct err *err)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (end != text && text[0] >= '0' && text[0] <= '9' && strcmp(end, units[i].unit) == 0 && n <= 86400000) {
			*ret_ms = n * units[i].ms;
			return 0;
		}
	}
	return yaml_fail(at, err, "expected a duration such as 5m or 30s, found '%.40s'", text);
}

static int set_unseal(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	if (strcmp(text, "each-use") == 0) {
		c->cache_ms = 0;
		return 0;
	}
	if (strncmp(text, "cache ", 6) == 0)
		return config_duration(at, text + 6, &c->cache_ms, err);
	return yaml_fail(at, err, "expected 'each-use' or 'cache 5m', found '%.40s'", text);
}

static int set_sync(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	if (strcmp(text, "write") == 0)
		c->audit_sync = CONFIG_AUDIT_WRITE;
	else if (strcmp(text, "disk") == 0)
		c->audit_sync = CONFIG_AUDIT_DISK;
	else
		return yaml_fail(at, err, "expected 'write' or 'disk', found '%.40s'", text);
	return 0;
}

int config_id(struct yaml_place at, const char *text, size_t max, uint32_t **list, size_t *n, struct err *err)
{
	char *end;
	unsigned long id = strtoul(text, &end, 10);
	uint32_t *item;

	if (*end || end == text || text[0] < '0' || text[0] > '9' || id >= UINT32_MAX || id == 65534)
		return yaml_fail(at, err, "expected a numeric uid or gid, found '%.40s'", text);
	item = *n < max ? yaml_append(list, n, sizeof(*item)) : NULL;
	if (!item)
		return yaml_fail(at, err, "at most %zu ids", max);
	*item = (uint32_t)id;
	return 0;
}

static int add_operator(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	return config_id(at, text, LIMIT_OPERATORS, &c->operators, &c->n_operators, err);
}

static int add_recipient(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;
	struct age_recipient r;
	struct age_recipient *item;
	struct err why;
	char **copy;

	if (age_recipient_parse(text, &r, &why) < 0)
		return yaml_fail(at, err, "%s", why.msg);
	if (c->n_recipients == LIMIT_RECIPIENTS)
		return yaml_fail(at, err, "at most %u recipients", LIMIT_RECIPIENTS);
	item = yaml_append(&c->recipients, &c->n_recipients, sizeof(*item));
	copy = yaml_append(&c->recipient_texts, &c->n_recipient_texts, sizeof(*copy));
	if (!item || !copy || !(*copy = strdup(text)))
		return yaml_fail(at, err, "out of memory");
	*item = r;
	return 0;
}

int config_string(struct yaml_place at, const char *text, size_t max, char ***list, size_t *n, struct err *err)
{
	char **item;

	if (*n == max)
		return yaml_fail(at, err, "at most %zu entries", max);
	item = yaml_append(list, n, sizeof(*item));
	if (!item || !(*item = strdup(text)))
		return yaml_fail(at, err, "out of memory");
	return 0;
}

int config_count(struct yaml_place at, const char *text, uint32_t max, uint32_t *ret, struct err *err)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || text[0] < '1' || text[0] > '9' || n > max)
		return yaml_fail(at, err, "expected a number from 1 to %u, found '%.40s'", max, text);
	*ret = (uint32_t)n;
	return 0;
}

int config_bool(struct yaml_place at, const char *text, bool *ret, struct err *err)
{
	*ret = strcmp(text, "true") == 0;
	return *ret || strcmp(text, "false") == 0 ? 0 : yaml_fail(at, err, "expected true or false, found '%.40s'", text);
}

static int add_environment(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_provider *p = target;

	if (!strchr(text, '=') || text[0] == '=')
		return yaml_fail(at, err, "expected NAME=VALUE, found '%.40s'", text);
	/* they would print secrets or load other code */
	if (strncmp(text, "TSS2_", 5) == 0 || strncmp(text, "LD_", 3) == 0 || strncmp(text, "P11_KIT_", 8) == 0)
		return yaml_fail(at, err, "TSS2_*, LD_* and P11_KIT_* are not allowed here");
	return config_string(at, text, 16, &p->environment, &p->n_environment, err);
}

static int add_writable(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_provider *p = target;

	if (text[0] != '/')
		return yaml_fail(at, err, "expected an absolute path, found '%.100s'", text);
	return config_string(at, text, 16, &p->writable, &p->n_writable, err);
}

static int add_readable(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_provider *p = target;

	if (text[0] != '/')
		return yaml_fail(at, err, "expected an absolute path, found '%.100s'", text);
	return config_string(at, text, 16, &p->readable, &p->n_readable, err);
}

static int set_uri(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_provider *p = target;

	if (!providers_find(text))
		return yaml_fail(at, err, "expected pkcs11:... or tpm:..., found '%.40s'", text);
	if (strlen(text) >= sizeof(p->uri))
		return yaml_fail(at, err, "uri: longer than %u bytes", LIMIT_URI_LEN - 1);
	snprintf(p->uri, sizeof(p->uri), "%s", text);
	return 0;
}

static int set_parallel(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_count(at, text, LIMIT_PARALLEL, &((struct config_provider *)target)->parallel, err);
}

static int set_key_recipient(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_key *k = target;
	struct age_recipient r;

	if (age_recipient_parse(text, &r, err) < 0 || r.ops != &age_p256tag_recipient_ops)
		return yaml_fail(at, err, "expected the key's age1tag1... recipient");
	snprintf(k->recipient, sizeof(k->recipient), "%s", text);
	memcpy(k->point, r.key, P256_POINT_LEN);
	return 0;
}

static int set_pattern(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_rule *r = target;

	if (!policy_pattern_valid(text))
		return yaml_fail(at, err, "expected a path pattern such as release/*, team/+/token or {{project}}/*, found '%.100s'", text);
	snprintf(r->pattern, sizeof(r->pattern), "%s", text);
	r->line = at.line;
	return 0;
}

static int add_allow(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_rule *r = target;
	uint32_t op = policy_op(text, strlen(text));

	if (!op)
		return yaml_fail(at, err, "expected read, create, update, delete, list, sign, decrypt or deny (get: read, put: create and update), found '%.40s'", text);
	r->allow |= op;
	return 0;
}

int config_name(struct yaml_place at, const char *name, struct err *err)
{
	if (!*name || strlen(name) > LIMIT_NAME_LEN || strchr(name, '/') || !path_valid(name))
		return yaml_fail(at, err, "expected a name of letters, digits and ._@+-, found '%.80s'", name);
	return 0;
}

static void *new_key(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_provider *p = target;

	(void)name;
	if (p->n_keys == LIMIT_KEYS) {
		yaml_fail(at, err, "at most %u keys", LIMIT_KEYS);
		return NULL;
	}
	return yaml_append(&p->keys, &p->n_keys, sizeof(*p->keys));
}

static void *new_provider(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_provider *p;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (c->n_providers == LIMIT_PROVIDERS) {
		yaml_fail(at, err, "at most %u providers", LIMIT_PROVIDERS);
		return NULL;
	}
	p = yaml_append(&c->providers, &c->n_providers, sizeof(*p));
	if (!p)
		yaml_fail(at, err, "out of memory");
	else
		p->parallel = 1;
	if (p)
		snprintf(p->name, sizeof(p->name), "%s", name);
	return p;
}

static void *new_policy(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_policy *p;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (c->n_policies == LIMIT_POLICIES) {
		yaml_fail(at, err, "at most %u policies", LIMIT_POLICIES);
		return NULL;
	}
	p = yaml_append(&c->policies, &c->n_policies, sizeof(*p));
	if (!p)
		yaml_fail(at, err, "out of memory");
	else
		snprintf(p->name, sizeof(p->name), "%s", name);
	return p;
}

static void *new_rule(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_policy *p = target;

	(void)name;
	if (p->n_rules == LIMIT_RULES) {
		yaml_fail(at, err, "at most %u rules", LIMIT_RULES);
		return NULL;
	}
	return yaml_append(&p->rules, &p->n_rules, sizeof(*p->rules));
}

static int set_require_cgroup(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	return config_bool(at, text, &c->require_cgroup, err);
}

static int set_require_isolation(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	return config_bool(at, text, &c->require_isolation, err);
}

#define TEXT(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

static const struct yaml_field rule_fields[] = {
	{"path", YAML_CALL, .required = true, .set = set_pattern},
	{"allow", YAML_LIST, .set = add_allow},
	{"capabilities", YAML_LIST, .set = add_allow}, /* Vault's word for it */
	{0},
};
static const struct yaml_field key_fields[] = {
	{"recipient", YAML_CALL, .required = true, .set = set_key_recipient},
	{"key", YAML_TEXT, .required = true, TEXT(config_key, ref)},
	{0},
};
static const struct yaml_field provider_fields[] = {
	{"uri", YAML_CALL, .required = true, .set = set_uri},
	{"srk_name", YAML_TEXT, TEXT(config_provider, srk_name)},
	{"parallel", YAML_CALL, .set = set_parallel},
	{"environment", YAML_LIST, .set = add_environment},
	{"writable", YAML_LIST, .set = add_writable},
	{"readable", YAML_LIST, .set = add_readable},
	{"keys", YAML_SEQUENCE, .fields = key_fields, .item = new_key},
	{0},
};
static const struct yaml_field jobs_fields[] = {
	{"require_cgroup", YAML_CALL, .set = set_require_cgroup},
	{"require_isolation", YAML_CALL, .set = set_require_isolation},
	{0},
};
static const struct yaml_field audit_fields[] = {
	{"sync", YAML_CALL, .set = set_sync},
	{0},
};
static const struct yaml_field seal_fields[] = {
	{"recipients", YAML_LIST, .required = true, .set = add_recipient},
	{0},
};
static const struct yaml_field config_fields[] = {
	{"socket", YAML_PATH, TEXT(config, socket)},
	{"operator_socket", YAML_PATH, TEXT(config, operator_socket)},
	{"http", YAML_STRUCT, .fields = config_http_fields},
	{"state_dir", YAML_PATH, TEXT(config, state_dir)},
	{"operators", YAML_LIST, .set = add_operator},
	{"unseal", YAML_CALL, .set = set_unseal},
	{"audit", YAML_STRUCT, .fields = audit_fields},
	{"jobs", YAML_STRUCT, .fields = jobs_fields},
	{"seal", YAML_STRUCT, .required = true, .fields = seal_fields},
	{"providers", YAML_MAP, .required = true, .fields = provider_fields, .item = new_provider},
	/* a policy is a list of rules, so the map's values are sequences */
	{"policies", YAML_MAP_OF_SEQUENCES, .fields = rule_fields, .item = new_policy, .sub_item = new_rule},
	{"issuers", YAML_MAP, .fields = config_issuer_fields, .item = config_new_issuer},
	{"roles", YAML_MAP, .fields = config_role_fields, .item = config_new_role},
	{"pki", YAML_STRUCT, .fields = config_pki_fields},
	{"ssh", YAML_STRUCT, .fields = config_ssh_fields},
	{"keys", YAML_SEQUENCE, .fields = config_key_fields, .item = config_new_key_rule},
	{"scopes", YAML_MAP, .fields = config_scope_fields, .item = config_new_scope},
	{"engines", YAML_MAP, .fields = config_engine_fields, .item = config_new_engine},
	{"credentials", YAML_MAP_OF_MAPS, .fields = config_unit_fields, .item = config_new_unit},
	{"rotations", YAML_SEQUENCE, .fields = config_rotation_fields, .item = config_new_rotation},
	{"mounts", YAML_MAP, .fields = config_mount_fields, .item = config_new_mount},
	{0},
};

static int defaults(struct config *c, struct err *err)
{
	char *slash;
	uid_t *uid;

	if (!c->socket[0])
		snprintf(c->socket, sizeof(c->socket), "/run/cotter/cotter.sock");
	if (!c->operator_socket[0]) {
		snprintf(c->operator_socket, sizeof(c->operator_socket), "%s", c->socket);
		slash = strrchr(c->operator_socket, '/');
		if (!slash || (size_t)(slash - c->operator_socket) + sizeof("/operator.sock") > sizeof(c->operator_socket))
			return err_set(err, ERR_INPUT, "%.200s: the socket's path is too long", c->file);
		memcpy(slash, "/operator.sock", sizeof("/operator.sock"));
	}
	if (!c->state_dir[0])
		snprintf(c->state_dir, sizeof(c->state_dir), "/var/lib/cotter");
	if (c->n_operators == 0) {
		uid = yaml_append(&c->operators, &c->n_operators, sizeof(*uid));
		if (!uid)
			return err_set(err, ERR_FAILED, "out of memory");
		*uid = 0;
	}
	return 0;
}

/* Keys that the broker has a TPM make are files of its own. */
static int own_keys(struct config *c, struct err *err)
{
	char dir[LIMIT_FILE_PATH_LEN + 8], **item;

	snprintf(dir, sizeof(dir), "%s/" CONFIG_KEY_DIR, c->state_dir);
	for (size_t i = 0; i < c->n_providers; i++) {
		struct config_provider *p = &c->providers[i];

		if (strncmp(p->uri, "tpm:", 4) != 0)
			continue;
		item = yaml_append(&p->readable, &p->n_readable, sizeof(*item));
		if (!item || !(*item = strdup(dir)))
			return err_set(err, ERR_FAILED, "out of memory");
	}
	return 0;
}

static int check_parallel(const struct config *c, struct err *err)
{
	for (size_t i = 0; i < c->n_providers; i++)
		if (c->providers[i].parallel > 1 && !providers_find(c->providers[i].uri)->sign_beside)
			return err_set(err, ERR_INPUT, "%s: providers.%s.parallel: a TPM does one thing at a time", c->file, c->providers[i].name);
	return 0;
}

/* A sealing key that is not in the seal would open nothing that is sealed from now on: surely a mistake. */
static int check_seal(const struct config *c, struct err *err)
{
	bool hardware = false;

	for (size_t i = 0; i < c->n_providers; i++)
		for (size_t k = 0; k < c->providers[i].n_keys; k++)
			for (size_t r = 0; r < c->n_recipient_texts; r++)
				hardware |= strcmp(c->providers[i].keys[k].recipient, c->recipient_texts[r]) == 0;
	if (!hardware)
		return err_set(err, ERR_INPUT, "%.200s: no provider has a key for any of seal.recipients: nothing could be opened",
			       c->file);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct config_policy *p = a, *q = b;

	return strcmp(p->name, q->name);
}

static int check_rules(const struct config *c, struct err *err)
{
	for (size_t i = 0; i < c->n_policies; i++)
		for (size_t k = 0; k < c->policies[i].n_rules; k++)
			if (!c->policies[i].rules[k].allow)
				return err_set(err, ERR_INPUT, "%.200s:%zu: the rule says nothing to allow or to deny", c->file,
					       c->policies[i].rules[k].line);
	return 0;
}

int config_load(const char *path, struct config *ret, struct err *err)
{
	CLEANUP(cleanup_free) char *text = NULL;
	size_t len = 0;
	int r;

	*ret = (struct config){0};
	ret->cache_ms = 300000;
	ret->require_cgroup = true;
	snprintf(ret->file, sizeof(ret->file), "%s", path);
	r = config_read_text(path, &text, &len, err);
	if (r == 0)
		r = yaml_schema_read(path, text, len, config_fields, ret, err);
	if (r == 0 && ret->n_policies)
		qsort(ret->policies, ret->n_policies, sizeof(*ret->policies), by_name);
	for (size_t i = 0; i < ret->n_policies; i++)
		policy_index(&ret->policies[i]);
	if (r == 0)
		r = defaults(ret, err);
	if (r == 0)
		r = own_keys(ret, err);
	if (r == 0)
		r = check_parallel(ret, err);
	if (r == 0)
		r = check_seal(ret, err);
	if (r == 0)
		r = check_rules(ret, err);
	if (r == 0)
		r = config_check_roles(ret, err);
	if (r == 0)
		r = config_check_pki(ret, err);
	if (r == 0)
		r = config_check_keys(ret, err);
	if (r == 0)
		r = config_check_engines(ret, err);
	if (r == 0)
		r = config_check_mounts(ret, err);
	if (r < 0)
		config_done(ret);
	return r;
}

void config_free_strings(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void config_done(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_providers; i++) {
		struct config_provider *p = &c->providers[i];

		config_free_strings(p->environment, p->n_environment);
		config_free_strings(p->writable, p->n_writable);
		config_free_strings(p->readable, p->n_readable);
		free(p->keys);
	}
	for (size_t i = 0; i < c->n_policies; i++)
		free(c->policies[i].rules);
	config_free_strings(c->recipient_texts, c->n_recipient_texts);
	config_roles_done(c);
	config_pki_done(c);
	config_keys_done(c);
	config_engines_done(c);
	config_units_done(c);
	free(c->providers);
	free(c->policies);
	free(c->recipients);
	free(c->operators);
	free(c->mounts);
	free(c->rotations);
	*c = (struct config){0};
}

uint64_t config_seal_id(const struct config *c)
{
	uint64_t sum = 0, one;

	for (size_t i = 0; i < c->n_recipient_texts; i++) {
		crypto_generichash((uint8_t *)&one, sizeof(one), (const uint8_t *)c->recipient_texts[i], strlen(c->recipient_texts[i]), NULL, 0);
		sum += one;
	}
	sum &= INT64_MAX; /* as the store has numbers */
	return sum ? sum : 1;
}

bool config_has_id(const uint32_t *list, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == id)
			return true;
	return false;
}

static int has_name(const void *name, const void *policy)
{
	const struct config_policy *p = policy;

	return strcmp(name, p->name);
}

const struct config_policy *config_policy(const struct config *c, const char *name)
{
	return c->n_policies ? bsearch(name, c->policies, c->n_policies, sizeof(*c->policies), has_name) : NULL;
}

const struct config_provider *config_provider(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_providers; i++)
		if (strcmp(c->providers[i].name, name) == 0)
			return &c->providers[i];
	return NULL;
}
