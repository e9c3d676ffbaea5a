/* totp: one-time passwords. A key is a secret as any other, totp/NAME, sealed to the hardware; what policies allow on it holds here. */
#include "broker/api_kv.h"
#include "broker/totp.h"

#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

struct totp {
	uint8_t key[TOTP_KEY_MAX];
	size_t key_len;
	enum hash_type hash;
	unsigned int digits, period;
	char code[TOTP_CODE_LEN + 1]; /* to be checked; "": one is asked for */
	char quoted[TOTP_CODE_LEN + 3], tried[TOTP_CODE_LEN + 1];
};

static void free_totp(void *p)
{
	sodium_memzero(p, sizeof(struct totp));
	secret_free(p);
}

static enum hash_type hash_of(const char *name)
{
	return !name || strcmp(name, "SHA1") == 0 ? HASH_SHA1 : strcmp(name, "SHA256") == 0 ? HASH_SHA256 : strcmp(name, "SHA512") == 0 ? HASH_SHA512 : HASH_NONE;
}

/* A number of a body, by Vault's clients also as text. */
static bool number(const json_t *j, unsigned int fallback, unsigned int max, unsigned int *ret)
{
	uint64_t ms = 0;

	if (api_duration(j, fallback, &ms, NULL) < 0 || ms / 1000 > max)
		return false;
	*ret = (unsigned int)(ms / 1000);
	return true;
}

static int read_key(const json_t *object, struct totp *t, struct err *err)
{
	const json_t *key = json_object_get(object, "key");
	const char *algorithm = json_string_value(json_object_get(object, "algorithm"));

	t->hash = hash_of(algorithm);
	t->key_len = base32_decode(json_is_string(key) ? json_string_value(key) : "", json_string_length(key), t->key);
	if (t->key_len == 0)
		return err_set(err, ERR_INPUT, "the key must be base32, at most %u bytes", TOTP_KEY_MAX);
	if (t->hash == HASH_NONE)
		return err_set(err, ERR_INPUT, "the algorithm is SHA1, SHA256 or SHA512");
	if (!number(json_object_get(object, "digits"), 6, 8, &t->digits) || (t->digits != 6 && t->digits != 8))
		return err_set(err, ERR_INPUT, "the digits can only be 6 or 8");
	if (!number(json_object_get(object, "period"), 30, 3600, &t->period) || t->period == 0)
		return err_set(err, ERR_INPUT, "the period is 1 second to an hour");
	return 0;
}

/* ---- codes ------------------------------------------------------------------------------------------------------- */

/* {"name": value}; value may be a code: it goes through no buffer of ours. */
static void reply(struct call *call, const char *name, const char *value)
{
	CLEANUP(secret_clear) struct secret data = {0};
	int r = secret_new(&data, 64, NULL);

	if (r == 0)
		r = api_append(&data, "{\"%s\":", name);
	if (r == 0)
		r = secret_append(&data, value, strlen(value), NULL);
	call_reply_data(call, &data, r < 0 ? r : api_append(&data, "}"));
}

/* The one before and the one behind count, too: clocks differ. 0: it is none of them. */
static uint64_t matching(struct totp *t, uint64_t counter)
{
	uint64_t found = 0;

	for (uint64_t c = counter - 1; c <= counter + 1; c++)
		if (totp_code(t->hash, t->digits, t->key, t->key_len, c, t->tried) && strlen(t->code) == t->digits &&
		    sodium_memcmp(t->tried, t->code, t->digits) == 0)
			found = c;
	return found;
}

/* A code is good once (RFC 6238 section 5.2); of those before, as many are remembered as there is room for. */
static bool was_used(struct call *call, uint64_t counter)
{
	struct totp_used *used = &call->broker->totp_used;
	crypto_generichash_state st;
	uint8_t id[sizeof(used->ids[0])];

	crypto_generichash_init(&st, NULL, 0, sizeof(id));
	crypto_generichash_update(&st, (const uint8_t *)call->path, strlen(call->path) + 1);
	crypto_generichash_update(&st, (const uint8_t *)&counter, sizeof(counter));
	crypto_generichash_final(&st, id, sizeof(id));
	for (size_t i = 0; i < sizeof(used->ids) / sizeof(used->ids[0]); i++)
		if (memcmp(used->ids[i], id, sizeof(id)) == 0)
			return true;
	memcpy(used->ids[used->next++ % (sizeof(used->ids) / sizeof(used->ids[0]))], id, sizeof(id));
	return false;
}

static void check_code(struct call *call, struct totp *t, uint64_t counter)
{
	uint64_t found = matching(t, counter);

	if (found && was_used(call, found))
		call_fail(call, -ERR_INPUT, "code already used; wait until the next time period");
	else
		reply(call, "valid", found ? "true" : "false");
}

static void answer_code(struct call *call, const struct secret *object)
{
	CLEANUP(json_cleanup) json_t *key = NULL;
	struct totp *t = call->work;
	struct err err = {0};
	uint64_t counter;
	int r = object ? json_parse((const char *)object->data, object->len, &key, &err) : err_set(&err, ERR_NOT_FOUND, "the key is deleted");

	if (r == 0)
		r = read_key(key, t, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	counter = token_wall_ms() / 1000 / t->period;
	if (t->code[0]) {
		check_code(call, t, counter);
	} else if (totp_code(t->hash, t->digits, t->key, t->key_len, counter, t->quoted + 1)) {
		t->quoted[0] = '"';
		t->quoted[1 + t->digits] = '"';
		t->quoted[2 + t->digits] = '\0';
		reply(call, "code", t->quoted);
	} else {
		call_fail(call, -ERR_FAILED, "libcrypto has no such hash");
	}
}

static bool begin(struct call *call)
{
	call->work = secret_alloc(sizeof(struct totp));
	call->free_work = call->work ? free_totp : NULL;
	if (!call->work) {
		call_fail(call, -ERR_BUSY, "the locked memory for secrets is full: try again");
		return false;
	}
	memset(call->work, 0, sizeof(struct totp));
	return true;
}

void totp_read_code(struct call *call, const struct request *q)
{
	(void)q;
	if (begin(call))
		kv_open(call, 0, answer_code);
}

void totp_check_code(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct err err = {0};
	const json_t *code;
	int r = api_body(q, &body, &err);

	code = json_object_get(body, "code");
	if (r == 0 && (!json_is_string(code) || !json_string_length(code) || json_string_length(code) > TOTP_CODE_LEN))
		r = err_set(&err, ERR_INPUT, "the code value is required, as a string of 6 or 8 digits");
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	if (!begin(call))
		return;
	memcpy(((struct totp *)call->work)->code, json_string_value(code), json_string_length(code));
	kv_open(call, 0, answer_code);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* otpauth://totp/LABEL?secret=…&issuer=…: what stands in it takes the place of members that are not there. */
static int take_url(json_t *body, struct err *err)
{
	static const char *const names[] = {"secret", "algorithm", "digits", "period", "issuer"};
	const char *url = json_string_value(json_object_get(body, "url")), *p, *equals;
	size_t n;

	if (!url || !*url)
		return 0;
	p = strchr(url, '?');
	if (strncmp(url, "otpauth://totp/", 15) != 0 || !p)
		return err_set(err, ERR_INPUT, "the url begins with otpauth://totp/, and has a secret");
	for (p++; *p; p += n + (p[n] == '&')) {
		n = strcspn(p, "&");
		equals = memchr(p, '=', n);
		for (size_t i = 0; equals && i < sizeof(names) / sizeof(names[0]); i++) {
			size_t len = (size_t)(equals - p);

			if (strlen(names[i]) == len && memcmp(names[i], p, len) == 0)
				json_object_set_new(body, i == 0 ? "key" : names[i], json_stringn(equals + 1, n - len - 1));
		}
	}
	return 0;
}

/* A key of its own, as "key" of the body, and the url that is told once. */
static int generate(json_t *body, struct secret *ret_url, struct err *err)
{
	CLEANUP(secret_clear) struct secret key = {0}, text = {0};
	const char *issuer = json_string_value(json_object_get(body, "issuer")), *account = json_string_value(json_object_get(body, "account_name"));
	unsigned int size = 20;
	int r;

	if (!number(json_object_get(body, "key_size"), 20, TOTP_KEY_MAX, &size) || size < 16)
		return err_set(err, ERR_INPUT, "key_size is 16 to %u bytes", TOTP_KEY_MAX);
	if (!issuer || !account || !path_valid(issuer) || !path_valid(account) || strchr(issuer, '/') || strchr(account, '/'))
		return err_set(err, ERR_INPUT, "issuer and account_name are required: letters, digits and ._@+-");
	r = secret_new(&key, size, err);
	if (r == 0)
		r = secret_new(&text, 8 * (size / 5 + 1) + 1, err);
	if (r < 0)
		return r;
	randombytes_buf(key.data, size);
	base32_encode(key.data, size, (char *)text.data);
	if (json_object_set_new(body, "key", json_string((const char *)text.data)) < 0)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	r = secret_new(ret_url, 1024, err);
	if (r == 0)
		r = api_append(ret_url, "{\"url\":\"otpauth://totp/%s:%s?secret=", issuer, account);
	if (r == 0)
		r = secret_append(ret_url, text.data, strlen((const char *)text.data), err);
	return r < 0 ? r : api_append(ret_url, "&issuer=%s\"}", issuer);
}

/* The object that is kept. */
static int build(json_t *body, json_t **ret, struct secret *ret_url, struct err *err)
{
	static const char *const kept[] = {"key", "algorithm", "digits", "period", "issuer", "account_name"};
	int r = take_url(body, err);

	if (r < 0)
		return r;
	if (json_is_true(json_object_get(body, "generate")))
		r = generate(body, ret_url, err);
	*ret = json_object();
	for (size_t i = 0; r == 0 && i < sizeof(kept) / sizeof(kept[0]); i++)
		if (json_object_get(body, kept[i]) && json_object_set(*ret, kept[i], json_object_get(body, kept[i])) < 0)
			r = err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	return r;
}

void totp_write_key(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL, *object = NULL;
	CLEANUP(secret_clear) struct secret plain = {0}, url = {0};
	struct totp *t;
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0)
		r = build(body, &object, &url, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	if (!begin(call))
		return;
	t = call->work;
	r = read_key(object, t, &err);
	if (r == 0)
		r = kv_next(call, -1, &err);
	if (r == 0)
		r = json_write(object, LIMIT_SECRET_LEN, &plain, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	/* told once, to whoever had it made */
	if (url.len) {
		call->told = url;
		url = (struct secret){0};
	} else {
		call->plain = true;
	}
	kv_store_object(call, &plain);
}

static void answer_key(struct call *call, const struct secret *object)
{
	CLEANUP(json_cleanup) json_t *key = NULL;
	CLEANUP(secret_clear) struct secret data = {0};
	struct totp *t = call->work;
	struct err err = {0};
	int r = object ? json_parse((const char *)object->data, object->len, &key, &err) : err_set(&err, ERR_NOT_FOUND, "the key is deleted");

	if (r == 0)
		r = read_key(key, t, &err);
	if (r == 0) {
		json_object_del(key, "key");
		json_object_set_new(key, "digits", json_integer((json_int_t)t->digits));
		json_object_set_new(key, "period", json_integer((json_int_t)t->period));
		if (!json_object_get(key, "algorithm"))
			json_object_set_new(key, "algorithm", json_string("SHA1"));
		r = json_write(key, LIMIT_SECRET_LEN, &data, &err);
	}
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		call_reply_data(call, &data, 0);
}

void totp_read_key(struct call *call, const struct request *q)
{
	(void)q;
	if (begin(call))
		kv_open(call, 0, answer_key);
}
