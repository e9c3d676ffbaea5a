#include "common/age.h"

#include "common/age_p256tag.h"
#include "common/age_scrypt.h"
#include "common/age_stream.h"
#include "common/age_x25519.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

static const struct age_recipient_ops *const recipient_types[] = {
	&age_p256tag_recipient_ops,
	&age_x25519_recipient_ops,
};

/* Structure of every stanza type that cotter knows. */
static int (*const stanza_checks[])(const struct age_header *header, struct err *err) = {
	age_p256tag_check,
	age_x25519_check,
	age_scrypt_check,
	bind_check,
};

int age_recipient_parse(const char *text, struct age_recipient *ret, struct err *err)
{
	int r;

	for (size_t i = 0; i < sizeof(recipient_types) / sizeof(recipient_types[0]); i++) {
		r = recipient_types[i]->parse(text, ret, err);
		if (r != -ERR_NOT_MINE)
			return r;
	}
	if (strncmp(text, "AGE-SECRET-KEY-", 15) == 0)
		return err_set(err, ERR_INPUT, "this is a secret key, not a recipient: keep it offline and use its age1... form");
	return err_set(err, ERR_INPUT, "not a recipient: expected age1tag1... (hardware) or age1... (recovery)");
}

int age_check_stanzas(const struct age_header *header, struct err *err)
{
	int r;

	for (size_t i = 0; i < sizeof(stanza_checks) / sizeof(stanza_checks[0]); i++) {
		r = stanza_checks[i](header, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int age_unwrap(const struct age_header *header, const struct age_identity *identities, size_t n_identities,
	       struct secret *ret_file_key, struct err *err)
{
	CLEANUP(secret_clear) struct secret key = {0};
	struct err hardware = {0};
	int r = age_check_stanzas(header, err);

	if (r < 0)
		return r;
	r = secret_new(&key, AGE_FILE_KEY_LEN, err);
	if (r < 0)
		return r;
	key.len = AGE_FILE_KEY_LEN;
	r = -ERR_NO_MATCH;
	for (size_t i = 0; i < n_identities && r < 0; i++) {
		r = identities[i].ops->unwrap(&identities[i], header, key.data, err);
		if (r == -ERR_HARDWARE || r == -ERR_ABSENT || r == -ERR_PIN)
			hardware = *err; /* another key may still open it */
		else if (r < 0 && r != -ERR_NO_MATCH)
			return r;
	}
	if (r < 0 && hardware.code) {
		*err = hardware;
		return -hardware.code;
	}
	if (r < 0)
		return err_set(err, ERR_NO_MATCH, "no match: none of the keys here opens this file");
	r = age_header_verify(header, key.data, err);
	if (r < 0)
		return r;
	*ret_file_key = key;
	key = (struct secret){0};
	return 0;
}

int age_wrap(const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
	     struct writer *ret_header, struct secret *ret_file_key, struct err *err)
{
	CLEANUP(secret_clear) struct secret key = {0};
	int r;

	if (n_recipients == 0 || n_recipients > LIMIT_RECIPIENTS)
		return err_set(err, ERR_USAGE, "seal to 1 to %u recipients, not %zu", LIMIT_RECIPIENTS, n_recipients);
	r = secret_new(&key, AGE_FILE_KEY_LEN, err);
	if (r < 0)
		return r;
	key.len = AGE_FILE_KEY_LEN;
	randombytes_buf(key.data, key.len);
	age_header_write_intro(ret_header);
	for (size_t i = 0; i < n_recipients; i++) {
		r = recipients[i].ops->wrap(&recipients[i], key.data, ret_header, err);
		if (r < 0)
			return r;
	}
	if (bind)
		bind_write(bind, ret_header);
	age_header_write_end(ret_header, key.data);
	if (ret_header->failed)
		return err_set(err, ERR_LIMIT, "the header is too long");
	*ret_file_key = key;
	key = (struct secret){0};
	return 0;
}

int age_seal_memory(const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
		    const struct secret *plain, uint8_t **ret_sealed, size_t *ret_len, struct err *err)
{
	CLEANUP(secret_clear) struct secret key = {0};
	CLEANUP(cleanup_free) uint8_t *out = NULL;
	CLEANUP(cleanup_secret_free) struct age_stream *stream = NULL;
	struct writer w;
	size_t pos = 0, n;
	int r;

	if (plain->len > LIMIT_SECRET_LEN)
		return err_set(err, ERR_LIMIT, "a secret has at most %u bytes, not %zu", LIMIT_SECRET_LEN, plain->len);
	out = malloc(LIMIT_SEALED_LEN);
	if (!out)
		return err_set(err, ERR_FAILED, "out of memory");
	w = writer_init(out, LIMIT_AGE_HEADER);
	r = age_wrap(recipients, n_recipients, bind, &w, &key, err);
	if (r < 0)
		return r;
	randombytes_buf(out + w.len, AGE_NONCE_LEN);
	stream = age_stream_new(key.data, out + w.len);
	if (!stream)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	w.len += AGE_NONCE_LEN;
	do {
		n = plain->len - pos < AGE_CHUNK_LEN ? plain->len - pos : AGE_CHUNK_LEN;
		age_stream_seal(stream, plain->data + pos, n, pos + n == plain->len, out + w.len);
		pos += n;
		w.len += n + AGE_TAG_LEN;
	} while (pos < plain->len);
	*ret_len = w.len;
	*ret_sealed = realloc(out, w.len);
	if (!*ret_sealed)
		*ret_sealed = out;
	out = NULL;
	return 0;
}

int age_open_memory(const uint8_t *data, size_t len, const struct secret *file_key, struct secret *ret, struct err *err)
{
	CLEANUP(secret_clear) struct secret plain = {0};
	CLEANUP(cleanup_secret_free) struct age_stream *stream = NULL;
	size_t n;
	int r;

	if (len < AGE_NONCE_LEN)
		return err_set(err, ERR_AGE_HEADER, "header failure: the payload's nonce is cut off");
	if (len > LIMIT_SEALED_LEN)
		return err_set(err, ERR_LIMIT, "the sealed file is larger than %u bytes", LIMIT_SEALED_LEN);
	stream = age_stream_new(file_key->data, data);
	data += AGE_NONCE_LEN;
	len -= AGE_NONCE_LEN;
	r = secret_new(&plain, len + 1, err);
	if (r < 0 || !stream)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	do {
		n = len < AGE_CHUNK_LEN + AGE_TAG_LEN ? len : AGE_CHUNK_LEN + AGE_TAG_LEN;
		r = age_stream_open(stream, data, n, n == len, plain.data + plain.len, err);
		if (r < 0)
			return r;
		plain.len += n - AGE_TAG_LEN;
		data += n;
		len -= n;
	} while (len);
	*ret = plain;
	plain = (struct secret){0};
	return 0;
}
