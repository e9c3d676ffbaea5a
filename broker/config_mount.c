#include "broker/config_mount.h"

#include "broker/config.h"
#include "broker/mount.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>

void *config_new_mount(struct yaml_place at, const char *name, void *target, struct err *err)
{
	struct config *c = target;
	struct config_mount *m = NULL;

	if (!path_valid(name) || strlen(name) > LIMIT_NAME_LEN) {
		yaml_fail(at, err, "expected a mount such as kv or auth/gitlab, found '%.80s'", name);
		return NULL;
	}
	if (c->n_mounts < LIMIT_MOUNTS)
		m = yaml_append(&c->mounts, &c->n_mounts, sizeof(*m));
	if (!m)
		yaml_fail(at, err, "at most %u mounts", LIMIT_MOUNTS);
	else
		snprintf(m->path, sizeof(m->path), "%s", name);
	return m;
}

static int set_type(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_mount *m = target;
	bool auth = strncmp(m->path, "auth/", 5) == 0;

	if (strcmp(text, "kv") != 0 && strcmp(text, "jwt") != 0 && strcmp(text, "approle") != 0)
		return yaml_fail(at, err, "expected kv, jwt or approle, found '%.40s'", text);
	if (auth != (strcmp(text, "kv") != 0))
		return yaml_fail(at, err, auth ? "%s cannot be mounted below auth/" : "%s is mounted below auth/", text);
	snprintf(m->type, sizeof(m->type), "%s", text);
	return 0;
}

static int set_version(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config_mount *m = target;

	if (strcmp(text, "1") != 0 && strcmp(text, "2") != 0)
		return yaml_fail(at, err, "expected version 1 or 2, found '%.40s'", text);
	m->version = (unsigned int)(text[0] - '0');
	return 0;
}

const struct yaml_field config_mount_fields[] = {
	{"type", YAML_CALL, .required = true, .set = set_type},
	{"version", YAML_CALL, .set = set_version},
	{0},
};

static bool overlap(const char *a, const char *b)
{
	size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);

	return strncmp(a, b, n) == 0 && (!a[n] || a[n] == '/') && (!b[n] || b[n] == '/');
}

int config_check_mounts(const struct config *c, struct err *err)
{
	struct mount other;

	for (size_t i = 0; i < c->n_mounts; i++) {
		struct config_mount *m = &c->mounts[i];
		bool kv = strcmp(m->type, "kv") == 0;

		if (!kv && m->version)
			return err_set(err, ERR_INPUT, "%.200s: mounts: %s: only kv has a version", c->file, m->path);
		if (kv && !m->version)
			m->version = 2;
		if (overlap(m->path, "cotter") || strcmp(m->path, "auth") == 0)
			return err_set(err, ERR_INPUT, "%.200s: mounts: %s is cotter's own", c->file, m->path);
		for (size_t k = 0; mount_at(c, k, &other); k++)
			if (other.path != m->path && overlap(m->path, other.path))
				return err_set(err, ERR_INPUT, "%.200s: mounts: %s and %s are within each other", c->file, m->path, other.path);
	}
	return 0;
}
