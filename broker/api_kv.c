/* KV version 2 in Vault's dialect: secret/data, secret/metadata; and cotter/sealed for files that were sealed elsewhere. */
#include "broker/api_kv.h"

#include "common/age.h"
#include "common/b64.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define META_JSON "type=json\n"
#define META_RAW "type=raw\n"

int kv_append_custom(struct secret *s, const struct call *call)
{
	CLEANUP(cleanup_free) char *text = NULL;

	if (store_custom(&call->broker->store, call->path, &text, NULL) < 0)
		return -ERR_TAMPERED;
	return text ? secret_append(s, text, strlen(text), NULL) : api_append(s, "null");
}

static int append_metadata(struct secret *s, const struct call *call)
{
	char created[40], deleted[40], text[160];
	struct writer w = writer_init(text, sizeof(text));
	int r;

	api_time(call->created_ms, created);
	api_time(call->deleted_ms, deleted);
	writer_str(&w, "{\"created_time\":\"");
	writer_str(&w, created);
	writer_str(&w, "\",\"custom_metadata\":");
	r = secret_append(s, text, w.len, NULL);
	if (r == 0)
		r = call->custom ? kv_append_custom(s, call) : api_append(s, "null");
	if (r < 0)
		return r;
	w.len = 0;
	writer_str(&w, ",\"deletion_time\":\"");
	writer_str(&w, deleted);
	writer_str(&w, call->destroyed ? "\",\"destroyed\":true,\"version\":" : "\",\"destroyed\":false,\"version\":");
	writer_decimal(&w, call->version);
	writer_str(&w, "}");
	return w.failed ? -ERR_LIMIT : secret_append(s, text, w.len, NULL);
}

/* The answer is made, the record written, the answer sent. */
void kv_reply(struct call *call, const char *name, const struct secret *object)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	uint64_t seq = 0;
	int r;

	r = secret_new(&data, (object ? object->len : 4) + 256, NULL);
	if (r == 0)
		r = api_append(&data, "{\"");
	if (r == 0)
		r = secret_append(&data, name, strlen(name), NULL);
	if (r == 0)
		r = api_append(&data, "\":");
	if (r == 0)
		r = object ? secret_append(&data, object->data, object->len, NULL) : api_append(&data, "null");
	if (r == 0)
		r = api_append(&data, ",\"metadata\":");
	if (r == 0)
		r = append_metadata(&data, call);
	if (r == 0)
		r = api_append(&data, "}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
	else if (call_grant_read(call, &seq) == 0)
		call_reply(call, object ? 200 : 404, &body, seq);
}

static bool is_object(const struct secret *plain)
{
	CLEANUP(json_cleanup) json_t *j = NULL;
	struct request q = {.body = (const char *)plain->data, .body_len = plain->len};

	return plain->len && plain->data[strspn((const char *)plain->data, " \t\r\n")] == '{' && api_body(&q, &j, NULL) == 0;
}

/* Vault's clients want an object: raw bytes appear as {"value": text}, or {"value_base64": …} when they are no text. */
static int wrap_raw(const struct secret *plain, struct secret *ret, struct err *err)
{
	CLEANUP(json_cleanup) json_t *object = json_object();
	CLEANUP(secret_clear) struct secret text = {0};
	json_t *value = json_stringn((const char *)plain->data, plain->len);
	const char *key = "value";
	size_t cap = sodium_base64_ENCODED_LEN(plain->len, sodium_base64_VARIANT_ORIGINAL);

	if (!value) {
		key = "value_base64";
		if (secret_new(&text, cap, err) < 0)
			return -ERR_BUSY;
		sodium_bin2base64((char *)text.data, cap, plain->data, plain->len, sodium_base64_VARIANT_ORIGINAL);
		value = json_string((char *)text.data);
	}
	if (json_object_set_new(object, key, value) < 0)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	return json_write(object, LIMIT_SECRET_LEN, ret, err);
}

static int present(const char *meta, const struct secret *plain, struct secret *ret, struct err *err)
{
	if (plain->len > LIMIT_SECRET_LEN)
		return err_set(err, ERR_LIMIT, "a secret has at most %u bytes, not %zu", LIMIT_SECRET_LEN, plain->len);
	if (strcmp(meta, META_JSON) == 0)
		return secret_copy(ret, plain->data, plain->len, err);
	return wrap_raw(plain, ret, err);
}

/* While the hardware worked, the version may have been deleted, or purged and written anew. Where the store
 * changed meanwhile (by another hand: see STORE_LOOK_MS), its bytes tell. */
static bool unchanged(const struct call *call)
{
	struct store_version v = {.deleted_ms = call->deleted_ms};
	uint64_t generation;
	bool same = store_generation(&call->broker->store, token_boot_ms(), &generation, NULL) == 0;

	if (same && generation != call->generation)
		same = store_get(&call->broker->store, call->path, call->version, &v, NULL) == 0 && v.sealed_len == call->sealed_len && v.sealed &&
		       memcmp(v.sealed, call->sealed, v.sealed_len) == 0;
	free(v.sealed);
	return same && !store_deleted(&v, token_wall_ms());
}

static void read_opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message)
{
	struct call *call = ctx;
	CLEANUP(secret_clear) struct secret object = {0};
	struct err err = {0};
	int r = result;

	(void)header;
	if (r == 0 && !unchanged(call)) {
		r = -ERR_BUSY;
		message = "the secret was changed meanwhile: try again";
	} else if (r == 0) {
		r = present(call->meta, plain, &object, &err);
		message = err.msg;
	}
	if (r < 0) {
		call_fail(call, r, message);
		return;
	}
	cache_put(&call->broker->cache, call->path, call->version, token_boot_ms(), &object);
	call->then(call, &object);
}

void kv_open(struct call *call, uint64_t version, void (*then)(struct call *call, const struct secret *object))
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret object = {0};
	struct store_version v = {0};
	struct err err = {0};
	uint64_t now_ms = token_boot_ms();
	bool found = false;
	int r = store_generation(&b->store, now_ms, &call->generation, &err);

	if (r == 0)
		found = cache_find(&b->cache, call->path, version, call->generation, now_ms, &v, &object);
	if (r == 0 && !found)
		r = store_get(&b->store, call->path, version, &v, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->version = v.version;
	call->created_ms = v.created_ms;
	call->deleted_ms = v.deleted_ms;
	call->destroyed = v.destroyed;
	call->custom = v.custom;
	call->then = then;
	memcpy(call->meta, v.meta, sizeof(call->meta));
	if (store_deleted(&v, token_wall_ms()) || v.destroyed) {
		then(call, NULL);
	} else if (found || cache_get(&b->cache, call->path, v.version, now_ms, &object)) {
		if (!found)
			cache_note(&b->cache, call->path, &v, call->generation, version == 0);
		b->metrics.n_hits++;
		then(call, &object);
	} else {
		b->metrics.n_misses++;
		call->sealed = steal_ptr(&v.sealed);
		call->sealed_len = v.sealed_len;
		unseal_start(&b->unseals, call->path, v.version, call->sealed, call->sealed_len, true, call_asker(call), read_opened, call);
	}
	free(v.sealed);
}

static void reply_read(struct call *call, const struct secret *object)
{
	call->gives = object != NULL;
	kv_reply(call, "data", object);
}

void kv_read(struct call *call, const struct request *q)
{
	kv_open(call, q->query_version, reply_read);
}

/* Stores call->sealed as call->version. The grant is recorded first: no write without a record. */
static void store_and_reply(struct call *call)
{
	struct broker *b = call->broker;
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	struct store_version v = {.version = call->version, .created_ms = token_wall_ms(), .uid = call->conn->peer.uid,
				  .sealed = call->sealed, .sealed_len = call->sealed_len};
	struct err err = {0};
	uint64_t seq = 0;
	int r;

	memcpy(v.meta, call->meta, sizeof(v.meta));
	memcpy(v.job, call->job_id, sizeof(v.job));
	v.seal = call->seal;
	call->created_ms = v.created_ms;
	call->deleted_ms = call->delete_after_ms ? v.created_ms + call->delete_after_ms : 0;
	if (call->told.len) {
		data = call->told;
		call->told = (struct secret){0};
		r = 0;
	} else {
		r = secret_new(&data, 256, NULL) < 0 ? -1 : append_metadata(&data, call);
	}
	if (r < 0 || api_envelope((char *)data.data, data.len, NULL, 0, &body) < 0) {
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
		return;
	}
	if (call_grant(call, &seq) < 0)
		return;
	r = call->carried ? store_put_later(&b->store, call->path, &v, &err) : store_put(&b->store, call->path, &v, &err);
	cache_drop(&b->cache, call->path);
	if (r < 0 || call->plain)
		call_end(call, r, err.msg, seq);
	else
		call_reply(call, 200, &body, seq);
}

int kv_read_cas(const json_t *options, int64_t *ret, struct err *err)
{
	const json_t *cas = json_object_get(options, "cas");
	const char *text = json_string_value(cas);

	*ret = -1;
	/* a check that somebody asked for is not passed over */
	if (options && !json_is_object(options) && !json_is_null(options))
		return err_set(err, ERR_INPUT, "options is an object");
	if (!cas)
		return 0;
	if (json_is_integer(cas) && json_integer_value(cas) >= 0) {
		*ret = json_integer_value(cas);
		return 0;
	}
	/* some clients send it as text */
	if (!text || !*text || strlen(text) > 15 || text[strspn(text, "0123456789")])
		return err_set(err, ERR_INPUT, "cas is not a number from 0");
	*ret = strtoll(text, NULL, 10);
	return 0;
}

int kv_next(struct call *call, int64_t cas, struct err *err)
{
	struct store_secret x;
	int r = store_next(&call->broker->store, call->path, cas, &x, err);

	if (r < 0)
		return r;
	call->version = x.current + 1;
	call->delete_after_ms = x.options.delete_after_ms;
	call->custom = !sodium_is_zero(x.options.custom_hash, sizeof(x.options.custom_hash));
	return 0;
}

static int seal_new(struct call *call, const struct secret *plain, struct err *err)
{
	struct config *config = &call->broker->config;
	struct bind bind;
	int r = bind_init(&bind, call->path, call->version, call->meta, err);

	call->seal = config_seal_id(config);
	/* of the version that was opened for it, if one was */
	free(call->sealed);
	call->sealed = NULL;
	return r < 0 ? r
		     : age_seal_memory(config->recipients, config->n_recipients, &bind, plain, &call->sealed, &call->sealed_len, err);
}

/* The bytes that wrap_raw showed as an object. */
static int unwrap_raw(const struct secret *object, struct secret *ret, struct err *err)
{
	CLEANUP(json_cleanup) json_t *j = NULL;
	const json_t *text, *base64;
	int r = json_parse((const char *)object->data, object->len, &j, err);

	if (r < 0)
		return r;
	text = json_object_get(j, "value");
	base64 = json_object_get(j, "value_base64");
	if (text)
		return secret_copy(ret, json_string_value(text), json_string_length(text), err);
	r = secret_new(ret, json_string_length(base64) + 1, err);
	return r == 0 && sodium_base642bin(ret->data, ret->cap, json_string_value(base64), json_string_length(base64), NULL, &ret->len, NULL,
					   sodium_base64_VARIANT_ORIGINAL) != 0
		       ? err_set(err, ERR_FAILED, "it is not base64") : r;
}

void kv_store_same(struct call *call, const struct secret *object)
{
	CLEANUP(secret_clear) struct secret raw = {0};
	struct err err = {0};
	int r;

	if (strcmp(call->meta, META_RAW) != 0) {
		kv_store_object(call, object);
		return;
	}
	r = unwrap_raw(object, &raw, &err);
	if (r == 0)
		r = seal_new(call, &raw, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		store_and_reply(call);
}

void kv_store_object(struct call *call, const struct secret *object)
{
	struct err err = {0};
	int r;

	strcpy(call->meta, META_JSON);
	r = seal_new(call, object, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		store_and_reply(call);
}

void kv_write(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret plain = {0};
	struct err err = {0};
	const json_t *data;
	int64_t cas = -1;
	int r = api_body(q, &body, &err);

	data = json_object_get(body, "data");
	if (r == 0 && !json_is_object(data))
		r = err_set(&err, ERR_INPUT, "no data provided: the body is {\"data\": {...}}");
	if (r == 0)
		r = kv_read_cas(json_object_get(body, "options"), &cas, &err);
	if (r == 0)
		r = kv_next(call, cas, &err);
	if (r == 0)
		r = json_write(data, LIMIT_SECRET_LEN, &plain, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_store_object(call, &plain);
}

/* What the sealed file says it is; without a word from its sealer, what it looks like. */
static int choose_meta(const struct age_header *header, const struct secret *plain, char ret[STORE_META_LEN], struct err *err)
{
	static const char *const known[] = {META_JSON, META_RAW};
	uint8_t hash[32];
	struct bind bind;
	bool object = is_object(plain);

	strcpy(ret, object ? META_JSON : META_RAW);
	if (!bind_read(header, &bind))
		return 0;
	for (size_t i = 0; i < 2; i++) {
		crypto_hash_sha256(hash, (const uint8_t *)known[i], strlen(known[i]));
		if (memcmp(hash, bind.metadata_hash, sizeof(hash)) == 0) {
			strcpy(ret, known[i]);
			return i == 0 && !object ? err_set(err, ERR_INPUT, "the file says it holds JSON, but it does not") : 0;
		}
	}
	return err_set(err, ERR_INPUT, "the file's bind stanza has metadata that this cotter does not know");
}

void kv_sealed_opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message)
{
	struct call *call = ctx;
	CLEANUP(secret_clear) struct secret object = {0};
	struct err err = {0};
	int r = result;

	if (r == 0) {
		struct bind bind;

		/* what was carried here says by itself what it is */
		r = call->carried && !bind_read(header, &bind) ? err_set(&err, ERR_INPUT, "the file is not bound to a secret and a version")
							       : choose_meta(header, plain, call->meta, &err);
		if (r == 0)
			r = present(call->meta, plain, &object, &err); /* what cannot be served is not taken */
		message = err.msg;
	}
	if (r < 0)
		call_fail(call, r == -ERR_TAMPERED ? -ERR_INPUT : r, message);
	else
		store_and_reply(call);
}

int kv_take_sealed(struct call *call, const json_t *sealed, struct err *err)
{
	if (!json_is_string(sealed))
		return err_set(err, ERR_INPUT, "the body is {\"sealed\": \"base64 of an age file\"}");
	call->sealed = malloc(LIMIT_SEALED_LEN);
	if (!call->sealed || !b64_decode_padded(json_string_value(sealed), json_string_length(sealed), NULL, call->sealed, LIMIT_SEALED_LEN, &call->sealed_len))
		return err_set(err, ERR_INPUT, "the sealed file is not base64, or larger than %u bytes", LIMIT_SEALED_LEN);
	return 0;
}

void kv_put_sealed(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct err err = {0};
	const json_t *sealed;
	int64_t cas = -1;
	int r = api_body(q, &body, &err);

	sealed = json_object_get(body, "sealed");
	if (r == 0)
		r = kv_read_cas(json_object_get(body, "options"), &cas, &err);
	if (r == 0)
		r = kv_next(call, cas, &err);
	if (r == 0)
		r = kv_take_sealed(call, sealed, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		unseal_start(&call->broker->unseals, call->path, call->version, call->sealed, call->sealed_len, false, call_asker(call),
			     kv_sealed_opened, call);
}

void kv_purge(struct call *call, const struct request *q)
{
	struct err err = {0};
	uint64_t seq = 0;
	int r;

	(void)q;
	call->version = 0;
	if (call_grant(call, &seq) < 0)
		return;
	r = store_purge(&call->broker->store, call->path, &err);
	cache_drop(&call->broker->cache, call->path);
	call_end(call, r == -ERR_NOT_FOUND ? 0 : r, err.msg, seq);
}

struct listing {
	struct secret text;
	bool first;
};

static int add_name(void *ctx, const char *name)
{
	struct listing *l = ctx;
	int r = l->first ? 0 : secret_append(&l->text, ",", 1, NULL);

	l->first = false;
	return r < 0 ? r : api_append(&l->text, "\"%s\"", name); /* a path's characters need no escape */
}

void kv_list(struct call *call, const struct request *q)
{
	struct listing l = {.first = true};
	CLEANUP(secret_clear) struct secret body = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = secret_new(&l.text, 1024, &err);

	(void)q;
	if (r == 0)
		r = api_append(&l.text, "{\"keys\":[");
	if (r == 0)
		r = store_list(&call->broker->store, call->path, add_name, &l, &err);
	if (r == 0)
		r = api_append(&l.text, "]}");
	if (r == 0)
		r = api_envelope((char *)l.text.data, l.text.len, NULL, 0, &body);
	secret_clear(&l.text);
	if (r < 0)
		call_fail(call, r, r == -ERR_BUSY ? "the listing is too long: list a folder below" : err.msg);
	else if (call_grant_read(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}
