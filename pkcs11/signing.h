#pragma once
/*
 * Signatures and RSA decryptions with a key of a module (PKCS#11 2.40, sections 5.7 and 5.11), from enum sign_scheme to mechanisms.
 */
#include "common/provider.h"
#include "pkcs11/module.h"

/* In the module's own session; all of them. q as in struct provider_ops' sign; ret takes KEY_SIGNATURE_MAX bytes.
 * CKR_ENCRYPTED_DATA_INVALID: a padding is wrong. */
CK_RV signing_alone(const struct module *m, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len);

/*
 * Signatures in a session of their own, so that several threads sign at once, each in one. And who signs over and over waits for one
 * half of it only: the other, C_SignInit, is done ahead, when an answer is out. With SoftHSM it is two thirds of a P-256 signature, with a
 * network HSM a round trip.
 */
struct signing {
	CK_SESSION_HANDLE session; /* 0: none */
	CK_OBJECT_HANDLE key;	   /* of the last signature, as are: */
	enum sign_scheme scheme;
	enum hash_type hash;
	size_t salt_len;
	uint64_t ms;   /* when, on the boot-time clock */
	bool repeated; /* it was the second of its kind in a row */
	bool begun;    /* C_SignInit was done for such another */
	uint64_t refused_ms; /* when the token had no room for that session; 0: it has */
};

/* A signature, not a decryption. The module is logged in. What fails here may be tried again by signing_alone, and tell more. */
CK_RV signing_run(const struct module *m, struct signing *s, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len);
/* To be called when an answer is out. */
void signing_ahead(const struct module *m, struct signing *s);
/* Before the module's own session is dropped. */
void signing_drop(const struct module *m, struct signing *s);
