/* transit/encrypt, decrypt and rewrap in Vault's dialect for RSA keys: OAEP with SHA-256. Only decrypting needs the hardware; each
 * decryption is granted and recorded by itself. */
#include "broker/api_batch.h"
#include "broker/api_ca.h"
#include "broker/key_rule.h"
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct item {
	uint8_t text[KEY_SIGNATURE_MAX]; /* ciphertext, in and out */
	size_t len;
	uint64_t version;
	struct secret plain;
};

struct work {
	struct batch batch;
	struct store_key old; /* of the item in the hardware */
	enum hash_type hash;
	struct item *items; /* of the batch */
	size_t next;
	bool rewrap;
};

static void free_work(void *p)
{
	struct work *w = p;

	for (size_t i = 0; w->items && i < w->batch.n; i++)
		secret_clear(&w->items[i].plain);
	store_key_done(&w->old);
	batch_done(&w->batch);
	free(w);
}

static void read_plain(struct work *w, const json_t *item, size_t i)
{
	const json_t *text = json_object_get(item, "plaintext");
	struct secret *plain = &w->items[i].plain;

	if (!json_is_string(text))
		batch_fail(&w->batch, i, "missing plaintext");
	else if (secret_new(plain, json_string_length(text) + 1, NULL) < 0)
		batch_fail(&w->batch, i, "the locked memory is full: try again");
	else if (!b64_decode_padded(json_string_value(text), json_string_length(text), NULL, plain->data, plain->cap, &plain->len))
		batch_fail(&w->batch, i, "the plaintext is not base64");
}

static void read_cipher(struct work *w, const json_t *item, size_t i)
{
	struct item *it = &w->items[i];
	const char *text = batch_version(json_string_value(json_object_get(item, "ciphertext")), &it->version);

	if (!text || !b64_decode_padded(text, strlen(text), NULL, it->text, sizeof(it->text), &it->len))
		batch_fail(&w->batch, i, "missing ciphertext, or not of the form vault:v1:...");
}

static void encrypt(struct work *w, size_t i)
{
	const struct store_key *k = &w->batch.key;
	struct item *it = &w->items[i];
	struct err err = {0};

	if (spki_encrypt(k->spki, k->spki_len, HASH_SHA256, it->plain.data, it->plain.len, it->text, &it->len, &err) < 0)
		batch_fail(&w->batch, i, err.msg);
	it->version = k->version;
}

static int parse(struct call *call, const struct request *q, void (*read)(struct work *w, const json_t *item, size_t i), struct err *err)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = call->work = calloc(1, sizeof(*w));
	const char *hash;
	int r = w ? api_body(q, &body, err) : err_set(err, ERR_FAILED, "out of memory");

	call->free_work = w ? free_work : NULL;
	if (r < 0)
		return r;
	r = batch_open(call, body, sizeof(*w->items), &w->batch, err);
	w->items = w->batch.items;
	if (r < 0)
		return r;
	if (!key_can(w->batch.key.type, DECRYPT_OAEP))
		return err_set(err, ERR_INPUT, "a key of type %s does not encrypt: that takes an RSA key", key_row(w->batch.key.type)->name);
	/* for PKCS#11's clients, which choose it */
	hash = json_string_value(json_object_get(body, "cotter_oaep_hash"));
	w->hash = hash ? hash_type_find(hash) : HASH_SHA256;
	if (w->hash == HASH_NONE)
		return err_set(err, ERR_INPUT, "unsupported hash algorithm");
	for (size_t i = 0; i < w->batch.n; i++)
		read(w, batch_item(&w->batch, body, i), i);
	return batch_check(&w->batch, err);
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static int append_cipher(void *ctx, struct secret *s, size_t i)
{
	const struct item *it = &((const struct work *)ctx)->items[i];
	int r = api_append(s, "\"ciphertext\":\"vault:v%llu:", (unsigned long long)it->version);

	if (r == 0)
		r = api_append_base64(s, it->text, it->len);
	return r < 0 ? r : api_append(s, "\",\"key_version\":%llu", (unsigned long long)it->version);
}

static int append_plain(void *ctx, struct secret *s, size_t i)
{
	const struct item *it = &((const struct work *)ctx)->items[i];
	int r = api_append(s, "\"plaintext\":\"");

	if (r == 0 && it->plain.len)
		r = api_append_base64(s, it->plain.data, it->plain.len);
	return r < 0 ? r : api_append(s, "\"");
}

/* ---- encrypting ------------------------------------------------------------------------------------------------- */

void transit_encrypt(struct call *call, const struct request *q)
{
	struct err err = {0};
	struct work *w;
	int r = parse(call, q, read_plain, &err);

	w = call->work;
	for (size_t i = 0; r == 0 && i < w->batch.n; i++)
		if (!batch_failed(&w->batch, i))
			encrypt(w, i);
	if (r == 0)
		r = batch_check(&w->batch, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else if (call_grant(call, &w->batch.seq) == 0)
		batch_reply(call, &w->batch, append_cipher, w);
}

/* ---- decrypting ------------------------------------------------------------------------------------------------- */

static void next(struct call *call);

static void decrypted(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct call *call = ctx;
	struct work *w = call->work;
	struct item *it = &w->items[w->next];
	uint8_t digest[HASH_MAX];
	char hex[2 * HASH_MAX + 1];
	struct err err = {0};
	size_t n;
	int r = ca_still(call->broker, &w->old, &err);

	/* what the hardware cannot open is the sender's fault; all else is ours */
	if (r < 0 || (result < 0 && result != -ERR_INPUT)) {
		call_fail(call, r < 0 ? r : result, r < 0 ? err.msg : message);
		return;
	}
	if (result < 0)
		batch_fail(&w->batch, w->next, "cannot be decrypted with this key");
	else if (secret_copy(&it->plain, reply->data, reply->data_len, NULL) < 0)
		batch_fail(&w->batch, w->next, "the locked memory is full: try again");
	n = hash_digest(HASH_SHA256, it->text, it->len, digest);
	sodium_bin2hex(hex, sizeof(hex), digest, n);
	snprintf(call->detail, sizeof(call->detail), "oaep ciphertext sha2-256 %s%s", hex, batch_failed(&w->batch, w->next) ? ": not opened" : "");
	call->version = it->version;
	if (batch_failed(&w->batch, w->next)) {
		if (call_spend(call, call->detail) < 0)
			return;
	} else {
		if (call_grant(call, &w->batch.seq) < 0)
			return;
		if (w->rewrap)
			encrypt(w, w->next);
	}
	w->next++;
	next(call);
}

/* false: the item has its error. */
static bool start(struct call *call, struct work *w, int *ret, struct err *err)
{
	const struct item *it = &w->items[w->next];
	struct provider_sign q = {.scheme = DECRYPT_OAEP, .hash = w->hash, .data = it->text, .len = it->len};
	struct hardware_provider *p;

	store_key_done(&w->old);
	if (store_key_get(&call->broker->store, call->path, it->version, &w->old, NULL) < 0 ||
	    sign_check(w->old.type, DECRYPT_OAEP, w->hash, 0, it->len, NULL) < 0) {
		batch_fail(&w->batch, w->next, "of a version that this key does not have, or not of its length");
		return false;
	}
	p = hardware_provider(&call->broker->hardware, w->old.provider);
	*ret = p ? hardware_sign(p, w->old.ref, w->old.type, &q, call_asker(call), decrypted, call, err)
		 : err_set(err, ERR_HARDWARE, "the configuration no longer has the provider '%s'", w->old.provider);
	return true;
}

static void next(struct call *call)
{
	struct work *w = call->work;
	struct err err = {0};
	int r = 0;

	for (; w->next < w->batch.n; w->next++)
		if (!batch_failed(&w->batch, w->next) && start(call, w, &r, &err))
			break;
	if (r == 0)
		r = batch_check(&w->batch, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else if (w->next == w->batch.n)
		batch_reply(call, &w->batch, w->rewrap ? append_cipher : append_plain, w);
}

static void run(struct call *call, const struct request *q, bool rewrap)
{
	struct err err = {0};
	struct work *w;
	int r = parse(call, q, read_cipher, &err);

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	w->rewrap = rewrap;
	snprintf(call->detail, sizeof(call->detail), "%s of %zu", rewrap ? "rewrap" : "decryption", w->batch.n);
	key_rule_admit(call, batch_good(&w->batch), next);
}

void transit_decrypt(struct call *call, const struct request *q)
{
	run(call, q, false);
}

void transit_rewrap(struct call *call, const struct request *q)
{
	run(call, q, true);
}
