#pragma once
/* The cgroup-v2 tree: at /sys/fs/cgroup, or (hybrid) at /sys/fs/cgroup/unified. */
#include "common/limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* The tree's root; NULL: there is none. */
const char *cgroup_root(void);

/*
 * The path of a cgroup whose id the kernel told, "/" first. hint is what somebody says it is, or NULL to look what
 * /proc/<pid>/cgroup says: neither is believed, as the directory there must have that very id. ERR_DENIED.
 */
int cgroup_path(uint64_t id, const char *hint, pid_t pid, char ret[LIMIT_CGROUP_PATH], struct err *err);
/* Absolute and not the root, no empty component, no dots that lead out, no control characters. */
bool cgroup_path_valid(const char *path);
/* What /proc/<pid>/cgroup says (0: of this process); a hint, no more. */
int cgroup_hint(pid_t pid, char ret[LIMIT_CGROUP_PATH], struct err *err);

/* The systemd unit that a path belongs to: its first component that is no slice. A user who may make cgroups below a unit of
 * his own makes no other unit. false: none. */
bool cgroup_unit(const char *path, char *ret, size_t size);

struct cgroup_events {
	bool empty;   /* no process stands in it or below any more, or it is gone */
	bool frozen;
	bool unknown; /* it could not be read now: neither is said */
};
void cgroup_events(const char *path, struct cgroup_events *ret);
bool cgroup_empty(const char *path);
