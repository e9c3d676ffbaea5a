#include "pkcs11/names.h"

#include <string.h>

/* The first of a type is what keys are made with. */
static const struct curve curves[] = {
	{KEY_P256, 10, {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}},
	{KEY_P384, 7, {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}},
	{KEY_ED25519, 14, {0x13, 0x0c, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'}},
	{KEY_ED25519, 5, {0x06, 0x03, 0x2b, 0x65, 0x70}},
};

static const struct hash_name hashes[HASH_TYPES] = {
	[HASH_SHA1] = {CKM_SHA_1, CKG_MGF1_SHA1},	[HASH_SHA224] = {CKM_SHA224, CKG_MGF1_SHA224},
	[HASH_SHA256] = {CKM_SHA256, CKG_MGF1_SHA256}, [HASH_SHA384] = {CKM_SHA384, CKG_MGF1_SHA384},
	[HASH_SHA512] = {CKM_SHA512, CKG_MGF1_SHA512},
};

const struct curve *curve_find(enum key_type type)
{
	for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (curves[i].type == type)
			return &curves[i];
	return NULL;
}

enum key_type curve_type(const CK_BYTE *params, size_t len)
{
	for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (curves[i].len == len && memcmp(curves[i].params, params, len) == 0)
			return curves[i].type;
	return KEY_NONE;
}

const struct hash_name *hash_name(enum hash_type type)
{
	return &hashes[(unsigned int)type < HASH_TYPES ? type : HASH_NONE];
}

enum hash_type hash_of_names(CK_MECHANISM_TYPE hash, CK_RSA_PKCS_MGF_TYPE mgf)
{
	for (unsigned int i = HASH_NONE + 1; i < HASH_TYPES; i++)
		if (hashes[i].hash == hash && hashes[i].mgf == mgf)
			return (enum hash_type)i;
	return HASH_NONE;
}
