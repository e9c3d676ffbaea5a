#include "broker/config_rotation.h"

#include "broker/config.h"
#include "broker/config_role.h"
#include "broker/policy.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>

#define GRACE_DEFAULT_MS 3600000u

void *config_new_rotation(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_rotation *k = c->n_rotations < LIMIT_ROTATIONS ? yaml_append(&c->rotations, &c->n_rotations, sizeof(*k)) : NULL;

	(void)name;
	if (k)
		k->grace_ms = GRACE_DEFAULT_MS;
	else
		yaml_fail(at, err, "at most %u rotations", LIMIT_ROTATIONS);
	return k;
}

static int set_path(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_rotation *k = target;

	if (!policy_pattern_valid(text) || strstr(text, "{{"))
		return yaml_fail(at, err, "expected a secret's path or a pattern such as db/*, found '%.100s'", text);
	snprintf(k->pattern, sizeof(k->pattern), "%s", text);
	return 0;
}

static int set_every(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_rotation *)target)->every_ms, err);
}

static int set_grace(struct yaml_place at, const char *text, void *target, struct err *err)
{
	return config_duration(at, text, &((struct config_rotation *)target)->grace_ms, err);
}

#define TEXT(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

const struct yaml_field config_rotation_fields[] = {
	{"path", YAML_CALL, .required = true, .set = set_path},
	{"program", YAML_PATH, TEXT(config_rotation, program)},
	{"rotate_every", YAML_CALL, .set = set_every},
	{"grace", YAML_CALL, .set = set_grace},
	{0},
};

const struct config_rotation *config_rotation(const struct config *c, const char *path)
{
	for (size_t i = 0; i < c->n_rotations; i++)
		if (policy_pattern_matches(c->rotations[i].pattern, path, false, "", false))
			return &c->rotations[i];
	return NULL;
}
