#pragma once
/* OpenSSH certificates (PROTOCOL.certkeys of OpenSSH) up to the signature, and behind it. */
#include "broker/config.h"
#include "common/keys.h"

struct err;

struct sshcert_request {
	const struct config_cert_role *role;
	const char *public_key; /* a line as in an authorized_keys file */
	const char *principals; /* joined by commas */
	const char *key_id;
	char *const *extensions;
	size_t n_extensions;
	uint64_t serial, valid_after_s, valid_before_s;
};

/* What is signed; ret has room for LIMIT_CERTIFICATE bytes; ret_type: the certificate's kind, for its line. ERR_INPUT: the key, or a
 * principal or extension that the role does not allow. */
int sshcert_build(const struct sshcert_request *q, const uint8_t *ca_blob, size_t ca_len, uint8_t *ret, size_t *ret_len, char ret_type[64], struct err *err);
