#include "broker/identity_jwt.h"

#include "broker/config.h"
#include "broker/glob.h"
#include "broker/jwks.h"
#include "broker/jwt.h"
#include "broker/policy.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* ---- what is proven --------------------------------------------------------------------------------------------- */

int identity_begin(const struct config_role *role, struct identity *ret)
{
	*ret = (struct identity){.role = role};
	snprintf(ret->meta, sizeof(ret->meta), "role=%s\n", role->name);
	return 0;
}

int identity_add(struct identity *id, const char *name, const char *value, struct err *err)
{
	size_t n = strlen(id->meta);

	/* it becomes part of paths: what is none must not be bent into one */
	if (strlen(value) > LIMIT_TOKEN_META_VALUE || !path_valid(value))
		return err_set(err, ERR_LOGIN, "error validating claims: the value for '%s' cannot be part of a path", name);
	if ((size_t)snprintf(id->meta + n, sizeof(id->meta) - n, "%s=%s\n", name, value) >= sizeof(id->meta) - n)
		return err_set(err, ERR_LOGIN, "error validating claims: the mapped claims are too long");
	return 0;
}

int identity_end(struct identity *id, struct err *err)
{
	char scope[LIMIT_PATH_LEN + 1];

	if (!id->role->scope[0])
		return 0;
	if (!policy_expand(id->role->scope, id->meta, scope, sizeof(scope)))
		return err_set(err, ERR_LOGIN, "error validating claims: the role's scope has no value for this identity");
	return identity_add(id, "scope", scope, err);
}

/* ---- claims ----------------------------------------------------------------------------------------------------- */

/* One step of a JSON pointer (RFC 6901, section 4): ~1 is '/', ~0 is '~'. false: malformed, or longer than any name. */
static bool pointer_step(const char *text, size_t n, char ret[LIMIT_BOUND_LEN + 1])
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++, len++) {
		if (len >= LIMIT_BOUND_LEN || (text[i] == '~' && (i + 1 == n || (text[i + 1] != '0' && text[i + 1] != '1'))))
			return false;
		ret[len] = text[i] != '~' ? text[i] : text[i + 1] == '0' ? '~' : '/';
		i += text[i] == '~';
	}
	ret[len] = '\0';
	return true;
}

/* By name, or by JSON pointer of at most eight steps. */
static const json_t *find_claim(const json_t *claims, const char *name)
{
	char key[LIMIT_BOUND_LEN + 1];
	size_t n;

	if (name[0] != '/')
		return json_object_get(claims, name);
	for (int depth = 0; claims && *name == '/' && depth < 8; depth++) {
		name++;
		n = strcspn(name, "/");
		if (!pointer_step(name, n, key))
			return NULL;
		claims = json_object_get(claims, key);
		name += n;
	}
	return *name ? NULL : claims;
}

/* CI systems differ in what is a number or "1", true or "true": the text counts. false: neither string, integer nor boolean. */
static bool claim_text(const json_t *j, char ret[LIMIT_BOUND_LEN + 1])
{
	if (json_is_string(j) && json_string_length(j) <= LIMIT_BOUND_LEN && strlen(json_string_value(j)) == json_string_length(j))
		snprintf(ret, LIMIT_BOUND_LEN + 1, "%s", json_string_value(j));
	else if (json_is_integer(j))
		snprintf(ret, LIMIT_BOUND_LEN + 1, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
	else if (json_is_boolean(j))
		snprintf(ret, LIMIT_BOUND_LEN + 1, "%s", json_is_true(j) ? "true" : "false");
	else
		return false;
	return true;
}

static bool one_matches(const json_t *j, char *const *values, size_t n, bool glob)
{
	char text[LIMIT_BOUND_LEN + 1];

	if (!claim_text(j, text))
		return false;
	for (size_t i = 0; i < n; i++)
		if (glob ? glob_match(values[i], text) : strcmp(values[i], text) == 0)
			return true;
	return false;
}

/* A list matches when any of it does. */
static bool matches(const json_t *j, char *const *values, size_t n, bool glob)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(j))
		return one_matches(j, values, n, glob);
	json_array_foreach(j, i, item)
		if (one_matches(item, values, n, glob))
			return true;
	return false;
}

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_LOGIN, "error validating claims: %s", what);
}

#define SECONDS_MAX 1000000000000ll /* far enough from any overflow */

/* 0: not there; below 0: not a number of seconds. */
static json_int_t seconds(const json_t *claims, const char *name)
{
	const json_t *j = json_object_get(claims, name);
	double real;

	if (!j)
		return 0;
	if (json_is_integer(j))
		return json_integer_value(j) > 0 && json_integer_value(j) < SECONDS_MAX ? json_integer_value(j) : -1;
	real = json_real_value(j);
	return json_is_real(j) && real >= 1 && real < (double)SECONDS_MAX ? (json_int_t)real : -1;
}

static int check_times(const struct config_role *role, const json_t *claims, uint64_t wall_ms, uint64_t *ret_expires_ms, struct err *err)
{
	json_int_t exp = seconds(claims, "exp"), nbf = seconds(claims, "nbf"), iat = seconds(claims, "iat");
	json_int_t now = (json_int_t)(wall_ms / 1000), leeway = (json_int_t)(role->leeway_ms / 1000);

	if (exp <= 0 || nbf < 0 || iat < 0)
		return bad(err, exp == 0 ? "it has no exp" : "exp, nbf or iat is not a time");
	if (now >= exp + leeway)
		return err_set(err, ERR_LOGIN, "error validating claims: it expired %lld s ago by this machine's clock: is the clock right?",
			       (long long)(now - exp));
	if (nbf > now + leeway || iat > now + leeway)
		return err_set(err, ERR_LOGIN, "error validating claims: it is valid only in %lld s by this machine's clock: is the clock right?",
			       (long long)((nbf > iat ? nbf : iat) - now));
	if (exp > now + (json_int_t)LIMIT_JWT_LIFE_S)
		return err_set(err, ERR_LOGIN, "error validating claims: it is valid for more than %u hours", LIMIT_JWT_LIFE_S / 3600);
	/* as long as any role might take it: roles differ in their leeway */
	*ret_expires_ms = (uint64_t)exp * 1000 + LIMIT_JWT_LEEWAY_MS + 1000;
	return 0;
}

static int check_bound(const struct config_role *role, const json_t *claims, struct err *err)
{
	char subject[LIMIT_BOUND_LEN + 1];
	char *const only[] = {subject};

	if (!matches(json_object_get(claims, "aud"), role->audiences, role->n_audiences, false))
		return bad(err, "the audience claim does not match any bound audience");
	memcpy(subject, role->subject, sizeof(subject));
	if (subject[0] && (!json_is_string(json_object_get(claims, "sub")) || !matches(json_object_get(claims, "sub"), only, 1, role->glob)))
		return bad(err, "the sub claim does not match the bound subject");
	for (size_t i = 0; i < role->n_claims; i++) {
		const struct config_claim *c = &role->claims[i];
		const json_t *value = find_claim(claims, c->name);

		if (!value)
			return err_set(err, ERR_LOGIN, "error validating claims: claim \"%.100s\" is missing", c->name);
		if (!matches(value, c->values, c->n_values, role->glob))
			return err_set(err, ERR_LOGIN, "error validating claims: claim \"%.100s\" does not match any associated bound claim values", c->name);
	}
	return 0;
}

static int map_claims(const struct config_role *role, const json_t *claims, struct identity *id, struct err *err)
{
	char text[LIMIT_BOUND_LEN + 1];
	int r = 0;

	for (size_t i = 0; r == 0 && i < role->n_mappings; i++) {
		if (!claim_text(find_claim(claims, role->mappings[i].claim), text))
			return err_set(err, ERR_LOGIN, "error validating claims: claim \"%.100s\" is missing, or no text", role->mappings[i].claim);
		r = identity_add(id, role->mappings[i].name, text, err);
	}
	return r;
}

int identity_jwt_claims(const struct config *config, const struct config_role *role, const json_t *claims, uint64_t wall_ms, bool with_times,
			struct identity *ret, struct err *err)
{
	const struct config_issuer *issuer = config_issuer(config, role->issuer);
	const char *iss = json_string_value(json_object_get(claims, "iss"));
	struct identity id;
	int r;

	identity_begin(role, &id);
	if (!issuer || !iss || strcmp(iss, issuer->issuer) != 0)
		return bad(err, "it is of another issuer");
	r = with_times ? check_times(role, claims, wall_ms, &id.expires_ms, err) : 0;
	if (r == 0)
		r = check_bound(role, claims, err);
	if (r == 0)
		r = map_claims(role, claims, &id, err);
	if (r == 0)
		r = identity_end(&id, err);
	if (r == 0)
		*ret = id;
	return r;
}

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

static int try_key(void *ctx, const struct jwks_key *key, struct err *err)
{
	return jwt_verify(ctx, key, err);
}

/*
 * What makes it the same token: issuer and jti; without one (Forgejo) what is signed. Never the whole text: a signature has more than
 * one form.
 */
static void seen_hash(const struct jwt *j, uint8_t ret[32])
{
	const json_t *jti = json_object_get(j->claims, "jti");
	const char *iss = json_string_value(json_object_get(j->claims, "iss"));
	crypto_hash_sha256_state st;

	crypto_hash_sha256_init(&st);
	if (json_string_length(jti)) {
		crypto_hash_sha256_update(&st, (const uint8_t *)"jti", 4);
		crypto_hash_sha256_update(&st, (const uint8_t *)iss, strlen(iss) + 1);
		crypto_hash_sha256_update(&st, (const uint8_t *)json_string_value(jti), json_string_length(jti));
	} else {
		crypto_hash_sha256_update(&st, (const uint8_t *)"jwt", 4);
		crypto_hash_sha256_update(&st, (const uint8_t *)j->text, j->signed_len);
	}
	crypto_hash_sha256_final(&st, ret);
}

int identity_jwt(const struct config *config, struct jwks *jwks, const char *role_name, const char *text, uint64_t wall_ms,
		 struct identity *ret, struct err *err)
{
	const struct config_role *role = config_role(config, role_name);
	const struct config_issuer *issuer;
	const struct jwks_set *set = NULL;
	CLEANUP(jwt_done) struct jwt j = {0};
	int r;

	if (!role || !role->issuer[0])
		return err_set(err, ERR_LOGIN, "no role of that name takes ID tokens");
	issuer = config_issuer(config, role->issuer);
	if (!issuer)
		return err_set(err, ERR_LOGIN, "the role's issuer is not configured");
	r = jwt_parse(text, strlen(text), &j, err);
	if (r == 0)
		r = jwks_get(jwks, issuer, wall_ms, &set, err);
	if (r == 0)
		r = jwks_try(set, j.kid, wall_ms, try_key, &j, err);
	/* no claim is read before this line */
	if (r == 0)
		r = identity_jwt_claims(config, role, j.claims, wall_ms, true, ret, err);
	if (r == 0)
		seen_hash(&j, ret->seen);
	return r;
}
