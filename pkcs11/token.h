#pragma once
/*
 * The virtual token that a job sees: the keys that it may use, their public halves and their certificates, as PKCS#11 objects (OASIS
 * PKCS #11 v2.40). It holds nothing secret: who signs is the backend. Served by token_rpc.h.
 */
#include "common/keys.h"
#include "common/limits.h"

#include <p11-kit/pkcs11.h>
#include <stdbool.h>
#include <stddef.h>

struct err;

struct token_key {
	char name[LIMIT_PATH_LEN + 1];
	uint64_t version;
	enum key_type type;
	bool sign, decrypt;
	uint8_t spki[KEY_SPKI_MAX];
	size_t spki_len;
	uint8_t *certificates; /* malloc'ed DER, one behind the other, the key's own first */
	size_t certificates_len;
};

/* Signs or decrypts with a key, by enum sign_scheme. ERR_DENIED: it may not, or not any more. */
typedef int token_backend(void *ctx, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data,
		       size_t len, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err);

enum token_value { TOKEN_BYTE, TOKEN_ULONG, TOKEN_BYTES };

struct token_attribute {
	CK_ATTRIBUTE_TYPE type;
	enum token_value kind;
	uint64_t number;
	uint8_t *bytes; /* malloc'ed */
	size_t len;
};

#define TOKEN_ATTRIBUTES 32u

struct token_object {
	struct token_attribute attributes[TOKEN_ATTRIBUTES];
	size_t n_attributes;
	const struct token_key *key; /* of a private key; else NULL */
};

struct token {
	struct token_key *keys; /* the caller's */
	size_t n_keys;
	struct token_object *objects; /* handle n is objects[n - 1] */
	size_t n_objects;
	char serial[17];
	token_backend *sign;
	void *ctx;
};

/* Makes the objects. keys are lent until token_done. Ed25519 keys get none: no stock client can use them, and one in sight keeps some
 * from using the others. ERR_INPUT: a certificate or a key is malformed. */
int token_init(struct token *t, struct token_key *keys, size_t n_keys, token_backend *sign, void *ctx, struct err *err);
void token_done(struct token *t);
/* NULL: the object has none of that type. */
const struct token_attribute *token_attribute(const struct token_object *o, CK_ATTRIBUTE_TYPE type);

/* What a mechanism of PKCS#11 means. */
struct token_mechanism {
	CK_MECHANISM_TYPE type;
	enum sign_scheme scheme;
	enum hash_type hash; /* HASH_NONE: digests or DigestInfos are given, or the parameters say it */
	bool has_params, rsa;
	CK_ULONG min_bits, max_bits, flags;
};
extern const struct token_mechanism token_mechanisms[];
extern const size_t token_n_mechanisms;
/* Some key that is there can do it, and may. */
bool token_offers(const struct token *t, const struct token_mechanism *mechanism);
/* NULL: it is not offered. */
const struct token_mechanism *token_find_mechanism(const struct token *t, CK_MECHANISM_TYPE type);
