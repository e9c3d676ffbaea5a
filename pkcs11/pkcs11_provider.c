#include "pkcs11/pkcs11_provider.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"
#include "pkcs11/ckr.h"
#include "pkcs11/module.h"
#include "pkcs11/names.h"
#include "pkcs11/signing.h"

#include <sodium.h>
#include <string.h>

#define ID_LEN 8u
#define CACHE 16u

struct provider {
	struct module module;
	struct signing signing[LIMIT_PARALLEL]; /* a thread's */
	bool der_points; /* learnt: this module wants ECDH peers as DER OCTET STRING */
	struct {
		char ref[LIMIT_URI_LEN];
		CK_OBJECT_HANDLE handle;
	} cache[CACHE];
	size_t next_cache;
};

static void end_signing(struct provider *p)
{
	for (size_t i = 0; i < LIMIT_PARALLEL; i++)
		signing_drop(&p->module, &p->signing[i]);
}

/* The token, and so the session with all that was known in it, is gone or not to be trusted. */
static void drop(struct provider *p)
{
	end_signing(p);
	module_drop(&p->module);
	memset(p->cache, 0, sizeof(p->cache));
}

static int provider_open(const struct provider_config *config, struct provider **ret, struct err *err)
{
	struct provider *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, ERR_FAILED, "out of memory");
	r = module_open(config->uri, &p->module, err);
	if (r < 0) {
		free(p);
		return r;
	}
	snprintf(p->module.failed_pin, sizeof(p->module.failed_pin), "%s", config->failed_pin);
	*ret = p;
	return 0;
}

static void provider_close(struct provider *p)
{
	if (p) {
		end_signing(p);
		module_done(&p->module);
		free(p);
	}
}

static int provider_login(struct provider *p, const struct secret *pin, bool by_operator, struct err *err)
{
	return p->module.logged_in ? 0 : module_login(&p->module, pin, by_operator, err);
}

static const char *provider_failed_pin(const struct provider *p)
{
	return p->module.failed_pin;
}

static CK_RV find_first(struct module *m, CK_ATTRIBUTE *template, CK_ULONG n, CK_ULONG skip, CK_OBJECT_HANDLE *ret,
			CK_ULONG *ret_found)
{
	CK_RV rv = m->f->C_FindObjectsInit(m->session, template, n);

	*ret_found = 0;
	if (rv != CKR_OK)
		return rv;
	do {
		rv = m->f->C_FindObjects(m->session, ret, 1, ret_found);
	} while (rv == CKR_OK && *ret_found == 1 && skip-- > 0);
	m->f->C_FindObjectsFinal(m->session);
	return rv;
}

static bool bool_attribute(struct module *m, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
	CK_BBOOL value = CK_FALSE;
	CK_ATTRIBUTE a = {type, &value, sizeof(value)};

	return m->f->C_GetAttributeValue(m->session, object, &a, 1) == CKR_OK && value == CK_TRUE;
}

/* The public key object with the private one's CKA_ID; some modules have none, and show all on the private key. */
static CK_OBJECT_HANDLE public_object(struct module *m, CK_OBJECT_HANDLE private, CK_ATTRIBUTE *id)
{
	CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
	CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)}, *id};
	CK_OBJECT_HANDLE object;
	CK_ULONG found;

	return find_first(m, template, 2, 0, &object, &found) == CKR_OK && found == 1 ? object : private;
}

static enum key_type curve_of(struct module *m, CK_OBJECT_HANDLE object)
{
	CK_BYTE value[32];
	CK_ATTRIBUTE a = {CKA_EC_PARAMS, value, sizeof(value)};

	return m->f->C_GetAttributeValue(m->session, object, &a, 1) == CKR_OK ? curve_type(value, a.ulValueLen) : KEY_NONE;
}

/* CKA_EC_POINT: a DER OCTET STRING, with some modules its content alone. */
static int read_ec(struct module *m, CK_OBJECT_HANDLE object, struct provider_key *ret, struct err *err)
{
	uint8_t value[160];
	CK_ATTRIBUTE a = {CKA_EC_POINT, value, sizeof(value)};
	enum key_type type = (enum key_type)ret->type;
	size_t want = type == KEY_ED25519 ? 32 : 1 + key_row(type)->signature_len, len = 0;
	const uint8_t *p = value;
	int r;

	if (type == KEY_NONE)
		return err_set(err, ERR_INPUT, "an elliptic curve that cotter does not know");
	if (m->f->C_GetAttributeValue(m->session, object, &a, 1) != CKR_OK)
		return err_set(err, ERR_HARDWARE, "the token shows no public key beside the private one");
	if (a.ulValueLen == want + 2 && value[0] == 0x04 && value[1] == want)
		p += 2;
	else if (a.ulValueLen != want)
		return err_set(err, ERR_HARDWARE, "the token's CKA_EC_POINT has %lu bytes", a.ulValueLen);
	r = type == KEY_ED25519 ? spki_from_ed25519(p, ret->spki, &len, err) : spki_from_ec(type, p, want, ret->spki, &len, err);
	ret->spki_len = (uint32_t)len;
	if (r == 0 && type == KEY_P256)
		memcpy(ret->point, p, P256_POINT_LEN);
	return r;
}

static int read_rsa(struct module *m, CK_OBJECT_HANDLE object, struct provider_key *ret, struct err *err)
{
	uint8_t n[1024], e[16];
	CK_ATTRIBUTE a[] = {{CKA_MODULUS, n, sizeof(n)}, {CKA_PUBLIC_EXPONENT, e, sizeof(e)}};
	enum key_type type;
	size_t len = 0;
	int r;

	if (m->f->C_GetAttributeValue(m->session, object, a, 2) != CKR_OK)
		return err_set(err, ERR_HARDWARE, "the token shows no public key beside the private one");
	r = spki_from_rsa(n, a[0].ulValueLen, e, a[1].ulValueLen, ret->spki, &len, &type, err);
	ret->spki_len = (uint32_t)len;
	ret->type = type;
	return r;
}

static int read_public(struct module *m, CK_OBJECT_HANDLE private, CK_ATTRIBUTE *id, struct provider_key *ret, struct err *err)
{
	CK_OBJECT_HANDLE object = public_object(m, private, id);
	CK_KEY_TYPE type = 0;
	CK_ATTRIBUTE a = {CKA_KEY_TYPE, &type, sizeof(type)};

	if (m->f->C_GetAttributeValue(m->session, private, &a, 1) != CKR_OK)
		return err_set(err, ERR_HARDWARE, "the token does not tell what kind of key it is");
	if (type == CKK_RSA)
		return read_rsa(m, object, ret, err);
	if (type != CKK_EC && type != CKK_EC_EDWARDS)
		return err_set(err, ERR_INPUT, "neither an RSA key nor one on an elliptic curve");
	ret->type = curve_of(m, private);
	if (ret->type == KEY_NONE)
		ret->type = curve_of(m, object);
	return read_ec(m, object, ret, err);
}

static int format_ref(CK_ATTRIBUTE *id, CK_ATTRIBUTE *label, char *ret, struct err *err)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_ATTRIBUTE type = {CKA_CLASS, &class, sizeof(class)};
	P11KitUri *uri = p11_kit_uri_new();
	char *text = NULL;
	int r = -1;

	if (uri) {
		p11_kit_uri_set_attribute(uri, &type);
		p11_kit_uri_set_attribute(uri, id);
		p11_kit_uri_set_attribute(uri, label);
		if (p11_kit_uri_format(uri, P11_KIT_URI_FOR_OBJECT, &text) == P11_KIT_URI_OK && strlen(text) < LIMIT_URI_LEN)
			r = 0;
	}
	if (r == 0)
		snprintf(ret, LIMIT_URI_LEN, "%s", text);
	else
		r = err_set(err, ERR_LIMIT, "the key's label or id is too long for a URI");
	free(text);
	p11_kit_uri_free(uri);
	return r;
}

static int describe(struct provider *p, CK_OBJECT_HANDLE object, struct provider_key *ret, struct err *err)
{
	struct module *m = &p->module;
	uint8_t id_value[64];
	char label_value[LIMIT_NAME_LEN];
	CK_ATTRIBUTE a[] = {{CKA_ID, id_value, sizeof(id_value)}, {CKA_LABEL, label_value, sizeof(label_value)}};
	int r = ckr_err(m->f->C_GetAttributeValue(m->session, object, a, 2), "reading a key's id and label", err);

	if (r < 0)
		return r;
	*ret = (struct provider_key){0};
	memcpy(ret->label, label_value, a[1].ulValueLen);
	ret->can_agree = bool_attribute(m, object, CKA_DERIVE);
	ret->can_sign = bool_attribute(m, object, CKA_SIGN);
	ret->can_decrypt = bool_attribute(m, object, CKA_DECRYPT);
	r = read_public(m, object, &a[0], ret, err);
	return r < 0 ? r : format_ref(&a[0], &a[1], ret->ref, err);
}

static int provider_list(struct provider *p, size_t index, struct provider_key *ret, struct err *err)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)}};
	CK_OBJECT_HANDLE object;
	CK_ULONG found;
	int r = module_session(&p->module, err);

	if (r < 0)
		return r;
	r = ckr_err(find_first(&p->module, template, 1, index, &object, &found), "listing keys", err);
	if (r < 0)
		return r;
	if (found == 0)
		return err_set(err, ERR_NOT_FOUND, "no more keys");
	return describe(p, object, ret, err);
}

/* 0: not used yet. */
static CK_OBJECT_HANDLE known_key(const struct provider *p, const char *ref)
{
	for (size_t i = 0; i < CACHE; i++)
		if (p->cache[i].handle && strcmp(p->cache[i].ref, ref) == 0)
			return p->cache[i].handle;
	return 0;
}

/* rv, so that the caller can tell a lost session from an absent key (CKR_OK and *ret 0). */
static CK_RV find_ref(struct provider *p, const char *ref, CK_OBJECT_HANDLE *ret, struct err *err)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_ATTRIBUTE template[8], *attributes;
	CK_OBJECT_HANDLE second;
	CK_ULONG n, used = 0, found, several;
	P11KitUri *uri;
	CK_RV rv;

	*ret = known_key(p, ref);
	if (*ret)
		return CKR_OK;
	uri = p11_kit_uri_new();
	if (!uri || p11_kit_uri_parse(ref, P11_KIT_URI_FOR_OBJECT_ON_TOKEN_AND_MODULE, uri) != P11_KIT_URI_OK) {
		p11_kit_uri_free(uri);
		err_set(err, ERR_INPUT, "a key's reference must be a PKCS#11 URI (RFC 7512)");
		return CKR_OK;
	}
	attributes = p11_kit_uri_get_attributes(uri, &n);
	template[used++] = (CK_ATTRIBUTE){CKA_CLASS, &class, sizeof(class)};
	for (CK_ULONG i = 0; i < n && used < 8; i++)
		if (attributes[i].type != CKA_CLASS)
			template[used++] = attributes[i];
	rv = find_first(&p->module, template, used, 1, &second, &several);
	if (rv == CKR_OK)
		rv = find_first(&p->module, template, used, 0, ret, &found);
	p11_kit_uri_free(uri);
	if (rv != CKR_OK)
		return rv;
	if (several) {
		*ret = 0;
		err_set(err, ERR_INPUT, "the token has more than one private key %.300s: add its id ('cotter key list')", ref);
		return CKR_OK;
	}
	if (found == 0) {
		*ret = 0;
		err_set(err, ERR_NOT_FOUND, "the token has no private key %.300s", ref);
		return CKR_OK;
	}
	snprintf(p->cache[p->next_cache].ref, LIMIT_URI_LEN, "%s", ref);
	p->cache[p->next_cache].handle = *ret;
	p->next_cache = (p->next_cache + 1) % CACHE;
	return CKR_OK;
}

/* One operation on a key; *done tells that err, not rv, has the last word. */
typedef CK_RV key_operation(struct provider *p, CK_OBJECT_HANDLE key, void *args);

/* Runs op in the logged-in session; once more in a new one if the session was lost. */
static int with_key(struct provider *p, const char *ref, key_operation *op, void *args, const char *what, struct err *err)
{
	CK_OBJECT_HANDLE key;
	CK_RV rv = CKR_OK;
	int r;

	for (int attempt = 0; attempt < 2; attempt++) {
		r = module_session(&p->module, err);
		if (r < 0)
			return r;
		rv = find_ref(p, ref, &key, err);
		if (rv == CKR_OK && !key)
			return -err->code;
		if (rv == CKR_OK)
			rv = op(p, key, args);
		if (rv == CKR_OK)
			return 0;
		/* not the session's fault, and a login for each might be a prompt on a PIN pad for each */
		if (rv == CKR_ENCRYPTED_DATA_INVALID || rv == CKR_ENCRYPTED_DATA_LEN_RANGE)
			break;
		/* a failed derivation may leave a half-made object behind, too: only a new session is clean */
		drop(p);
		if (!ckr_session_lost(rv))
			break;
	}
	return ckr_err(rv, what, err);
}

struct agree_args {
	const uint8_t *peer;
	uint8_t *ret;
};

static CK_RV derive(struct provider *p, CK_OBJECT_HANDLE key, const uint8_t *peer, bool der, CK_OBJECT_HANDLE *ret)
{
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_KEY_TYPE type = CKK_GENERIC_SECRET;
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_ULONG len = P256_SECRET_LEN;
	CK_ATTRIBUTE template[] = {
		{CKA_CLASS, &class, sizeof(class)}, {CKA_KEY_TYPE, &type, sizeof(type)}, {CKA_TOKEN, &no, sizeof(no)},
		{CKA_PRIVATE, &yes, sizeof(yes)},   {CKA_SENSITIVE, &no, sizeof(no)},	 {CKA_EXTRACTABLE, &yes, sizeof(yes)},
		{CKA_VALUE_LEN, &len, sizeof(len)},
	};
	CK_BYTE point[2 + P256_POINT_LEN] = {0x04, P256_POINT_LEN};
	CK_ECDH1_DERIVE_PARAMS params = {.kdf = CKD_NULL};
	CK_MECHANISM mechanism = {CKM_ECDH1_DERIVE, &params, sizeof(params)};

	memcpy(point + 2, peer, P256_POINT_LEN);
	params.public_data = der ? point : point + 2;
	params.public_data_len = der ? sizeof(point) : P256_POINT_LEN;
	return p->module.f->C_DeriveKey(p->module.session, &mechanism, key, template, sizeof(template) / sizeof(template[0]),
					ret);
}

static CK_RV agree_op(struct provider *p, CK_OBJECT_HANDLE key, void *args)
{
	struct agree_args *a = args;
	struct module *m = &p->module;
	uint8_t value[P256_SECRET_LEN];
	CK_ATTRIBUTE attribute = {CKA_VALUE, value, sizeof(value)};
	CK_OBJECT_HANDLE derived = 0;
	CK_RV rv = derive(p, key, a->peer, p->der_points, &derived);

	/* PKCS#11 2.40 modules must take the raw point; older ones want it wrapped */
	if (rv == CKR_MECHANISM_PARAM_INVALID || rv == CKR_ARGUMENTS_BAD || rv == CKR_DATA_INVALID) {
		rv = derive(p, key, a->peer, !p->der_points, &derived);
		if (rv == CKR_OK)
			p->der_points = !p->der_points;
	}
	if (rv != CKR_OK)
		return rv;
	rv = m->f->C_GetAttributeValue(m->session, derived, &attribute, 1);
	m->f->C_DestroyObject(m->session, derived);
	if (rv == CKR_OK && (attribute.ulValueLen == 0 || attribute.ulValueLen > sizeof(value)))
		rv = CKR_DEVICE_ERROR;
	if (rv == CKR_OK) {
		/* some tokens drop leading zero bytes */
		memset(a->ret, 0, P256_SECRET_LEN);
		memcpy(a->ret + P256_SECRET_LEN - attribute.ulValueLen, value, attribute.ulValueLen);
	}
	sodium_memzero(value, sizeof(value));
	return rv;
}

static int provider_agree(struct provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN],
			  uint8_t ret[P256_SECRET_LEN], struct err *err)
{
	struct agree_args args = {peer, ret};

	return with_key(p, ref, agree_op, &args, "ECDH (CKM_ECDH1_DERIVE)", err);
}

struct sign_args {
	const struct provider_sign *q;
	uint8_t *ret;
	size_t *ret_len;
};

static CK_RV sign_op(struct provider *p, CK_OBJECT_HANDLE key, void *args)
{
	const struct sign_args *a = args;

	return signing_alone(&p->module, key, a->q, a->ret, a->ret_len);
}

static int provider_sign(struct provider *p, const char *ref, const struct provider_sign *q, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len,
			 struct err *err)
{
	static const char *const names[SIGN_SCHEMES] = {"signing (CKM_ECDSA)", "signing (CKM_RSA_PKCS)", "signing (CKM_RSA_PKCS_PSS)",
							"signing (CKM_EDDSA)", "decrypting (CKM_RSA_PKCS_OAEP)"};
	struct sign_args args = {q, ret, ret_len};

	return with_key(p, ref, sign_op, &args, names[q->scheme], err);
}

static bool provider_sign_beside(struct provider *p, unsigned int thread, const char *ref, const struct provider_sign *q, uint8_t ret[KEY_SIGNATURE_MAX],
				 size_t *ret_len)
{
	const CK_OBJECT_HANDLE key = p->module.logged_in && q->scheme != DECRYPT_OAEP ? known_key(p, ref) : 0;

	return key && signing_run(&p->module, &p->signing[thread], key, q, ret, ret_len) == CKR_OK;
}

static void provider_ahead(struct provider *p, unsigned int thread)
{
	signing_ahead(&p->module, &p->signing[thread]);
}

struct find_args {
	struct provider_key *ret;
	struct err *err;
	int r;
};

static CK_RV find_op(struct provider *p, CK_OBJECT_HANDLE key, void *args)
{
	struct find_args *a = args;

	a->r = describe(p, key, a->ret, a->err);
	return CKR_OK;
}

static int provider_find(struct provider *p, const char *ref, struct provider_key *ret, struct err *err)
{
	struct find_args args = {ret, err, 0};
	int r = with_key(p, ref, find_op, &args, "finding a key", err);

	return r < 0 ? r : args.r;
}

/* The mechanism, and what the public key's template says of the kind of key. */
static CK_MECHANISM_TYPE generate_how(enum key_type type, CK_BYTE params[16], CK_ULONG *bits, CK_ATTRIBUTE *ret)
{
	const struct curve *curve = curve_find(type);

	if (curve) {
		memcpy(params, curve->params, curve->len);
		*ret = (CK_ATTRIBUTE){CKA_EC_PARAMS, params, curve->len};
		return type == KEY_ED25519 ? CKM_EC_EDWARDS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN;
	}
	*bits = key_row(type)->bits;
	*ret = (CK_ATTRIBUTE){CKA_MODULUS_BITS, bits, sizeof(*bits)};
	return CKM_RSA_PKCS_KEY_PAIR_GEN;
}

static int provider_make(struct provider *p, enum provider_key_use use, enum key_type type, const char *label, const char *pcrs,
			 struct provider_key *ret, char ret_pem[LIMIT_WIRE_DATA], struct err *err)
{
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_BBOOL *sign = use == PROVIDER_KEY_SIGN ? &yes : &no, *agree = use == PROVIDER_KEY_SEAL ? &yes : &no;
	CK_BBOOL *decrypt = use == PROVIDER_KEY_SIGN && key_is_rsa(type) ? &yes : &no;
	CK_BYTE id[ID_LEN], params[16];
	char name[LIMIT_NAME_LEN + 1];
	CK_ULONG name_len = strlen(label), bits;
	CK_ATTRIBUTE public[] = {
		{CKA_TOKEN, &yes, sizeof(yes)},	      {CKA_EC_PARAMS, NULL, 0},		       {CKA_ID, id, sizeof(id)},
		{CKA_LABEL, name, name_len},	      {CKA_VERIFY, sign, sizeof(*sign)},       {CKA_ENCRYPT, decrypt, sizeof(*decrypt)},
		{CKA_WRAP, &no, sizeof(no)},
	};
	CK_ATTRIBUTE private[] = {
		{CKA_TOKEN, &yes, sizeof(yes)},	      {CKA_PRIVATE, &yes, sizeof(yes)},	  {CKA_SENSITIVE, &yes, sizeof(yes)},
		{CKA_EXTRACTABLE, &no, sizeof(no)},   {CKA_ID, id, sizeof(id)},		  {CKA_LABEL, name, name_len},
		{CKA_DERIVE, agree, sizeof(*agree)},  {CKA_SIGN, sign, sizeof(*sign)},	  {CKA_DECRYPT, decrypt, sizeof(*decrypt)},
		{CKA_UNWRAP, &no, sizeof(no)},
	};
	CK_MECHANISM mechanism = {generate_how(type, params, &bits, &public[1]), NULL, 0};
	CK_OBJECT_HANDLE public_key, private_key;
	CK_RV rv;
	int r;

	if (pcrs[0])
		return err_set(err, ERR_USAGE, "a PKCS#11 token has no PCRs: --pcrs is for a TPM");
	r = module_session(&p->module, err);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s", label);
	randombytes_buf(id, sizeof(id));
	rv = p->module.f->C_GenerateKeyPair(p->module.session, &mechanism, public, sizeof(public) / sizeof(public[0]), private,
					    sizeof(private) / sizeof(private[0]), &public_key, &private_key);
	r = ckr_err(rv, "making a key", err);
	if (r < 0)
		return r;
	ret_pem[0] = '\0';
	return describe(p, private_key, ret, err);
}

static int provider_random(struct provider *p, uint8_t *ret, size_t len, struct err *err)
{
	int r = module_session(&p->module, err);

	return r < 0 ? r : ckr_err(p->module.f->C_GenerateRandom(p->module.session, ret, len), "random numbers", err);
}

/* PKCS#11 pads its strings with spaces. */
static int padded_len(const unsigned char *s, int size)
{
	while (size > 0 && (s[size - 1] == ' ' || s[size - 1] == 0))
		size--;
	return size;
}

static void provider_status(struct provider *p, struct provider_status *ret)
{
	struct module *m = &p->module;
	struct err err = {0};
	int r;

	*ret = (struct provider_status){0};
	r = module_find_token(m, &err);
	if (r == 0) {
		snprintf(ret->description, sizeof(ret->description), "token '%.*s' (%.*s %.*s, serial %.*s)",
			 padded_len(m->token.label, 32), m->token.label, padded_len(m->token.manufacturerID, 32),
			 m->token.manufacturerID, padded_len(m->token.model, 16), m->token.model,
			 padded_len(m->token.serialNumber, 16), m->token.serialNumber);
		r = module_session(m, &err);
	} else {
		drop(p);
	}
	if (r < 0) {
		ret->state = r == -ERR_PIN ? PROVIDER_PIN_NEEDED : PROVIDER_ABSENT;
		snprintf(ret->problem, sizeof(ret->problem), "%.255s", err.msg);
	}
}

const struct provider_ops pkcs11_provider_ops = {
	.scheme = "pkcs11:",
	.open = provider_open,
	.login = provider_login,
	.failed_pin = provider_failed_pin,
	.list = provider_list,
	.make = provider_make,
	.find = provider_find,
	.agree = provider_agree,
	.sign = provider_sign,
	.sign_beside = provider_sign_beside,
	.ahead = provider_ahead,
	.random = provider_random,
	.status = provider_status,
	.close = provider_close,
};
