#include "pkcs11/ckr.h"

#include "common/err.h"

#include <stddef.h>

static const struct {
	CK_RV rv;
	const char *name;
	enum err_code code;
	bool session_lost, pin_refused;
} rows[] = {
	{CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR", ERR_HARDWARE, true, false},
	{CKR_DEVICE_REMOVED, "CKR_DEVICE_REMOVED: the token was removed", ERR_ABSENT, true, false},
	{CKR_TOKEN_NOT_PRESENT, "CKR_TOKEN_NOT_PRESENT: put the token in", ERR_ABSENT, true, false},
	{CKR_TOKEN_NOT_RECOGNIZED, "CKR_TOKEN_NOT_RECOGNIZED", ERR_ABSENT, true, false},
	{CKR_SLOT_ID_INVALID, "CKR_SLOT_ID_INVALID", ERR_ABSENT, true, false},
	{CKR_SESSION_HANDLE_INVALID, "CKR_SESSION_HANDLE_INVALID", ERR_HARDWARE, true, false},
	{CKR_SESSION_CLOSED, "CKR_SESSION_CLOSED", ERR_HARDWARE, true, false},
	{CKR_OBJECT_HANDLE_INVALID, "CKR_OBJECT_HANDLE_INVALID", ERR_HARDWARE, true, false},
	{CKR_KEY_HANDLE_INVALID, "CKR_KEY_HANDLE_INVALID", ERR_HARDWARE, true, false},
	{CKR_USER_NOT_LOGGED_IN, "CKR_USER_NOT_LOGGED_IN", ERR_HARDWARE, true, false},
	{CKR_PIN_INCORRECT, "CKR_PIN_INCORRECT: the token refused the PIN", ERR_PIN, false, true},
	{CKR_PIN_INVALID, "CKR_PIN_INVALID: the token refused the PIN", ERR_PIN, false, true},
	{CKR_PIN_LEN_RANGE, "CKR_PIN_LEN_RANGE: the PIN's length is wrong", ERR_PIN, false, true},
	{CKR_PIN_EXPIRED, "CKR_PIN_EXPIRED: set a new PIN with the token's own tool", ERR_PIN, false, true},
	{CKR_PIN_LOCKED, "CKR_PIN_LOCKED: unblock it with the token's own tool", ERR_PIN, false, true},
	{CKR_HOST_MEMORY, "CKR_HOST_MEMORY", ERR_HARDWARE, false, false},
	{CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR", ERR_HARDWARE, false, false},
	{CKR_ENCRYPTED_DATA_INVALID, "CKR_ENCRYPTED_DATA_INVALID", ERR_INPUT, false, false},
	{CKR_ENCRYPTED_DATA_LEN_RANGE, "CKR_ENCRYPTED_DATA_LEN_RANGE", ERR_INPUT, false, false},
	{CKR_DATA_INVALID, "CKR_DATA_INVALID", ERR_INPUT, false, false},
	{CKR_DATA_LEN_RANGE, "CKR_DATA_LEN_RANGE", ERR_INPUT, false, false},
	{CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED", ERR_HARDWARE, false, false},
	{CKR_FUNCTION_NOT_SUPPORTED, "CKR_FUNCTION_NOT_SUPPORTED", ERR_HARDWARE, false, false},
	{CKR_ATTRIBUTE_SENSITIVE, "CKR_ATTRIBUTE_SENSITIVE: the token does not give ECDH results out", ERR_HARDWARE, false, false},
	{CKR_ATTRIBUTE_TYPE_INVALID, "CKR_ATTRIBUTE_TYPE_INVALID", ERR_HARDWARE, false, false},
	{CKR_KEY_TYPE_INCONSISTENT, "CKR_KEY_TYPE_INCONSISTENT: this key cannot do that", ERR_HARDWARE, false, false},
	{CKR_KEY_FUNCTION_NOT_PERMITTED, "CKR_KEY_FUNCTION_NOT_PERMITTED: this key may not do that", ERR_HARDWARE, false, false},
	{CKR_MECHANISM_INVALID, "CKR_MECHANISM_INVALID: the token does not have the mechanism", ERR_HARDWARE, false, false},
	{CKR_MECHANISM_PARAM_INVALID, "CKR_MECHANISM_PARAM_INVALID", ERR_HARDWARE, false, false},
	{CKR_TEMPLATE_INCONSISTENT, "CKR_TEMPLATE_INCONSISTENT", ERR_HARDWARE, false, false},
	{CKR_TOKEN_WRITE_PROTECTED, "CKR_TOKEN_WRITE_PROTECTED", ERR_HARDWARE, false, false},
	{CKR_SESSION_READ_ONLY, "CKR_SESSION_READ_ONLY", ERR_HARDWARE, false, false},
	{CKR_USER_PIN_NOT_INITIALIZED, "CKR_USER_PIN_NOT_INITIALIZED: set the token's user PIN first", ERR_HARDWARE, false, false},
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static size_t row_of(CK_RV rv)
{
	size_t i = 0;

	while (i < N_ROWS && rows[i].rv != rv)
		i++;
	return i;
}

int ckr_err(CK_RV rv, const char *what, struct err *err)
{
	size_t i = row_of(rv);

	if (rv == CKR_OK)
		return 0;
	if (i == N_ROWS)
		return err_set(err, ERR_HARDWARE, "%s: the token answered 0x%lx", what, rv);
	return err_set(err, rows[i].code, "%s: %s", what, rows[i].name);
}

bool ckr_session_lost(CK_RV rv)
{
	size_t i = row_of(rv);

	return i < N_ROWS && rows[i].session_lost;
}

bool ckr_pin_refused(CK_RV rv)
{
	size_t i = row_of(rv);

	return i < N_ROWS && rows[i].pin_refused;
}
