#include "broker/x509.h"

#include "broker/glob.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/der.h"
#include "common/err.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int failed(struct err *err)
{
	return err_set(err, ERR_FAILED, "libcrypto does not make that certificate");
}

/* ---- the CA ----------------------------------------------------------------------------------------------------- */

int x509_ca(const uint8_t *der, size_t len, enum key_type type, struct x509_ca *ret, struct err *err)
{
	const uint8_t *p = der;

	*ret = (struct x509_ca){.certificate = len ? d2i_X509(NULL, &p, (long)len) : NULL, .type = type};
	if (!ret->certificate)
		return err_set(err, ERR_INPUT, "the CA's key has no certificate: 'cotter key certificate' gives it one");
	if (X509_check_ca(ret->certificate) != 1) {
		x509_ca_done(ret);
		return err_set(err, ERR_INPUT, "the CA key's certificate is not one of a CA (basicConstraints)");
	}
	ret->hash = key_hash(type);
	ret->scheme = key_scheme(type);
	ret->nid = key_is_rsa(type) ? NID_sha256WithRSAEncryption : type == KEY_P384 ? NID_ecdsa_with_SHA384 : key_is_ec(type) ? NID_ecdsa_with_SHA256 : NID_ED25519;
	return 0;
}

void x509_ca_done(struct x509_ca *ca)
{
	X509_free(ca->certificate);
	*ca = (struct x509_ca){0};
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/* RFC 1123: labels of letters, digits and inner hyphens; no wildcard. */
static bool is_dns(const char *name)
{
	size_t label = 0, n = strlen(name);

	if (n == 0 || n > LIMIT_CERT_NAME)
		return false;
	for (size_t i = 0; i < n; i++) {
		bool hyphen = name[i] == '-', dot = name[i] == '.';

		if (!dot && !hyphen && !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", name[i]))
			return false;
		if ((hyphen || dot) && (label == 0 || (dot && name[i - 1] == '-')))
			return false;
		label = dot ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0 && name[n - 1] != '-';
}

static bool printable(const char *text, size_t max)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return n > 0 && n <= max;
}

static bool allowed(char *const *globs, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (glob_match(globs[i], name))
			return true;
	return false;
}

/* Which of them; the name itself is the client's, and does not belong into the log. */
static int refused(struct err *err, const char *kind, size_t i)
{
	return err_set(err, ERR_INPUT, "the role does not allow %s %zu, or it is none", kind, i + 1);
}

int x509_check(const struct x509_request *q, struct err *err)
{
	const struct config_cert_role *r = q->role;
	bool host = r->usages & (CONFIG_USAGE_SERVER | CONFIG_USAGE_CLIENT);
	uint8_t ip[16];

	/* clients that find no other name in a certificate take the common name for one of a host */
	if (!printable(q->common_name, 64) || (host && !is_dns(q->common_name)) || !allowed(r->names, r->n_names, q->common_name))
		return err_set(err, ERR_INPUT, "the role does not allow the common name, or it is none");
	if (r->usages & CONFIG_USAGE_SERVER && q->n_dns + q->n_ips + q->n_uris == 0)
		return err_set(err, ERR_INPUT, "a server's certificate needs a name besides its common name");
	for (size_t i = 0; i < q->n_dns; i++)
		if (!is_dns(q->dns[i]) || !allowed(r->names, r->n_names, q->dns[i]))
			return refused(err, "DNS name", i);
	for (size_t i = 0; i < q->n_uris; i++)
		if (!printable(q->uris[i], LIMIT_CERT_NAME) || !strchr(q->uris[i], ':') || !allowed(r->uris, r->n_uris, q->uris[i]))
			return refused(err, "URI", i);
	for (size_t i = 0; i < q->n_ips; i++)
		if (!r->allow_ip || (inet_pton(AF_INET, q->ips[i], ip) != 1 && inet_pton(AF_INET6, q->ips[i], ip) != 1))
			return refused(err, "address", i);
	return 0;
}

/* ---- certificates ----------------------------------------------------------------------------------------------- */

static bool add_extension(X509 *c, X509 *ca, int nid, bool critical, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool added;
	char text[512];

	X509V3_set_ctx(&ctx, ca, c, NULL, NULL, 0);
	snprintf(text, sizeof(text), "%s%s", critical ? "critical," : "", value);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
	added = e && X509_add_ext(c, e, -1) == 1;
	X509_EXTENSION_free(e);
	return added;
}

static bool add_name(GENERAL_NAMES *names, int type, const void *data, size_t len)
{
	GENERAL_NAME *g = GENERAL_NAME_new();
	ASN1_STRING *s = type == GEN_IPADD ? (ASN1_STRING *)ASN1_OCTET_STRING_new() : (ASN1_STRING *)ASN1_IA5STRING_new();

	if (g && s && ASN1_STRING_set(s, data, (int)len) == 1) {
		GENERAL_NAME_set0_value(g, type, s);
		return sk_GENERAL_NAME_push(names, g) > 0;
	}
	ASN1_STRING_free(s);
	GENERAL_NAME_free(g);
	return false;
}

static bool add_names(X509 *c, const struct x509_request *q)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	bool good = names != NULL;
	uint8_t ip[16];

	for (size_t i = 0; good && i < q->n_dns; i++)
		good = add_name(names, GEN_DNS, q->dns[i], strlen(q->dns[i]));
	for (size_t i = 0; good && i < q->n_uris; i++)
		good = add_name(names, GEN_URI, q->uris[i], strlen(q->uris[i]));
	for (size_t i = 0; good && i < q->n_ips; i++)
		good = add_name(names, GEN_IPADD, ip, inet_pton(AF_INET, q->ips[i], ip) == 1 ? 4 : inet_pton(AF_INET6, q->ips[i], ip) == 1 ? 16 : 0);
	if (good && sk_GENERAL_NAME_num(names) > 0)
		good = X509_add1_ext_i2d(c, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
	sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
	return good;
}

static bool add_usages(X509 *c, X509 *ca, const struct x509_request *q)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} rows[] = {{CONFIG_USAGE_SERVER, "serverAuth"}, {CONFIG_USAGE_CLIENT, "clientAuth"}, {CONFIG_USAGE_CODE, "codeSigning"},
		    {CONFIG_USAGE_EMAIL, "emailProtection"}};
	char text[96] = "";
	bool rsa = EVP_PKEY_get_base_id(q->public_key) == EVP_PKEY_RSA, encrypts = q->role->usages & (CONFIG_USAGE_SERVER | CONFIG_USAGE_EMAIL);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (q->role->usages & rows[i].bit)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", *text ? "," : "", rows[i].name);
	return add_extension(c, ca, NID_key_usage, true, rsa && encrypts ? "digitalSignature,keyEncipherment" : "digitalSignature") &&
	       add_extension(c, ca, NID_ext_key_usage, false, text);
}

static bool set_times(X509 *c, const struct x509_request *q)
{
	return X509_time_adj_ex(X509_getm_notBefore(c), 0, 0, &(time_t){(time_t)q->not_before_s}) &&
	       X509_time_adj_ex(X509_getm_notAfter(c), 0, 0, &(time_t){(time_t)q->not_after_s});
}

static bool set_serial(X509 *c, const uint8_t serial[X509_SERIAL_LEN])
{
	BIGNUM *n = BN_bin2bn(serial, X509_SERIAL_LEN, NULL);
	bool good = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(c));

	BN_free(n);
	return good;
}

static bool set_subject(X509 *c, const struct x509_request *q)
{
	X509_NAME *name = X509_NAME_new();
	const char *organization = q->role->organization;
	bool good = name && (!*organization || X509_NAME_add_entry_by_NID(name, NID_organizationName, MBSTRING_UTF8, (const unsigned char *)organization, -1, -1, 0)) &&
		    X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, (const unsigned char *)q->common_name, -1, -1, 0) &&
		    X509_set_subject_name(c, name);

	X509_NAME_free(name);
	return good;
}

/* The algorithm inside of what is signed: libcrypto sets it only when it signs itself. */
static bool set_algorithm(X509 *c, int nid)
{
	X509_ALGOR *inside = (X509_ALGOR *)(uintptr_t)X509_get0_tbs_sigalg(c); /* there is no function that gives it to be written */
	int parameters = nid == NID_sha256WithRSAEncryption ? V_ASN1_NULL : V_ASN1_UNDEF;

	return X509_ALGOR_set0(inside, OBJ_nid2obj(nid), parameters, NULL) == 1;
}

int x509_build(const struct x509_ca *ca, const struct x509_request *q, uint8_t *ret, size_t *ret_len, struct err *err)
{
	X509 *c = X509_new();
	char crl[300];
	uint8_t *p = ret;
	int n = -1;
	bool good = c && X509_set_version(c, 2) && set_serial(c, q->serial) && set_times(c, q) && set_subject(c, q) &&
		    X509_set_issuer_name(c, X509_get_subject_name(ca->certificate)) && X509_set_pubkey(c, q->public_key) &&
		    add_extension(c, ca->certificate, NID_basic_constraints, true, "CA:FALSE") && add_usages(c, ca->certificate, q) &&
		    add_extension(c, ca->certificate, NID_subject_key_identifier, false, "hash") &&
		    add_extension(c, ca->certificate, NID_authority_key_identifier, false, "keyid:always") && add_names(c, q);

	snprintf(crl, sizeof(crl), "URI:%s", q->crl_url);
	if (good && q->crl_url[0])
		good = add_extension(c, ca->certificate, NID_crl_distribution_points, false, crl);
	if (good && set_algorithm(c, ca->nid))
		n = i2d_re_X509_tbs(c, NULL);
	if (n > 0 && (size_t)n <= LIMIT_CERTIFICATE)
		*ret_len = (size_t)i2d_re_X509_tbs(c, &p);
	X509_free(c);
	return n > 0 && (size_t)n <= LIMIT_CERTIFICATE ? 0 : failed(err);
}

/* ---- revocation lists (RFC 5280, section 5.1) ------------------------------------------------------------------- */

static void put_algorithm(struct writer *w, const struct x509_ca *ca)
{
	uint8_t *der = NULL;
	X509_ALGOR *a = X509_ALGOR_new();
	int n = -1;

	if (a && X509_ALGOR_set0(a, OBJ_nid2obj(ca->nid), ca->nid == NID_sha256WithRSAEncryption ? V_ASN1_NULL : V_ASN1_UNDEF, NULL) == 1)
		n = i2d_X509_ALGOR(a, &der);
	if (n > 0)
		writer_bytes(w, der, (size_t)n);
	else
		w->failed = true;
	OPENSSL_free(der);
	X509_ALGOR_free(a);
}

/* UTCTime until 2049, GeneralizedTime from then on. */
static void put_time(struct writer *w, uint64_t s)
{
	time_t t = (time_t)s;
	char text[24];
	struct tm tm;

	if (!gmtime_r(&t, &tm)) {
		w->failed = true;
		return;
	}
	strftime(text, sizeof(text), "%Y%m%d%H%M%SZ", &tm);
	der_put(w, tm.tm_year < 150 ? 0x17 : 0x18, tm.tm_year < 150 ? text + 2 : text, strlen(text) - (tm.tm_year < 150 ? 2 : 0));
}

static void put_revoked(struct writer *w, const struct x509_revoked *list, size_t n, uint8_t *scratch, size_t cap)
{
	struct writer all = writer_init(scratch, cap);

	for (size_t i = 0; i < n; i++) {
		uint8_t entry[64];
		struct writer one = writer_init(entry, sizeof(entry));

		der_put_integer(&one, list[i].serial, X509_SERIAL_LEN);
		put_time(&one, list[i].when_s);
		der_put(&all, DER_SEQUENCE, entry, one.len);
	}
	w->failed |= all.failed;
	if (n)
		der_put(w, DER_SEQUENCE, scratch, all.len);
}

/* authorityKeyIdentifier, by the CA's own, and cRLNumber. */
static void put_crl_extensions(struct writer *w, const struct x509_ca *ca, uint64_t number)
{
	static const uint8_t aki_oid[] = {0x06, 0x03, 0x55, 0x1d, 0x23}, number_oid[] = {0x06, 0x03, 0x55, 0x1d, 0x14};
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(ca->certificate);
	uint8_t a[128], b[128], c[256], big[8];
	struct writer wa, wb, wc = writer_init(c, sizeof(c));

	for (size_t i = 0; i < 8; i++)
		big[i] = (uint8_t)(number >> (56 - 8 * i));
	if (id && ASN1_STRING_length(id) <= 64) {
		wa = writer_init(a, sizeof(a));
		der_put(&wa, 0x80, ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id));
		wb = writer_init(b, sizeof(b));
		der_put(&wb, DER_SEQUENCE, a, wa.len);
		wa = writer_init(a, sizeof(a));
		writer_bytes(&wa, aki_oid, sizeof(aki_oid));
		der_put(&wa, DER_OCTET_STRING, b, wb.len);
		der_put(&wc, DER_SEQUENCE, a, wa.len);
	}
	wb = writer_init(b, sizeof(b));
	der_put_integer(&wb, big, sizeof(big));
	wa = writer_init(a, sizeof(a));
	writer_bytes(&wa, number_oid, sizeof(number_oid));
	der_put(&wa, DER_OCTET_STRING, b, wb.len);
	der_put(&wc, DER_SEQUENCE, a, wa.len);
	wa = writer_init(a, sizeof(a));
	{
		uint8_t d[300];
		struct writer wd = writer_init(d, sizeof(d));

		der_put(&wd, DER_SEQUENCE, c, wc.len);
		der_put(w, DER_EXPLICIT(0), d, wd.len);
	}
}

int x509_build_crl(const struct x509_ca *ca, const struct x509_revoked *list, size_t n, uint64_t number, uint64_t this_s, uint64_t next_s, uint8_t *ret,
		   size_t cap, size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *inside = malloc(cap);
	CLEANUP(cleanup_free) uint8_t *scratch = malloc(cap);
	struct writer w = writer_init(inside, cap), out = writer_init(ret, cap);
	const unsigned char *name;
	size_t name_len;

	if (!inside || !scratch || X509_NAME_get0_der(X509_get_subject_name(ca->certificate), &name, &name_len) != 1)
		return failed(err);
	der_put(&w, DER_INTEGER, "\1", 1); /* version 2 */
	put_algorithm(&w, ca);
	writer_bytes(&w, name, name_len);
	put_time(&w, this_s);
	put_time(&w, next_s);
	put_revoked(&w, list, n, scratch, cap);
	put_crl_extensions(&w, ca, number);
	der_put(&out, DER_SEQUENCE, inside, w.len);
	*ret_len = out.len;
	return w.failed || out.failed ? err_set(err, ERR_LIMIT, "too many certificates are revoked for one list") : 0;
}

/* ---- signatures ------------------------------------------------------------------------------------------------- */

int x509_assemble(const struct x509_ca *ca, const uint8_t *tbs, size_t tbs_len, const uint8_t *signature, size_t len, uint8_t *ret, size_t cap,
		  size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *inside = malloc(cap);
	uint8_t bits[KEY_SIGNATURE_MAX + 1] = {0}; /* no bit unused */
	struct writer w = writer_init(inside, cap), out = writer_init(ret, cap);

	if (!inside || len > KEY_SIGNATURE_MAX)
		return failed(err);
	if (key_is_ec(ca->type)) {
		len = ecdsa_to_der(signature, len / 2, bits + 1);
	} else {
		memcpy(bits + 1, signature, len);
	}
	writer_bytes(&w, tbs, tbs_len);
	put_algorithm(&w, ca);
	der_put(&w, DER_BIT_STRING, bits, len + 1);
	der_put(&out, DER_SEQUENCE, inside, w.len);
	*ret_len = out.len;
	return w.failed || out.failed ? failed(err) : 0;
}

void x509_request_done(struct x509_request *q)
{
	for (size_t i = 0; i < q->n_dns; i++)
		free(q->dns[i]);
	for (size_t i = 0; i < q->n_uris; i++)
		free(q->uris[i]);
	for (size_t i = 0; i < q->n_ips; i++)
		free(q->ips[i]);
	EVP_PKEY_free(q->public_key);
	*q = (struct x509_request){0};
}
