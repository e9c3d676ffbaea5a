#pragma once
/* PEM (RFC 7468), written: for what is public. */
#include "common/buf.h"

/* Room for len bytes of DER, kind of at most 32 characters. */
#define PEM_LEN(len) (((len) / 48 + 1) * 66 + 128)

/* Lines of 64 characters, each ended by newline: "\n", or "\\n" within a JSON string. */
void pem_put(struct writer *w, const char *kind, const uint8_t *der, size_t len, const char *newline);
