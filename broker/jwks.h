#pragma once
/* Key sets of CI systems (RFC 7517), pinned in files; a file that was replaced is read again by itself. */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct config_issuer;
struct err;

struct jwks_key {
	char *kid, *alg; /* NULL: none */
	char *kty, *crv; /* crv NULL for RSA */
	char *x, *y, *e; /* base64url: coordinates, or RSA's n in x and e */
};

struct jwks_set {
	char file[LIMIT_FILE_PATH_LEN];
	struct jwks_key *keys;
	size_t n_keys;
	uint64_t mtime_ms; /* the file's: how old the set is */
	/* what the file was when it was read */
	uint64_t device, inode, size, changed_ns;
	uint64_t warned_ms;
};

struct jwks {
	struct jwks_set *sets[LIMIT_ISSUERS];
	size_t n;
	uint64_t quiet_until_ms; /* boot-time clock: one of these failures was logged just now */
};

/* The issuer's set as its file is now. A file that cannot be read or has no key: ERR_LOGIN; the last good set is not used then. A set
 * older than max_age is good, and raises an alarm in the log once a day. */
int jwks_get(struct jwks *j, const struct config_issuer *issuer, uint64_t wall_ms, const struct jwks_set **ret, struct err *err);
void jwks_done(struct jwks *j);

/* The keys that a token may mean: those of its kid, or without one the only key. Calls each until it returns 0; its last failure is
 * returned. An unknown kid: ERR_LOGIN that names it and the set's age. */
int jwks_try(const struct jwks_set *set, const char *kid, uint64_t wall_ms, int (*each)(void *ctx, const struct jwks_key *key, struct err *err),
	     void *ctx, struct err *err);
/* Days since the file was written; 0 when the clock says that it is of the future. */
unsigned int jwks_age_days(const struct jwks_set *set, uint64_t wall_ms);
