#pragma once
/*
 * ID tokens: JWTs in JWS compact form (RFC 7515, 7519), RS256, ES256 and EdDSA with Ed25519 (RFC 8037). The key says what algorithm
 * there is, never the token alone. Signatures by libjose, Ed25519 by libsodium, as libjose 11 has none.
 */
#include "common/limits.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jwks_key;

struct jwt {
	json_t *header, *claims;      /* objects, without duplicate keys */
	const char *alg, *kid;	      /* in header; kid NULL: none */
	const char *text;	      /* the caller's */
	size_t header_len, signed_len; /* of text: header; header, dot and payload */
	uint8_t signature[LIMIT_JWT_SIGNATURE];
	size_t signature_len;
};

/* Structure alone: nothing is believed yet. ERR_LOGIN with a text that holds no byte of the token. The caller calls jwt_done. */
int jwt_parse(const char *text, size_t len, struct jwt *ret, struct err *err);
void jwt_done(struct jwt *j);
/* ERR_LOGIN unless key is of the token's algorithm and signed it. */
int jwt_verify(const struct jwt *j, const struct jwks_key *key, struct err *err);
