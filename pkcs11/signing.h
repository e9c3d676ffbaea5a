#pragma once
/*
 * Signatures and RSA decryptions with a key of a module (PKCS#11 2.40, sections 5.7 and 5.11), from enum sign_scheme to mechanisms. Who signs over and
 * over waits for one half of it only: the other, C_SignInit, is done ahead, in a session of its own, when an answer is out. With SoftHSM it
 * is two thirds of a P-256 signature, with a network HSM a round trip.
 */
#include "common/provider.h"
#include "pkcs11/module.h"

struct signing {
	CK_SESSION_HANDLE session; /* 0: none */
	CK_OBJECT_HANDLE key;	   /* of the last signature, as are: */
	enum sign_scheme scheme;
	enum hash_type hash;
	size_t salt_len;
	uint64_t ms;   /* when */
	bool repeated; /* it was the second of its kind in a row */
	bool begun;    /* C_SignInit was done for such another */
	bool refused;  /* the token has no room for that session, or does not like it: not tried again */
};

/* q as in struct provider_ops' sign; ret takes KEY_SIGNATURE_MAX bytes. CKR_ENCRYPTED_DATA_INVALID: a padding is wrong. */
CK_RV signing_run(struct module *m, struct signing *s, CK_OBJECT_HANDLE key, const struct provider_sign *q, uint8_t *ret, size_t *ret_len);
/* To be called when nobody waits. */
void signing_ahead(struct module *m, struct signing *s);
/* Before the module's own session is dropped. */
void signing_drop(const struct module *m, struct signing *s);
