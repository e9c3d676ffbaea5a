#include "common/age_x25519.h"

#include "common/b64.h"
#include "common/bech32.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/hkdf.h"

#include <sodium.h>
#include <string.h>

#define KEY_LEN 32u
#define BODY_LEN (AGE_FILE_KEY_LEN + 16u)

static const char type[] = "X25519";
static const uint8_t zero_nonce[12];

static int parse(const char *text, struct age_recipient *ret, struct err *err)
{
	int r = bech32_decode(text, "age", ret->key, KEY_LEN, err);

	if (r == 0)
		ret->ops = &age_x25519_recipient_ops;
	return r;
}

static int derive(const uint8_t scalar[KEY_LEN], const uint8_t peer[KEY_LEN], const uint8_t share[KEY_LEN],
		  const uint8_t recipient[KEY_LEN], uint8_t ret_key[32])
{
	uint8_t shared[32], salt[2 * KEY_LEN];
	int r = crypto_scalarmult(shared, scalar, peer); /* fails on an all-zero result */

	memcpy(salt, share, KEY_LEN);
	memcpy(salt + KEY_LEN, recipient, KEY_LEN);
	if (r == 0)
		hkdf(salt, sizeof(salt), shared, sizeof(shared), "age-encryption.org/v1/X25519", ret_key);
	sodium_memzero(shared, sizeof(shared));
	return r;
}

static int wrap(const struct age_recipient *recipient, const uint8_t file_key[AGE_FILE_KEY_LEN], struct writer *w,
		struct err *err)
{
	uint8_t scalar[KEY_LEN], share[KEY_LEN], key[32], body[BODY_LEN];
	char share_text[B64_LEN(KEY_LEN) + 1];
	const char *args[] = {type, share_text};
	int r;

	randombytes_buf(scalar, sizeof(scalar));
	crypto_scalarmult_base(share, scalar);
	r = derive(scalar, recipient->key, share, recipient->key, key);
	sodium_memzero(scalar, sizeof(scalar));
	if (r != 0)
		return err_set(err, ERR_INPUT, "the X25519 recipient is a low-order point");
	crypto_aead_chacha20poly1305_ietf_encrypt(body, NULL, file_key, AGE_FILE_KEY_LEN, NULL, 0, NULL, zero_nonce, key);
	sodium_memzero(key, sizeof(key));
	b64_encode(share, sizeof(share), share_text);
	age_header_write_stanza(w, args, 2, body, sizeof(body));
	return 0;
}

int age_x25519_check(const struct age_header *header, struct err *err)
{
	const struct age_stanza *s;
	uint8_t share[KEY_LEN];

	for (size_t i = 0; i < header->n_stanzas; i++) {
		s = &header->stanzas[i];
		if (age_stanza_is(s, type) &&
		    (s->n_args != 2 || !age_stanza_arg(s, 1, share, sizeof(share)) || s->body_len != BODY_LEN))
			return err_set(err, ERR_AGE_HEADER, "header failure: an X25519 stanza is malformed");
	}
	return 0;
}

static int unwrap(const struct age_identity *identity, const struct age_header *header,
		  uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err)
{
	uint8_t recipient[KEY_LEN], share[KEY_LEN], key[32];
	const struct age_stanza *s;
	int r;

	crypto_scalarmult_base(recipient, identity->key.data);
	for (size_t i = 0; i < header->n_stanzas; i++) {
		s = &header->stanzas[i];
		if (!age_stanza_is(s, type) || !age_stanza_arg(s, 1, share, sizeof(share)))
			continue;
		if (derive(identity->key.data, share, share, recipient, key) != 0)
			return err_set(err, ERR_AGE_HEADER, "header failure: an X25519 share is a low-order point");
		r = crypto_aead_chacha20poly1305_ietf_decrypt(ret_file_key, NULL, NULL, s->body, s->body_len, NULL, 0,
							      zero_nonce, key);
		sodium_memzero(key, sizeof(key));
		if (r == 0)
			return 0;
	}
	return err_set(err, ERR_NO_MATCH, "no match");
}

const struct age_recipient_ops age_x25519_recipient_ops = {.hrp = "age", .parse = parse, .wrap = wrap};
static const struct age_identity_ops identity_ops = {.unwrap = unwrap};

int age_x25519_identity(const char *text, struct age_identity *ret, struct err *err)
{
	struct secret key = {0};
	int r = secret_new(&key, KEY_LEN, err);

	if (r < 0)
		return r;
	r = bech32_decode(text, "age-secret-key-", key.data, KEY_LEN, err);
	if (r < 0) {
		secret_clear(&key);
		return r;
	}
	key.len = KEY_LEN;
	*ret = (struct age_identity){.ops = &identity_ops, .key = key};
	return 0;
}
