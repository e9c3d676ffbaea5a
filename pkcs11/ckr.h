#pragma once
/* CK_RV (OASIS PKCS #11 v2.40 §5.1) into struct err. */
#include <p11-kit/pkcs11.h>
#include <stdbool.h>

struct err;

/* 0 for CKR_OK; else ERR_PIN, ERR_ABSENT, ERR_INPUT or ERR_HARDWARE with the value's name behind what. */
int ckr_err(CK_RV rv, const char *what, struct err *err);
/* The session is gone but the token may be fine: open it again and try once more. */
bool ckr_session_lost(CK_RV rv);
/* The PIN was refused: it must not be offered again. */
bool ckr_pin_refused(CK_RV rv);
