#pragma once
/* Kinds of asymmetric keys, hashes and signature schemes: every fact about one stands in its row. Public-key work by libcrypto. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum key_type { KEY_NONE, KEY_P256, KEY_P384, KEY_RSA2048, KEY_RSA3072, KEY_RSA4096, KEY_ED25519, KEY_TYPES };
enum hash_type { HASH_NONE, HASH_SHA1, HASH_SHA224, HASH_SHA256, HASH_SHA384, HASH_SHA512, HASH_TYPES };

enum sign_scheme {
	SIGN_ECDSA,	/* over a digest; r||s, each as long as the curve's field */
	SIGN_RSA_PKCS1, /* RFC 8017 EMSA-PKCS1-v1_5 around what is given: a DigestInfo, as a rule */
	SIGN_RSA_PSS,	/* over a digest; MGF1 with the same hash */
	SIGN_ED25519,	/* over the message itself */
	DECRYPT_OAEP,	/* MGF1 with the same hash, no label */
	SIGN_SCHEMES
};

#define KEY_SPKI_MAX 600u	/* DER SubjectPublicKeyInfo of RSA-4096 */
#define KEY_SIGNATURE_MAX 512u
#define KEY_POINT_MAX 97u	/* uncompressed, of P-384 */
#define HASH_MAX 64u
#define SIGN_DIGEST_MAX (19u + HASH_MAX)
#define SIGN_INPUT_MAX 4096u	/* of Ed25519; of the others far less */

struct key_row {
	const char *name;     /* Vault's word; NULL: none */
	uint32_t bits;
	size_t signature_len; /* as SIGN_* gives it; of RSA also the modulus */
	uint32_t schemes;     /* bits of enum sign_scheme */
	const char *curve;    /* OpenSSL's word, for EC */
};
struct hash_row {
	const char *name, *vault; /* OpenSSL's word, Vault's word */
	size_t len;
	uint8_t info[19];	  /* DigestInfo up to the digest (RFC 8017, section 9.2) */
	size_t info_len;
};

/* KEY_NONE and HASH_NONE have rows of zeros. */
const struct key_row *key_row(enum key_type type);
const struct hash_row *hash_row(enum hash_type type);
/* By Vault's word. */
enum key_type key_type_find(const char *name);
enum hash_type hash_type_find(const char *name);
/* By a digest's length. */
enum hash_type hash_type_of_length(size_t len);
/* The digest, of the hash's length; 0: libcrypto does not have it. */
size_t hash_digest(enum hash_type type, const void *data, size_t len, uint8_t ret[HASH_MAX]);
/* HMAC (RFC 2104), the same way. */
size_t hash_hmac(enum hash_type type, const uint8_t *key, size_t key_len, const void *data, size_t len, uint8_t ret[HASH_MAX]);
bool key_is_rsa(enum key_type type);
bool key_is_ec(enum key_type type);
/* Whether a key of that type can do it at all. */
bool key_can(enum key_type type, enum sign_scheme scheme);
/* How a key signs where nothing else is said, and the hash that goes with it: RSA by PKCS#1; HASH_NONE: Ed25519 hashes by itself. */
enum sign_scheme key_scheme(enum key_type type);
enum hash_type key_hash(enum key_type type);
/* What a scheme takes for a message: its digest, with SIGN_RSA_PKCS1 behind the DigestInfo; with SIGN_ED25519 the message itself. 0: it does
 * not fit, or libcrypto does not have the hash. */
size_t sign_input(enum sign_scheme scheme, enum hash_type hash, const void *message, size_t len, uint8_t *ret, size_t cap);
/* The hash that a DigestInfo names; data and len are its digest then. HASH_NONE: it is none. */
enum hash_type digest_info_split(const uint8_t **data, size_t *len);
/* What may be given to a scheme: digests of the hash's length, no more than fits. ERR_INPUT. */
int sign_check(enum key_type type, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, size_t len, struct err *err);

/* DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7); ret_len is at most KEY_SPKI_MAX. ERR_INPUT: not a key of these types. */
int spki_from_rsa(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len, uint8_t ret[KEY_SPKI_MAX], size_t *ret_len,
		  enum key_type *ret_type, struct err *err);
int spki_from_ec(enum key_type type, const uint8_t *point, size_t point_len, uint8_t ret[KEY_SPKI_MAX], size_t *ret_len, struct err *err);
int spki_from_ed25519(const uint8_t public[32], uint8_t ret[KEY_SPKI_MAX], size_t *ret_len, struct err *err);
/* An RSA key's modulus and exponent, big-endian without leading zeros. false: it is none, or too large. */
bool spki_rsa(const uint8_t *spki, size_t len, uint8_t n[KEY_SIGNATURE_MAX], size_t *ret_n_len, uint8_t e[16], size_t *ret_e_len);
#define KEY_ID_LEN 20u
/* The id by which a job's PKCS#11 token shows the key and its certificates: the first bytes of SHA-256 over it. */
void spki_id(const uint8_t *spki, size_t len, uint8_t ret[KEY_ID_LEN]);
/* A point: 4, x, y; of Ed25519 its 32 bytes. 0: it is no such key. */
size_t spki_point(const uint8_t *spki, size_t len, uint8_t ret[KEY_POINT_MAX]);

/* digest, or for Ed25519 the message; signature in the form of SIGN_*. salt_len -1: whatever the signature has. ERR_DENIED: it is wrong. */
int spki_verify(const uint8_t *spki, size_t spki_len, enum sign_scheme scheme, enum hash_type hash, int salt_len, const uint8_t *data,
		size_t len, const uint8_t *signature, size_t signature_len, struct err *err);
/* RSA-OAEP with MGF1 of the same hash and no label. ret has room for the modulus. ERR_INPUT: too long, or no RSA key. */
int spki_encrypt(const uint8_t *spki, size_t spki_len, enum hash_type hash, const uint8_t *plain, size_t len, uint8_t ret[KEY_SIGNATURE_MAX],
		 size_t *ret_len, struct err *err);
/* r||s to DER Ecdsa-Sig-Value (RFC 3279) and back. ret has room for 2 * half + 16 bytes. */
size_t ecdsa_to_der(const uint8_t *raw, size_t half, uint8_t *ret);
bool ecdsa_from_der(const uint8_t *der, size_t len, size_t half, uint8_t *ret);
