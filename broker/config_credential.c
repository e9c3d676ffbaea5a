#include "broker/config_credential.h"

#include "broker/config.h"
#include "broker/config_role.h"
#include "broker/credential.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* systemd binds "\0" HEX "/unit/" UNIT "/" NAME, in 107 bytes: what is longer never comes. */
#define ADDRESS_ROOM 84u

void *config_new_unit(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_unit *u = NULL;

	if (!credential_unit_valid(name, strlen(name)) || !strchr(name, '.')) {
		yaml_fail(at, err, "expected a unit such as deploy.service, found '%.80s'", name);
		return NULL;
	}
	if (c->n_units < LIMIT_UNITS)
		u = yaml_append(&c->units, &c->n_units, sizeof(*u));
	if (!u)
		yaml_fail(at, err, "at most %u units", LIMIT_UNITS);
	else
		snprintf(u->name, sizeof(u->name), "%s", name);
	return u;
}

static void *new_credential(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config_unit *u = target;
	struct config_credential *k = NULL;

	if (config_name(at, name, err) < 0)
		return NULL;
	if (strlen(u->name) + strlen(name) > ADDRESS_ROOM) {
		yaml_fail(at, err, "systemd has room for a unit and a credential of %u bytes together, and these have %zu", ADDRESS_ROOM,
			  strlen(u->name) + strlen(name));
		return NULL;
	}
	if (u->n_credentials < LIMIT_UNIT_CREDENTIALS)
		k = yaml_append(&u->credentials, &u->n_credentials, sizeof(*k));
	if (!k)
		yaml_fail(at, err, "at most %u credentials of one unit", LIMIT_UNIT_CREDENTIALS);
	else
		snprintf(k->name, sizeof(k->name), "%s", name);
	return k;
}

static int set_path(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_credential *k = target;

	if (!path_valid(text) || strncmp(text, PATH_PENDING, strlen(PATH_PENDING)) == 0)
		return yaml_fail(at, err, "expected a secret's path, found '%.100s'", text);
	snprintf(k->path, sizeof(k->path), "%s", text);
	return 0;
}

static int set_field(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_credential *k = target;

	if (!*text || strlen(text) >= sizeof(k->field))
		return yaml_fail(at, err, "expected the name of a field, of at most %zu bytes", sizeof(k->field) - 1);
	snprintf(k->field, sizeof(k->field), "%s", text);
	return 0;
}

/* In short: PATH, or PATH#FIELD. */
static int set_short(struct yaml_place at, const char *text, void *target, struct err *err)
{
	const size_t n = strcspn(text, "#");
	char path[LIMIT_PATH_LEN + 2];
	int r;

	snprintf(path, sizeof(path), "%.*s", n < sizeof(path) ? (int)n : (int)sizeof(path) - 1, text);
	r = set_path(at, path, target, err);
	return r == 0 && text[n] ? set_field(at, text + n + 1, target, err) : r;
}

static const struct yaml_field credential_fields[] = {
	{"path", YAML_CALL, .required = true, .set = set_path},
	{"field", YAML_CALL, .set = set_field},
	{0},
};
const struct yaml_field config_unit_fields[] = {
	{"credential", YAML_MAP, .fields = credential_fields, .item = new_credential, .set = set_short},
};

void config_units_done(struct config *c)
{
	for (size_t i = 0; i < c->n_units; i++)
		free(c->units[i].credentials);
	free(c->units);
}

const struct config_credential *config_credential(const struct config *c, const char *unit, const char *name)
{
	for (size_t i = 0; i < c->n_units; i++)
		for (size_t k = 0; strcmp(c->units[i].name, unit) == 0 && k < c->units[i].n_credentials; k++)
			if (strcmp(c->units[i].credentials[k].name, name) == 0)
				return &c->units[i].credentials[k];
	return NULL;
}
