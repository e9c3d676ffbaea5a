#pragma once
/* X25519 recipients and identities (C2SP age.md, "X25519 recipient type"): cotter's offline recovery key. */
#include "common/age.h"

extern const struct age_recipient_ops age_x25519_recipient_ops;

int age_x25519_check(const struct age_header *header, struct err *err);
/* text: AGE-SECRET-KEY-1…; ERR_NOT_MINE for anything else. The caller clears ret->key. */
int age_x25519_identity(const char *text, struct age_identity *ret, struct err *err);
