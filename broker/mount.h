#pragma once
/* Where Vault's engines and ways to log in are found: at fixed places, and where the configuration mounts more of them. */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>

struct config;

struct mount {
	const char *path; /* secret, auth/jwt: without a slash at its end */
	const char *type, *description;
	unsigned int version; /* of kv; else 0 */
	size_t number;	      /* among all, from 1 */
};

/* The i-th of all; false: there are no more. */
bool mount_at(const struct config *c, size_t i, struct mount *ret);
/* The one that a path (behind /v1/) is in. */
bool mount_of(const struct config *c, const char *path, struct mount *ret);

/* A path as the routes know it. */
struct mount_place {
	const char *path;
	char text[LIMIT_PATH_LEN + 64]; /* of it, where it is not the one that was asked with */
	const char *folder; /* of the store, that holds all that the mount has; "": the store itself */
};
/* What a path means: that of a mount of the configuration becomes the path of the fixed mount of its kind. false: it is none. */
bool mount_resolve(const struct config *c, const char *path, struct mount_place *ret);
/* KV version 1 has no fixed mount: its routes begin with this, which no request can say. */
#define MOUNT_KV1 "%kv1"
/* The same of engines. */
#define MOUNT_ENGINE "%engine"
