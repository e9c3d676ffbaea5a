/* transit/sign and transit/verify in Vault's dialect, one item or a batch; each signature is granted and recorded by itself. */
#include "broker/api_batch.h"
#include "broker/api_ca.h"
#include "broker/api_hmac.h"
#include "broker/key_rule.h"

#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SALT_AUTO (-1)

struct item {
	enum sign_scheme scheme;
	enum hash_type hash;
	int salt_len; /* SALT_AUTO: as long as possible; in a signature: whatever it has */
	bool jws;
	uint8_t *data; /* digest, DigestInfo or message */
	size_t len;
	uint8_t signature[KEY_SIGNATURE_MAX];
	size_t signature_len;
	uint64_t version; /* verify: that the signature names */
	bool valid;
	const char *error; /* NULL: none */
};

struct work {
	struct call *call;
	struct batch batch;
	struct item *items; /* of the batch */
	size_t next;
};

static void free_work(void *p)
{
	struct work *w = p;

	for (size_t i = 0; w->items && i < w->batch.n; i++) {
		if (w->items[i].data)
			sodium_memzero(w->items[i].data, w->items[i].len);
		free(w->items[i].data);
	}
	batch_done(&w->batch);
	free(w);
}

/* ---- reading a request ------------------------------------------------------------------------------------------ */

static int item_error(struct item *it, const char *text)
{
	it->error = text;
	return 0;
}

static const char *text_of(const json_t *item, const json_t *body, const char *name)
{
	const char *value = json_string_value(json_object_get(item, name));

	return value ? value : json_string_value(json_object_get(body, name));
}

static const json_t *value_of(const json_t *item, const json_t *body, const char *name)
{
	const json_t *value = json_object_get(item, name);

	return value ? value : json_object_get(body, name);
}

/* "auto", "hash", or a number. */
static int parse_salt(const json_t *j, struct item *it)
{
	const char *text = json_string_value(j);
	long n;
	char *end = NULL;

	it->salt_len = SALT_AUTO;
	if (!j || (text && strcmp(text, "auto") == 0))
		return 0;
	if (text && strcmp(text, "hash") == 0) {
		it->salt_len = (int)hash_row(it->hash)->len;
		return 0;
	}
	n = json_is_integer(j) ? (long)json_integer_value(j) : text ? strtol(text, &end, 10) : -1;
	if (n < 0 || n > KEY_SIGNATURE_MAX || (end && *end))
		return -1;
	it->salt_len = (int)n;
	return 0;
}

/* How it is to be signed: key type, hash, padding. */
static int parse_how(const struct work *w, const json_t *item, const json_t *body, struct item *it, bool *ret_prehashed)
{
	const char *hash = w->call->suffix[0] ? w->call->suffix : text_of(item, body, "hash_algorithm"), *padding = text_of(item, body, "signature_algorithm");
	const char *marshaling = text_of(item, body, "marshaling_algorithm");
	const json_t *prehashed = value_of(item, body, "prehashed");
	bool none = hash && strcmp(hash, "none") == 0, pkcs1 = padding && strcmp(padding, "pkcs1v15") == 0;

	*ret_prehashed = json_is_true(prehashed) || (json_is_string(prehashed) && strcmp(json_string_value(prehashed), "true") == 0);
	it->jws = marshaling && strcmp(marshaling, "jws") == 0;
	it->hash = none ? HASH_NONE : hash && *hash ? hash_type_find(hash) : HASH_SHA256;
	if (!none && it->hash == HASH_NONE)
		return item_error(it, "unsupported hash algorithm");
	if (padding && *padding && !pkcs1 && strcmp(padding, "pss") != 0)
		return item_error(it, "signature_algorithm is pss or pkcs1v15");
	if (marshaling && *marshaling && !it->jws && strcmp(marshaling, "asn1") != 0)
		return item_error(it, "marshaling_algorithm is asn1 or jws");
	it->scheme = key_is_ec(w->batch.key.type) ? SIGN_ECDSA : w->batch.key.type == KEY_ED25519 ? SIGN_ED25519 : pkcs1 ? SIGN_RSA_PKCS1 : SIGN_RSA_PSS;
	if (none && !(it->scheme == SIGN_RSA_PKCS1 && *ret_prehashed) && it->scheme != SIGN_ED25519)
		return item_error(it, "hash_algorithm none needs prehashed and pkcs1v15");
	return parse_salt(value_of(item, body, "salt_length"), it) < 0 ? item_error(it, "salt_length is auto, hash or a number") : 0;
}

/* From what is given to what the scheme signs. */
static int set_data(struct item *it, const uint8_t *input, size_t len, bool prehashed)
{
	const struct hash_row *hash = hash_row(it->hash);
	size_t before = it->scheme == SIGN_RSA_PKCS1 ? hash->info_len : 0;
	bool as_is = it->scheme == SIGN_ED25519 || it->hash == HASH_NONE;

	if (!as_is && prehashed && len != hash->len)
		return item_error(it, "the input is not a digest of that hash");
	it->len = as_is ? len : before + hash->len;
	it->data = malloc(it->len + 1);
	if (!it->data)
		return item_error(it, "out of memory");
	if (as_is) {
		memcpy(it->data, input, len);
		return 0;
	}
	if (prehashed) {
		memcpy(it->data, hash->info, before);
		memcpy(it->data + before, input, len);
	} else if (sign_input(it->scheme, it->hash, input, len, it->data, it->len) != it->len) {
		return item_error(it, "libcrypto does not have that hash");
	}
	return 0;
}

static int parse_input(struct item *it, const json_t *item, bool prehashed)
{
	const json_t *input = json_object_get(item, "input");
	CLEANUP(secret_clear) struct secret bytes = {0};
	size_t len = json_string_length(input);

	if (!json_is_string(input))
		return item_error(it, "missing input to be signed");
	if (secret_new(&bytes, len + 1, NULL) < 0)
		return item_error(it, "the locked memory is full: try again");
	if (!b64_decode_padded(json_string_value(input), len, NULL, bytes.data, bytes.cap, &bytes.len))
		return item_error(it, "the input is not base64");
	return set_data(it, bytes.data, bytes.len, prehashed);
}

/* "vault:v1:…", the signature in the form of SIGN_*. */
static int parse_signature(const struct work *w, struct item *it, const json_t *item)
{
	const char *body = batch_version(json_string_value(json_object_get(item, "signature")), &it->version);
	size_t half = key_row(w->batch.key.type)->signature_len / 2, n = 0;
	uint8_t raw[KEY_SIGNATURE_MAX + 16];

	if (!body)
		return item_error(it, "missing signature, or not of the form vault:v1:...");
	if (!(it->jws ? b64url_decode(body, strlen(body), raw, sizeof(raw), &n) : b64_decode_padded(body, strlen(body), NULL, raw, sizeof(raw), &n)))
		return item_error(it, "the signature is not base64");
	if (key_is_ec(w->batch.key.type) && !it->jws) {
		it->signature_len = ecdsa_from_der(raw, n, half, it->signature) ? 2 * half : 0;
	} else {
		it->signature_len = n <= sizeof(it->signature) ? n : 0;
		memcpy(it->signature, raw, it->signature_len);
	}
	return 0;
}

static int parse_item(struct work *w, struct item *it, const json_t *item, const json_t *body, bool verify)
{
	bool prehashed;
	size_t salt, most;

	if (!json_is_object(item))
		return item_error(it, "an item of the batch is an object");
	parse_how(w, item, body, it, &prehashed);
	if (!it->error)
		parse_input(it, item, prehashed);
	if (!it->error && verify)
		parse_signature(w, it, item);
	if (it->error)
		return 0;
	most = key_row(w->batch.key.type)->signature_len - hash_row(it->hash)->len - 2;
	salt = it->salt_len < 0 ? (verify ? 0 : most) : (size_t)it->salt_len;
	if (sign_check(w->batch.key.type, it->scheme, it->hash, it->scheme == SIGN_RSA_PSS ? salt : 0, it->len, NULL) < 0)
		item_error(it, "the input is not of a length that this key and hash take");
	return 0;
}

static int parse(struct call *call, const json_t *body, bool verify, struct err *err)
{
	struct work *w = call->work = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, ERR_FAILED, "out of memory");
	call->free_work = free_work;
	w->call = call;
	r = batch_open(call, body, sizeof(*w->items), &w->batch, err);
	w->items = w->batch.items;
	if (r < 0)
		return r;
	for (size_t i = 0; i < w->batch.n; i++) {
		parse_item(w, &w->items[i], batch_item(&w->batch, body, i), body, verify);
		if (w->items[i].error)
			batch_fail(&w->batch, i, w->items[i].error);
	}
	return batch_check(&w->batch, err);
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static int append_signature(struct secret *s, const struct work *w, const struct item *it)
{
	uint8_t der[2 * 48 + 16];
	const uint8_t *p = it->signature;
	size_t n = it->signature_len;
	char url[B64_LEN(KEY_SIGNATURE_MAX) + 1];
	int r = api_append(s, "\"signature\":\"vault:v%llu:", (unsigned long long)w->batch.key.version);

	if (key_is_ec(w->batch.key.type) && !it->jws) {
		n = ecdsa_to_der(it->signature, it->signature_len / 2, der);
		p = der;
	}
	if (r < 0)
		return r;
	if (it->jws) {
		b64url_encode(p, n, url);
		r = api_append(s, "%s", url);
	} else {
		r = api_append_base64(s, p, n);
	}
	return r < 0 ? r : api_append(s, "\",\"key_version\":%llu", (unsigned long long)w->batch.key.version);
}

static int append_signed(void *ctx, struct secret *s, size_t i)
{
	const struct work *w = ctx;

	return append_signature(s, w, &w->items[i]);
}

static int append_verified(void *ctx, struct secret *s, size_t i)
{
	const struct work *w = ctx;

	return api_append(s, "\"valid\":%s", w->items[i].valid ? "true" : "false");
}

/* ---- signing ---------------------------------------------------------------------------------------------------- */

/* For the record: what was signed. */
static void describe(const struct item *it, char *ret, size_t size)
{
	static const char *const schemes[SIGN_SCHEMES] = {"ecdsa", "pkcs1v15", "pss", "ed25519", "oaep"};
	uint8_t digest[HASH_MAX];
	char hex[2 * HASH_MAX + 1];
	const uint8_t *p = it->data;
	size_t n = it->len;
	enum hash_type hash = it->scheme == SIGN_ECDSA ? hash_type_of_length(n) : it->scheme == SIGN_RSA_PKCS1 ? digest_info_split(&p, &n) : it->hash;
	const char *of = hash_row(hash)->vault;

	if (n > HASH_MAX || it->scheme == SIGN_ED25519 || !of) {
		n = hash_digest(HASH_SHA256, it->data, it->len, digest);
		p = digest;
		of = "message sha2-256";
	}
	sodium_bin2hex(hex, sizeof(hex), p, n);
	snprintf(ret, size, "%s %s %s", schemes[it->scheme], of, hex);
}

static void next(struct call *call);

/*
 * RSA by the Chinese remainder theorem with one fault in it gives the key away, and a TPM chooses its own salt: each is verified. Of
 * the others the first that a helper makes by that reference: a token that was replaced may have another key there. And each where a module
 * signs in several threads: one that mixes them up would give a job what another asked for.
 */
static int check(struct work *w, const struct item *it, struct hardware_provider *p, struct err *err)
{
	const bool each = key_is_rsa(w->batch.key.type) || p->config->parallel > 1;
	crypto_generichash_state st;
	uint8_t proof[HARDWARE_PROOF_LEN];

	crypto_generichash_init(&st, NULL, 0, sizeof(proof));
	crypto_generichash_update(&st, (const uint8_t *)w->batch.key.ref, sizeof(w->batch.key.ref));
	crypto_generichash_update(&st, w->batch.key.spki, w->batch.key.spki_len);
	crypto_generichash_final(&st, proof, sizeof(proof));
	if (!each && hardware_proven(p, proof))
		return 0;
	if (spki_verify(w->batch.key.spki, w->batch.key.spki_len, it->scheme, it->hash, it->salt_len, it->data, it->len, it->signature, it->signature_len, NULL) == 0) {
		if (!each)
			hardware_prove(p, proof);
		return 0;
	}
	if (it->scheme == SIGN_RSA_PSS && spki_verify(w->batch.key.spki, w->batch.key.spki_len, it->scheme, it->hash, -1, it->data, it->len, it->signature,
						      it->signature_len, NULL) == 0)
		return err_set(err, ERR_INPUT, "the hardware makes no salt of that length: salt_length: auto takes any");
	return err_set(err, ERR_HARDWARE, "the hardware's signature is wrong, or by another key: it is not given away");
}

static void signed_one(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct call *call = ctx;
	struct work *w = call->work;
	struct item *it = &w->items[w->next];
	struct hardware_provider *p = hardware_provider(&call->broker->hardware, w->batch.key.provider);
	struct err err = {0};
	int r = result;

	if (r < 0) {
		call_fail(call, r, message);
		return;
	}
	if (reply->data_len != key_row(w->batch.key.type)->signature_len) {
		call_fail(call, -ERR_HARDWARE, "the hardware's signature has a wrong length");
		return;
	}
	memcpy(it->signature, reply->data, reply->data_len);
	it->signature_len = reply->data_len;
	r = p ? check(w, it, p, &err) : err_set(&err, ERR_HARDWARE, "the configuration no longer has the provider '%s'", w->batch.key.provider);
	if (r == 0)
		r = ca_still(call->broker, &w->batch.key, &err);
	if (r < 0) {
		if (call_spend(call, err.msg) == 0)
			call_fail(call, r, err.msg);
		return;
	}
	describe(it, call->detail, sizeof(call->detail));
	if (call_grant(call, &w->batch.seq) < 0)
		return;
	call->broker->metrics.n_signatures++;
	w->next++;
	next(call);
}

static void next(struct call *call)
{
	struct work *w = call->work;
	struct hardware_provider *p = hardware_provider(&call->broker->hardware, w->batch.key.provider);
	struct provider_sign q;
	struct item *it;
	struct err err = {0};
	int r;

	while (w->next < w->batch.n && batch_failed(&w->batch, w->next))
		w->next++;
	if (w->next == w->batch.n) {
		batch_reply(call, &w->batch, append_signed, w);
		return;
	}
	it = &w->items[w->next];
	q = (struct provider_sign){.scheme = it->scheme, .hash = it->hash, .data = it->data, .len = it->len,
				   .salt_len = it->scheme != SIGN_RSA_PSS ? 0
					       : it->salt_len >= 0	  ? (size_t)it->salt_len
									  : key_row(w->batch.key.type)->signature_len - hash_row(it->hash)->len - 2};
	r = p ? hardware_sign(p, w->batch.key.ref, w->batch.key.type, &q, call_asker(call), signed_one, call, &err)
	      : err_set(&err, ERR_HARDWARE, "the configuration no longer has the provider '%s'", w->batch.key.provider);
	if (r < 0)
		call_fail(call, r, err.msg);
}

void transit_sign(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	const struct work *w;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = parse(call, body, false, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	for (size_t i = w->batch.n; i-- > 0;)
		if (!batch_failed(&w->batch, i))
			describe(&w->items[i], call->detail, sizeof(call->detail));
	key_rule_admit(call, batch_good(&w->batch), next);
}

/* ---- verifying -------------------------------------------------------------------------------------------------- */

static void verify_one(struct work *w, struct item *it)
{
	struct store_key k;

	if (store_key_get(&w->call->broker->store, w->call->path, it->version, &k, NULL) < 0)
		return; /* a version that is not there: not valid */
	it->valid = k.type == w->batch.key.type && spki_verify(k.spki, k.spki_len, it->scheme, it->hash, it->salt_len, it->data, it->len, it->signature,
							 it->signature_len, NULL) == 0;
	store_key_done(&k);
}

void transit_verify(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0 && hmac_is_verified(body)) {
		hmac_verify(call, body);
		return;
	}
	if (r == 0)
		r = parse(call, body, true, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	for (size_t i = 0; i < w->batch.n; i++)
		if (!batch_failed(&w->batch, i))
			verify_one(w, &w->items[i]);
	if (call_grant(call, &w->batch.seq) == 0)
		batch_reply(call, &w->batch, append_verified, w);
}
