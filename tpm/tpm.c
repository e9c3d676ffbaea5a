#include "tpm/tpm.h"

#include "common/err.h"
#include "tpm/rc.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_tctildr.h>

/* TCG "TPM v2.0 Provisioning Guidance" §7.5.1: the ECC storage root key's template. */
static const TPM2B_PUBLIC srk_template = {
	.publicArea = {
		.type = TPM2_ALG_ECC,
		.nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
				    TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED |
				    TPMA_OBJECT_DECRYPT,
		.parameters.eccDetail = {
			.symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB},
			.scheme.scheme = TPM2_ALG_NULL,
			.curveID = TPM2_ECC_NIST_P256,
			.kdf.scheme = TPM2_ALG_NULL,
		},
	},
};

void tpm_flush(struct tpm *t, ESYS_TR *object)
{
	if (t->esys && *object != ESYS_TR_NONE)
		Esys_FlushContext(t->esys, *object);
	*object = ESYS_TR_NONE;
}

void tpm_disconnect(struct tpm *t)
{
	if (t->esys) {
		tpm_flush(t, &t->policy_session);
		tpm_flush(t, &t->open_policy_session);
		tpm_flush(t, &t->hmac_session);
		tpm_flush(t, &t->srk);
		Esys_Finalize(&t->esys);
	}
	t->esys = NULL;
	t->srk = t->hmac_session = t->policy_session = t->open_policy_session = ESYS_TR_NONE;
	if (t->tcti_context)
		Tss2_TctiLdr_Finalize(&t->tcti_context);
	t->tcti_context = NULL;
}

/* The name is computed here from the public area, not taken from the wire: an interposer's own salt key has another. */
static int check_srk_name(struct tpm *t, const TPM2B_PUBLIC *public, struct err *err)
{
	uint8_t area[sizeof(TPMT_PUBLIC)], name[2 + 32] = {TPM2_ALG_SHA256 >> 8, TPM2_ALG_SHA256 & 0xff};
	size_t len = 0;
	int r = rc_err(Tss2_MU_TPMT_PUBLIC_Marshal(&public->publicArea, area, sizeof(area), &len), "reading the SRK", err);

	if (r < 0)
		return r;
	crypto_hash_sha256(name + 2, area, len);
	sodium_bin2hex(t->found_srk_name, sizeof(t->found_srk_name), name, sizeof(name));
	if (t->srk_name[0] && strcmp(t->srk_name, t->found_srk_name) != 0)
		return err_set(err, ERR_TAMPERED,
			       "this TPM's storage root key is not the enrolled one: another TPM, a cleared TPM, or somebody "
			       "between us and it (expected srk_name %.16s..., found %.16s...)",
			       t->srk_name, t->found_srk_name);
	return 0;
}

static int create_srk(struct tpm *t, struct err *err)
{
	const TPM2B_SENSITIVE_CREATE sensitive = {0};
	const TPM2B_DATA outside = {0};
	const TPML_PCR_SELECTION no_pcrs = {0};
	TPM2B_PUBLIC *public = NULL;
	int r = rc_err(Esys_CreatePrimary(t->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
					  &srk_template, &outside, &no_pcrs, &t->srk, &public, NULL, NULL, NULL),
		       "making the storage root key", err);

	if (r == 0)
		r = check_srk_name(t, public, err);
	Esys_Free(public);
	return r;
}

/* All handles of a range, flushed. */
static void flush_range(struct tpm *t, TPM2_HANDLE first, UINT32 at_least)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	ESYS_TR object;

	if (Esys_GetCapability(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES, first, TPM2_MAX_CAP_HANDLES,
			       NULL, &data) != TSS2_RC_SUCCESS)
		return;
	for (UINT32 i = 0; data->data.handles.count >= at_least && i < data->data.handles.count; i++)
		if (Esys_TR_FromTPMPublic(t->esys, data->data.handles.handle[i], ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &object) ==
		    TSS2_RC_SUCCESS)
			tpm_flush(t, &object);
	Esys_Free(data);
}

/*
 * A client that was killed leaves its objects behind where no resource manager sits between. We need two of the three
 * slots; behind a resource manager nothing but our own is seen here, so this never takes what another uses.
 */
static void make_room(struct tpm *t)
{
	flush_range(t, (TPM2_HANDLE)TPM2_HT_TRANSIENT << TPM2_HR_SHIFT, 2);
	flush_range(t, (TPM2_HANDLE)TPM2_HT_LOADED_SESSION << TPM2_HR_SHIFT, 2);
}

int tpm_connect(struct tpm *t, struct err *err)
{
	TSS2_RC rc;
	int r;

	if (t->esys)
		return 0;
	t->srk = t->hmac_session = t->policy_session = t->open_policy_session = ESYS_TR_NONE;
	rc = Tss2_TctiLdr_Initialize(t->tcti, &t->tcti_context);
	if (rc != TSS2_RC_SUCCESS) {
		t->tcti_context = NULL;
		return err_set(err, ERR_ABSENT, "no TPM at '%.200s': is it there, may this user open it?", t->tcti);
	}
	r = rc_err(Esys_Initialize(&t->esys, t->tcti_context, NULL), "connecting to the TPM", err);
	if (r == 0) {
		/* harmless where the firmware or the kernel has done it */
		rc = Esys_Startup(t->esys, TPM2_SU_CLEAR);
		r = rc == TPM2_RC_INITIALIZE ? 0 : rc_err(rc, "starting the TPM", err);
	}
	if (r == 0) {
		make_room(t);
		r = create_srk(t, err);
	}
	if (r < 0)
		tpm_disconnect(t);
	return r;
}

static int start_session(struct tpm *t, TPM2_SE type, enum tpm_secrecy secrecy, ESYS_TR *ret, struct err *err)
{
	const TPMT_SYM_DEF aes = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB}, none = {.algorithm = TPM2_ALG_NULL};
	const TPMA_SESSION hidden = TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT;
	bool secret = secrecy == TPM_SECRET;
	int r;

	if (*ret != ESYS_TR_NONE)
		return 0;
	r = rc_err(Esys_StartAuthSession(t->esys, secret ? t->srk : ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, type,
					 secret ? &aes : &none, TPM2_ALG_SHA256, ret),
		   "starting a session with the TPM", err);
	if (r == 0 && type != TPM2_SE_TRIAL)
		r = rc_err(Esys_TRSess_SetAttributes(t->esys, *ret, TPMA_SESSION_CONTINUESESSION | (secret ? hidden : 0), 0xff), "setting up the session", err);
	return r;
}

int tpm_session(struct tpm *t, const TPML_PCR_SELECTION *pcrs, enum tpm_secrecy secrecy, ESYS_TR *ret, struct err *err)
{
	static const TPM2B_DIGEST no_digest;
	ESYS_TR *session = secrecy == TPM_SECRET ? &t->policy_session : &t->open_policy_session;
	int r;

	if (!pcrs && secrecy == TPM_PUBLIC) {
		*ret = ESYS_TR_PASSWORD;
		return 0;
	}
	if (!pcrs) {
		r = start_session(t, TPM2_SE_HMAC, secrecy, &t->hmac_session, err);
		*ret = t->hmac_session;
		return r;
	}
	r = start_session(t, TPM2_SE_POLICY, secrecy, session, err);
	if (r < 0)
		return r;
	*ret = *session;
	r = rc_err(Esys_PolicyRestart(t->esys, *ret, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE), "PCR policy", err);
	if (r < 0)
		return r;
	/* an empty digest: the TPM takes its PCRs as they are, and the key's policy decides */
	return rc_err(Esys_PolicyPCR(t->esys, *ret, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &no_digest, pcrs), "PCR policy",
		      err);
}

static int composite_digest(struct tpm *t, const TPML_PCR_SELECTION *pcrs, TPM2B_DIGEST *ret, struct err *err)
{
	TPML_DIGEST *values = NULL;
	TPML_PCR_SELECTION *read = NULL;
	crypto_hash_sha256_state st;
	int r = rc_err(Esys_PCR_Read(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, pcrs, NULL, &read, &values),
		       "reading PCRs", err);

	if (r < 0)
		return r;
	/* a TPM reads at most eight at a time */
	if (memcmp(read->pcrSelections[0].pcrSelect, pcrs->pcrSelections[0].pcrSelect, 3) != 0)
		r = err_set(err, ERR_USAGE, "at most eight PCRs of a bank that the TPM has");
	crypto_hash_sha256_init(&st);
	for (UINT32 i = 0; i < values->count; i++)
		crypto_hash_sha256_update(&st, values->digests[i].buffer, values->digests[i].size);
	crypto_hash_sha256_final(&st, ret->buffer);
	ret->size = crypto_hash_sha256_BYTES;
	Esys_Free(values);
	Esys_Free(read);
	return r;
}

int tpm_pcr_policy(struct tpm *t, const TPML_PCR_SELECTION *pcrs, TPM2B_DIGEST *ret_pcr_digest,
		   TPM2B_DIGEST *ret_policy, struct err *err)
{
	ESYS_TR trial = ESYS_TR_NONE;
	TPM2B_DIGEST *policy = NULL;
	int r = composite_digest(t, pcrs, ret_pcr_digest, err);

	if (r == 0)
		r = start_session(t, TPM2_SE_TRIAL, TPM_PUBLIC, &trial, err);
	if (r == 0)
		r = rc_err(Esys_PolicyPCR(t->esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ret_pcr_digest, pcrs),
			   "PCR policy", err);
	if (r == 0)
		r = rc_err(Esys_PolicyGetDigest(t->esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &policy),
			   "PCR policy", err);
	if (r == 0)
		*ret_policy = *policy;
	Esys_Free(policy);
	tpm_flush(t, &trial);
	return r;
}

int tpm_parse_pcrs(const char *text, TPML_PCR_SELECTION *ret, struct err *err)
{
	static const char bank[] = "sha256:";
	TPMS_PCR_SELECTION *s = &ret->pcrSelections[0];
	unsigned int n = 0;
	unsigned long pcr;
	char *end;

	*ret = (TPML_PCR_SELECTION){.count = 1};
	*s = (TPMS_PCR_SELECTION){.hash = TPM2_ALG_SHA256, .sizeofSelect = 3};
	if (strncmp(text, bank, sizeof(bank) - 1) != 0)
		return err_set(err, ERR_USAGE, "PCRs are given as sha256:0,2,7");
	text += sizeof(bank) - 1;
	do {
		pcr = strtoul(text, &end, 10);
		if (end == text || text[0] < '0' || text[0] > '9' || pcr > 23 || (*end && *end != ',') || ++n > 8)
			return err_set(err, ERR_USAGE, "PCRs are given as sha256:0,2,7: one to eight numbers from 0 to 23");
		s->pcrSelect[pcr / 8] |= (BYTE)(1u << (pcr % 8));
		text = end + (*end == ',');
	} while (*end);
	return 0;
}
