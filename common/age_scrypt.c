#include "common/age_scrypt.h"

#include "common/err.h"

#include <sodium.h>
#include <string.h>

#define SALT_LEN 16u
#define BODY_LEN (AGE_FILE_KEY_LEN + 16u)

static const char type[] = "scrypt";
static const char label[] = "age-encryption.org/v1/scrypt";

/* Decimal without sign or leading zero, 1 to LIMIT_AGE_SCRYPT_LOG_N; 0 when it is anything else. */
static unsigned int work_factor(const struct age_arg *arg)
{
	unsigned int n = 0;

	if (arg->len == 0 || arg->len > 2 || arg->p[0] == '0')
		return 0;
	for (size_t i = 0; i < arg->len; i++) {
		if (arg->p[i] < '0' || arg->p[i] > '9')
			return 0;
		n = n * 10 + (unsigned int)(arg->p[i] - '0');
	}
	return n <= LIMIT_AGE_SCRYPT_LOG_N ? n : 0;
}

bool age_scrypt_is(const struct age_header *header)
{
	for (size_t i = 0; i < header->n_stanzas; i++)
		if (age_stanza_is(&header->stanzas[i], type))
			return true;
	return false;
}

int age_scrypt_check(const struct age_header *header, struct err *err)
{
	const struct age_stanza *s = &header->stanzas[0];
	uint8_t salt[SALT_LEN];

	if (!age_scrypt_is(header))
		return 0;
	if (header->n_stanzas != 1)
		return err_set(err, ERR_AGE_HEADER, "header failure: a passphrase stanza must stand alone");
	if (s->n_args != 3 || !age_stanza_arg(s, 1, salt, sizeof(salt)) || s->body_len != BODY_LEN)
		return err_set(err, ERR_AGE_HEADER, "header failure: the scrypt stanza is malformed");
	if (work_factor(&s->args[2]) == 0)
		return err_set(err, ERR_AGE_HEADER, "header failure: the scrypt work factor is not 1 to %u",
			       LIMIT_AGE_SCRYPT_LOG_N);
	return 0;
}

static int unwrap(const struct age_identity *identity, const struct age_header *header,
		  uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err)
{
	static const uint8_t zero_nonce[12];
	const struct age_stanza *s = &header->stanzas[0];
	uint8_t salt[sizeof(label) - 1 + SALT_LEN], key[32];
	int r;

	if (!age_scrypt_is(header))
		return err_set(err, ERR_NO_MATCH, "no match");
	memcpy(salt, label, sizeof(label) - 1);
	if (!age_stanza_arg(s, 1, salt + sizeof(label) - 1, SALT_LEN))
		return err_set(err, ERR_AGE_HEADER, "header failure: the scrypt stanza is malformed");
	r = crypto_pwhash_scryptsalsa208sha256_ll(identity->key.data, identity->key.len, salt, sizeof(salt),
						  1ull << work_factor(&s->args[2]), 8, 1, key, sizeof(key));
	if (r != 0)
		return err_set(err, ERR_FAILED, "not enough memory for this file's scrypt work factor");
	r = crypto_aead_chacha20poly1305_ietf_decrypt(ret_file_key, NULL, NULL, s->body, s->body_len, NULL, 0,
						      zero_nonce, key);
	sodium_memzero(key, sizeof(key));
	return r == 0 ? 0 : err_set(err, ERR_NO_MATCH, "no match: wrong passphrase");
}

static const struct age_identity_ops identity_ops = {.unwrap = unwrap};

void age_scrypt_identity(struct secret *passphrase, struct age_identity *ret)
{
	*ret = (struct age_identity){.ops = &identity_ops, .key = *passphrase};
	*passphrase = (struct secret){0};
}
