#include "broker/config_pki.h"

#include "broker/config.h"
#include "broker/config_role.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_key(struct yaml_place at, const char *text, void *target, struct err *err)
{
	if (!path_valid(text))
		return yaml_fail(at, err, "expected the name of a key ('cotter key add'), found '%.80s'", text);
	snprintf(target, LIMIT_PATH_LEN + 1, "%s", text);
	return 0;
}

static int set_pki_key(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return set_key(at, text, ((struct config *)target)->pki.key, err);
}

static int set_ssh_key(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return set_key(at, text, ((struct config *)target)->ssh.key, err);
}

static int set_crl_url(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	if (strlen(text) >= sizeof(c->pki.crl_url) || strncmp(text, "http://", 7) != 0)
		return yaml_fail(at, err, "expected http://..., found '%.80s'", text);
	snprintf(c->pki.crl_url, sizeof(c->pki.crl_url), "%s", text);
	return 0;
}

static struct config_cert_role *new_role(struct yaml_place at, const char *name, struct config_cert_role **list, size_t *n, struct err *err)
{
	struct config_cert_role *r;

	if (config_name(at, name, err) < 0)
		return NULL;
	r = *n < LIMIT_ROLES ? yaml_append(list, n, sizeof(*r)) : NULL;
	if (!r) {
		yaml_fail(at, err, "at most %u of them", LIMIT_ROLES);
		return NULL;
	}
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->ttl_ms = 3600000;
	r->max_ttl_ms = 86400000;
	return r;
}

static void *new_pki_role(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;

	return new_role(at, name, &c->pki.roles, &c->pki.n_roles, err);
}

static void *new_ssh_role(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;

	return new_role(at, name, &c->ssh.roles, &c->ssh.n_roles, err);
}

static int add_name(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_cert_role *r = target;

	if (!*text || strlen(text) > LIMIT_CERT_NAME)
		return yaml_fail(at, err, "expected a name of at most %u bytes", LIMIT_CERT_NAME);
	return config_string(at, text, LIMIT_BOUND_VALUES, &r->names, &r->n_names, err);
}

static int add_uri(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_cert_role *r = target;

	return config_string(at, text, LIMIT_BOUND_VALUES, &r->uris, &r->n_uris, err);
}

static int add_extension(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_cert_role *r = target;

	if (!*text || strlen(text) > LIMIT_NAME_LEN)
		return yaml_fail(at, err, "expected an extension such as permit-pty");
	return config_string(at, text, LIMIT_CERT_EXTENSIONS, &r->extensions, &r->n_extensions, err);
}

static int set_allow_ip(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_bool(at, text, &((struct config_cert_role *)target)->allow_ip, err);
}

static int add_usage(struct yaml_place at, const char *text, void *target, struct err *err)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} rows[] = {{"server", CONFIG_USAGE_SERVER}, {"client", CONFIG_USAGE_CLIENT}, {"code", CONFIG_USAGE_CODE}, {"email", CONFIG_USAGE_EMAIL}};
	struct config_cert_role *r = target;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(rows[i].name, text) == 0) {
			r->usages |= rows[i].bit;
			return 0;
		}
	}
	return yaml_fail(at, err, "expected server, client, code or email, found '%.40s'", text);
}

static int set_type(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_cert_role *r = target;

	r->host = strcmp(text, "host") == 0;
	return r->host || strcmp(text, "user") == 0 ? 0 : yaml_fail(at, err, "expected user or host, found '%.40s'", text);
}

static int set_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_cert_role *)target)->ttl_ms, err);
}

static int set_max_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_cert_role *)target)->max_ttl_ms, err);
}

#define TEXT(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

static const struct yaml_field pki_role_fields[] = {
	{"names", YAML_LIST, .required = true, .set = add_name},
	{"uris", YAML_LIST, .set = add_uri},
	{"allow_ip", YAML_CALL, .set = set_allow_ip},
	{"usages", YAML_LIST, .required = true, .set = add_usage},
	{"organization", YAML_TEXT, TEXT(config_cert_role, organization)},
	{"ttl", YAML_CALL, .set = set_ttl},
	{"max_ttl", YAML_CALL, .set = set_max_ttl},
	{0},
};
static const struct yaml_field ssh_role_fields[] = {
	{"type", YAML_CALL, .required = true, .set = set_type},
	{"principals", YAML_LIST, .required = true, .set = add_name},
	{"extensions", YAML_LIST, .set = add_extension},
	{"force_command", YAML_TEXT, TEXT(config_cert_role, force_command)},
	{"source_address", YAML_TEXT, TEXT(config_cert_role, source_address)},
	{"ttl", YAML_CALL, .set = set_ttl},
	{"max_ttl", YAML_CALL, .set = set_max_ttl},
	{0},
};
const struct yaml_field config_pki_fields[] = {
	{"key", YAML_CALL, .required = true, .set = set_pki_key},
	{"crl_url", YAML_CALL, .set = set_crl_url},
	{"roles", YAML_MAP, .fields = pki_role_fields, .item = new_pki_role},
	{0},
};
const struct yaml_field config_ssh_fields[] = {
	{"key", YAML_CALL, .required = true, .set = set_ssh_key},
	{"roles", YAML_MAP, .fields = ssh_role_fields, .item = new_ssh_role},
	{0},
};

static int check(const struct config *c, const struct config_cert_role *roles, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (!roles[i].n_names)
			return err_set(err, ERR_INPUT, "%.200s: the certificate role '%s' has no names", c->file, roles[i].name);
		if (roles[i].ttl_ms > roles[i].max_ttl_ms || roles[i].max_ttl_ms > LIMIT_CERT_TTL_MS || roles[i].ttl_ms < 1000)
			return err_set(err, ERR_INPUT, "%.200s: the certificate role '%s': ttl is at most max_ttl, and that at most %u days", c->file,
				       roles[i].name, (unsigned int)(LIMIT_CERT_TTL_MS / 86400000u));
	}
	return 0;
}

int config_check_pki(const struct config *c, struct err *err)
{
	int r = check(c, c->pki.roles, c->pki.n_roles, err);

	return r < 0 ? r : check(c, c->ssh.roles, c->ssh.n_roles, err);
}

static void roles_done(struct config_cert_role *roles, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		config_free_strings(roles[i].names, roles[i].n_names);
		config_free_strings(roles[i].uris, roles[i].n_uris);
		config_free_strings(roles[i].extensions, roles[i].n_extensions);
	}
	free(roles);
}

void config_pki_done(struct config *c)
{
	roles_done(c->pki.roles, c->pki.n_roles);
	roles_done(c->ssh.roles, c->ssh.n_roles);
}

const struct config_cert_role *config_cert_role(const struct config_cert_role *roles, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(roles[i].name, name) == 0)
			return &roles[i];
	return NULL;
}
