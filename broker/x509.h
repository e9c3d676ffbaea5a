#pragma once
/*
 * X.509 certificates and revocation lists (RFC 5280) up to the signature, and behind it: what is to be signed is built here, signed by
 * the hardware, and put together here.
 */
#include "broker/config.h"
#include "common/keys.h"

#include <openssl/x509.h>

struct err;

#define X509_SERIAL_LEN 16u
/* DER of a SubjectPublicKeyInfo of whatever key a CSR has. */

struct x509_request {
	const struct config_cert_role *role;
	const char *common_name;
	char *dns[LIMIT_CERT_NAMES], *uris[LIMIT_CERT_NAMES], *ips[LIMIT_CERT_NAMES]; /* malloc'ed */
	size_t n_dns, n_uris, n_ips;
	EVP_PKEY *public_key;
	uint64_t not_before_s, not_after_s; /* since 1970 */
	uint8_t serial[X509_SERIAL_LEN];
	const char *crl_url; /* "": none */
};

/* What signs, and how it is named in a certificate. */
struct x509_ca {
	X509 *certificate;
	enum key_type type;
	enum hash_type hash; /* HASH_NONE: the whole is signed (Ed25519) */
	enum sign_scheme scheme;
	int nid;
};

/* ERR_INPUT: the certificate is none of a CA (RFC 5280, section 4.2.1.9), or none at all. x509_ca_done releases it. */
int x509_ca(const uint8_t *der, size_t len, enum key_type type, struct x509_ca *ret, struct err *err);
void x509_ca_done(struct x509_ca *ca);

/* Whether the role allows every name that is asked for, and they are names at all. ERR_INPUT tells which is not. */
int x509_check(const struct x509_request *q, struct err *err);
/* The TBSCertificate as DER; ret has room for LIMIT_CERTIFICATE bytes. */
int x509_build(const struct x509_ca *ca, const struct x509_request *q, uint8_t *ret, size_t *ret_len, struct err *err);

struct x509_revoked {
	uint8_t serial[X509_SERIAL_LEN];
	uint64_t when_s;
};
/* The TBSCertList, in the same way; number only grows. */
int x509_build_crl(const struct x509_ca *ca, const struct x509_revoked *list, size_t n, uint64_t number, uint64_t this_s, uint64_t next_s, uint8_t *ret,
		   size_t cap, size_t *ret_len, struct err *err);

/* TBS, algorithm and signature (in the form of SIGN_*) as one DER. */
int x509_assemble(const struct x509_ca *ca, const uint8_t *tbs, size_t tbs_len, const uint8_t *signature, size_t len, uint8_t *ret, size_t cap,
		  size_t *ret_len, struct err *err);
void x509_request_done(struct x509_request *q);
