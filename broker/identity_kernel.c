#include "broker/identity_kernel.h"

#include "broker/cgroup.h"
#include "broker/config.h"
#include "broker/glob.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>

static bool has_id(const uint32_t *ids, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return n == 0;
}

static bool has_cgroup(const struct config_role *role, const char *path)
{
	for (size_t i = 0; path && i < role->n_cgroups; i++)
		if (glob_match_path(role->cgroups[i] + 1, path + 1))
			return true;
	return role->n_cgroups == 0;
}

static bool has_unit(const struct config_role *role, const char *path)
{
	char unit[256];

	if (role->n_units == 0)
		return true;
	if (!path || !cgroup_unit(path, unit, sizeof(unit)))
		return false;
	for (size_t i = 0; i < role->n_units; i++)
		if (glob_match(role->units[i], unit))
			return true;
	return false;
}

int identity_kernel(const struct config *config, const char *role_name, uint32_t uid, uint32_t gid, const char *path, struct identity *ret,
		    struct err *err)
{
	const struct config_role *role = config_role(config, role_name);

	if (!role || role->kind != CONFIG_ROLE_KERNEL)
		return err_set(err, ERR_LOGIN, "no role of that name goes by the kernel's word");
	return identity_of_peer(role, uid, gid, path, ret, err);
}

int identity_of_peer(const struct config_role *role, uint32_t uid, uint32_t gid, const char *path, struct identity *ret, struct err *err)
{
	char text[16];
	int r;

	if (!has_id(role->uids, role->n_uids, uid) || !has_id(role->gids, role->n_gids, gid))
		return err_set(err, ERR_LOGIN, "the role is not for this uid or gid");
	if (!has_cgroup(role, path) || !has_unit(role, path))
		return err_set(err, ERR_LOGIN, "the role is not for this cgroup or unit");
	identity_begin(role, ret);
	snprintf(text, sizeof(text), "%u", uid);
	r = identity_add(ret, "uid", text, err);
	return r < 0 ? r : identity_end(ret, err);
}
