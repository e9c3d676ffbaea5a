#include "common/age_stream.h"

#include "common/err.h"
#include "common/hkdf.h"
#include "common/secret.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

struct age_stream *age_stream_new(const uint8_t *file_key, const uint8_t nonce[AGE_NONCE_LEN])
{
	struct age_stream *s = secret_alloc(sizeof(*s));

	if (s)
		hkdf(nonce, AGE_NONCE_LEN, file_key, 16, "payload", s->key);
	return s;
}

static void next_nonce(struct age_stream *s)
{
	/* an 11-byte big-endian counter: 2^88 chunks never come */
	for (size_t i = 11; i-- > 0;)
		if (++s->nonce[i] != 0)
			break;
}

void age_stream_seal(struct age_stream *s, const uint8_t *plain, size_t len, bool last, uint8_t *ret)
{
	assert(len <= AGE_CHUNK_LEN);
	s->nonce[11] = last;
	crypto_aead_chacha20poly1305_ietf_encrypt(ret, NULL, plain, len, NULL, 0, NULL, s->nonce, s->key);
	next_nonce(s);
}

int age_stream_open(struct age_stream *s, const uint8_t *sealed, size_t len, bool last, uint8_t *ret, struct err *err)
{
	static const uint8_t first[11];
	bool is_first = memcmp(s->nonce, first, sizeof(first)) == 0;

	if (len < AGE_TAG_LEN || len > AGE_CHUNK_LEN + AGE_TAG_LEN || (!last && len != AGE_CHUNK_LEN + AGE_TAG_LEN) ||
	    (len == AGE_TAG_LEN && !is_first))
		return err_set(err, ERR_AGE_PAYLOAD, "payload failure: a chunk has a wrong length");
	s->nonce[11] = last;
	if (crypto_aead_chacha20poly1305_ietf_decrypt(ret, NULL, NULL, sealed, len, NULL, 0, s->nonce, s->key) != 0)
		return err_set(err, ERR_AGE_PAYLOAD, "payload failure: the file is truncated or was changed");
	next_nonce(s);
	return 0;
}
