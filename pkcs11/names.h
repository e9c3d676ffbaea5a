#pragma once
/* What PKCS#11 calls curves and hashes (OASIS PKCS #11 v2.40, current mechanisms), for the provider and for the virtual token. */
#include "common/keys.h"

#include <p11-kit/pkcs11.h>

/* CKA_EC_PARAMS: the curve's OID, and for Ed25519 also its name, in DER. */
struct curve {
	enum key_type type;
	size_t len;
	CK_BYTE params[16];
};
/* What keys of that type are made with. NULL: not on a curve. */
const struct curve *curve_find(enum key_type type);
/* KEY_NONE: none that is known. */
enum key_type curve_type(const CK_BYTE *params, size_t len);

struct hash_name {
	CK_MECHANISM_TYPE hash;
	CK_RSA_PKCS_MGF_TYPE mgf; /* MGF1 with it */
};
/* HASH_NONE has zeros. */
const struct hash_name *hash_name(enum hash_type type);
/* HASH_NONE: none that is known, or not both of the same. */
enum hash_type hash_of_names(CK_MECHANISM_TYPE hash, CK_RSA_PKCS_MGF_TYPE mgf);
