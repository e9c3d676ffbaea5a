/* pki in Vault's dialect: X.509 certificates for a short time, signed by a CA key in hardware; revocation. */
#include "broker/api_ca.h"
#include "broker/key_rule.h"
#include "broker/x509.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct work {
	struct store_key key;
	struct x509_ca ca;
	struct x509_request q;
	struct store_cert cert;
	struct secret private_key; /* of pki/issue: PEM */
	uint64_t ttl_s;
	uint8_t *tbs, *out; /* cap bytes */
	uint8_t input[SIGN_INPUT_MAX];
	size_t cap, tbs_len, input_len, out_len;
};

static void free_work(void *p)
{
	struct work *w = p;

	store_key_done(&w->key);
	x509_ca_done(&w->ca);
	x509_request_done(&w->q);
	secret_clear(&w->private_key);
	free(w->tbs);
	free(w->out);
	free(w);
}

static struct work *begin(struct call *call, size_t cap, struct err *err)
{
	struct work *w = calloc(1, sizeof(*w));
	int r;

	if (!w) {
		err_set(err, ERR_FAILED, "out of memory");
		return NULL;
	}
	call->work = w;
	call->free_work = free_work;
	w->cap = cap;
	w->tbs = malloc(cap);
	w->out = malloc(cap);
	r = w->tbs && w->out ? ca_key(call->broker, &call->broker->config.pki, &w->key, err) : err_set(err, ERR_FAILED, "out of memory");
	if (r == 0)
		r = x509_ca(w->key.certificates, ca_certificate_len(&w->key), w->key.type, &w->ca, err);
	return r < 0 ? NULL : w;
}

static void serial_text(const uint8_t serial[X509_SERIAL_LEN], char ret[3 * X509_SERIAL_LEN])
{
	for (size_t i = 0; i < X509_SERIAL_LEN; i++)
		snprintf(ret + 3 * i, 4, i + 1 < X509_SERIAL_LEN ? "%02x:" : "%02x", serial[i]);
}

/* ---- issuing ---------------------------------------------------------------------------------------------------- */

/* "a, b" as a list; whatever each is, is checked with the role. */
static int split(const char *text, char **ret, size_t *ret_n, struct err *err)
{
	size_t n;

	for (; text && *text; text += n + (text[n] == ',')) {
		text += strspn(text, " ");
		n = strcspn(text, ",");
		if (*ret_n == LIMIT_CERT_NAMES)
			return err_set(err, ERR_INPUT, "at most %u names of a kind", LIMIT_CERT_NAMES);
		ret[*ret_n] = strndup(text, n);
		if (!ret[*ret_n])
			return err_set(err, ERR_FAILED, "out of memory");
		(*ret_n)++;
	}
	return 0;
}

static int read_csr(const char *pem, struct x509_request *q, struct err *err)
{
	size_t n = pem ? strlen(pem) : 0;
	BIO *in = n && n <= LIMIT_CSR ? BIO_new_mem_buf(pem, (int)n) : NULL;
	X509_REQ *req = in ? PEM_read_bio_X509_REQ(in, NULL, NULL, NULL) : NULL;
	EVP_PKEY *key = req ? X509_REQ_get_pubkey(req) : NULL;
	int bits = key ? EVP_PKEY_get_bits(key) : 0, id = key ? EVP_PKEY_get_base_id(key) : 0;
	bool good = key && X509_REQ_verify(req, key) == 1;

	BIO_free(in);
	X509_REQ_free(req);
	if (good && ((id == EVP_PKEY_RSA && bits >= 2048 && bits <= 8192) || (id == EVP_PKEY_EC && bits >= 256) || id == EVP_PKEY_ED25519)) {
		q->public_key = key;
		return 0;
	}
	EVP_PKEY_free(key);
	return err_set(err, ERR_INPUT, good ? "the request's key is too weak, or of an unknown kind" : "csr: a certificate request in PEM, signed by its own key");
}

/* The one key that is made outside of hardware: it is the caller's, and kept nowhere. */
static int make_key(struct work *w, struct err *err)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *out = BIO_new(BIO_s_secmem());
	char *text;
	long n;
	int r = -ERR_FAILED;

	if (key && out && PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1 && (n = BIO_get_mem_data(out, &text)) > 0)
		r = secret_copy(&w->private_key, text, (size_t)n, err);
	if (r == 0)
		w->q.public_key = key;
	else
		EVP_PKEY_free(key);
	BIO_free(out);
	return r < 0 ? err_set(err, ERR_FAILED, "no key could be made") : 0;
}

static int read_names(struct work *w, const json_t *body, struct err *err)
{
	const char *cn = json_string_value(json_object_get(body, "common_name"));
	struct x509_request *q = &w->q;
	int r = cn && strlen(cn) < sizeof(w->cert.name) ? 0 : err_set(err, ERR_INPUT, "common_name: 1 to 64 bytes");

	if (r < 0)
		return r;
	snprintf(w->cert.name, sizeof(w->cert.name), "%s", cn);
	q->common_name = w->cert.name;
	/* a name of a host is what clients look for among the others */
	if (!json_is_true(json_object_get(body, "exclude_cn_from_sans")) && q->role->usages & (CONFIG_USAGE_SERVER | CONFIG_USAGE_CLIENT))
		r = split(cn, q->dns, &q->n_dns, err);
	if (r == 0)
		r = split(json_string_value(json_object_get(body, "alt_names")), q->dns, &q->n_dns, err);
	if (r == 0)
		r = split(json_string_value(json_object_get(body, "ip_sans")), q->ips, &q->n_ips, err);
	if (r == 0)
		r = split(json_string_value(json_object_get(body, "uri_sans")), q->uris, &q->n_uris, err);
	return r < 0 ? r : x509_check(q, err);
}

static int set_life(struct work *w, struct err *err)
{
	uint64_t now_s = token_wall_ms() / 1000;
	time_t end;
	int days, seconds;

	w->q.not_before_s = now_s - 30;
	w->q.not_after_s = now_s + w->ttl_s;
	end = (time_t)w->q.not_after_s;
	/* never longer than the CA's own certificate */
	if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(w->ca.certificate)) != 1 || days < 0 || seconds < 0 ||
	    X509_cmp_time(X509_get0_notAfter(w->ca.certificate), &end) < 0)
		return err_set(err, ERR_INPUT, "the CA's certificate does not live that long");
	w->cert.expires_s = w->q.not_after_s;
	return 0;
}

static int reply_data(struct call *call, struct secret *data)
{
	const struct work *w = call->work;
	char serial[3 * X509_SERIAL_LEN];
	size_t n = ca_certificate_len(&w->key);
	int r = secret_new(data, 4096, NULL);

	serial_text(w->q.serial, serial);
	if (r == 0)
		r = api_append(data, "{\"certificate\":\"");
	if (r == 0)
		r = api_append_pem(data, "CERTIFICATE", w->out, w->out_len, "\\n");
	if (r == 0)
		r = api_append(data, "\",\"issuing_ca\":\"");
	if (r == 0)
		r = api_append_pem(data, "CERTIFICATE", w->key.certificates, n, "\\n");
	if (r == 0)
		r = api_append(data, "\",\"ca_chain\":[\"");
	if (r == 0)
		r = api_append_pem(data, "CERTIFICATE", w->key.certificates, n, "\\n");
	if (r == 0)
		r = api_append(data, "\"],\"serial_number\":\"%s\",\"expiration\":%llu", serial, (unsigned long long)w->q.not_after_s);
	if (r == 0 && w->private_key.len) {
		r = api_append(data, ",\"private_key_type\":\"ec\",\"private_key\":\"");
		for (size_t i = 0; r == 0 && i < w->private_key.len; i++)
			r = w->private_key.data[i] == '\n' ? secret_append(data, "\\n", 2, NULL) : secret_append(data, w->private_key.data + i, 1, NULL);
		if (r == 0)
			r = api_append(data, "\"");
	}
	return r < 0 ? r : api_append(data, "}");
}

static void issued(void *ctx, int result, const struct wire_reply *answer, const char *message)
{
	struct call *call = ctx;
	struct work *w = call->work;
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	char serial[3 * X509_SERIAL_LEN];
	struct err err = {0};
	uint64_t seq = 0;
	int r = result;

	if (r < 0)
		err_set(&err, (enum err_code)-r, "%s", message);
	if (r == 0)
		r = ca_check(&w->key, w->ca.scheme, w->ca.hash, w->input, w->input_len, answer, &err);
	if (r == 0)
		r = ca_still(call->broker, &w->key, &err);
	if (r == 0)
		r = x509_assemble(&w->ca, w->tbs, w->tbs_len, answer->data, answer->data_len, w->out, w->cap, &w->out_len, &err);
	if (r == 0 && w->out_len > sizeof(w->cert.der))
		r = err_set(&err, ERR_LIMIT, "the certificate is too long");
	if (r == 0) {
		memcpy(w->cert.der, w->out, w->out_len);
		w->cert.der_len = w->out_len;
		r = store_cert_put(&call->broker->store, &w->cert, &err);
	}
	if (r == 0 && (reply_data(call, &data) < 0 || api_envelope((char *)data.data, data.len, NULL, 0, &body) < 0))
		r = err_set(&err, ERR_BUSY, "the locked memory is full: try again");
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	serial_text(w->q.serial, serial);
	ca_describe(call, &w->key, "certificate", serial, w->tbs, w->tbs_len);
	if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* The configuration may be another one than when it was asked for. */
static int set_role(struct call *call, struct work *w, struct err *err)
{
	w->q.role = ca_role(call, &call->broker->config.pki, err);
	if (!w->q.role)
		return -ERR_INPUT;
	snprintf(w->cert.role, sizeof(w->cert.role), "%s", w->q.role->name);
	w->q.crl_url = call->broker->config.pki.crl_url;
	return 0;
}

static int build(struct call *call, struct work *w, struct err *err)
{
	int r = set_role(call, w, err);

	if (r == 0)
		r = ca_is_of(&call->broker->config.pki, &w->key, err);
	if (r == 0)
		r = x509_check(&w->q, err);
	if (r == 0 && w->ttl_s > w->q.role->max_ttl_ms / 1000)
		r = err_set(err, ERR_INPUT, "the role gives no such ttl any more");
	if (r == 0)
		r = set_life(w, err);
	if (r < 0)
		return r;
	randombytes_buf(w->q.serial, sizeof(w->q.serial));
	w->q.serial[0] = (uint8_t)((w->q.serial[0] & 0x3f) | 0x40); /* positive, and always of this length */
	memcpy(w->cert.serial, w->q.serial, sizeof(w->cert.serial));
	r = x509_build(&w->ca, &w->q, w->tbs, &w->tbs_len, err);
	if (r == 0)
		r = store_cert_reserve(&call->broker->store, &w->cert, token_wall_ms() / 1000, err);
	return r < 0 ? r : ca_input(w->ca.scheme, w->ca.hash, w->tbs, w->tbs_len, w->input, &w->input_len, err);
}

static void issue(struct call *call)
{
	struct work *w = call->work;
	struct err err = {0};
	int r = build(call, w, &err);

	if (r == 0)
		r = ca_sign(call->broker, &w->key, w->ca.scheme, w->ca.hash, w->input, w->input_len, call_asker(call), issued, call, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

static int read_request(struct call *call, const struct request *http, bool with_key, struct err *err)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = begin(call, LIMIT_CERTIFICATE + 1024, err);
	int r = w ? api_body(http, &body, err) : -(int)err->code;

	if (r == 0)
		r = set_role(call, w, err);
	if (r == 0)
		r = read_names(w, body, err);
	if (r == 0)
		r = ca_ttl(body, w->q.role, &w->ttl_s, err);
	if (r == 0)
		r = set_life(w, err);
	if (r == 0)
		r = with_key ? make_key(w, err) : read_csr(json_string_value(json_object_get(body, "csr")), &w->q, err);
	if (r == 0)
		snprintf(call->detail, sizeof(call->detail), "certificate for %s", path_valid(w->cert.name) ? w->cert.name : "a name");
	return r;
}

static void run(struct call *call, const struct request *http, bool with_key)
{
	struct err err = {0};
	int r = read_request(call, http, with_key, &err);

	if (r < 0)
		call_fail(call, r, err.msg);
	else
		key_rule_admit(call, 1, issue);
}

void pki_sign(struct call *call, const struct request *q)
{
	run(call, q, false);
}

void pki_issue(struct call *call, const struct request *q)
{
	run(call, q, true);
}

/* ---- the CA and its list ---------------------------------------------------------------------------------------- */

/* DER as it is, or PEM of that kind. */
static void reply_raw(struct call *call, const uint8_t *der, size_t len, const char *kind, const char *content_type)
{
	CLEANUP(secret_clear) struct secret body = {0};
	int r = secret_new(&body, len + 64, NULL);

	if (r == 0)
		r = kind ? api_append_pem(&body, kind, der, len, "\n") : secret_append(&body, der, len, NULL);
	call->conn->content_type = content_type;
	call_reply(call, r < 0 ? 503 : 200, r < 0 ? NULL : &body, 0);
}

static bool wants_pem(const struct request *q)
{
	size_t n = strlen(q->path);

	return n > 4 && strcmp(q->path + n - 4, "/pem") == 0;
}

void pki_ca(struct call *call, const struct request *q)
{
	struct store_key key;
	struct err err = {0};
	int r = ca_key(call->broker, &call->broker->config.pki, &key, &err);
	size_t n = r == 0 ? ca_certificate_len(&key) : 0;

	if (r == 0 && n == 0)
		r = err_set(&err, ERR_NOT_FOUND, "the CA's key has no certificate");
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		reply_raw(call, key.certificates, n, wants_pem(q) ? "CERTIFICATE" : NULL, wants_pem(q) ? "application/x-pem-file" : "application/pkix-cert");
	store_key_done(&key);
}

void pki_crl(struct call *call, const struct request *q)
{
	crl_reply(call, wants_pem(q));
}

static int read_serial(const char *text, uint8_t ret[X509_SERIAL_LEN], struct err *err)
{
	size_t n = 0;

	if (text && sodium_hex2bin(ret, X509_SERIAL_LEN, text, strlen(text), ":-", &n, NULL) == 0 && n == X509_SERIAL_LEN)
		return 0;
	return err_set(err, ERR_INPUT, "serial_number: %u bytes in hex, as the certificate has it", X509_SERIAL_LEN);
}

void pki_cert(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	struct store_cert c;
	uint8_t serial[X509_SERIAL_LEN] = {0};
	struct err err = {0};
	int r = call->broker->unsealed ? read_serial(call->path, serial, &err) : err_set(&err, ERR_SEALED, "Vault is sealed");

	(void)q;
	call->path[0] = '\0'; /* no path: it does not belong into the log */
	if (r == 0)
		r = store_cert_get(&call->broker->store, serial, &c, &err);
	if (r == 0 && c.der_len == 0)
		r = err_set(&err, ERR_NOT_FOUND, "it was never made");
	if (r == 0)
		r = secret_new(&data, 2048, &err);
	if (r == 0)
		r = api_append(&data, "{\"certificate\":\"");
	if (r == 0)
		r = api_append_pem(&data, "CERTIFICATE", c.der, c.der_len, "\\n");
	if (r == 0)
		r = api_append(&data, "\",\"revocation_time\":%llu}", (unsigned long long)c.revoked_s);
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, r, err.code ? err.msg : "the locked memory is full: try again");
	else
		call_reply(call, 200, &body, 0);
}

void pki_revoke(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret data = {0}, reply = {0};
	char text[3 * X509_SERIAL_LEN];
	uint8_t serial[X509_SERIAL_LEN] = {0};
	struct store_cert c = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = read_serial(json_string_value(json_object_get(body, "serial_number")), serial, &err);
	if (r == 0)
		r = store_cert_get(&call->broker->store, serial, &c, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	serial_text(serial, text);
	r = c.revoked_s ? 0 : crl_room(call->broker, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	snprintf(call->detail, sizeof(call->detail), "certificate %s", text);
	call->takes = true;
	if (call_grant(call, &seq) < 0)
		return;
	if (!c.revoked_s) {
		c.revoked_s = token_wall_ms() / 1000;
		r = store_cert_put(&call->broker->store, &c, &err);
		crl_forget(call->broker);
	}
	if (r == 0)
		r = secret_new(&data, 64, &err);
	if (r == 0)
		r = api_append(&data, "{\"revocation_time\":%llu}", (unsigned long long)c.revoked_s);
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &reply);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply(call, 200, &reply, seq);
}
