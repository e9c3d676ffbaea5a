#include "pkcs11/signing.h"

#include "common/oaep.h"
#include "pkcs11/names.h"

#include <sodium.h>
#include <string.h>
#include <time.h>

#define AHEAD_MS 1000u /* a key that was deleted, or whose uses the token counts otherwise by now, signs at most so long */
#define ROOM_MS 60000u /* then another look at whether the token has room for a session */

union params {
	CK_RSA_PKCS_PSS_PARAMS pss;
	CK_RSA_PKCS_OAEP_PARAMS oaep;
};

static CK_MECHANISM mechanism_of(enum sign_scheme scheme, enum hash_type type, size_t salt_len, union params *params)
{
	static const CK_MECHANISM_TYPE types[SIGN_SCHEMES] = {[SIGN_ECDSA] = CKM_ECDSA, [SIGN_RSA_PKCS1] = CKM_RSA_PKCS,
							      [SIGN_RSA_PSS] = CKM_RSA_PKCS_PSS, [SIGN_ED25519] = CKM_EDDSA,
							      [DECRYPT_OAEP] = CKM_RSA_PKCS_OAEP};
	const struct hash_name *hash = hash_name(type);

	if (scheme == SIGN_RSA_PSS) {
		params->pss = (CK_RSA_PKCS_PSS_PARAMS){hash->hash, hash->mgf, salt_len};
		return (CK_MECHANISM){types[scheme], &params->pss, sizeof(params->pss)};
	}
	if (scheme == DECRYPT_OAEP) {
		params->oaep = (CK_RSA_PKCS_OAEP_PARAMS){hash->hash, hash->mgf, CKZ_DATA_SPECIFIED, NULL, 0};
		return (CK_MECHANISM){types[scheme], &params->oaep, sizeof(params->oaep)};
	}
	return (CK_MECHANISM){types[scheme], NULL, 0};
}

/* Many tokens say so of a ciphertext that is none, or whose padding is wrong; and of a session that is none any more. */
static CK_RV of_ciphertext(const struct module *m, CK_RV rv)
{
	CK_SESSION_INFO info;
	const bool unclear = rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED;

	return unclear && m->f->C_GetSessionInfo(m->session, &info) == CKR_OK ? CKR_ENCRYPTED_DATA_INVALID : rv;
}

/* Some tokens know OAEP with SHA-1 alone (SoftHSM 2.6): the padding is then taken off here. */
static CK_RV decrypt_raw(const struct module *m, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len)
{
	CK_MECHANISM mechanism = {CKM_RSA_X_509, NULL, 0};
	uint8_t data[KEY_SIGNATURE_MAX], block[KEY_SIGNATURE_MAX] = {0};
	CK_ULONG len = sizeof(block);
	CK_RV rv = m->f->C_DecryptInit(m->session, &mechanism, key);

	memcpy(data, q->data, q->len);
	if (rv == CKR_OK)
		rv = of_ciphertext(m, m->f->C_Decrypt(m->session, data, q->len, block, &len));
	if (rv == CKR_OK && len > q->len)
		rv = CKR_DEVICE_ERROR;
	/* leading zeros may be missing */
	if (rv == CKR_OK && len < q->len) {
		memmove(block + q->len - len, block, len);
		memset(block, 0, q->len - len);
	}
	if (rv == CKR_OK && oaep_unpad(q->hash, block, q->len, ret, ret_len, NULL) < 0)
		rv = CKR_ENCRYPTED_DATA_INVALID;
	sodium_memzero(block, sizeof(block));
	return rv;
}

static CK_RV decrypt(const struct module *m, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len)
{
	union params params;
	CK_MECHANISM mechanism = mechanism_of(q->scheme, q->hash, q->salt_len, &params);
	uint8_t data[SIGN_INPUT_MAX];
	CK_ULONG len = KEY_SIGNATURE_MAX;
	CK_RV rv = m->f->C_DecryptInit(m->session, &mechanism, key);

	if (rv == CKR_ARGUMENTS_BAD || rv == CKR_MECHANISM_PARAM_INVALID || rv == CKR_MECHANISM_INVALID)
		return decrypt_raw(m, key, q, ret, ret_len);
	if (rv != CKR_OK)
		return rv;
	memcpy(data, q->data, q->len);
	rv = m->f->C_Decrypt(m->session, data, q->len, ret, &len);
	*ret_len = rv == CKR_OK && len <= KEY_SIGNATURE_MAX ? len : 0;
	return of_ciphertext(m, rv);
}

static CK_RV begin(const struct module *m, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len)
{
	union params params;
	CK_MECHANISM mechanism = mechanism_of(scheme, hash, salt_len, &params);

	return m->f->C_SignInit(session, &mechanism, key);
}

static CK_RV end(const struct module *m, CK_SESSION_HANDLE session, const struct provider_sign *q, uint8_t *ret, size_t *ret_len)
{
	uint8_t data[SIGN_INPUT_MAX];
	CK_ULONG len = KEY_SIGNATURE_MAX;
	CK_RV rv;

	memcpy(data, q->data, q->len);
	rv = m->f->C_Sign(session, data, q->len, ret, &len);
	*ret_len = rv == CKR_OK && len <= KEY_SIGNATURE_MAX ? len : 0;
	return rv;
}

CK_RV signing_alone(const struct module *m, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len)
{
	CK_RV rv;

	if (q->scheme == DECRYPT_OAEP)
		return decrypt(m, key, q, ret, ret_len);
	rv = begin(m, m->session, key, q->scheme, q->hash, q->salt_len);
	return rv == CKR_OK ? end(m, m->session, q, ret, ret_len) : rv;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void close_session(const struct module *m, struct signing *s)
{
	if (s->session)
		m->f->C_CloseSession(s->session);
	s->session = 0;
	s->begun = false;
}

CK_RV signing_run(const struct module *m, struct signing *s, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len)
{
	const uint64_t now = now_ms();
	const bool same = s->key == key && s->scheme == q->scheme && s->hash == q->hash && s->salt_len == q->salt_len && now - s->ms < AHEAD_MS;
	CK_SESSION_INFO info;
	CK_RV rv = CKR_OK;

	/* what was begun for another is ended by nothing else */
	if (s->begun && !same)
		close_session(m, s);
	if (s->refused_ms && now - s->refused_ms < ROOM_MS)
		return CKR_SESSION_COUNT;
	/* another token may stand in that slot by now */
	if (!s->session)
		rv = m->f->C_GetSessionInfo(m->session, &info);
	if (!s->session && rv == CKR_OK)
		rv = m->f->C_OpenSession(m->slot, CKF_SERIAL_SESSION, NULL, NULL, &s->session);
	s->refused_ms = rv == CKR_OK ? 0 : now;
	if (rv != CKR_OK) {
		s->session = 0;
		return rv;
	}
	if (!s->begun)
		rv = begin(m, s->session, key, q->scheme, q->hash, q->salt_len);
	s->begun = false;
	if (rv == CKR_OK)
		rv = end(m, s->session, q, ret, ret_len);
	if (rv != CKR_OK)
		close_session(m, s);
	s->repeated = same && rv == CKR_OK;
	s->key = rv == CKR_OK ? key : 0;
	s->scheme = q->scheme;
	s->hash = q->hash;
	s->salt_len = q->salt_len;
	s->ms = now;
	return rv;
}

void signing_ahead(const struct module *m, struct signing *s)
{
	if (!s->repeated || s->begun || !s->session)
		return;
	s->begun = begin(m, s->session, s->key, s->scheme, s->hash, s->salt_len) == CKR_OK;
	if (!s->begun)
		close_session(m, s);
}

void signing_drop(const struct module *m, struct signing *s)
{
	close_session(m, s);
	*s = (struct signing){0};
}
