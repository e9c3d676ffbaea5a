#pragma once
/* CI ID tokens to roles: Vault's vocabulary of bound claims, checked offline. */
#include "common/limits.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct config;
struct config_role;
struct err;
struct jwks;

struct identity {
	const struct config_role *role;
	char meta[LIMIT_TOKEN_META_TEXT]; /* "name=value\n": role, what claims are mapped to, scope */
	/* jwt: for the replay check */
	uint8_t seen[32];
	uint64_t expires_ms;
};

/* Signature, issuer, times, audience, bound claims. Once its use is remembered (store_replay with seen), it proves the role. ERR_LOGIN,
 * with texts as Vault has them; no byte of the token is in them but a harmless kid. */
int identity_jwt(const struct config *config, struct jwks *jwks, const char *role, const char *jwt, uint64_t wall_ms, struct identity *ret,
		 struct err *err);
/* The role's part of it, for claims that are believed already (cotter policy test). with_times: exp, nbf, iat too. */
int identity_jwt_claims(const struct config *config, const struct config_role *role, const json_t *claims, uint64_t wall_ms, bool with_times,
			struct identity *ret, struct err *err);

/* Starts meta with the role; adds a line; ERR_LOGIN when it does not fit or is no path. */
int identity_begin(const struct config_role *role, struct identity *ret);
int identity_add(struct identity *id, const char *name, const char *value, struct err *err);
/* Ends it with the role's scope, when it has one. */
int identity_end(struct identity *id, struct err *err);
