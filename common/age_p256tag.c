#include "common/age_p256tag.h"

#include "common/b64.h"
#include "common/bech32.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/hkdf.h"

#include <sodium.h>
#include <string.h>

#define TAG_LEN 4u
#define BODY_LEN (AGE_FILE_KEY_LEN + 16u)

static const char type[] = "p256tag";
static const char label[] = "age-encryption.org/p256tag";
static const uint8_t kem_suite[5] = {'K', 'E', 'M', 0x00, 0x10};
static const uint8_t hpke_suite[10] = {'H', 'P', 'K', 'E', 0x00, 0x10, 0x00, 0x01, 0x00, 0x03};

static int parse(const char *text, struct age_recipient *ret, struct err *err)
{
	uint8_t compressed[P256_COMPRESSED_LEN];
	int r = bech32_decode(text, "age1tag", compressed, sizeof(compressed), err);

	if (r == 0)
		r = p256_decompress(compressed, ret->key, err);
	if (r == 0)
		ret->ops = &age_p256tag_recipient_ops;
	return r;
}

void age_p256tag_recipient_text(const uint8_t point[P256_POINT_LEN], char *ret_text)
{
	uint8_t compressed[P256_COMPRESSED_LEN];

	p256_compress(point, compressed);
	bech32_encode("age1tag", compressed, sizeof(compressed), 0, ret_text);
}

/* RFC 9180 §4, LabeledExtract and LabeledExpand. */
static void labeled_extract(const uint8_t *suite, size_t suite_len, const uint8_t *salt, const char *what,
			    const void *ikm, size_t ikm_len, uint8_t ret[32])
{
	static const uint8_t zero[32];
	struct hkdf_part parts[] = {{"HPKE-v1", 7}, {suite, suite_len}, {what, strlen(what)}, {ikm, ikm_len}};

	hmac_parts(salt ? salt : zero, 32, parts, 4, ret);
}

static void labeled_expand(const uint8_t prk[32], const uint8_t *suite, size_t suite_len, const char *what,
			   const struct hkdf_part info[2], uint8_t *ret, uint8_t ret_len)
{
	uint8_t len_be[2] = {0, ret_len};
	struct hkdf_part parts[] = {{len_be, 2}, {"HPKE-v1", 7}, {suite, suite_len}, {what, strlen(what)}, info[0], info[1]};

	hkdf_expand(prk, parts, 6, ret, ret_len);
}

/* RFC 9180 §4.1 ExtractAndExpand and §5.1 KeySchedule (mode base, no PSK), down to key and nonce. */
static void key_schedule(const uint8_t dh[P256_SECRET_LEN], const uint8_t enc[P256_POINT_LEN],
			 const uint8_t point[P256_POINT_LEN], uint8_t ret_key[32], uint8_t ret_nonce[12])
{
	struct {
		uint8_t prk[32], shared[32], secret[32];
	} t;
	uint8_t context[1 + 32 + 32] = {0};
	const struct hkdf_part kem_context[2] = {{enc, P256_POINT_LEN}, {point, P256_POINT_LEN}};
	const struct hkdf_part schedule_context[2] = {{context, sizeof(context)}, {NULL, 0}};

	labeled_extract(kem_suite, sizeof(kem_suite), NULL, "eae_prk", dh, P256_SECRET_LEN, t.prk);
	labeled_expand(t.prk, kem_suite, sizeof(kem_suite), "shared_secret", kem_context, t.shared, 32);
	labeled_extract(hpke_suite, sizeof(hpke_suite), NULL, "psk_id_hash", "", 0, context + 1);
	labeled_extract(hpke_suite, sizeof(hpke_suite), NULL, "info_hash", label, sizeof(label) - 1, context + 33);
	labeled_extract(hpke_suite, sizeof(hpke_suite), t.shared, "secret", "", 0, t.secret);
	labeled_expand(t.secret, hpke_suite, sizeof(hpke_suite), "key", schedule_context, ret_key, 32);
	labeled_expand(t.secret, hpke_suite, sizeof(hpke_suite), "base_nonce", schedule_context, ret_nonce, 12);
	sodium_memzero(&t, sizeof(t));
}

static void compute_tag(const uint8_t enc[P256_POINT_LEN], const uint8_t point[P256_POINT_LEN], uint8_t ret[TAG_LEN])
{
	uint8_t compressed[P256_COMPRESSED_LEN], hash[32], prk[32];
	struct hkdf_part parts[] = {{enc, P256_POINT_LEN}, {hash, TAG_LEN}};

	p256_compress(point, compressed);
	crypto_hash_sha256(hash, compressed, sizeof(compressed));
	hmac_parts(label, sizeof(label) - 1, parts, 2, prk);
	memcpy(ret, prk, TAG_LEN);
}

static int wrap(const struct age_recipient *recipient, const uint8_t file_key[AGE_FILE_KEY_LEN], struct writer *w,
		struct err *err)
{
	uint8_t enc[P256_POINT_LEN], dh[P256_SECRET_LEN], key[32], nonce[12], tag[TAG_LEN], body[BODY_LEN];
	char tag_text[B64_LEN(TAG_LEN) + 1], enc_text[B64_LEN(P256_POINT_LEN) + 1];
	const char *args[] = {type, tag_text, enc_text};
	int r = p256_ephemeral_ecdh(recipient->key, enc, dh, err);

	if (r < 0)
		return r;
	key_schedule(dh, enc, recipient->key, key, nonce);
	sodium_memzero(dh, sizeof(dh));
	crypto_aead_chacha20poly1305_ietf_encrypt(body, NULL, file_key, AGE_FILE_KEY_LEN, NULL, 0, NULL, nonce, key);
	sodium_memzero(key, sizeof(key));
	compute_tag(enc, recipient->key, tag);
	b64_encode(tag, sizeof(tag), tag_text);
	b64_encode(enc, sizeof(enc), enc_text);
	age_header_write_stanza(w, args, 3, body, sizeof(body));
	return 0;
}

static bool stanza_parts(const struct age_stanza *s, uint8_t ret_tag[TAG_LEN], uint8_t ret_enc[P256_POINT_LEN])
{
	return s->n_args == 3 && age_stanza_arg(s, 1, ret_tag, TAG_LEN) &&
	       age_stanza_arg(s, 2, ret_enc, P256_POINT_LEN) && s->body_len == BODY_LEN;
}

int age_p256tag_check(const struct age_header *header, struct err *err)
{
	uint8_t tag[TAG_LEN], enc[P256_POINT_LEN];

	for (size_t i = 0; i < header->n_stanzas; i++)
		if (age_stanza_is(&header->stanzas[i], type) && !stanza_parts(&header->stanzas[i], tag, enc))
			return err_set(err, ERR_AGE_HEADER, "header failure: a p256tag stanza is malformed");
	return 0;
}

int age_p256tag_find(const struct age_header *header, const uint8_t point[P256_POINT_LEN], size_t *index,
		     uint8_t ret_peer[P256_POINT_LEN], struct err *err)
{
	uint8_t tag[TAG_LEN], want[TAG_LEN];

	for (; *index < header->n_stanzas; ++*index) {
		if (!age_stanza_is(&header->stanzas[*index], type) ||
		    !stanza_parts(&header->stanzas[*index], tag, ret_peer))
			continue;
		compute_tag(ret_peer, point, want);
		if (sodium_memcmp(tag, want, TAG_LEN) != 0)
			continue;
		/* before the token sees it: not every token checks, and an invalid curve gives its key away */
		if (p256_check(ret_peer, err) < 0)
			return err_set(err, ERR_AGE_HEADER, "header failure: a p256tag share is not a point on P-256");
		return 0;
	}
	return err_set(err, ERR_NO_MATCH, "no match");
}

int age_p256tag_finish(const struct age_stanza *stanza, const uint8_t point[P256_POINT_LEN],
		       const uint8_t shared[P256_SECRET_LEN], uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err)
{
	uint8_t tag[TAG_LEN], enc[P256_POINT_LEN], key[32], nonce[12];
	int r;

	if (!stanza_parts(stanza, tag, enc))
		return err_set(err, ERR_AGE_HEADER, "header failure: a p256tag stanza is malformed");
	key_schedule(shared, enc, point, key, nonce);
	r = crypto_aead_chacha20poly1305_ietf_decrypt(ret_file_key, NULL, NULL, stanza->body, stanza->body_len, NULL, 0,
						      nonce, key);
	sodium_memzero(key, sizeof(key));
	return r == 0 ? 0 : err_set(err, ERR_NO_MATCH, "no match");
}

static int unwrap(const struct age_identity *identity, const struct age_header *header,
		  uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err)
{
	uint8_t peer[P256_POINT_LEN], dh[P256_SECRET_LEN];
	size_t index = 0;
	int r;

	for (unsigned int ops = 0; ops < LIMIT_AGE_HARDWARE_OPS; ops++, index++) {
		r = age_p256tag_find(header, identity->point, &index, peer, err);
		if (r < 0)
			return r;
		r = identity->agree(identity->ctx, peer, dh, err);
		if (r < 0)
			return r;
		r = age_p256tag_finish(&header->stanzas[index], identity->point, dh, ret_file_key, err);
		sodium_memzero(dh, sizeof(dh));
		if (r == 0)
			return 0;
	}
	return err_set(err, ERR_NO_MATCH, "no match");
}

const struct age_recipient_ops age_p256tag_recipient_ops = {.hrp = "age1tag", .parse = parse, .wrap = wrap};
static const struct age_identity_ops identity_ops = {.unwrap = unwrap};

void age_p256tag_identity(const uint8_t point[P256_POINT_LEN],
			  int (*agree)(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN],
				       struct err *err),
			  void *ctx, struct age_identity *ret)
{
	*ret = (struct age_identity){.ops = &identity_ops, .agree = agree, .ctx = ctx};
	memcpy(ret->point, point, P256_POINT_LEN);
}
