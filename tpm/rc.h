#pragma once
/* TSS2_RC (TCG TSS 2.0 overview §1.5, TPM 2.0 part 2 §6.6) into struct err. */
#include <stdbool.h>
#include <tss2/tss2_common.h>

struct err;

/* 0, or ERR_HARDWARE / ERR_PIN (lockout) with words an operator can act on. */
int rc_err(TSS2_RC rc, const char *what, struct err *err);
/* The connection to the TPM is gone or its objects are: connect again and try once more. */
bool rc_connection_lost(TSS2_RC rc);
