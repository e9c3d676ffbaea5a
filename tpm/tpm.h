#pragma once
/* The connection to one TPM 2.0 through ESYS: context, ECC storage root key, sessions. */
#include "common/limits.h"

#include <stdbool.h>
#include <tss2/tss2_esys.h>

struct err;

struct tpm {
	char tcti[LIMIT_URI_LEN];
	char srk_name[72];	  /* pinned, hex; "" at enrolment */
	char found_srk_name[72];  /* of the TPM that answers */
	TSS2_TCTI_CONTEXT *tcti_context;
	ESYS_CONTEXT *esys;	  /* NULL: not connected */
	ESYS_TR srk;
	ESYS_TR hmac_session, policy_session, open_policy_session; /* ESYS_TR_NONE until first used */
};

/* Connects if that is not done: context, SRK (TCG EK/SRK profile, ECC P-256), its name against the pinned one.
 * ERR_ABSENT when there is no TPM; ERR_TAMPERED when the SRK is another one. */
int tpm_connect(struct tpm *t, struct err *err);
/* Flushes what is ours and closes; *t can connect again. */
void tpm_disconnect(struct tpm *t);

enum tpm_secrecy {
	TPM_SECRET, /* the session is salted to the SRK and encrypts what is secret of the command */
	TPM_PUBLIC, /* a digest, a signature: nothing is hidden, and libtss2 spends no 2 ms on an HMAC. Whoever sits on the bus could use the
		     * key as well: its auth value is empty */
};
/*
 * The session for the next command, kept open between commands. With a PCR policy: a policy session, PolicyPCR done anew (its digest
 * resets with every use).
 */
int tpm_session(struct tpm *t, const TPML_PCR_SELECTION *pcrs, enum tpm_secrecy secrecy, ESYS_TR *ret, struct err *err);
/* The PCRs' present composite digest and the policy digest over it, by a trial session. */
int tpm_pcr_policy(struct tpm *t, const TPML_PCR_SELECTION *pcrs, TPM2B_DIGEST *ret_pcr_digest,
		   TPM2B_DIGEST *ret_policy, struct err *err);
/* "sha256:0,2,7" */
int tpm_parse_pcrs(const char *text, TPML_PCR_SELECTION *ret, struct err *err);
void tpm_flush(struct tpm *t, ESYS_TR *object);
