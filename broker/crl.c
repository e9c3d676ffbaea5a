#include "broker/crl.h"

#include "broker/api_ca.h"
#include "broker/x509.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/pem.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CRL_LIFE_S 86400u
#define CRL_RETRY_MS 2000u
#define CRL_ENTRY 40u /* bytes of one revoked certificate, at most */
#define CRL_CAP (LIMIT_REVOKED * CRL_ENTRY + 4096u)

struct crl_build {
	struct broker *broker;
	struct store_key key;
	struct x509_ca ca;
	uint8_t mark[CRL_MARK_LEN];
	uint8_t input[SIGN_INPUT_MAX];
	uint8_t tbs[CRL_CAP], out[CRL_CAP + 2048];
	size_t input_len, tbs_len, out_len;
};

static void build_free(struct crl_build *w)
{
	store_key_done(&w->key);
	x509_ca_done(&w->ca);
	free(w);
}

/* Another key, another version of it, or another certificate: another list. */
static void mark_of(const struct store_key *k, uint8_t ret[CRL_MARK_LEN])
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, NULL, 0, CRL_MARK_LEN);
	crypto_generichash_update(&st, (const uint8_t *)k->path, sizeof(k->path));
	crypto_generichash_update(&st, k->spki, k->spki_len);
	crypto_generichash_update(&st, k->certificates, k->certificates_len);
	crypto_generichash_final(&st, ret, CRL_MARK_LEN);
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static void answer(struct call *call, const struct crl *crl)
{
	bool pem = call->suffix[0];

	call->conn->content_type = pem ? "application/x-pem-file" : "application/pkix-crl";
	call_reply_shared(call, pem ? crl->pem : crl->der);
}

static void answer_all(struct crl *crl)
{
	struct call *call, *next;

	next = crl->waiting;
	crl->waiting = NULL;
	while ((call = next)) {
		next = call->next_waiting;
		if (crl->code)
			call_fail(call, crl->code, crl->problem);
		else
			answer(call, crl);
	}
}

static void failed(struct crl *crl, int code, const char *message)
{
	crl->code = code;
	snprintf(crl->problem, sizeof(crl->problem), "%.255s", message);
	crl->retry_ms = token_boot_ms() + CRL_RETRY_MS;
	answer_all(crl);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

struct revoked {
	struct x509_revoked *list;
	size_t n;
};

static int add_revoked(void *ctx, const struct store_cert *c)
{
	struct revoked *r = ctx;

	if (r->n == LIMIT_REVOKED)
		return -ERR_LIMIT;
	memcpy(r->list[r->n].serial, c->serial, sizeof(c->serial));
	r->list[r->n++].when_s = c->revoked_s;
	return 0;
}

static int put_tbs(struct broker *b, struct crl_build *w, struct err *err)
{
	uint64_t now_s = token_wall_ms() / 1000, number = 0;
	struct revoked revoked = {.list = calloc(LIMIT_REVOKED, sizeof(*revoked.list))};
	int r = revoked.list ? store_certs(&b->store, true, now_s, add_revoked, &revoked, err) : err_set(err, ERR_FAILED, "out of memory");

	if (r < 0 && !err->code)
		err_set(err, ERR_LIMIT, "more than %u certificates are revoked", LIMIT_REVOKED);
	if (r == 0)
		r = store_counter(&b->store, "crl", &number, err);
	if (r == 0)
		r = x509_build_crl(&w->ca, revoked.list, revoked.n, number, now_s, now_s + CRL_LIFE_S, w->tbs, sizeof(w->tbs), &w->tbs_len, err);
	free(revoked.list);
	return r < 0 ? r : ca_input(w->ca.scheme, w->ca.hash, w->tbs, w->tbs_len, w->input, &w->input_len, err);
}

static struct shared_body *to_pem(const uint8_t *der, size_t len)
{
	struct shared_body *s = shared_body_new(PEM_LEN(len));
	struct writer w;

	if (!s)
		return NULL;
	w = writer_init(s->data, s->len);
	pem_put(&w, "X509 CRL", der, len, "\n");
	s->len = w.len;
	return s;
}

/* A list that nobody could tell of is not given away. */
static int record(struct broker *b, const struct crl_build *w, struct err *err)
{
	char why[160], digest[2 * 32 + 1];
	uint8_t hash[32];
	struct audit_event e = {.event = "pki.crl", .uid = geteuid(), .job = "", .secret = w->key.path, .version = w->key.version,
				.result = "granted", .why = why};

	crypto_hash_sha256(hash, w->tbs, w->tbs_len);
	sodium_bin2hex(digest, sizeof(digest), hash, sizeof(hash));
	snprintf(why, sizeof(why), "revocation list sha2-256 %s", digest);
	return audit_write(&b->audit, &e, NULL, err);
}

static int keep(struct broker *b, struct crl_build *w, const struct wire_reply *reply, struct err *err)
{
	struct crl *crl = &b->crl;
	struct shared_body *der = NULL, *pem = NULL;
	int r = ca_check(&w->key, w->ca.scheme, w->ca.hash, w->input, w->input_len, reply, err);

	if (r == 0)
		r = ca_still(b, &w->key, err);
	if (r == 0)
		r = x509_assemble(&w->ca, w->tbs, w->tbs_len, reply->data, reply->data_len, w->out, sizeof(w->out), &w->out_len, err);
	if (r == 0) {
		der = shared_body_new(w->out_len);
		pem = to_pem(w->out, w->out_len);
		r = der && pem ? 0 : err_set(err, ERR_FAILED, "out of memory");
	}
	if (r == 0)
		r = record(b, w, err);
	if (r < 0 || !der || !pem) {
		shared_body_drop(der);
		shared_body_drop(pem);
		return r;
	}
	memcpy(der->data, w->out, w->out_len);
	shared_body_drop(crl->der);
	shared_body_drop(crl->pem);
	crl->der = der;
	crl->pem = pem;
	memcpy(crl->mark, w->mark, sizeof(crl->mark));
	crl->signed_s = token_wall_ms() / 1000;
	crl->until_ms = token_boot_ms() + CRL_LIFE_S * 1000u / 2;
	crl->code = 0;
	return 0;
}

static void signed_list(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct crl_build *w = ctx;
	struct broker *b = w->broker;
	struct err err = {0};
	int r = result;

	b->crl.build = NULL;
	if (r < 0)
		err_set(&err, (enum err_code)-r, "%s", message);
	else
		r = keep(b, w, reply, &err);
	build_free(w);
	if (r < 0)
		failed(&b->crl, r, err.msg);
	else
		answer_all(&b->crl);
}

/* Takes key's memory over. */
static int build(struct broker *b, struct store_key *key, struct err *err)
{
	struct crl_build *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, ERR_FAILED, "out of memory");
	w->broker = b;
	w->key = *key;
	*key = (struct store_key){0};
	mark_of(&w->key, w->mark);
	r = x509_ca(w->key.certificates, ca_certificate_len(&w->key), w->key.type, &w->ca, err);
	if (r == 0)
		r = put_tbs(b, w, err);
	if (r == 0)
		r = ca_sign(b, &w->key, w->ca.scheme, w->ca.hash, w->input, w->input_len, 0, signed_list, w, err);
	if (r < 0)
		build_free(w);
	else
		b->crl.build = w;
	return r;
}

static void start(struct broker *b)
{
	struct store_key key = {0};
	struct err err = {0};
	int r = ca_key(b, &b->config.pki, &key, &err);

	if (r == 0)
		r = build(b, &key, &err);
	store_key_done(&key);
	if (r < 0)
		failed(&b->crl, r, err.msg);
}

void crl_reply(struct call *call, bool pem)
{
	struct broker *b = call->broker;
	struct crl *crl = &b->crl;
	struct store_key key = {0};
	uint8_t mark[CRL_MARK_LEN];
	struct err err = {0};
	int r = ca_key(b, &b->config.pki, &key, &err);

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	mark_of(&key, mark);
	store_key_done(&key);
	call->suffix[0] = pem ? 'p' : '\0';
	if (crl->der && memcmp(mark, crl->mark, sizeof(mark)) == 0 && token_boot_ms() < crl->until_ms && crl->signed_s <= token_wall_ms() / 1000) {
		answer(call, crl);
		return;
	}
	if (!crl->build && crl->code && token_boot_ms() < crl->retry_ms) {
		call_fail(call, crl->code, crl->problem);
		return;
	}
	call->next_waiting = crl->waiting;
	crl->waiting = call;
	if (crl->build && memcmp(mark, crl->build->mark, sizeof(mark)) != 0)
		crl_forget(b);
	else if (!crl->build)
		start(b);
}

void crl_cancel(struct broker *b, const struct call *call)
{
	for (struct call **p = &b->crl.waiting; *p; p = &(*p)->next_waiting) {
		if (*p == call) {
			*p = call->next_waiting;
			return;
		}
	}
}

void crl_forget(struct broker *b)
{
	b->crl.until_ms = 0;
	b->crl.code = 0;
	if (!b->crl.build)
		return;
	hardware_cancel(&b->hardware, b->crl.build);
	build_free(b->crl.build);
	b->crl.build = NULL;
	if (b->crl.waiting)
		start(b);
}

static int count(void *ctx, const struct store_cert *c)
{
	(void)c;
	++*(size_t *)ctx;
	return 0;
}

int crl_room(struct broker *b, struct err *err)
{
	struct store_key key = {0};
	size_t n = 0, most = LIMIT_REVOKED;
	int r = store_certs(&b->store, true, token_wall_ms() / 1000, count, &n, err);

	if (r < 0)
		return r;
	/* Ed25519 hashes inside of the hardware: the whole list has to fit there */
	if (ca_key(b, &b->config.pki, &key, NULL) == 0 && key.type == KEY_ED25519)
		most = (SIGN_INPUT_MAX - 512) / CRL_ENTRY;
	store_key_done(&key);
	return n < most ? 0 : err_set(err, ERR_LIMIT, "the list has no room: this CA's key signs one of at most %zu certificates; replace the CA", most);
}

void crl_done(struct broker *b)
{
	if (b->crl.build)
		build_free(b->crl.build);
	shared_body_drop(b->crl.der);
	shared_body_drop(b->crl.pem);
}
