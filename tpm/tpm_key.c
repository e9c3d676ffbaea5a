#include "tpm/tpm_key.h"

#include "common/err.h"

#include <stdio.h>
#include <string.h>

enum key_type tpm_key_type(const TPMT_PUBLIC *area)
{
	if (area->type == TPM2_ALG_ECC && area->parameters.eccDetail.curveID == TPM2_ECC_NIST_P256)
		return KEY_P256;
	if (area->type == TPM2_ALG_ECC && area->parameters.eccDetail.curveID == TPM2_ECC_NIST_P384)
		return KEY_P384;
	for (enum key_type t = KEY_RSA2048; area->type == TPM2_ALG_RSA && t <= KEY_RSA4096; t++)
		if (key_row(t)->bits == area->parameters.rsaDetail.keyBits)
			return t;
	return KEY_NONE;
}

static int describe_ec(const TPMS_ECC_POINT *unique, struct provider_key *ret, struct err *err)
{
	enum key_type type = (enum key_type)ret->type;
	size_t half = key_row(type)->signature_len / 2, len = 0;
	uint8_t point[1 + 2 * 48] = {4};
	int r;

	if (unique->x.size > half || unique->y.size > half)
		return err_set(err, ERR_INPUT, "the TPM key's point is too long");
	memcpy(point + 1 + half - unique->x.size, unique->x.buffer, unique->x.size);
	memcpy(point + 1 + 2 * half - unique->y.size, unique->y.buffer, unique->y.size);
	r = spki_from_ec(type, point, 1 + 2 * half, ret->spki, &len, err);
	ret->spki_len = (uint32_t)len;
	if (r == 0 && type == KEY_P256)
		memcpy(ret->point, point, P256_POINT_LEN);
	return r;
}

static int describe_rsa(const TPMT_PUBLIC *area, struct provider_key *ret, struct err *err)
{
	/* 0 stands for 2^16 + 1 (TPM 2.0 part 2, section 12.2.3.5) */
	uint32_t e = area->parameters.rsaDetail.exponent ? area->parameters.rsaDetail.exponent : 65537;
	const uint8_t exponent[] = {(uint8_t)(e >> 24), (uint8_t)(e >> 16), (uint8_t)(e >> 8), (uint8_t)e};
	enum key_type type;
	size_t len = 0;
	int r = spki_from_rsa(area->unique.rsa.buffer, area->unique.rsa.size, exponent, sizeof(exponent), ret->spki, &len, &type, err);

	ret->spki_len = (uint32_t)len;
	return r;
}

int tpm_key_describe(const TPMT_PUBLIC *area, const char *ref, struct provider_key *ret, struct err *err)
{
	bool restricted = area->objectAttributes & TPMA_OBJECT_RESTRICTED, rsa = area->type == TPM2_ALG_RSA;

	*ret = (struct provider_key){.type = tpm_key_type(area)};
	if (ret->type == KEY_NONE)
		return err_set(err, ERR_INPUT, "the TPM key is neither on P-256 or P-384 nor RSA");
	snprintf(ret->ref, sizeof(ret->ref), "%s", ref);
	ret->can_agree = ret->type == KEY_P256 && (area->objectAttributes & TPMA_OBJECT_DECRYPT) && !restricted;
	ret->can_sign = (area->objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) && !restricted;
	ret->can_decrypt = rsa && (area->objectAttributes & TPMA_OBJECT_DECRYPT) && !restricted;
	return rsa ? describe_rsa(area, ret, err) : describe_ec(&area->unique.ecc, ret, err);
}

void tpm_key_template(enum provider_key_use use, enum key_type type, TPM2B_PUBLIC *ret)
{
	TPMT_PUBLIC *area = &ret->publicArea;

	*ret = (TPM2B_PUBLIC){
		.publicArea = {
			.type = key_is_rsa(type) ? TPM2_ALG_RSA : TPM2_ALG_ECC,
			.nameAlg = TPM2_ALG_SHA256,
			.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					    TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_NODA,
		},
	};
	if (key_is_rsa(type)) {
		/* no scheme of its own: PKCS#1 v1.5, PSS and OAEP as asked for */
		area->objectAttributes |= TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_DECRYPT;
		area->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
		area->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
		area->parameters.rsaDetail.keyBits = (TPMI_RSA_KEY_BITS)key_row(type)->bits;
		return;
	}
	area->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	area->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	area->parameters.eccDetail.curveID = type == KEY_P384 ? TPM2_ECC_NIST_P384 : TPM2_ECC_NIST_P256;
	if (use == PROVIDER_KEY_SEAL) {
		area->objectAttributes |= TPMA_OBJECT_DECRYPT;
		area->parameters.eccDetail.scheme.scheme = TPM2_ALG_ECDH;
		area->parameters.eccDetail.scheme.details.ecdh.hashAlg = TPM2_ALG_SHA256;
	} else {
		area->objectAttributes |= TPMA_OBJECT_SIGN_ENCRYPT;
		area->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	}
}
