#pragma once
/*
 * The list of what 'cotter export' wrote: a first line, then a line for each file, in the order of their paths: SHA-256 in hex, version, path.
 * Beside it lies its signature, as 'openssl dgst -sha256 -verify' takes it.
 */
#include "common/limits.h"

#include <stddef.h>
#include <stdint.h>

struct err;

#define MANIFEST_NAME "MANIFEST"
#define MANIFEST_SIGNATURE_NAME "MANIFEST.sig"
#define MANIFEST_FIRST_LINE "cotter export 1\n"
#define MANIFEST_LINE_LEN (64u + 1 + 20 + 1 + LIMIT_PATH_LEN + 2)

struct manifest_entry {
	uint8_t sha256[32];
	uint64_t version;
	char path[LIMIT_PATH_LEN + 1];
};

/* With its line end; returns the length. */
size_t manifest_line(const struct manifest_entry *e, char ret[MANIFEST_LINE_LEN]);
/* Calls each for every line, in order. ERR_INPUT, with the line's number: not canonical, a path twice or out of order, too many. What each says ends it. */
int manifest_read(const char *text, size_t len, int (*each)(void *ctx, const struct manifest_entry *e), void *ctx, struct err *err);
/* pem: a public key; the signature is ECDSA in DER, or RSA PKCS#1 v1.5, over the text's SHA-256. ERR_INPUT: no such key; ERR_DENIED: it is wrong. */
int manifest_verify(const char *text, size_t len, const uint8_t *signature, size_t signature_len, const char *pem, size_t pem_len, struct err *err);
