/*
 * TPM2_Sign over and over by bare ESYS, with the session that cotter signs with (an empty password): TCTI COUNT ec|rsa. Waits for a line
 * on standard input when it is ready. Prints median microseconds, and when it began and ended (CLOCK_MONOTONIC, seconds).
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

static ESYS_TR make_key(ESYS_CONTEXT *esys, bool ec)
{
	TPM2B_PUBLIC template = {.publicArea = {.type = ec ? TPM2_ALG_ECC : TPM2_ALG_RSA, .nameAlg = TPM2_ALG_SHA256,
						.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
								    TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_SIGN_ENCRYPT}};
	const TPM2B_SENSITIVE_CREATE sensitive = {0};
	const TPM2B_DATA outside = {0};
	const TPML_PCR_SELECTION pcrs = {0};
	TPM2B_PUBLIC *public = NULL;
	TPM2B_PRIVATE *private = NULL;
	ESYS_TR primary = ESYS_TR_NONE, key = ESYS_TR_NONE;

	if (ec)
		template.publicArea.parameters.eccDetail = (TPMS_ECC_PARMS){.symmetric.algorithm = TPM2_ALG_NULL, .scheme.scheme = TPM2_ALG_NULL,
									    .curveID = TPM2_ECC_NIST_P256, .kdf.scheme = TPM2_ALG_NULL};
	else
		template.publicArea.parameters.rsaDetail = (TPMS_RSA_PARMS){.symmetric.algorithm = TPM2_ALG_NULL, .scheme.scheme = TPM2_ALG_NULL, .keyBits = 2048};
	check(Esys_CreatePrimary(esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &parent, &outside, &pcrs, &primary, NULL, NULL,
				 NULL, NULL),
	      "Esys_CreatePrimary");
	check(Esys_Create(esys, primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &template, &outside, &pcrs, &private, &public, NULL, NULL, NULL),
	      "Esys_Create");
	check(Esys_Load(esys, primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, private, public, &key), "Esys_Load");
	Esys_Free(public);
	Esys_Free(private);
	check(Esys_FlushContext(esys, primary), "Esys_FlushContext");
	return key;
}

int main(int argc, char **argv)
{
	const TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	const TPM2B_DIGEST digest = {.size = 32, .buffer = "0123456789abcdef0123456789abcdef"};
	bool ec = argc > 3 && strcmp(argv[3], "ec") == 0;
	TPMT_SIG_SCHEME scheme = {.scheme = ec ? TPM2_ALG_ECDSA : TPM2_ALG_RSASSA, .details.any.hashAlg = TPM2_ALG_SHA256};
	size_t count = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	double *times = calloc(count + 1, sizeof(*times)), began, start;
	TSS2_TCTI_CONTEXT *tcti = NULL;
	ESYS_CONTEXT *esys = NULL;
	TPMT_SIGNATURE *signature;
	ESYS_TR key;

	if (!count || !times)
		return 1;
	check(Tss2_TctiLdr_Initialize(argv[1], &tcti), argv[1]);
	check(Esys_Initialize(&esys, tcti, NULL), "Esys_Initialize");
	key = make_key(esys, ec);
	began = clock_start();
	for (size_t i = 0; i < count; i++) {
		start = clock_us();
		check(Esys_Sign(esys, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme, &ticket, &signature), "Esys_Sign");
		Esys_Free(signature);
		times[i] = clock_us() - start;
	}
	clock_report(times, count, began);
	free(times);
	check(Esys_FlushContext(esys, key), "Esys_FlushContext");
	Esys_Finalize(&esys);
	Tss2_TctiLdr_Finalize(&tcti);
	return 0;
}
