/*
 * transit/hmac in Vault's dialect. The key of each version of a name is derived from the store's own key, which only the hardware
 * opens: it is made of nothing that is stored, and goes with the name.
 */
#include "broker/api_hmac.h"

#include "broker/api_batch.h"
#include "broker/key_rule.h"
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct item {
	uint8_t mac[HASH_MAX], input[32]; /* of what: SHA-256 */
	size_t len;
	bool valid;
};

struct work {
	struct batch batch;
	enum hash_type hash;
	struct item *items; /* of the batch */
};

static void free_work(void *p)
{
	struct work *w = p;

	if (w->items)
		sodium_memzero(w->items, w->batch.n * sizeof(*w->items));
	batch_done(&w->batch);
	free(w);
}

bool hmac_is_verified(const json_t *body)
{
	const json_t *list = json_object_get(body, "batch_input");

	return json_object_get(list ? json_array_get(list, 0) : body, "hmac") != NULL;
}

static int derive(struct call *call, const struct store_key *k, struct secret *ret, struct err *err)
{
	crypto_generichash_state st;
	uint8_t number[16];
	int r = secret_new(ret, 32, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < 8; i++) {
		number[i] = (uint8_t)(k->version >> (56 - 8 * i));
		number[8 + i] = (uint8_t)(k->created_ms >> (56 - 8 * i));
	}
	crypto_generichash_init(&st, call->broker->hmac_key.data, call->broker->hmac_key.len, 32);
	crypto_generichash_update(&st, (const uint8_t *)k->path, strlen(k->path) + 1);
	crypto_generichash_update(&st, number, sizeof(number));
	crypto_generichash_final(&st, ret->data, 32);
	ret->len = 32;
	sodium_memzero(&st, sizeof(st));
	return 0;
}

static void compute(struct call *call, const struct store_key *k, struct work *w, const json_t *item, size_t i)
{
	const json_t *input = json_object_get(item, "input");
	CLEANUP(secret_clear) struct secret key = {0}, bytes = {0};
	struct item *it = &w->items[i];

	if (!json_is_string(input))
		batch_fail(&w->batch, i, "missing input for HMAC");
	else if (secret_new(&bytes, json_string_length(input) + 1, NULL) < 0 || derive(call, k, &key, NULL) < 0)
		batch_fail(&w->batch, i, "the locked memory is full: try again");
	else if (!b64_decode_padded(json_string_value(input), json_string_length(input), NULL, bytes.data, bytes.cap, &bytes.len))
		batch_fail(&w->batch, i, "the input is not base64");
	else if (crypto_hash_sha256(it->input, bytes.data, bytes.len) != 0 ||
		 (it->len = hash_hmac(w->hash, key.data, key.len, bytes.data, bytes.len, it->mac)) == 0)
		batch_fail(&w->batch, i, "libcrypto does not have that hash");
}

static void check(struct call *call, struct work *w, const json_t *item, size_t i)
{
	uint64_t version = 0;
	const char *text = batch_version(json_string_value(json_object_get(item, "hmac")), &version);
	struct item *it = &w->items[i];
	struct store_key k = {0};
	uint8_t given[HASH_MAX];
	size_t n = 0;

	if (!text || !b64_decode_padded(text, strlen(text), NULL, given, sizeof(given), &n)) {
		batch_fail(&w->batch, i, "missing hmac, or not of the form vault:v1:...");
		return;
	}
	if (store_key_get(&call->broker->store, call->path, version, &k, NULL) < 0)
		return; /* a version that is not there: not valid */
	compute(call, &k, w, item, i);
	it->valid = !batch_failed(&w->batch, i) && n == it->len && sodium_memcmp(given, it->mac, n) == 0;
	store_key_done(&k);
}

static int parse(struct call *call, const json_t *body, bool verify, struct err *err)
{
	struct work *w = call->work = calloc(1, sizeof(*w));
	const char *hash = call->suffix[0] ? call->suffix : json_string_value(json_object_get(body, "algorithm"));
	int r;

	if (!w)
		return err_set(err, ERR_FAILED, "out of memory");
	call->free_work = free_work;
	r = batch_open(call, body, sizeof(*w->items), &w->batch, err);
	w->items = w->batch.items;
	if (r < 0)
		return r;
	w->hash = hash ? hash_type_find(hash) : HASH_SHA256;
	if (w->hash == HASH_NONE)
		return err_set(err, ERR_INPUT, "unsupported hash algorithm");
	for (size_t i = 0; i < w->batch.n; i++) {
		if (verify)
			check(call, w, batch_item(&w->batch, body, i), i);
		else
			compute(call, &w->batch.key, w, batch_item(&w->batch, body, i), i);
	}
	return batch_check(&w->batch, err);
}

static int append_mac(void *ctx, struct secret *s, size_t i)
{
	const struct work *w = ctx;
	int r = api_append(s, "\"hmac\":\"vault:v%llu:", (unsigned long long)w->batch.key.version);

	if (r == 0)
		r = api_append_base64(s, w->items[i].mac, w->items[i].len);
	return r < 0 ? r : api_append(s, "\"");
}

static int append_valid(void *ctx, struct secret *s, size_t i)
{
	const struct work *w = ctx;

	return api_append(s, "\"valid\":%s", w->items[i].valid ? "true" : "false");
}

/* Each that is made is granted and recorded by itself. */
static void give(struct call *call)
{
	struct work *w = call->work;
	char hex[2 * 32 + 1];

	for (size_t i = 0; i < w->batch.n; i++) {
		if (batch_failed(&w->batch, i))
			continue;
		sodium_bin2hex(hex, sizeof(hex), w->items[i].input, sizeof(w->items[i].input));
		snprintf(call->detail, sizeof(call->detail), "hmac %s of sha2-256 %s", hash_row(w->hash)->vault, hex);
		if (call_grant(call, &w->batch.seq) < 0)
			return;
	}
	batch_reply(call, &w->batch, append_mac, w);
}

void transit_hmac(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct err err = {0};
	const struct work *w;
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = parse(call, body, false, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	snprintf(call->detail, sizeof(call->detail), "hmac of %zu", w->batch.n);
	key_rule_admit(call, batch_good(&w->batch), give);
}

/* What is only compared is one use, however much. */
void hmac_verify(struct call *call, const json_t *body)
{
	struct err err = {0};
	struct work *w;
	int r = parse(call, body, true, &err);

	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	w = call->work;
	snprintf(call->detail, sizeof(call->detail), "%s, %zu items", hash_row(w->hash)->vault, w->batch.n);
	if (call_grant(call, &w->batch.seq) == 0)
		batch_reply(call, &w->batch, append_valid, w);
}
