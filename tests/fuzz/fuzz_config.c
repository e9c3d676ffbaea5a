/* A configuration that loads keeps its promises; one that does not leaves nothing behind. */
#include "fuzz.h"

#include "broker/config.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>

static void check_provider(const struct config *c, const struct config_provider *p)
{
	struct err err = {0};

	CHECK(path_valid(p->name) && !strchr(p->name, '/') && config_provider(c, p->name));
	CHECK(strncmp(p->uri, "pkcs11:", 7) == 0 || strncmp(p->uri, "tpm:", 4) == 0);
	CHECK(memchr(p->uri, 0, sizeof(p->uri)) && memchr(p->srk_name, 0, sizeof(p->srk_name)));
	CHECK(p->parallel >= 1 && p->parallel <= LIMIT_PARALLEL);
	CHECK(p->n_keys <= LIMIT_KEYS && p->n_environment <= 16 && p->n_writable <= 16 && p->n_readable <= 16);
	for (size_t i = 0; i < p->n_environment; i++)
		CHECK(strchr(p->environment[i], '=') && strncmp(p->environment[i], "LD_", 3) != 0);
	for (size_t i = 0; i < p->n_writable; i++)
		CHECK(p->writable[i][0] == '/');
	for (size_t i = 0; i < p->n_readable; i++)
		CHECK(p->readable[i][0] == '/');
	for (size_t i = 0; i < p->n_keys; i++)
		CHECK(p->keys[i].ref[0] && p256_check(p->keys[i].point, &err) == 0);
}

static void check_policy(const struct config *c, const struct config_policy *p)
{
	CHECK(path_valid(p->name) && config_policy(c, p->name) && p->n_rules <= LIMIT_RULES);
	for (size_t i = 0; i < p->n_rules; i++)
		CHECK(policy_pattern_valid(p->rules[i].pattern));
	policy_weigh(p, &(struct policy_question){.path = "release/signing/key", .op = POLICY_GET, .meta = "project=release\n"}, NULL);
	policy_weigh(p, &(struct policy_question){.path = "release", .folder = true, .op = POLICY_LIST, .meta = "", .literal = "rel"}, NULL);
}

static void check_role(const struct config *c, const struct config_role *r)
{
	CHECK(config_role(c, r->name) && r->ttl_ms > 0 && r->ttl_ms <= LIMIT_TOKEN_TTL_S * 1000ull);
	switch (r->kind) {
	case CONFIG_ROLE_KERNEL: CHECK(!r->issuer[0] && r->n_uids + r->n_gids + r->n_cgroups + r->n_units > 0); break;
	case CONFIG_ROLE_JWT: CHECK(r->issuer[0] && r->n_uids + r->n_gids + r->n_cgroups + r->n_units == 0); break;
	case CONFIG_ROLE_APPROLE: CHECK(!r->issuer[0] && r->role_id[0] && config_approle(c, r->role_id) == r); break;
	case CONFIG_ROLE_TOKEN: CHECK(!r->issuer[0] && r->n_uids + r->n_gids + r->n_cgroups + r->n_units == 0); break;
	default: CHECK(false);
	}
	CHECK(!r->issuer[0] || (config_issuer(c, r->issuer) && r->n_audiences && (r->subject[0] || r->n_claims)));
	for (size_t i = 0; i < r->n_policies; i++)
		CHECK(config_policy(c, r->policies[i]));
	for (size_t i = 0; i < r->n_claims; i++)
		CHECK(r->claims[i].name && r->claims[i].n_values);
	for (size_t i = 0; i < r->n_mappings; i++)
		CHECK(policy_variable_valid(r->mappings[i].name, strlen(r->mappings[i].name)));
}

static void check_config(const struct config *c)
{
	CHECK(c->socket[0] == '/' && c->operator_socket[0] == '/' && c->state_dir[0] == '/');
	CHECK(memchr(c->socket, 0, sizeof(c->socket)) && memchr(c->operator_socket, 0, sizeof(c->operator_socket)));
	CHECK(c->n_operators >= 1 && c->n_providers >= 1 && c->n_providers <= LIMIT_PROVIDERS);
	CHECK(c->n_recipients >= 1 && c->n_recipients <= LIMIT_RECIPIENTS && c->n_recipients == c->n_recipient_texts);
	CHECK(c->n_policies <= LIMIT_POLICIES);
	for (size_t i = 0; i < c->n_providers; i++)
		check_provider(c, &c->providers[i]);
	for (size_t i = 0; i < c->n_policies; i++)
		check_policy(c, &c->policies[i]);
	for (size_t i = 0; i < c->n_roles; i++)
		check_role(c, &c->roles[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct config none;
	static struct config c;
	size_t used = fuzz_begin();
	struct err err = {0};
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fuzz_file(data, size));
	r = config_load(path, &c, &err);
	fuzz_check_result(r, &err);
	if (r == 0) {
		check_config(&c);
		config_done(&c);
	}
	CHECK(memcmp(&c, &none, sizeof(c)) == 0);
	fuzz_end(used);
	return 0;
}
