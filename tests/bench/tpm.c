/*
 * TPM2_Sign or TPM2_ECDH_ZGen over and over by bare ESYS: TCTI COUNT ec|rsa|ecdh. With the sessions that cotter has: an empty password to
 * sign, a salted one that encrypts parameters to agree. Waits for a line on standard input when it is ready. Prints median microseconds,
 * and when it began and ended (CLOCK_MONOTONIC, seconds).
 */
#include "bench/clock.h"

#include <stdio.h>
#include <string.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

static void check(TSS2_RC rc, const char *what)
{
	if (rc == TSS2_RC_SUCCESS)
		return;
	fprintf(stderr, "%s: 0x%x\n", what, rc);
	exit(1);
}

static const TPM2B_PUBLIC parent = {
	.publicArea = {.type = TPM2_ALG_ECC, .nameAlg = TPM2_ALG_SHA256,
		       .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
					   TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT,
		       .parameters.eccDetail = {.symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB},
						.scheme.scheme = TPM2_ALG_NULL, .curveID = TPM2_ECC_NIST_P256, .kdf.scheme = TPM2_ALG_NULL}}};

static const TPM2B_SENSITIVE_CREATE sensitive;
static const TPM2B_DATA outside;
static const TPML_PCR_SELECTION pcrs;

static ESYS_TR make_primary(ESYS_CONTEXT *esys)
{
	ESYS_TR primary = ESYS_TR_NONE;

	check(Esys_CreatePrimary(esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &parent, &outside, &pcrs, &primary, NULL, NULL,
				 NULL, NULL),
	      "Esys_CreatePrimary");
	return primary;
}

static ESYS_TR start_session(ESYS_CONTEXT *esys, ESYS_TR salt)
{
	static const TPMT_SYM_DEF aes = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};
	ESYS_TR session = ESYS_TR_NONE;

	check(Esys_StartAuthSession(esys, salt, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, TPM2_SE_HMAC, &aes, TPM2_ALG_SHA256, &session),
	      "Esys_StartAuthSession");
	check(Esys_TRSess_SetAttributes(esys, session, TPMA_SESSION_CONTINUESESSION | TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT, 0xff),
	      "Esys_TRSess_SetAttributes");
	return session;
}

static void sign(ESYS_CONTEXT *esys, ESYS_TR key, bool ec)
{
	static const TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	static const TPM2B_DIGEST digest = {.size = 32, .buffer = "0123456789abcdef0123456789abcdef"};
	TPMT_SIG_SCHEME scheme = {.scheme = ec ? TPM2_ALG_ECDSA : TPM2_ALG_RSASSA, .details.any.hashAlg = TPM2_ALG_SHA256};
	TPMT_SIGNATURE *signature;

	check(Esys_Sign(esys, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme, &ticket, &signature), "Esys_Sign");
	Esys_Free(signature);
}

/* With P-256's base point (SEC 2, section 2.4.2) in place of somebody's key. */
static void agree(ESYS_CONTEXT *esys, ESYS_TR key, ESYS_TR session)
{
	static const TPM2B_ECC_POINT in = {
		.point = {.x = {.size = 32, .buffer = "\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"},
			  .y = {.size = 32, .buffer = "\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5"}}};
	TPM2B_ECC_POINT *out;

	check(Esys_ECDH_ZGen(esys, key, session, ESYS_TR_NONE, ESYS_TR_NONE, &in, &out), "Esys_ECDH_ZGen");
	Esys_Free(out);
}

static ESYS_TR make_key(ESYS_CONTEXT *esys, bool ec, TPMA_OBJECT use, ESYS_TR primary)
{
	TPM2B_PUBLIC template = {.publicArea = {.type = ec ? TPM2_ALG_ECC : TPM2_ALG_RSA, .nameAlg = TPM2_ALG_SHA256,
						.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
								    TPMA_OBJECT_USERWITHAUTH | use}};
	TPM2B_PUBLIC *public = NULL;
	TPM2B_PRIVATE *private = NULL;
	ESYS_TR key = ESYS_TR_NONE;

	if (ec)
		template.publicArea.parameters.eccDetail = (TPMS_ECC_PARMS){.symmetric.algorithm = TPM2_ALG_NULL, .scheme.scheme = TPM2_ALG_NULL,
									    .curveID = TPM2_ECC_NIST_P256, .kdf.scheme = TPM2_ALG_NULL};
	else
		template.publicArea.parameters.rsaDetail = (TPMS_RSA_PARMS){.symmetric.algorithm = TPM2_ALG_NULL, .scheme.scheme = TPM2_ALG_NULL, .keyBits = 2048};
	check(Esys_Create(esys, primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &template, &outside, &pcrs, &private, &public, NULL, NULL, NULL),
	      "Esys_Create");
	check(Esys_Load(esys, primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, private, public, &key), "Esys_Load");
	Esys_Free(public);
	Esys_Free(private);
	return key;
}

int main(int argc, char **argv)
{
	bool ecdh = argc > 3 && strcmp(argv[3], "ecdh") == 0, ec = ecdh || (argc > 3 && strcmp(argv[3], "ec") == 0);
	size_t count = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	double *times = calloc(count + 1, sizeof(*times)), began, start;
	TSS2_TCTI_CONTEXT *tcti = NULL;
	ESYS_CONTEXT *esys = NULL;
	ESYS_TR primary, key, session;

	if (!count || !times)
		return 1;
	check(Tss2_TctiLdr_Initialize(argv[1], &tcti), argv[1]);
	check(Esys_Initialize(&esys, tcti, NULL), "Esys_Initialize");
	primary = make_primary(esys);
	key = make_key(esys, ec, ecdh ? TPMA_OBJECT_DECRYPT : TPMA_OBJECT_SIGN_ENCRYPT, primary);
	session = start_session(esys, primary);
	check(Esys_FlushContext(esys, primary), "Esys_FlushContext");
	began = clock_start();
	for (size_t i = 0; i < count; i++) {
		start = clock_us();
		if (ecdh)
			agree(esys, key, session);
		else
			sign(esys, key, ec);
		times[i] = clock_us() - start;
	}
	clock_report(times, count, began);
	free(times);
	check(Esys_FlushContext(esys, session), "Esys_FlushContext");
	check(Esys_FlushContext(esys, key), "Esys_FlushContext");
	Esys_Finalize(&esys);
	Tss2_TctiLdr_Finalize(&tcti);
	return 0;
}
