#include "broker/jwt.h"

#include "broker/jwks.h"
#include "broker/json.h"
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"

#include <jose/jose.h>
#include <sodium.h>
#include <string.h>

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_LOGIN, "error validating token: %s", what);
}

static int parse_part(const char *text, size_t len, json_t **ret, struct err *err)
{
	CLEANUP(cleanup_secret_free) char *plain = secret_alloc(len + 1);
	size_t n;
	int r;

	if (!plain)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	if (!b64url_decode(text, len, plain, len, &n))
		return bad(err, "not base64url");
	r = json_parse(plain, n, ret, err);
	return r == -ERR_INPUT ? bad(err, "a part of it is not a JSON object, or has a key twice") : r;
}

static int parse_header(struct jwt *j, struct err *err)
{
	const json_t *kid = json_object_get(j->header, "kid");

	j->alg = json_string_value(json_object_get(j->header, "alg"));
	j->kid = json_string_value(kid);
	if (!j->alg)
		return bad(err, "its header names no algorithm");
	if (kid && !j->kid)
		return bad(err, "its key id is not a string");
	/* RFC 7515 §4.1.11: an extension that must be understood */
	if (json_object_get(j->header, "crit") || json_object_get(j->header, "b64"))
		return bad(err, "its header has critical extensions");
	return 0;
}

int jwt_parse(const char *text, size_t len, struct jwt *ret, struct err *err)
{
	const char *first = memchr(text, '.', len), *second;
	struct jwt j = {.text = text};
	int r;

	if (first && first - text > (ptrdiff_t)LIMIT_JWT_HEADER)
		return err_set(err, ERR_LOGIN, "error validating token: its header is longer than %u bytes", LIMIT_JWT_HEADER);
	if (len > LIMIT_JWT_LEN)
		return err_set(err, ERR_LOGIN, "error validating token: longer than %u bytes", LIMIT_JWT_LEN);
	second = first ? memchr(first + 1, '.', len - (size_t)(first + 1 - text)) : NULL;
	if (!second)
		return bad(err, "not a signed JWT in compact form");
	j.header_len = (size_t)(first - text);
	j.signed_len = (size_t)(second - text);
	/* a third dot would be no base64url */
	if (!b64url_decode(second + 1, len - j.signed_len - 1, j.signature, sizeof(j.signature), &j.signature_len) || !j.signature_len)
		return bad(err, "not a signed JWT in compact form");
	r = parse_part(text, j.header_len, &j.header, err);
	if (r == 0)
		r = parse_header(&j, err);
	if (r == 0)
		r = parse_part(first + 1, (size_t)(second - first - 1), &j.claims, err);
	if (r == 0)
		*ret = j;
	else
		jwt_done(&j);
	return r;
}

void jwt_done(struct jwt *j)
{
	json_decref(j->header);
	json_decref(j->claims);
	*j = (struct jwt){0};
}

/* ---- signatures ------------------------------------------------------------------------------------------------ */

/* libjose would print what it dislikes. */
static void quiet(void *misc, const char *file, int line, uint64_t code, const char *fmt, va_list ap)
{
	(void)misc;
	(void)file;
	(void)line;
	(void)code;
	(void)fmt;
	(void)ap;
}

#define JOSE_ROOM 524288u /* 256 bytes a value, and a header's shortest value has 3 of its bytes; twice that and more */

static bool by_jose(const struct jwt *j, const struct jwks_key *k)
{
	CLEANUP(json_cleanup) json_t *jwk = k->y ? json_pack("{s:s,s:s,s:s,s:s,s:s}", "kty", k->kty, "alg", j->alg, "crv", k->crv, "x", k->x, "y", k->y)
						 : json_pack("{s:s,s:s,s:s,s:s}", "kty", k->kty, "alg", j->alg, "n", k->x, "e", k->e);
	const char *payload = j->text + j->header_len + 1, *signature = j->text + j->signed_len + 1;
	CLEANUP(json_cleanup) json_t *jws =
		json_pack("{s:s%,s:s%,s:s}", "protected", j->text, j->header_len, "payload", payload, j->signed_len - j->header_len - 1,
			  "signature", signature);
	jose_cfg_t *cfg = jose_cfg();
	CLEANUP(cleanup_secret_free) void *room = secret_alloc(JOSE_ROOM);
	bool good = false, enough = room != NULL;

	/* it parses the header anew, and jansson must not run out of memory there: what is free now stays free meanwhile */
	secret_free(room);
	room = NULL;

	if (cfg)
		jose_cfg_set_err_func(cfg, quiet, NULL);
	if (enough && cfg && jwk && jws)
		good = jose_jws_ver(cfg, jws, NULL, jwk, false);
	if (cfg)
		jose_cfg_decref(cfg);
	return good;
}

static bool by_sodium(const struct jwt *j, const struct jwks_key *k)
{
	uint8_t key[crypto_sign_PUBLICKEYBYTES];
	size_t n;

	return b64url_decode(k->x, strlen(k->x), key, sizeof(key), &n) && n == sizeof(key) && j->signature_len == crypto_sign_BYTES &&
	       crypto_sign_verify_detached(j->signature, (const uint8_t *)j->text, j->signed_len, key) == 0;
}

static const struct {
	const char *alg, *kty, *crv;
	bool (*verify)(const struct jwt *j, const struct jwks_key *k);
} algorithms[] = {
	{"RS256", "RSA", NULL, by_jose},
	{"ES256", "EC", "P-256", by_jose},
	{"EdDSA", "OKP", "Ed25519", by_sodium},
};

int jwt_verify(const struct jwt *j, const struct jwks_key *k, struct err *err)
{
	for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
		if (strcmp(j->alg, algorithms[i].alg) != 0)
			continue;
		if (strcmp(k->kty, algorithms[i].kty) != 0 || (algorithms[i].crv && strcmp(k->crv, algorithms[i].crv) != 0) ||
		    (k->alg && strcmp(k->alg, j->alg) != 0))
			return bad(err, "its algorithm is not that of the pinned key");
		return algorithms[i].verify(j, k) ? 0 : bad(err, "its signature is wrong");
	}
	return bad(err, "its algorithm is not one of RS256, ES256, EdDSA");
}
