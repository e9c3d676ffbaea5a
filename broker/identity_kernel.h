#pragma once
/* The kernel's word alone as an identity: uid, gid, cgroup, systemd unit. */
#include "broker/identity_jwt.h"

#include <stdint.h>

/* cgroup_path: proven (cgroup_path()), or NULL. ERR_LOGIN. */
int identity_kernel(const struct config *config, const char *role, uint32_t uid, uint32_t gid, const char *cgroup_path, struct identity *ret,
		    struct err *err);
/* The same for a role that has come by something else already: what it says of the peer must hold. */
int identity_of_peer(const struct config_role *role, uint32_t uid, uint32_t gid, const char *cgroup_path, struct identity *ret, struct err *err);
