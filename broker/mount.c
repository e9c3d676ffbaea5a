#include "broker/mount.h"

#include "broker/config.h"

#include <stdio.h>
#include <string.h>

static const struct mount fixed[] = {
	{"secret", "kv", "secrets, sealed to the hardware", 2, 0},
	{"transit", "transit", "keys in the hardware", 0, 0},
	{"pki", "pki", "X.509 certificates by a CA key in the hardware", 0, 0},
	{"totp", "totp", "one-time passwords, whose keys are sealed to the hardware", 0, 0},
	{"ssh", "ssh", "OpenSSH certificates by a CA key in the hardware", 0, 0},
	{"sys", "system", "system endpoints", 0, 0},
	{"auth/token", "token", "capability tokens", 0, 0},
	{"auth/jwt", "jwt", "ID tokens of CI systems", 0, 0},
	{"auth/kernel", "kernel", "who the kernel says it is", 0, 0},
	{"auth/approle", "approle", "a role's id and a secret id", 0, 0},
};
#define N_FIXED (sizeof(fixed) / sizeof(fixed[0]))

bool mount_at(const struct config *c, size_t i, struct mount *ret)
{
	if (i < N_FIXED) {
		*ret = fixed[i];
	} else if (i - N_FIXED < c->n_mounts) {
		const struct config_mount *m = &c->mounts[i - N_FIXED];

		*ret = (struct mount){m->path, m->type, "mounted by the configuration", m->version, 0};
	} else if (i - N_FIXED - c->n_mounts < c->n_engines) {
		*ret = (struct mount){c->engines[i - N_FIXED - c->n_mounts].name, "database", "an engine of the configuration", 0, 0};
	} else {
		return false;
	}
	ret->number = i + 1;
	return true;
}

static bool within(const char *path, const char *mount)
{
	size_t n = strlen(mount);

	return strncmp(path, mount, n) == 0 && (path[n] == '/' || !path[n]);
}

bool mount_of(const struct config *c, const char *path, struct mount *ret)
{
	for (size_t i = 0; mount_at(c, i, ret); i++)
		if (within(path, ret->path))
			return true;
	return false;
}

static const char *standard_path(const struct config_mount *m)
{
	if (strcmp(m->type, "kv") == 0)
		return m->version == 1 ? MOUNT_KV1 : "secret";
	return strcmp(m->type, "jwt") == 0 ? "auth/jwt" : "auth/approle";
}

bool mount_resolve(const struct config *c, const char *path, struct mount_place *ret)
{
	int n;

	ret->folder = "";
	for (size_t i = 0; i < c->n_mounts; i++) {
		const struct config_mount *m = &c->mounts[i];

		if (!within(path, m->path))
			continue;
		if (strcmp(m->type, "kv") == 0)
			ret->folder = m->path;
		n = snprintf(ret->text, sizeof(ret->text), "%s%s", standard_path(m), path + strlen(m->path));
		ret->path = ret->text;
		return (size_t)n < sizeof(ret->text);
	}
	for (size_t i = 0; i < c->n_engines; i++) {
		if (!within(path, c->engines[i].name))
			continue;
		ret->folder = c->engines[i].name;
		n = snprintf(ret->text, sizeof(ret->text), "%s%s", MOUNT_ENGINE, path + strlen(c->engines[i].name));
		ret->path = ret->text;
		return (size_t)n < sizeof(ret->text);
	}
	ret->path = path;
	return *path != '%';
}
