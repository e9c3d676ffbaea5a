/* transit/keys in Vault's dialect: keys in hardware by name and version, made, registered, described. And cotter/keys: what a token may use. */
#include "broker/api_ca.h"
#include "broker/key_rule.h"

#include "broker/policy.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/der.h"
#include "common/err.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- telling ---------------------------------------------------------------------------------------------------- */

static int append_chain(struct secret *s, const struct store_key *k)
{
	size_t n;
	int r = 0;

	for (size_t pos = 0; r == 0 && pos < k->certificates_len; pos += n) {
		n = der_sequence_len(k->certificates + pos, k->certificates_len - pos);
		if (n == 0)
			return -ERR_TAMPERED;
		r = api_append_pem(s, "CERTIFICATE", k->certificates + pos, n, "\\n");
	}
	return r;
}

struct description {
	struct secret text;
	struct store_key latest;
	size_t n;
};

static int describe_version(void *ctx, const struct store_key *k)
{
	struct description *d = ctx;
	char created[40];
	int r;

	api_time(k->created_ms, created);
	r = api_append(&d->text, "%s\"%llu\":{\"creation_time\":\"%s\",\"name\":\"%s\",\"public_key\":\"", d->n ? "," : "", (unsigned long long)k->version,
		       created, key_row(k->type)->curve ? key_row(k->type)->curve : key_row(k->type)->name);
	if (r == 0)
		r = api_append_pem(&d->text, "PUBLIC KEY", k->spki, k->spki_len, "\\n");
	if (r == 0)
		r = api_append(&d->text, "\",\"certificate_chain\":\"");
	if (r == 0)
		r = append_chain(&d->text, k);
	if (r == 0)
		r = api_append(&d->text, "\"}");
	d->latest = *k;
	d->n++;
	return r;
}

static int append_rules(struct secret *s, const struct config *config, const char *key)
{
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < config->n_key_rules; i++)
		if (key_rule_applies(config, &config->key_rules[i], key))
			r = api_append(s, "%s\"%s\"", n++ ? "," : "", config->key_rules[i].pattern);
	return r;
}

/* Vault's key object. */
static int describe_key(struct call *call, struct secret *ret, struct err *err)
{
	struct description d = {0};
	bool rsa;
	int r = secret_new(&d.text, 2048, err);

	if (r == 0)
		r = api_append(&d.text, "{\"keys\":{");
	if (r == 0)
		r = store_keys(&call->broker->store, call->path, describe_version, &d, err);
	if (r == 0 && d.n == 0)
		r = err_set(err, ERR_NOT_FOUND, "there is no such key");
	rsa = key_is_rsa(d.latest.type);
	if (r == 0)
		r = api_append(&d.text,
			       "},\"name\":\"%s\",\"type\":\"%s\",\"latest_version\":%llu,\"min_decryption_version\":1,\"min_encryption_version\":0,"
			       "\"min_available_version\":0,\"supports_encryption\":%s,\"supports_decryption\":%s,\"supports_derivation\":false,"
			       "\"supports_signing\":true,",
			       call->path, key_row(d.latest.type)->name, (unsigned long long)d.latest.version, rsa ? "true" : "false", rsa ? "true" : "false");
	if (r == 0)
		r = api_append(&d.text,
			       "\"deletion_allowed\":false,\"derived\":false,\"exportable\":false,\"allow_plaintext_backup\":false,\"auto_rotate_period\":0,"
			       "\"soft_deleted\":false,\"imported_key\":false,\"cotter_provider\":\"%s\",\"cotter_rules\":[", d.latest.provider);
	if (r == 0)
		r = append_rules(&d.text, &call->broker->config, call->path);
	if (r == 0)
		r = api_append(&d.text, "]}");
	if (r == 0)
		r = api_envelope((char *)d.text.data, d.text.len, NULL, 0, ret);
	secret_clear(&d.text);
	if (r < 0 && !err->code)
		err_set(err, ERR_BUSY, "the locked memory is full: try again");
	return r;
}

static void reply_key(struct call *call)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = describe_key(call, &body, &err);

	if (r < 0)
		call_fail(call, r, err.msg);
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

void transit_key_read(struct call *call, const struct request *q)
{
	(void)q;
	reply_key(call);
}

static bool may(struct call *call, const char *path, uint32_t op)
{
	struct token_facts facts = call->facts;

	facts.path = path;
	facts.op = op;
	return !call->token || token_may(&call->broker->tokens, call->token, &facts);
}

struct names {
	struct call *call;
	struct secret text;
	char last[LIMIT_PATH_LEN + 1];
	size_t n;
};

static int add_name(void *ctx, const struct store_key *k)
{
	struct names *names = ctx;

	if (strcmp(names->last, k->path) == 0)
		return 0;
	snprintf(names->last, sizeof(names->last), "%s", k->path);
	if (!may(names->call, k->path, POLICY_GET) && !may(names->call, k->path, POLICY_SIGN) && !may(names->call, k->path, POLICY_DECRYPT))
		return 0;
	return api_append(&names->text, "%s\"%s\"", names->n++ ? "," : "", k->path);
}

/* Those that the caller may use or look at. */
void transit_keys(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct names names = {.call = call};
	struct err err = {0};
	uint64_t seq = 0;
	int r = secret_new(&names.text, 1024, &err);

	(void)q;
	if (r == 0)
		r = api_append(&names.text, "{\"keys\":[");
	if (r == 0)
		r = store_keys(&call->broker->store, "", add_name, &names, &err);
	if (r == 0)
		r = api_append(&names.text, "]}");
	if (r == 0)
		r = names.n ? api_envelope((char *)names.text.data, names.text.len, NULL, 0, &body) : err_set(&err, ERR_NOT_FOUND, "no keys");
	secret_clear(&names.text);
	if (r < 0)
		call_fail(call, r, err.code ? err.msg : "the locked memory is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* ---- what a token may use --------------------------------------------------------------------------------------- */

struct granted {
	struct call *call;
	struct secret text;
	struct store_key last; /* the latest version of a name is the last that comes */
	size_t n;
};

static int flush_granted(struct granted *g)
{
	const struct store_key *k = &g->last;
	bool sign, decrypt;
	int r;

	if (!k->version || ca_is_key(g->call->broker, k->path))
		return 0;
	sign = may(g->call, k->path, POLICY_SIGN);
	decrypt = key_is_rsa(k->type) && may(g->call, k->path, POLICY_DECRYPT);
	if (!sign && !decrypt)
		return 0;
	r = api_append(&g->text, "%s{\"name\":\"%s\",\"version\":%llu,\"type\":\"%s\",\"sign\":%s,\"decrypt\":%s,\"public_key\":\"", g->n++ ? "," : "", k->path,
		       (unsigned long long)k->version, key_row(k->type)->name, sign ? "true" : "false", decrypt ? "true" : "false");
	if (r == 0)
		r = api_append_base64(&g->text, k->spki, k->spki_len);
	if (r == 0)
		r = api_append(&g->text, "\",\"certificates\":\"");
	if (r == 0 && k->certificates_len)
		r = api_append_base64(&g->text, k->certificates, k->certificates_len);
	return r < 0 ? r : api_append(&g->text, "\"}");
}

static int add_granted(void *ctx, const struct store_key *k)
{
	struct granted *g = ctx;
	int r = g->last.version && strcmp(g->last.path, k->path) != 0 ? flush_granted(g) : 0;

	store_key_done(&g->last);
	g->last = *k;
	g->last.certificates = NULL;
	if (k->certificates_len) {
		g->last.certificates = malloc(k->certificates_len);
		if (!g->last.certificates)
			return -ERR_FAILED;
		memcpy(g->last.certificates, k->certificates, k->certificates_len);
	}
	return r;
}

void cotter_keys(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct granted g = {.call = call};
	struct err err = {0};
	uint64_t seq = 0;
	int r = secret_new(&g.text, 4096, &err);

	(void)q;
	if (r == 0)
		r = api_append(&g.text, "{\"keys\":[");
	if (r == 0)
		r = store_keys(&call->broker->store, "", add_granted, &g, &err);
	if (r == 0)
		r = flush_granted(&g);
	if (r == 0)
		r = api_append(&g.text, "]}");
	if (r == 0)
		r = api_envelope((char *)g.text.data, g.text.len, NULL, 0, &body);
	store_key_done(&g.last);
	secret_clear(&g.text);
	if (r < 0)
		call_fail(call, r, err.code ? err.msg : "the locked memory is full: try again");
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

struct making {
	struct store_key key;
	struct store_key old; /* whose next version this is; version 0: it is the first */
	char label[LIMIT_NAME_LEN + 1];
	char file[LIMIT_URI_LEN]; /* of a TPM's key that was written; "": none */
};

static void free_making(void *work)
{
	struct making *m = work;

	store_key_done(&m->key);
	store_key_done(&m->old);
	free(m);
}

static void cleanup_x509(X509 **c)
{
	X509_free(*c);
}

static void cleanup_bio(BIO **b)
{
	BIO_free(*b);
}

/* PEM, the key's own certificate first; DER, one behind the other. */
static int read_certificates(const char *pem, struct store_key *k, struct err *err)
{
	CLEANUP(cleanup_bio) BIO *in = BIO_new_mem_buf(pem, -1);
	uint8_t *spki = NULL, *der;
	int n;

	free(k->certificates);
	k->certificates_len = 0;
	k->certificates = malloc(LIMIT_CERTIFICATES);
	for (bool first = true; in && k->certificates; first = false) {
		CLEANUP(cleanup_x509) X509 *c = PEM_read_bio_X509(in, NULL, NULL, NULL);

		if (!c)
			return first ? err_set(err, ERR_INPUT, "there is no certificate in PEM") : 0;
		n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c), &spki);
		if (first && (n != (int)k->spki_len || memcmp(spki, k->spki, k->spki_len) != 0)) {
			OPENSSL_free(spki);
			return err_set(err, ERR_INPUT, "the first certificate is of another key");
		}
		OPENSSL_free(spki);
		spki = NULL;
		n = i2d_X509(c, NULL);
		if (n <= 0 || n > 0xffff || k->certificates_len + (size_t)n > LIMIT_CERTIFICATES)
			return err_set(err, ERR_LIMIT, "the certificates have more than %u bytes", LIMIT_CERTIFICATES);
		der = k->certificates + k->certificates_len;
		k->certificates_len += (size_t)i2d_X509(c, &der);
	}
	return err_set(err, ERR_FAILED, "out of memory");
}

/* A sealing key seals and nothing else. */
static bool seals(const struct broker *b, const struct provider_key *key)
{
	for (size_t i = 0; i < b->config.n_providers; i++)
		for (size_t k = 0; k < b->config.providers[i].n_keys; k++)
			if (key->type == KEY_P256 && memcmp(b->config.providers[i].keys[k].point, key->point, P256_POINT_LEN) == 0)
				return true;
	return key->can_agree && !key->can_sign;
}

/* A TPM's key is a file of ours; its helper may read that folder. */
static int write_key_file(const struct broker *b, const struct wire_reply *reply, char ret[LIMIT_URI_LEN], struct err *err)
{
	CLEANUP(cleanup_close) int fd = -1;
	uint8_t random[8];
	char hex[17];
	int n;

	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	n = snprintf(ret, LIMIT_URI_LEN, "%.400s/" CONFIG_KEY_DIR "/%s.pem", b->config.state_dir, hex);
	if (n < 0 || (size_t)n >= LIMIT_URI_LEN)
		return err_set(err, ERR_LIMIT, "the state directory's path is too long for a key file's");
	fd = open(ret, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, reply->data, reply->data_len) != (ssize_t)reply->data_len || fsync(fd) < 0)
		return err_errno(err, errno, "key file %.300s", ret);
	return 0;
}

/* While the hardware worked, the key may have been removed, or made by somebody else. */
static int number(struct store *s, struct making *m, struct err *err)
{
	struct store_key latest;
	int r = store_key_get(s, m->key.path, 0, &latest, err);

	if (r == -ERR_NOT_FOUND && !m->old.version)
		return 0;
	if (r < 0)
		return r == -ERR_NOT_FOUND ? err_set(err, ERR_CONFLICT, "the key was removed meanwhile") : r;
	m->key.version = latest.version + 1;
	store_key_done(&latest);
	r = m->old.version ? store_key_still(s, &m->old, err) : -ERR_NOT_FOUND;
	return r == -ERR_NOT_FOUND ? err_set(err, ERR_CONFLICT, "another key was made under that name meanwhile") : r;
}

struct second_name {
	const struct config *config;
	const struct making *m;
	char other[LIMIT_PATH_LEN + 1];
};

static int look_for_first(void *ctx, const struct store_key *k)
{
	struct second_name *s = ctx;

	if (k->spki_len == s->m->key.spki_len && memcmp(k->spki, s->m->key.spki, k->spki_len) == 0 && strcmp(k->path, s->m->key.path) != 0 &&
	    (key_rule_wants_approval(s->config, k->path) || key_rule_wants_approval(s->config, s->m->key.path)))
		snprintf(s->other, sizeof(s->other), "%s", k->path);
	return 0;
}

/* By another name, nobody would be asked. */
static int check_second_name(struct broker *b, const struct making *m, struct err *err)
{
	struct second_name s = {.config = &b->config, .m = m};
	int r = store_keys(&b->store, "", look_for_first, &s, err);

	return r == 0 && s.other[0] ? err_set(err, ERR_CONFLICT, "that key is %.200s already, and one that wants approvals has one name", s.other) : r;
}

static int take_made(struct broker *b, struct making *m, const struct wire_reply *reply, struct err *err)
{
	int r = 0;

	if (seals(b, &reply->key))
		return err_set(err, ERR_INPUT, "that key seals secrets: it must do nothing else");
	if (!reply->key.can_sign && !reply->key.can_decrypt)
		return err_set(err, ERR_INPUT, "the hardware says that this key neither signs nor decrypts");
	m->key.type = (enum key_type)reply->key.type;
	m->key.spki_len = reply->key.spki_len;
	memcpy(m->key.spki, reply->key.spki, reply->key.spki_len);
	/* as the hardware names it: what was given may come to fit another */
	if (reply->key.ref[0])
		snprintf(m->key.ref, sizeof(m->key.ref), "%s", reply->key.ref);
	r = check_second_name(b, m, err);
	if (r == 0 && reply->data_len) {
		r = write_key_file(b, reply, m->file, err);
		memcpy(m->key.ref, m->file, sizeof(m->key.ref));
	}
	if (r == 0)
		r = number(&b->store, m, err);
	return r < 0 ? r : store_key_add(&b->store, &m->key, err);
}

static void made(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct call *call = ctx;
	struct making *m = call->work;
	struct err err = {0};
	int r = result < 0 ? err_set(&err, (enum err_code)-result, "%s", message) : take_made(call->broker, m, reply, &err);

	if (r < 0) {
		if (m->file[0])
			unlink(m->file); /* nobody knows of it */
		call_fail(call, r, err.msg);
		return;
	}
	call->version = m->key.version;
	reply_key(call);
}

static struct hardware_provider *choose_provider(struct broker *b, const char *name, struct err *err)
{
	struct hardware_provider *p = name ? hardware_provider(&b->hardware, name) : b->hardware.n_providers == 1 ? &b->hardware.providers[0] : NULL;

	if (!p)
		err_set(err, ERR_INPUT, name ? "the configuration has no such provider" : "there are several providers: name one (\"provider\", --provider)");
	return p;
}

static int set_certificates(struct call *call, const json_t *body, struct err *err)
{
	const char *pem = json_string_value(json_object_get(body, "certificate_chain"));
	struct store_key k;
	int r = store_key_get(&call->broker->store, call->path, 0, &k, err);

	if (r < 0)
		return r;
	if (!pem)
		r = err_set(err, ERR_INPUT, "config takes {\"certificate_chain\": PEM}");
	if (r == 0)
		r = read_certificates(pem, &k, err);
	if (r == 0)
		r = store_key_put(&call->broker->store, &k, err);
	if (r == 0 && ca_is_key(call->broker, k.path))
		crl_forget(call->broker);
	call->version = k.version;
	store_key_done(&k);
	return r;
}

static int start_making(struct call *call, const json_t *body, struct err *err)
{
	const char *type = json_string_value(json_object_get(body, "type")), *ref = json_string_value(json_object_get(body, "ref"));
	const char *provider = json_string_value(json_object_get(body, "provider")), *slash = strrchr(call->path, '/');
	struct making *m = calloc(1, sizeof(*m));
	struct hardware_provider *p;
	const struct store_key *old;
	bool rotate = strcmp(call->suffix, "rotate") == 0;
	int r;

	if (!m)
		return err_set(err, ERR_FAILED, "out of memory");
	call->work = m;
	call->free_work = free_making;
	if (strncmp(call->path, "pki/", 4) == 0 || strncmp(call->path, "ssh/", 4) == 0)
		return err_set(err, ERR_INPUT, "what begins with pki/ or ssh/ is a role of certificates: choose another name");
	if (api_is_suffix(slash ? slash + 1 : call->path))
		return err_set(err, ERR_INPUT, "a key's name does not end in a word such as sha2-256 or rotate: choose another");
	old = &m->old;
	r = store_key_get(&call->broker->store, call->path, 0, &m->old, err);
	if (r == -ERR_NOT_FOUND && !rotate)
		r = 0;
	if (r < 0)
		return r;
	m->key.version = old->version + 1;
	m->key.created_ms = token_wall_ms();
	m->key.type = type ? key_type_find(type) : old->version ? old->type : KEY_P256;
	if (!provider && old->version)
		snprintf(m->key.provider, sizeof(m->key.provider), "%s", old->provider);
	p = choose_provider(call->broker, provider ? provider : m->key.provider[0] ? m->key.provider : NULL, err);
	if (!p)
		return -ERR_INPUT;
	snprintf(m->key.path, sizeof(m->key.path), "%s", call->path);
	snprintf(m->key.provider, sizeof(m->key.provider), "%s", p->config->name);
	if (m->key.type == KEY_NONE)
		return err_set(err, ERR_INPUT, "type is one of ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096, ed25519");
	if (ref && strlen(ref) >= sizeof(m->key.ref))
		return err_set(err, ERR_INPUT, "ref is longer than %u bytes", LIMIT_URI_LEN - 1);
	if (ref) {
		snprintf(m->key.ref, sizeof(m->key.ref), "%s", ref);
		return hardware_find(p, ref, made, call, err);
	}
	snprintf(m->label, sizeof(m->label), "%.48s-v%llu", slash ? slash + 1 : call->path, (unsigned long long)m->key.version);
	return hardware_make(p, m->key.type, m->label, made, call, err);
}

/* Vault's create, rotate and config; "ref" registers a key that the hardware has already. */
void transit_key_write(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct store_key old = {0};
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0 && strcmp(call->suffix, "config") == 0) {
		r = set_certificates(call, body, &err);
		if (r == 0) {
			reply_key(call);
			return;
		}
	} else if (r == 0 && !call->suffix[0] && store_key_get(&call->broker->store, call->path, 0, &old, NULL) == 0) {
		store_key_done(&old);
		reply_key(call); /* it is there already, as with Vault */
		return;
	} else if (r == 0) {
		r = start_making(call, body, &err);
	}
	if (r < 0)
		call_fail(call, r, err.msg);
}

void transit_key_delete(struct call *call, const struct request *q)
{
	struct err err = {0};
	uint64_t seq = 0;
	int r;

	(void)q;
	if (key_rule_wants_approval(&call->broker->config, call->path)) {
		call_fail(call, -ERR_CONFLICT, "a rule of the configuration's keys wants approvals for it: take that out first, or it could come back by another name");
		return;
	}
	if (call_grant(call, &seq) < 0)
		return;
	r = store_key_delete(&call->broker->store, call->path, &err);
	if (r == 0 && ca_is_key(call->broker, call->path))
		crl_forget(call->broker);
	call_end(call, r, err.msg, seq);
}
