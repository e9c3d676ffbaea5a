#include "tools/agent_keys.h"

#include "common/b64.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static int load_key(const json_t *j, struct token_key *k, struct err *err)
{
	const char *name = json_string_value(json_object_get(j, "name")), *type = json_string_value(json_object_get(j, "type"));
	const json_t *spki = json_object_get(j, "public_key"), *chain = json_object_get(j, "certificates");

	if (!name || !path_valid(name) || !type || !json_is_string(spki) ||
	    !b64_decode_padded(json_string_value(spki), json_string_length(spki), NULL, k->spki, sizeof(k->spki), &k->spki_len))
		return err_set(err, ERR_FAILED, "the broker's list of keys is malformed");
	snprintf(k->name, sizeof(k->name), "%s", name);
	k->type = key_type_find(type);
	k->version = (uint64_t)json_integer_value(json_object_get(j, "version"));
	k->sign = json_is_true(json_object_get(j, "sign"));
	k->decrypt = json_is_true(json_object_get(j, "decrypt"));
	if (json_string_length(chain) == 0)
		return 0;
	k->certificates = malloc(LIMIT_CERTIFICATES);
	if (!k->certificates || !b64_decode_padded(json_string_value(chain), json_string_length(chain), NULL, k->certificates, LIMIT_CERTIFICATES,
						   &k->certificates_len))
		return err_set(err, ERR_FAILED, "a key's certificates are malformed");
	return 0;
}

int agent_keys_load(struct agent_keys *a, const struct secret *token, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	const json_t *list, *item;
	size_t i;
	int r;

	*a = (struct agent_keys){0};
	client_open(&a->client, token);
	r = client_ask(&a->client, "GET", "/v1/cotter/keys", NULL, &reply, err);
	list = json_object_get(client_data(&reply), "keys");
	if (r == 0 && json_array_size(list) == 0)
		r = err_set(err, ERR_NOT_FOUND, "the token may use no key: an operator adds keys ('cotter key add'), a policy allows 'sign' on their names; "
					      "or a caveat of the token is in the way (operators: 'cotter token why NAME --op sign')");
	if (r == 0) {
		a->keys = calloc(json_array_size(list), sizeof(*a->keys));
		r = a->keys ? 0 : err_set(err, ERR_FAILED, "out of memory");
	}
	json_array_foreach(list, i, item) {
		if (r < 0)
			break;
		r = load_key(item, &a->keys[a->n++], err);
	}
	if (r < 0)
		agent_keys_done(a);
	return r;
}

void agent_keys_done(struct agent_keys *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->keys[i].certificates);
	free(a->keys);
	client_close(&a->client);
	*a = (struct agent_keys){.client.fd = -1};
}

/* What transit calls it: everything is prehashed here. */
static void describe(struct writer *w, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data,
		     size_t len)
{
	bool none = scheme == SIGN_RSA_PKCS1 || scheme == SIGN_ED25519;
	char input[sodium_base64_ENCODED_LEN(SIGN_INPUT_MAX, sodium_base64_VARIANT_ORIGINAL)];

	sodium_bin2base64(input, sizeof(input), data, len, sodium_base64_VARIANT_ORIGINAL);
	writer_printf(w, "{\"input\":\"%s\",\"prehashed\":true,\"hash_algorithm\":\"%s\",\"key_version\":%llu", input,
		      none ? "none" : hash_row(hash)->vault, (unsigned long long)key->version);
	if (scheme == SIGN_ECDSA)
		writer_str(w, ",\"marshaling_algorithm\":\"jws\"");
	if (scheme == SIGN_RSA_PKCS1)
		writer_str(w, ",\"signature_algorithm\":\"pkcs1v15\"");
	if (scheme == SIGN_RSA_PSS)
		writer_printf(w, ",\"signature_algorithm\":\"pss\",\"salt_length\":%zu", salt_len);
	writer_str(w, "}");
}

/* "signature":"vault:v1:…" in a body of the broker's: what is behind the version, up to the quote. */
static const char *find_signature(const struct secret *body, size_t *ret_len)
{
	static const char before[] = "\"signature\":\"vault:v";
	const char *text = (const char *)body->data, *end = text + body->len, *at = memmem(text, body->len, before, sizeof(before) - 1), *quote;

	at = at ? memchr(at + sizeof(before) - 1, ':', (size_t)(end - at) - (sizeof(before) - 1)) : NULL;
	quote = at ? memchr(at, '"', (size_t)(end - at)) : NULL;
	if (!quote)
		return NULL;
	*ret_len = (size_t)(quote - at) - 1;
	return at + 1;
}

static int decrypt(struct agent_keys *a, const struct token_key *key, enum hash_type hash, const uint8_t *data, size_t len,
		   uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	char path[LIMIT_PATH_LEN + 32], text[sodium_base64_ENCODED_LEN(KEY_SIGNATURE_MAX, sodium_base64_VARIANT_ORIGINAL) + 32];
	const json_t *plain;
	size_t n;
	int r;

	n = (size_t)snprintf(text, sizeof(text), "vault:v%llu:", (unsigned long long)key->version);
	sodium_bin2base64(text + n, sizeof(text) - n, data, len, sodium_base64_VARIANT_ORIGINAL);
	json_object_set_new(body, "ciphertext", json_string(text));
	json_object_set_new(body, "cotter_oaep_hash", json_string(hash_row(hash)->vault));
	snprintf(path, sizeof(path), "/v1/transit/decrypt/%s", key->name);
	r = client_ask(&a->client, "POST", path, body, &reply, err);
	if (r < 0)
		return r;
	plain = json_object_get(client_data(&reply), "plaintext");
	if (!json_is_string(plain) || !b64_decode_padded(json_string_value(plain), json_string_length(plain), NULL, ret, KEY_SIGNATURE_MAX, ret_len))
		return err_set(err, ERR_FAILED, "the broker's answer is malformed");
	return 0;
}

int agent_keys_sign(void *ctx, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data,
		    size_t len, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err)
{
	struct agent_keys *a = ctx;
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char path[LIMIT_PATH_LEN + 32], body[sodium_base64_ENCODED_LEN(SIGN_INPUT_MAX, sodium_base64_VARIANT_ORIGINAL) + 256];
	struct writer w = writer_init(body, sizeof(body));
	const char *text;
	size_t text_len = 0, n = 0;
	int r;

	if (scheme == DECRYPT_OAEP)
		return decrypt(a, key, hash, data, len, ret, ret_len, err);
	if (len > SIGN_INPUT_MAX)
		return err_set(err, ERR_LIMIT, "more than %u bytes to sign", SIGN_INPUT_MAX);
	describe(&w, key, scheme, hash, salt_len, data, len);
	snprintf(path, sizeof(path), "/v1/transit/sign/%s", key->name);
	r = w.failed ? err_set(err, ERR_LIMIT, "too much to sign") : client_ask_text(&a->client, path, body, w.len, &reply, err);
	if (r < 0)
		return r;
	text = find_signature(&reply.body, &text_len);
	if (!text || !(scheme == SIGN_ECDSA ? b64url_decode(text, text_len, ret, KEY_SIGNATURE_MAX, &n)
					    : b64_decode_padded(text, text_len, NULL, ret, KEY_SIGNATURE_MAX, &n)) ||
	    n != key_row(key->type)->signature_len)
		return err_set(err, ERR_FAILED, "the broker's answer is malformed");
	*ret_len = n;
	return 0;
}
