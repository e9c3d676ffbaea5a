#include "broker/config_engine.h"

#include "broker/config.h"
#include "broker/config_role.h"
#include "broker/mount.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_DEFAULT_MS 3600000u
#define MAX_TTL_DEFAULT_MS 86400000u

void *config_new_engine(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_engine *e = NULL;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (c->n_engines < LIMIT_ENGINES)
		e = yaml_append(&c->engines, &c->n_engines, sizeof(*e));
	if (!e)
		yaml_fail(at, err, "at most %u engines", LIMIT_ENGINES);
	else
		snprintf(e->name, sizeof(e->name), "%s", name);
	return e;
}

static void *new_role(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_engine *e = target;
	struct config_engine_role *r = NULL;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (e->n_roles < LIMIT_ENGINE_ROLES)
		r = yaml_append(&e->roles, &e->n_roles, sizeof(*r));
	if (!r) {
		yaml_fail(at, err, "at most %u roles of one engine", LIMIT_ENGINE_ROLES);
		return NULL;
	}
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->ttl_ms = TTL_DEFAULT_MS;
	r->max_ttl_ms = MAX_TTL_DEFAULT_MS;
	return r;
}

static void *new_parameter(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_engine_role *r = target;
	struct config_parameter *p = NULL;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (r->n_parameters < LIMIT_PARAMETERS)
		p = yaml_append(&r->parameters, &r->n_parameters, sizeof(*p));
	if (!p || !(p->name = strdup(name))) {
		yaml_fail(at, err, "at most %u parameters", LIMIT_PARAMETERS);
		return NULL;
	}
	return p;
}

static int add_value(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_parameter *p = target;

	if (strlen(text) > LIMIT_PARAMETER_LEN)
		return yaml_fail(at, err, "a parameter has at most %u bytes", LIMIT_PARAMETER_LEN);
	return config_string(at, text, LIMIT_PARAMETERS, &p->values, &p->n_values, err);
}

static int set_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_engine_role *)target)->ttl_ms, err);
}

static int set_max_ttl(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_engine_role *)target)->max_ttl_ms, err);
}

static int set_secret(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_engine *e = target;

	if (!path_valid(text))
		return yaml_fail(at, err, "expected a secret's path, found '%.100s'", text);
	snprintf(e->secret, sizeof(e->secret), "%s", text);
	return 0;
}

static int add_path(struct yaml_place at, const char *text, char ***list, size_t *n, struct err *err)
{
	return text[0] == '/' ? config_string(at, text, 16, list, n, err) : yaml_fail(at, err, "expected an absolute path, found '%.100s'", text);
}

static int add_readable(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_engine *e = target;

	return add_path(at, text, &e->readable, &e->n_readable, err);
}

static int add_writable(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_engine *e = target;

	return add_path(at, text, &e->writable, &e->n_writable, err);
}

#define TEXT(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

static const struct yaml_field role_fields[] = {
	{"ttl", YAML_CALL, .set = set_ttl},
	{"max_ttl", YAML_CALL, .set = set_max_ttl},
	{"parameters", YAML_MAP_OF_LISTS, .item = new_parameter, .set = add_value},
	{0},
};
const struct yaml_field config_engine_fields[] = {
	{"program", YAML_PATH, .required = true, TEXT(config_engine, program)},
	{"secret", YAML_CALL, .set = set_secret},
	{"readable", YAML_LIST, .set = add_readable},
	{"writable", YAML_LIST, .set = add_writable},
	{"roles", YAML_MAP, .required = true, .fields = role_fields, .item = new_role},
	{0},
};

int config_check_engines(const struct config *c, struct err *err)
{
	for (size_t i = 0; i < c->n_engines; i++) {
		const struct config_engine *e = &c->engines[i];

		struct mount other;

		for (size_t k = 0; mount_at(c, k, &other); k++)
			if (other.path != e->name && strncmp(other.path, e->name, strlen(e->name)) == 0 &&
			    (!other.path[strlen(e->name)] || other.path[strlen(e->name)] == '/'))
				return err_set(err, ERR_INPUT, "%.200s: the engine '%s' and the mount %s are within each other", c->file, e->name, other.path);
		if (strcmp(e->name, "cotter") == 0 || strcmp(e->name, "auth") == 0)
			return err_set(err, ERR_INPUT, "%.200s: engines: '%s' is cotter's own", c->file, e->name);
		if (e->n_roles == 0)
			return err_set(err, ERR_INPUT, "%.200s: the engine '%s' has no roles", c->file, e->name);
		for (size_t k = 0; k < e->n_roles; k++)
			if (e->roles[k].ttl_ms < 1000 || e->roles[k].max_ttl_ms < e->roles[k].ttl_ms || e->roles[k].max_ttl_ms > LIMIT_LEASE_MS)
				return err_set(err, ERR_INPUT, "%.200s: engine '%s', role '%s': ttl is from 1s to max_ttl, and that at most 32 days", c->file, e->name,
					       e->roles[k].name);
	}
	return 0;
}

void config_engines_done(struct config *c)
{
	for (size_t i = 0; i < c->n_engines; i++) {
		struct config_engine *e = &c->engines[i];

		for (size_t k = 0; k < e->n_roles; k++) {
			for (size_t p = 0; p < e->roles[k].n_parameters; p++) {
				free(e->roles[k].parameters[p].name);
				config_free_strings(e->roles[k].parameters[p].values, e->roles[k].parameters[p].n_values);
			}
			free(e->roles[k].parameters);
		}
		free(e->roles);
		config_free_strings(e->readable, e->n_readable);
		config_free_strings(e->writable, e->n_writable);
	}
	free(c->engines);
}

const struct config_engine *config_engine(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_engines; i++)
		if (strcmp(c->engines[i].name, name) == 0)
			return &c->engines[i];
	return NULL;
}

const struct config_engine_role *config_engine_role(const struct config_engine *e, const char *name)
{
	for (size_t i = 0; e && i < e->n_roles; i++)
		if (strcmp(e->roles[i].name, name) == 0)
			return &e->roles[i];
	return NULL;
}
