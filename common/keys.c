#include "common/keys.h"

#include "common/cleanup.h"
#include "common/der.h"
#include "common/err.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#define BIT(x) (1u << (x))
#define RSA_SCHEMES (BIT(SIGN_RSA_PKCS1) | BIT(SIGN_RSA_PSS) | BIT(DECRYPT_OAEP))

static const struct key_row keys[KEY_TYPES] = {
	[KEY_P256] = {"ecdsa-p256", 256, 64, BIT(SIGN_ECDSA), "P-256"},
	[KEY_P384] = {"ecdsa-p384", 384, 96, BIT(SIGN_ECDSA), "P-384"},
	[KEY_RSA2048] = {"rsa-2048", 2048, 256, RSA_SCHEMES, NULL},
	[KEY_RSA3072] = {"rsa-3072", 3072, 384, RSA_SCHEMES, NULL},
	[KEY_RSA4096] = {"rsa-4096", 4096, 512, RSA_SCHEMES, NULL},
	[KEY_ED25519] = {"ed25519", 256, 64, BIT(SIGN_ED25519), NULL},
};

#define INFO(total, arc, len) {0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00, 0x04, len}, 19

static const struct hash_row hashes[HASH_TYPES] = {
	[HASH_SHA1] = {"SHA1", "sha1", 20, {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}, 15},
	[HASH_SHA224] = {"SHA224", "sha2-224", 28, INFO(0x2d, 0x04, 0x1c)},
	[HASH_SHA256] = {"SHA256", "sha2-256", 32, INFO(0x31, 0x01, 0x20)},
	[HASH_SHA384] = {"SHA384", "sha2-384", 48, INFO(0x41, 0x02, 0x30)},
	[HASH_SHA512] = {"SHA512", "sha2-512", 64, INFO(0x51, 0x03, 0x40)},
};

const struct key_row *key_row(enum key_type type)
{
	return &keys[(unsigned int)type < KEY_TYPES ? type : KEY_NONE];
}

const struct hash_row *hash_row(enum hash_type type)
{
	return &hashes[(unsigned int)type < HASH_TYPES ? type : HASH_NONE];
}

enum key_type key_type_find(const char *name)
{
	for (unsigned int i = KEY_NONE + 1; i < KEY_TYPES; i++)
		if (strcmp(keys[i].name, name) == 0)
			return (enum key_type)i;
	return KEY_NONE;
}

enum hash_type hash_type_find(const char *name)
{
	for (unsigned int i = HASH_NONE + 1; i < HASH_TYPES; i++)
		if (strcmp(hashes[i].vault, name) == 0)
			return (enum hash_type)i;
	return HASH_NONE;
}

enum hash_type hash_type_of_length(size_t len)
{
	for (unsigned int i = HASH_NONE + 1; i < HASH_TYPES; i++)
		if (hashes[i].len == len)
			return (enum hash_type)i;
	return HASH_NONE;
}

size_t hash_digest(enum hash_type type, const void *data, size_t len, uint8_t ret[HASH_MAX])
{
	unsigned int n = 0;
	const EVP_MD *md = type ? EVP_get_digestbyname(hash_row(type)->name) : NULL;

	return md && EVP_Digest(data, len, ret, &n, md, NULL) == 1 ? n : 0;
}

size_t hash_hmac(enum hash_type type, const uint8_t *key, size_t key_len, const void *data, size_t len, uint8_t ret[HASH_MAX])
{
	unsigned int n = 0;
	const EVP_MD *md = type ? EVP_get_digestbyname(hash_row(type)->name) : NULL;

	return md && HMAC(md, key, (int)key_len, data, len, ret, &n) ? n : 0;
}

bool key_is_rsa(enum key_type type)
{
	return key_row(type)->schemes & BIT(SIGN_RSA_PKCS1);
}

bool key_is_ec(enum key_type type)
{
	return key_row(type)->schemes & BIT(SIGN_ECDSA);
}

bool key_can(enum key_type type, enum sign_scheme scheme)
{
	return (unsigned int)scheme < SIGN_SCHEMES && key_row(type)->schemes & BIT(scheme);
}

enum sign_scheme key_scheme(enum key_type type)
{
	return key_is_rsa(type) ? SIGN_RSA_PKCS1 : key_is_ec(type) ? SIGN_ECDSA : SIGN_ED25519;
}

enum hash_type key_hash(enum key_type type)
{
	return type == KEY_ED25519 ? HASH_NONE : type == KEY_P384 ? HASH_SHA384 : HASH_SHA256;
}

size_t sign_input(enum sign_scheme scheme, enum hash_type hash, const void *message, size_t len, uint8_t *ret, size_t cap)
{
	const struct hash_row *row = hash_row(hash);
	size_t before = scheme == SIGN_RSA_PKCS1 ? row->info_len : 0;
	uint8_t digest[HASH_MAX];

	if (scheme == SIGN_ED25519) {
		if (len > cap)
			return 0;
		memcpy(ret, message, len);
		return len;
	}
	if (before + row->len > cap || row->len == 0 || hash_digest(hash, message, len, digest) != row->len)
		return 0;
	memcpy(ret, row->info, before);
	memcpy(ret + before, digest, row->len);
	return before + row->len;
}

enum hash_type digest_info_split(const uint8_t **data, size_t *len)
{
	for (unsigned int i = HASH_NONE + 1; i < HASH_TYPES; i++) {
		const struct hash_row *row = &hashes[i];

		if (*len == row->info_len + row->len && memcmp(*data, row->info, row->info_len) == 0) {
			*data += row->info_len;
			*len = row->len;
			return (enum hash_type)i;
		}
	}
	return HASH_NONE;
}

int sign_check(enum key_type type, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, size_t len, struct err *err)
{
	size_t hash_len = hash_row(hash)->len, modulus = key_row(type)->signature_len;
	bool good;

	if (!key_can(type, scheme))
		return err_set(err, ERR_INPUT, "a key of type %s cannot do that", key_row(type)->name ? key_row(type)->name : "?");
	switch (scheme) {
	case SIGN_ECDSA: good = hash_type_of_length(len) != HASH_NONE; break;
	case SIGN_RSA_PKCS1: good = len > 0 && len + 11 <= modulus; break;
	case SIGN_RSA_PSS: good = hash_len && len == hash_len && salt_len <= modulus && hash_len + salt_len + 2 <= modulus; break;
	case SIGN_ED25519: good = len <= SIGN_INPUT_MAX; break;
	case DECRYPT_OAEP: good = hash_len && len == modulus && 2 * hash_len + 2 <= modulus; break;
	case SIGN_SCHEMES:
	default: good = false;
	}
	return good ? 0 : err_set(err, ERR_INPUT, "what is to be signed or decrypted is not of a length that this key and hash take");
}

/* ---- SubjectPublicKeyInfo --------------------------------------------------------------------------------------- */

static void cleanup_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void cleanup_ctx(EVP_PKEY_CTX **ctx)
{
	EVP_PKEY_CTX_free(*ctx);
}

static void cleanup_md_ctx(EVP_MD_CTX **ctx)
{
	EVP_MD_CTX_free(*ctx);
}

static int no_key(struct err *err)
{
	return err_set(err, ERR_INPUT, "the public key is malformed, or of a kind that cotter does not know");
}

static int write_spki(EVP_PKEY *key, uint8_t ret[KEY_SPKI_MAX], size_t *ret_len, struct err *err)
{
	uint8_t *p = ret;
	int n = key ? i2d_PUBKEY(key, NULL) : -1;

	if (n <= 0 || (size_t)n > KEY_SPKI_MAX)
		return no_key(err);
	*ret_len = (size_t)i2d_PUBKEY(key, &p);
	return 0;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM *params)
{
	CLEANUP(cleanup_ctx) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	if (!ctx || EVP_PKEY_fromdata_init(ctx) <= 0 || EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) <= 0)
		return NULL;
	return key;
}

static void cleanup_bn(BIGNUM **n)
{
	BN_free(*n);
}

static void cleanup_bld(OSSL_PARAM_BLD **b)
{
	OSSL_PARAM_BLD_free(*b);
}

static EVP_PKEY *ec_key(enum key_type type, const uint8_t *point, size_t len)
{
	char curve[16];
	uint8_t copy[KEY_POINT_MAX];
	OSSL_PARAM params[3];

	snprintf(curve, sizeof(curve), "%s", key_row(type)->curve);
	memcpy(copy, point, len);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, curve, 0); /* takes its length now */
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy, len);
	params[2] = OSSL_PARAM_construct_end();
	return from_params("EC", params);
}

static EVP_PKEY *rsa_key(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len)
{
	CLEANUP(cleanup_bn) BIGNUM *modulus = BN_bin2bn(n, (int)n_len, NULL);
	CLEANUP(cleanup_bn) BIGNUM *exponent = BN_bin2bn(e, (int)e_len, NULL);
	CLEANUP(cleanup_bld) OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key;

	if (b && modulus && exponent && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, modulus) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, exponent))
		params = OSSL_PARAM_BLD_to_param(b);
	key = params ? from_params("RSA", params) : NULL;
	OSSL_PARAM_free(params);
	return key;
}

int spki_from_rsa(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len, uint8_t ret[KEY_SPKI_MAX], size_t *ret_len,
		  enum key_type *ret_type, struct err *err)
{
	CLEANUP(cleanup_bn) BIGNUM *modulus = n_len <= 1024 ? BN_bin2bn(n, (int)n_len, NULL) : NULL;
	CLEANUP(cleanup_key) EVP_PKEY *key = NULL;

	*ret_type = KEY_NONE;
	for (enum key_type t = KEY_RSA2048; modulus && t <= KEY_RSA4096; t++)
		if (keys[t].bits == (uint32_t)BN_num_bits(modulus))
			*ret_type = t;
	if (*ret_type == KEY_NONE)
		return err_set(err, ERR_INPUT, "an RSA key of %d bits: cotter uses 2048, 3072 and 4096", modulus ? BN_num_bits(modulus) : 0);
	key = e_len <= 16 ? rsa_key(n, n_len, e, e_len) : NULL;
	return write_spki(key, ret, ret_len, err);
}

int spki_from_ec(enum key_type type, const uint8_t *point, size_t point_len, uint8_t ret[KEY_SPKI_MAX], size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_key) EVP_PKEY *key = NULL;
	CLEANUP(cleanup_ctx) EVP_PKEY_CTX *ctx = NULL;

	if (!key_is_ec(type) || point_len != 1 + key_row(type)->signature_len || point[0] != 4)
		return no_key(err);
	key = ec_key(type, point, point_len);
	ctx = key ? EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL) : NULL;
	if (!ctx || EVP_PKEY_public_check(ctx) <= 0)
		return no_key(err);
	return write_spki(key, ret, ret_len, err);
}

int spki_from_ed25519(const uint8_t public[32], uint8_t ret[KEY_SPKI_MAX], size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_key) EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, 32);

	return write_spki(key, ret, ret_len, err);
}

/* What stands before the public half is always the same of these (RFC 5480, RFC 8410); of RSA it is the algorithm alone (RFC 3279). */
static const struct {
	uint8_t der[26];
	uint8_t len;
} heads[KEY_TYPES] = {
	[KEY_P256] = {{0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
		       0x03, 0x42, 0x00}, 26},
	[KEY_P384] = {{0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00}, 23},
	[KEY_ED25519] = {{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, 12},
};
static const uint8_t rsa_algorithm[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};

/* A public key in its parts, within the DER. */
struct parts {
	enum key_type type;
	const uint8_t *point, *n, *e;
	size_t point_len, n_len, e_len;
};

/* A positive number as short as it can be, without the zero before its highest bit. */
static bool take_number(const uint8_t **p, const uint8_t *end, const uint8_t **ret, size_t *ret_len)
{
	if (!der_take(p, end, DER_INTEGER, ret, ret_len) || *ret_len == 0 || **ret & 0x80)
		return false;
	if (**ret != 0)
		return true;
	++*ret;
	--*ret_len;
	return *ret_len && **ret & 0x80;
}

static bool split_rsa(const uint8_t *spki, size_t len, struct parts *ret)
{
	const uint8_t *end = spki + len, *algorithm, *bits, *list, *inner_end;
	size_t n;

	if (!der_take(&spki, end, DER_SEQUENCE, &list, &n) || spki != end || !der_take(&list, end, DER_SEQUENCE, &algorithm, &n) || n != sizeof(rsa_algorithm) ||
	    memcmp(algorithm, rsa_algorithm, n) != 0 || !der_take(&list, end, DER_BIT_STRING, &bits, &n) || list != end || n < 1 || *bits++ != 0 ||
	    !der_take(&bits, end, DER_SEQUENCE, &list, &n) || bits != end)
		return false;
	inner_end = list + n;
	if (!take_number(&list, inner_end, &ret->n, &ret->n_len) || !take_number(&list, inner_end, &ret->e, &ret->e_len) || list != inner_end || ret->e_len > 16)
		return false;
	for (enum key_type t = KEY_RSA2048; t <= KEY_RSA4096; t++)
		if (keys[t].signature_len == ret->n_len && *ret->n & 0x80)
			ret->type = t;
	return ret->type != KEY_NONE;
}

/* libcrypto's own decoder takes 90 us for a key, six times as long as an RSA verification. */
static bool split_spki(const uint8_t *spki, size_t len, struct parts *ret)
{
	*ret = (struct parts){0};
	for (enum key_type t = KEY_NONE + 1; t < KEY_TYPES; t++) {
		size_t head = heads[t].len, half = t == KEY_ED25519 ? 32 : 1 + keys[t].signature_len;

		if (!head || len != head + half || memcmp(spki, heads[t].der, head) != 0 || (t != KEY_ED25519 && spki[head] != 4))
			continue;
		*ret = (struct parts){.type = t, .point = spki + head, .point_len = half};
		return true;
	}
	return split_rsa(spki, len, ret);
}

#define KEPT_KEYS 16u

static EVP_PKEY *make_key(const struct parts *k)
{
	return k->type == KEY_ED25519 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, k->point, k->point_len)
	       : k->point	      ? ec_key(k->type, k->point, k->point_len)
				      : rsa_key(k->n, k->n_len, k->e, k->e_len);
}

/*
 * The caller frees it. To make a key of libcrypto's from its parts takes longer than to verify with it, so the last ones are kept. Not
 * for several threads.
 */
static EVP_PKEY *read_spki(const uint8_t *spki, size_t len, enum key_type *ret_type)
{
	static struct {
		uint8_t spki[KEY_SPKI_MAX];
		size_t len;
		EVP_PKEY *key;
	} kept[KEPT_KEYS], *place;
	static size_t next;
	struct parts k;

	*ret_type = KEY_NONE;
	if (len > KEY_SPKI_MAX || !split_spki(spki, len, &k))
		return NULL;
	*ret_type = k.type;
	for (place = kept; place < kept + KEPT_KEYS && !(place->key && place->len == len && memcmp(place->spki, spki, len) == 0);)
		place++;
	if (place == kept + KEPT_KEYS) {
		EVP_PKEY *key = make_key(&k);

		if (!key)
			return NULL;
		place = &kept[next++ % KEPT_KEYS];
		EVP_PKEY_free(place->key);
		place->key = key;
		place->len = len;
		memcpy(place->spki, spki, len);
	}
	EVP_PKEY_up_ref(place->key);
	return place->key;
}

bool spki_rsa(const uint8_t *spki, size_t len, uint8_t n[KEY_SIGNATURE_MAX], size_t *ret_n_len, uint8_t e[16], size_t *ret_e_len)
{
	struct parts k;

	if (!split_spki(spki, len, &k) || !k.n)
		return false;
	memcpy(n, k.n, k.n_len);
	memcpy(e, k.e, k.e_len);
	*ret_n_len = k.n_len;
	*ret_e_len = k.e_len;
	return true;
}

void spki_id(const uint8_t *spki, size_t len, uint8_t ret[KEY_ID_LEN])
{
	uint8_t hash[HASH_MAX] = {0};

	hash_digest(HASH_SHA256, spki, len, hash);
	memcpy(ret, hash, KEY_ID_LEN);
}

size_t spki_point(const uint8_t *spki, size_t len, uint8_t ret[KEY_POINT_MAX])
{
	struct parts k;

	if (!split_spki(spki, len, &k) || !k.point)
		return 0;
	memcpy(ret, k.point, k.point_len);
	return k.point_len;
}

/* ---- signatures ------------------------------------------------------------------------------------------------- */

size_t ecdsa_to_der(const uint8_t *raw, size_t half, uint8_t *ret)
{
	uint8_t numbers[2 * 48 + 8];
	struct writer inner = writer_init(numbers, sizeof(numbers)), w = writer_init(ret, 2 * half + 16);

	der_put_integer(&inner, raw, half);
	der_put_integer(&inner, raw + half, half);
	der_put(&w, DER_SEQUENCE, numbers, inner.len);
	return inner.failed || w.failed ? 0 : w.len;
}

static const uint8_t *take_integer(const uint8_t *p, const uint8_t *end, size_t half, uint8_t *ret)
{
	size_t len;

	if (end - p < 2 || p[0] != 0x02 || p[1] == 0 || p[1] > 0x7f || (size_t)(end - p - 2) < p[1] || p[2] & 0x80)
		return NULL;
	len = p[1];
	p += 2;
	if (len > 1 && p[0] == 0 && !(p[1] & 0x80))
		return NULL; /* not minimal */
	if (p[0] == 0 && len > 1) {
		p++;
		len--;
	}
	if (len > half)
		return NULL;
	memset(ret, 0, half);
	memcpy(ret + half - len, p, len);
	return p + len;
}

bool ecdsa_from_der(const uint8_t *der, size_t len, size_t half, uint8_t *ret)
{
	const uint8_t *p;

	if (len < 8 || der[0] != 0x30 || der[1] != len - 2 || der[1] > 0x7f)
		return false;
	p = take_integer(der + 2, der + len, half, ret);
	p = p ? take_integer(p, der + len, half, ret + half) : NULL;
	return p == der + len;
}

static int wrong(struct err *err)
{
	return err_set(err, ERR_DENIED, "the signature is wrong");
}

static bool set_scheme(EVP_PKEY_CTX *ctx, enum sign_scheme scheme, enum hash_type hash, int salt_len)
{
	const EVP_MD *md = hash ? EVP_get_digestbyname(hash_row(hash)->name) : NULL;

	if (scheme == SIGN_ECDSA)
		return true;
	if (scheme == SIGN_RSA_PKCS1) /* the DigestInfo is in what is given */
		return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) > 0;
	return md && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 && EVP_PKEY_CTX_set_signature_md(ctx, md) > 0 &&
	       EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) > 0 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt_len < 0 ? RSA_PSS_SALTLEN_AUTO : salt_len) > 0;
}

int spki_verify(const uint8_t *spki, size_t spki_len, enum sign_scheme scheme, enum hash_type hash, int salt_len, const uint8_t *data,
		size_t len, const uint8_t *signature, size_t signature_len, struct err *err)
{
	enum key_type type;
	CLEANUP(cleanup_key) EVP_PKEY *key = read_spki(spki, spki_len, &type);
	CLEANUP(cleanup_ctx) EVP_PKEY_CTX *ctx = NULL;
	CLEANUP(cleanup_md_ctx) EVP_MD_CTX *md = NULL;
	uint8_t der[2 * 48 + 16];

	if (!key || !key_can(type, scheme) || scheme == DECRYPT_OAEP)
		return no_key(err);
	if (signature_len != key_row(type)->signature_len)
		return wrong(err);
	if (scheme == SIGN_ED25519) {
		md = EVP_MD_CTX_new();
		return md && EVP_DigestVerifyInit(md, NULL, NULL, NULL, key) > 0 && EVP_DigestVerify(md, signature, signature_len, data, len) == 1
			       ? 0
			       : wrong(err);
	}
	if (scheme == SIGN_ECDSA) {
		signature_len = ecdsa_to_der(signature, signature_len / 2, der);
		signature = der;
	}
	ctx = EVP_PKEY_CTX_new(key, NULL);
	if (!ctx || EVP_PKEY_verify_init(ctx) <= 0 || !set_scheme(ctx, scheme, hash, salt_len))
		return err_set(err, ERR_FAILED, "libcrypto does not verify that");
	return EVP_PKEY_verify(ctx, signature, signature_len, data, len) == 1 ? 0 : wrong(err);
}

int spki_encrypt(const uint8_t *spki, size_t spki_len, enum hash_type hash, const uint8_t *plain, size_t len, uint8_t ret[KEY_SIGNATURE_MAX],
		 size_t *ret_len, struct err *err)
{
	enum key_type type;
	CLEANUP(cleanup_key) EVP_PKEY *key = read_spki(spki, spki_len, &type);
	CLEANUP(cleanup_ctx) EVP_PKEY_CTX *ctx = NULL;
	const EVP_MD *md = hash ? EVP_get_digestbyname(hash_row(hash)->name) : NULL;
	size_t n = KEY_SIGNATURE_MAX;

	if (!key || !key_can(type, DECRYPT_OAEP) || !md)
		return no_key(err);
	if (len + 2 * hash_row(hash)->len + 2 > key_row(type)->signature_len)
		return err_set(err, ERR_INPUT, "at most %zu bytes can be encrypted with this key", key_row(type)->signature_len - 2 * hash_row(hash)->len - 2);
	ctx = EVP_PKEY_CTX_new(key, NULL);
	if (!ctx || EVP_PKEY_encrypt_init(ctx) <= 0 || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) <= 0 ||
	    EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) <= 0 || EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) <= 0 || EVP_PKEY_encrypt(ctx, ret, &n, plain, len) <= 0)
		return err_set(err, ERR_FAILED, "libcrypto does not encrypt that");
	*ret_len = n;
	return 0;
}
