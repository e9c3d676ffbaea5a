#include "tpm/rc.h"

#include "common/err.h"

#include <stddef.h>
#include <tss2/tss2_tpm2_types.h>

/* Format-one codes carry the parameter or session number in bits 6 and 8-11: compared without it. */
#define FORMAT_ONE 0x080u
#define FORMAT_ONE_MASK 0x0bfu

static const struct {
	TSS2_RC rc;
	const char *text;
	enum err_code code;
} rows[] = {
	{TPM2_RC_POLICY_FAIL, "the TPM's PCRs are not what the key demands (was the firmware or boot loader changed?)", ERR_HARDWARE},
	{TPM2_RC_AUTH_FAIL, "the TPM refused the authorisation", ERR_PIN},
	{TPM2_RC_BAD_AUTH, "the TPM refused the authorisation", ERR_PIN},
	{TPM2_RC_LOCKOUT, "the TPM is in dictionary-attack lockout: see tpm2_dictionarylockout(1)", ERR_PIN},
	{TPM2_RC_INTEGRITY, "the key file belongs to another TPM, or the TPM was cleared", ERR_HARDWARE},
	{TPM2_RC_HANDLE, "there is no object at that handle", ERR_HARDWARE},
	{TPM2_RC_REFERENCE_H0, "there is no object at that handle", ERR_HARDWARE},
	{TPM2_RC_ECC_POINT, "the TPM says that the point is not on the curve", ERR_HARDWARE},
	{TPM2_RC_OBJECT_MEMORY, "the TPM's object slots are full: use /dev/tpmrm0, or flush with tpm2_flushcontext -t", ERR_HARDWARE},
	{TPM2_RC_SESSION_MEMORY, "the TPM's session slots are full: flush with tpm2_flushcontext -l", ERR_HARDWARE},
	{TPM2_RC_INITIALIZE, "the TPM was not started: tpm2_startup -c", ERR_HARDWARE},
	{TPM2_RC_ATTRIBUTES, "this key may not do that", ERR_HARDWARE},
	{TPM2_RC_KEY, "this key cannot do that", ERR_HARDWARE},
	{TPM2_RC_VALUE, "the TPM does not take that value", ERR_INPUT},
	{TPM2_RC_SCHEME, "this key is bound to another scheme or hash", ERR_INPUT},
	{TPM2_RC_SIZE, "the TPM does not take that length", ERR_INPUT},
};

static bool same(TSS2_RC rc, TSS2_RC row)
{
	return row & FORMAT_ONE ? (rc & (FORMAT_ONE_MASK | FORMAT_ONE)) == (row & (FORMAT_ONE_MASK | FORMAT_ONE)) : rc == row;
}

int rc_err(TSS2_RC rc, const char *what, struct err *err)
{
	TSS2_RC bare = rc & ~(TSS2_RC)TSS2_RC_LAYER_MASK;

	if (rc == TSS2_RC_SUCCESS)
		return 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (same(bare, rows[i].rc))
			return err_set(err, rows[i].code, "%s: %s (0x%x)", what, rows[i].text, rc);
	if (rc_connection_lost(rc))
		return err_set(err, ERR_ABSENT, "%s: no answer from the TPM: is it there, is its address right?", what);
	return err_set(err, ERR_HARDWARE, "%s: the TPM answered 0x%x (tpm2_rc_decode explains it)", what, rc);
}

bool rc_connection_lost(TSS2_RC rc)
{
	TSS2_RC bare = rc & ~(TSS2_RC)TSS2_RC_LAYER_MASK;

	switch (rc & TSS2_RC_LAYER_MASK) {
	case TSS2_TCTI_RC_LAYER:
	case TSS2_ESAPI_RC_LAYER:
	case TSS2_SYS_RC_LAYER:
		return bare == TSS2_BASE_RC_IO_ERROR || bare == TSS2_BASE_RC_NO_CONNECTION ||
		       bare == TSS2_BASE_RC_BAD_SEQUENCE || bare == TSS2_BASE_RC_GENERAL_FAILURE;
	default:
		/* the TPM restarted and forgot our objects and sessions, or somebody filled its few slots: connecting makes room */
		return bare == TPM2_RC_INITIALIZE || bare == TPM2_RC_REFERENCE_H0 || bare == TPM2_RC_REFERENCE_S0 ||
		       bare == TPM2_RC_OBJECT_MEMORY || bare == TPM2_RC_SESSION_MEMORY || same(bare, TPM2_RC_HANDLE);
	}
}
