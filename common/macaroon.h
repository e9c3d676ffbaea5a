#pragma once
/*
 * Capability tokens: macaroons in a restricted profile of the V2 binary format (doc/formats.md), as text "cot1_" and
 * base64url. First-party caveats only, minimal varints, at most LIMIT_TOKEN_LEN bytes. Stock libraries narrow them.
 */
#include "common/limits.h"
#include "common/secret.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

#define MACAROON_PREFIX "cot1_"
#define MACAROON_ID_LEN 21u /* 0x01 | epoch u32be | 16 random bytes */
#define MACAROON_SIG_LEN 32u

/* A bearer secret: in the arena, through macaroon_parse. */
struct macaroon {
	uint8_t raw[LIMIT_TOKEN_LEN];
	size_t raw_len;
	uint8_t id[MACAROON_ID_LEN];
	struct macaroon_caveat {
		const uint8_t *p; /* into raw; not terminated */
		size_t len;
	} caveats[LIMIT_CAVEATS];
	size_t n_caveats;
	uint8_t sig[MACAROON_SIG_LEN];
	uint8_t sigs[LIMIT_CAVEATS][MACAROON_SIG_LEN]; /* by macaroon_verify: the signature at each caveat */
	bool verified;
};

/* Strict: ERR_INPUT for any byte outside the profile, before any cryptography. *ret is in the arena: secret_free. */
int macaroon_parse(const char *text, size_t len, struct macaroon **ret, struct err *err);

#define MACAROON_ROOT_LEN 32u
/* What all tokens of a key (32 bytes, its use: this alone) begin with: the standard key step of macaroon libraries. The caller
 * wipes it. */
void macaroon_root(const uint8_t key[32], uint8_t ret[MACAROON_ROOT_LEN]);

/* The unnarrowed token for id. ret: its text, zero-terminated. */
int macaroon_mint(const uint8_t root[MACAROON_ROOT_LEN], const uint8_t id[MACAROON_ID_LEN], struct secret *ret, struct err *err);

/* Offline: text with one caveat more. */
int macaroon_narrow(const char *text, size_t len, const char *caveat, struct secret *ret, struct err *err);

#define MACAROON_NAME_LEN 16u
/* A name for "this caveat on this very token", from the signature there; it opens nothing. */
void macaroon_caveat_name(const uint8_t sig[MACAROON_SIG_LEN], uint8_t ret[MACAROON_NAME_LEN]);

/* Recomputes the chain and compares in constant time. No caveat may be read before it returned true. */
bool macaroon_verify(struct macaroon *m, const uint8_t root[MACAROON_ROOT_LEN]);
