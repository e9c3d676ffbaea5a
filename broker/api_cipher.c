/* transit/encrypt, decrypt and rewrap in Vault's dialect for RSA keys: OAEP with SHA-256. Only decrypting needs the hardware; each
 * decryption is granted and recorded by itself. */
#include "broker/api_batch.h"
#include "broker/api_ca.h"
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
	char error[96];
};

struct work {
	struct store_key key; /* the latest: what encrypts */
	struct store_key old; /* of the item in the hardware */
	enum hash_type hash;
	struct batch batch;
	struct item *items;
	size_t next;
	bool rewrap;
	uint64_t seq;
};

static void free_work(void *p)
{
	struct work *w = p;

	for (size_t i = 0; w->items && i < w->batch.n; i++)
		secret_clear(&w->items[i].plain);
	free(w->items);
	store_key_done(&w->key);
	store_key_done(&w->old);
	free(w);
}

static void fail(struct item *it, const char *text)
{
	snprintf(it->error, sizeof(it->error), "%.95s", text);
}

static void read_plain(struct item *it, const json_t *item)
{
	const json_t *text = json_object_get(item, "plaintext");

	if (!json_is_string(text))
		fail(it, "missing plaintext");
	else if (secret_new(&it->plain, json_string_length(text) + 1, NULL) < 0)
		fail(it, "the locked memory is full: try again");
	else if (!b64_decode_padded(json_string_value(text), json_string_length(text), NULL, it->plain.data, it->plain.cap, &it->plain.len))
		fail(it, "the plaintext is not base64");
}

static void read_cipher(struct item *it, const json_t *item)
{
	const char *text = batch_version(json_string_value(json_object_get(item, "ciphertext")), &it->version);

	if (!text || !b64_decode_padded(text, strlen(text), NULL, it->text, sizeof(it->text), &it->len))
		fail(it, "missing ciphertext, or not of the form vault:v1:...");
}

static void encrypt(const struct work *w, struct item *it)
{
	struct err err = {0};

	if (!it->error[0] && spki_encrypt(w->key.spki, w->key.spki_len, HASH_SHA256, it->plain.data, it->plain.len, it->text, &it->len, &err) < 0)
		snprintf(it->error, sizeof(it->error), "%.95s", err.msg);
	it->version = w->key.version;
}

static int parse(struct call *call, const struct request *q, void (*read)(struct item *it, const json_t *item), struct err *err)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = calloc(1, sizeof(*w));
	const char *hash;
	int r;

	if (!w)
		return err_set(err, ERR_FAILED, "out of memory");
	call->work = w;
	call->free_work = free_work;
	r = batch_open(call, q, &body, &w->batch, &w->key, err);
	if (r < 0)
		return r;
	if (!key_can(w->key.type, DECRYPT_OAEP))
		return err_set(err, ERR_INPUT, "a key of type %s does not encrypt: that takes an RSA key", key_row(w->key.type)->name);
	/* for PKCS#11's clients, which choose it */
	hash = json_string_value(json_object_get(body, "cotter_oaep_hash"));
	w->hash = hash ? hash_type_find(hash) : HASH_SHA256;
	if (w->hash == HASH_NONE)
		return err_set(err, ERR_INPUT, "unsupported hash algorithm");
	w->items = calloc(w->batch.n, sizeof(*w->items));
	if (!w->items)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; i < w->batch.n; i++)
		read(&w->items[i], batch_item(&w->batch, body, i));
	return !w->batch.many && w->items[0].error[0] ? err_set(err, ERR_INPUT, "%s", w->items[0].error) : 0;
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static int append_cipher(void *ctx, struct secret *s, size_t i, bool *ret_bad)
{
	const struct item *it = &((const struct work *)ctx)->items[i];
	int r;

	if (it->error[0]) {
		*ret_bad = true;
		return batch_append_error(s, it->error);
	}
	r = api_append(s, "\"ciphertext\":\"vault:v%llu:", (unsigned long long)it->version);
	if (r == 0)
		r = api_append_base64(s, it->text, it->len);
	return r < 0 ? r : api_append(s, "\",\"key_version\":%llu", (unsigned long long)it->version);
}

static int append_plain(void *ctx, struct secret *s, size_t i, bool *ret_bad)
{
	const struct item *it = &((const struct work *)ctx)->items[i];
	int r;

	if (it->error[0]) {
		*ret_bad = true;
		return batch_append_error(s, it->error);
	}
	r = api_append(s, "\"plaintext\":\"");
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

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	for (size_t i = 0; i < w->batch.n; i++)
		encrypt(w, &w->items[i]);
	if (!w->batch.many && w->items[0].error[0])
		call_fail(call, -ERR_INPUT, w->items[0].error);
	else if (call_grant(call, &w->seq) == 0)
		batch_reply(call, &w->batch, append_cipher, w, w->seq);
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
		fail(it, "cannot be decrypted with this key");
	else if (secret_copy(&it->plain, reply->data, reply->data_len, NULL) < 0)
		fail(it, "the locked memory is full: try again");
	n = hash_digest(HASH_SHA256, it->text, it->len, digest);
	sodium_bin2hex(hex, sizeof(hex), digest, n);
	snprintf(call->detail, sizeof(call->detail), "oaep ciphertext sha2-256 %s%s", hex, it->error[0] ? ": not opened" : "");
	call->version = it->version;
	if (it->error[0]) {
		if (call_spend(call, call->detail) < 0)
			return;
	} else {
		if (call_grant(call, &w->seq) < 0)
			return;
		if (w->rewrap)
			encrypt(w, it);
	}
	w->next++;
	next(call);
}

/* false: the item has its error. */
static bool start(struct call *call, struct work *w, struct item *it, int *ret, struct err *err)
{
	struct provider_sign q = {.scheme = DECRYPT_OAEP, .hash = w->hash, .data = it->text, .len = it->len};
	struct hardware_provider *p;

	store_key_done(&w->old);
	if (store_key_get(&call->broker->store, call->path, it->version, &w->old, NULL) < 0 ||
	    sign_check(w->old.type, DECRYPT_OAEP, w->hash, 0, it->len, NULL) < 0) {
		fail(it, "of a version that this key does not have, or not of its length");
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
		if (!w->items[w->next].error[0] && start(call, w, &w->items[w->next], &r, &err))
			break;
	if (r < 0)
		call_fail(call, r, err.msg);
	else if (w->next == w->batch.n && !w->batch.many && w->items[0].error[0])
		call_fail(call, -ERR_INPUT, w->items[0].error);
	else if (w->next == w->batch.n)
		batch_reply(call, &w->batch, w->rewrap ? append_cipher : append_plain, w, w->seq);
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
	next(call);
}

void transit_decrypt(struct call *call, const struct request *q)
{
	run(call, q, false);
}

void transit_rewrap(struct call *call, const struct request *q)
{
	run(call, q, true);
}
