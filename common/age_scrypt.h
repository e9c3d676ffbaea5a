#pragma once
/* Passphrase files (C2SP age.md, "scrypt recipient type"): opened by the command line for recovery, never by the broker. */
#include "common/age.h"

int age_scrypt_check(const struct age_header *header, struct err *err);
/* True when the file is sealed to a passphrase. */
bool age_scrypt_is(const struct age_header *header);
/* Takes the passphrase over; the caller clears ret->key. */
void age_scrypt_identity(struct secret *passphrase, struct age_identity *ret);
