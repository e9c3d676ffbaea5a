#include "pkcs11/token.h"

#include "common/der.h"
#include "common/err.h"
#include "pkcs11/names.h"

#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RSA_SIGN(mechanism, scheme, hash, params) {mechanism, scheme, hash, params, true, 2048, 4096, CKF_HW | CKF_SIGN}
#define EC_FLAGS (CKF_HW | CKF_SIGN | CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS)

const struct token_mechanism token_mechanisms[] = {
	RSA_SIGN(CKM_RSA_PKCS, SIGN_RSA_PKCS1, HASH_NONE, false),
	RSA_SIGN(CKM_SHA1_RSA_PKCS, SIGN_RSA_PKCS1, HASH_SHA1, false),
	RSA_SIGN(CKM_SHA224_RSA_PKCS, SIGN_RSA_PKCS1, HASH_SHA224, false),
	RSA_SIGN(CKM_SHA256_RSA_PKCS, SIGN_RSA_PKCS1, HASH_SHA256, false),
	RSA_SIGN(CKM_SHA384_RSA_PKCS, SIGN_RSA_PKCS1, HASH_SHA384, false),
	RSA_SIGN(CKM_SHA512_RSA_PKCS, SIGN_RSA_PKCS1, HASH_SHA512, false),
	RSA_SIGN(CKM_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_NONE, true),
	RSA_SIGN(CKM_SHA1_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_SHA1, true),
	RSA_SIGN(CKM_SHA224_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_SHA224, true),
	RSA_SIGN(CKM_SHA256_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_SHA256, true),
	RSA_SIGN(CKM_SHA384_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_SHA384, true),
	RSA_SIGN(CKM_SHA512_RSA_PKCS_PSS, SIGN_RSA_PSS, HASH_SHA512, true),
	{CKM_RSA_PKCS_OAEP, DECRYPT_OAEP, HASH_NONE, true, true, 2048, 4096, CKF_HW | CKF_DECRYPT},
	{CKM_ECDSA, SIGN_ECDSA, HASH_NONE, false, false, 256, 384, EC_FLAGS},
	{CKM_ECDSA_SHA1, SIGN_ECDSA, HASH_SHA1, false, false, 256, 384, EC_FLAGS},
	{CKM_ECDSA_SHA224, SIGN_ECDSA, HASH_SHA224, false, false, 256, 384, EC_FLAGS},
	{CKM_ECDSA_SHA256, SIGN_ECDSA, HASH_SHA256, false, false, 256, 384, EC_FLAGS},
	{CKM_ECDSA_SHA384, SIGN_ECDSA, HASH_SHA384, false, false, 256, 384, EC_FLAGS},
	{CKM_ECDSA_SHA512, SIGN_ECDSA, HASH_SHA512, false, false, 256, 384, EC_FLAGS},
	/* digests alone, for clients that look whether they are there (SunPKCS11's PSS); they are computed by the client or by us */
	{CKM_SHA256, SIGN_SCHEMES, HASH_SHA256, false, false, 0, 0, CKF_DIGEST},
	{CKM_SHA384, SIGN_SCHEMES, HASH_SHA384, false, false, 0, 0, CKF_DIGEST},
	{CKM_SHA512, SIGN_SCHEMES, HASH_SHA512, false, false, 0, 0, CKF_DIGEST},
};
const size_t token_n_mechanisms = sizeof(token_mechanisms) / sizeof(token_mechanisms[0]);

/* Of the kinds of keys that are there. */
bool token_offers(const struct token *t, const struct token_mechanism *mechanism)
{
	if (mechanism->scheme == SIGN_SCHEMES)
		return true;
	for (size_t i = 0; i < t->n_keys; i++)
		if (key_can(t->keys[i].type, mechanism->scheme) && (mechanism->scheme == DECRYPT_OAEP ? t->keys[i].decrypt : t->keys[i].sign))
			return true;
	return false;
}

const struct token_mechanism *token_find_mechanism(const struct token *t, CK_MECHANISM_TYPE type)
{
	for (size_t i = 0; i < token_n_mechanisms; i++)
		if (token_mechanisms[i].type == type && token_offers(t, &token_mechanisms[i]))
			return &token_mechanisms[i];
	return NULL;
}

const struct token_attribute *token_attribute(const struct token_object *o, CK_ATTRIBUTE_TYPE type)
{
	for (size_t i = 0; i < o->n_attributes; i++)
		if (o->attributes[i].type == type)
			return &o->attributes[i];
	return NULL;
}

/* ---- building --------------------------------------------------------------------------------------------------- */

static void put_number(struct token_object *o, CK_ATTRIBUTE_TYPE type, enum token_value kind, uint64_t number)
{
	if (o->n_attributes < TOKEN_ATTRIBUTES)
		o->attributes[o->n_attributes++] = (struct token_attribute){
			.type = type, .kind = kind, .number = number, .len = kind == TOKEN_BYTE ? 1 : sizeof(CK_ULONG)};
}

static void put_bytes(struct token_object *o, CK_ATTRIBUTE_TYPE type, const void *bytes, size_t len)
{
	uint8_t *copy = malloc(len + 1);

	if (!copy || o->n_attributes == TOKEN_ATTRIBUTES) {
		free(copy);
		return;
	}
	if (len)
		memcpy(copy, bytes, len);
	o->attributes[o->n_attributes++] = (struct token_attribute){.type = type, .kind = TOKEN_BYTES, .bytes = copy, .len = len};
}

static void put_flags(struct token_object *o, const CK_ATTRIBUTE_TYPE *types, uint64_t value)
{
	for (; *types != (CK_ATTRIBUTE_TYPE)-1; types++)
		put_number(o, *types, TOKEN_BYTE, value);
}

static struct token_object *add(struct token *t, CK_OBJECT_CLASS class, const char *label, const uint8_t id[KEY_ID_LEN])
{
	struct token_object *grown = realloc(t->objects, (t->n_objects + 1) * sizeof(*grown)), *o;

	if (!grown)
		return NULL;
	t->objects = grown;
	o = &grown[t->n_objects++];
	*o = (struct token_object){0};
	put_number(o, CKA_CLASS, TOKEN_ULONG, class);
	put_number(o, CKA_TOKEN, TOKEN_BYTE, 1);
	put_number(o, CKA_PRIVATE, TOKEN_BYTE, class == CKO_PRIVATE_KEY);
	put_number(o, CKA_MODIFIABLE, TOKEN_BYTE, 0);
	put_bytes(o, CKA_LABEL, label, strlen(label));
	put_bytes(o, CKA_ID, id, KEY_ID_LEN);
	return o;
}

/* What private and public object share: CKA_KEY_TYPE and the numbers. */
static int put_public(struct token_object *o, const struct token_key *k, bool private)
{
	uint8_t n[KEY_SIGNATURE_MAX], e[16], point[2 + KEY_POINT_MAX];
	const struct curve *curve = curve_find(k->type);
	size_t n_len, e_len, len;

	put_number(o, CKA_KEY_TYPE, TOKEN_ULONG, key_is_rsa(k->type) ? CKK_RSA : CKK_EC);
	if (key_is_rsa(k->type)) {
		if (!spki_rsa(k->spki, k->spki_len, n, &n_len, e, &e_len))
			return -ERR_INPUT;
		if (!private)
			put_number(o, CKA_MODULUS_BITS, TOKEN_ULONG, key_row(k->type)->bits);
		put_bytes(o, CKA_MODULUS, n, n_len);
		put_bytes(o, CKA_PUBLIC_EXPONENT, e, e_len);
		return 0;
	}
	len = spki_point(k->spki, k->spki_len, point + 2);
	if (!curve || len == 0)
		return -ERR_INPUT;
	put_bytes(o, CKA_EC_PARAMS, curve->params, curve->len);
	point[0] = DER_OCTET_STRING;
	point[1] = (uint8_t)len;
	put_bytes(o, CKA_EC_POINT, point, len + 2);
	return 0;
}

static void put_name(struct token_object *o, CK_ATTRIBUTE_TYPE type, const X509_NAME *name)
{
	const unsigned char *der;
	size_t len;

	if (X509_NAME_get0_der(name, &der, &len) == 1)
		put_bytes(o, type, der, len);
}

static void put_serial(struct token_object *o, X509 *c)
{
	uint8_t *der = NULL;
	int n = i2d_ASN1_INTEGER(X509_get_serialNumber(c), &der);

	if (n > 0)
		put_bytes(o, CKA_SERIAL_NUMBER, der, (size_t)n);
	OPENSSL_free(der);
}

static int add_certificate(struct token *t, const struct token_key *k, X509 *c, const uint8_t *der, size_t len, const uint8_t own_id[KEY_ID_LEN], bool own)
{
	uint8_t id[KEY_ID_LEN], *spki = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c), &spki);
	struct token_object *o;
	char label[LIMIT_PATH_LEN + 8];

	if (n <= 0)
		return -ERR_INPUT;
	spki_id(spki, (size_t)n, id);
	OPENSSL_free(spki);
	snprintf(label, sizeof(label), "%s%s", k->name, own ? "" : " (CA)");
	o = add(t, CKO_CERTIFICATE, label, own ? own_id : id);
	if (!o)
		return -ERR_FAILED;
	put_number(o, CKA_CERTIFICATE_TYPE, TOKEN_ULONG, CKC_X_509);
	put_number(o, CKA_CERTIFICATE_CATEGORY, TOKEN_ULONG, own ? 1 : 2);
	put_number(o, CKA_TRUSTED, TOKEN_BYTE, 0);
	put_name(o, CKA_SUBJECT, X509_get_subject_name(c));
	put_name(o, CKA_ISSUER, X509_get_issuer_name(c));
	put_serial(o, c);
	put_bytes(o, CKA_VALUE, der, len);
	return 0;
}

/* ret_subject: of the key's own, as DER; malloc'ed, or NULL. */
static int add_certificates(struct token *t, const struct token_key *k, const uint8_t id[KEY_ID_LEN], struct token_attribute *ret_subject)
{
	const uint8_t *p = k->certificates, *end = p ? p + k->certificates_len : NULL, *start;
	const struct token_attribute *subject;
	bool own = true;
	int r = 0;

	for (; r == 0 && p < end; own = false) {
		X509 *c;

		start = p;
		c = d2i_X509(NULL, &p, end - p);
		r = c ? add_certificate(t, k, c, start, (size_t)(p - start), id, own) : -ERR_INPUT;
		X509_free(c);
		if (r == 0 && own && (subject = token_attribute(&t->objects[t->n_objects - 1], CKA_SUBJECT)))
			*ret_subject = *subject;
	}
	return r;
}

static int add_key(struct token *t, const struct token_key *k)
{
	static const CK_ATTRIBUTE_TYPE private_true[] = {CKA_SENSITIVE, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, (CK_ATTRIBUTE_TYPE)-1};
	static const CK_ATTRIBUTE_TYPE private_false[] = {CKA_EXTRACTABLE, CKA_UNWRAP, CKA_DERIVE, CKA_SIGN_RECOVER, CKA_ALWAYS_AUTHENTICATE, CKA_LOCAL, (CK_ATTRIBUTE_TYPE)-1};
	static const CK_ATTRIBUTE_TYPE public_false[] = {CKA_WRAP, CKA_DERIVE, CKA_VERIFY_RECOVER, CKA_TRUSTED, CKA_LOCAL, (CK_ATTRIBUTE_TYPE)-1};
	struct token_attribute subject = {0};
	struct token_object *o;
	uint8_t id[KEY_ID_LEN];
	int r;

	spki_id(k->spki, k->spki_len, id);
	r = add_certificates(t, k, id, &subject);
	if (r < 0)
		return r;
	o = add(t, CKO_PRIVATE_KEY, k->name, id);
	if (!o)
		return -ERR_FAILED;
	o->key = k;
	put_flags(o, private_true, 1);
	put_flags(o, private_false, 0);
	put_number(o, CKA_SIGN, TOKEN_BYTE, k->sign);
	put_number(o, CKA_DECRYPT, TOKEN_BYTE, k->decrypt);
	put_bytes(o, CKA_SUBJECT, subject.bytes, subject.len);
	r = put_public(o, k, true);
	if (r < 0)
		return r;
	o = add(t, CKO_PUBLIC_KEY, k->name, id);
	if (!o)
		return -ERR_FAILED;
	put_flags(o, public_false, 0);
	put_number(o, CKA_VERIFY, TOKEN_BYTE, k->sign);
	put_number(o, CKA_ENCRYPT, TOKEN_BYTE, k->decrypt);
	put_bytes(o, CKA_SUBJECT, subject.bytes, subject.len);
	return put_public(o, k, false);
}

int token_init(struct token *t, struct token_key *keys, size_t n_keys, token_backend *sign, void *ctx, struct err *err)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state st;
	int r = 0;

	*t = (struct token){.keys = keys, .n_keys = n_keys, .sign = sign, .ctx = ctx};
	crypto_hash_sha256_init(&st);
	for (size_t i = 0; r == 0 && i < n_keys; i++) {
		if (keys[i].type == KEY_ED25519)
			continue;
		crypto_hash_sha256_update(&st, keys[i].spki, keys[i].spki_len);
		r = add_key(t, &keys[i]);
	}
	/* the same keys are the same token, in every job */
	crypto_hash_sha256_final(&st, hash);
	sodium_bin2hex(t->serial, sizeof(t->serial), hash, 8);
	if (r == 0)
		return 0;
	token_done(t);
	return err_set(err, ERR_INPUT, "a key or a certificate that the broker named is malformed");
}

void token_done(struct token *t)
{
	for (size_t i = 0; i < t->n_objects; i++)
		for (size_t k = 0; k < t->objects[i].n_attributes; k++)
			free(t->objects[i].attributes[k].bytes);
	free(t->objects);
	*t = (struct token){0};
}
