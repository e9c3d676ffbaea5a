#include "common/macaroon.h"

#include "common/b64.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/hkdf.h"

#include <sodium.h>
#include <string.h>

#define VERSION 2u
#define PREFIX_LEN (sizeof(MACAROON_PREFIX) - 1)
/* packet field types of the V2 format */
#define FIELD_EOS 0u
#define FIELD_LOCATION 1u
#define FIELD_IDENTIFIER 2u
#define FIELD_SIGNATURE 6u

static int malformed(struct err *err)
{
	return err_set(err, ERR_INPUT, "not a cotter token");
}

/* A field of the wanted type. Lengths are minimal varints of at most two bytes: nothing here is longer. */
static const uint8_t *read_field(struct reader *in, uint8_t type, size_t *ret_len)
{
	uint8_t lo, hi;

	if (reader_u8(in) != type)
		in->failed = true;
	lo = reader_u8(in);
	*ret_len = lo & 0x7fu;
	if (lo & 0x80u) {
		hi = reader_u8(in);
		if (hi == 0 || (hi & 0x80u))
			in->failed = true;
		*ret_len |= (size_t)hi << 7;
	}
	return reader_bytes(in, *ret_len);
}

static uint8_t peek(const struct reader *in)
{
	return in->failed || in->pos >= in->len ? 0xff : in->p[in->pos];
}

/* pymacaroons always writes an empty location; npm's macaroon omits it. A location says nothing and must be empty. */
static void skip_location(struct reader *in)
{
	size_t len;

	if (peek(in) != FIELD_LOCATION)
		return;
	read_field(in, FIELD_LOCATION, &len);
	if (len)
		in->failed = true;
}

static void parse_caveats(struct reader *in, struct macaroon *m)
{
	struct macaroon_caveat *c;

	while (!in->failed && peek(in) != FIELD_EOS) {
		if (m->n_caveats == LIMIT_CAVEATS) {
			in->failed = true;
			return;
		}
		c = &m->caveats[m->n_caveats++];
		skip_location(in);
		c->p = read_field(in, FIELD_IDENTIFIER, &c->len);
		/* a verification id here would make it a third-party caveat: refused */
		if (reader_u8(in) != FIELD_EOS || c->len == 0 || c->len > LIMIT_CAVEAT_LEN)
			in->failed = true;
	}
	if (reader_u8(in) != FIELD_EOS)
		in->failed = true;
}

static bool parse_binary(struct macaroon *m)
{
	struct reader in = reader_init(m->raw, m->raw_len);
	const uint8_t *id, *sig;
	size_t id_len, sig_len;

	if (reader_u8(&in) != VERSION)
		return false;
	skip_location(&in);
	id = read_field(&in, FIELD_IDENTIFIER, &id_len);
	if (reader_u8(&in) != FIELD_EOS || !id || id_len != MACAROON_ID_LEN || id[0] != 1)
		return false;
	parse_caveats(&in, m);
	sig = read_field(&in, FIELD_SIGNATURE, &sig_len);
	if (!reader_done(&in) || !sig || sig_len != MACAROON_SIG_LEN)
		return false;
	memcpy(m->id, id, MACAROON_ID_LEN);
	memcpy(m->sig, sig, MACAROON_SIG_LEN);
	return true;
}

int macaroon_parse(const char *text, size_t len, struct macaroon **ret, struct err *err)
{
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;

	if (len < PREFIX_LEN || len > LIMIT_TOKEN_TEXT || memcmp(text, MACAROON_PREFIX, PREFIX_LEN) != 0)
		return malformed(err);
	m = secret_alloc(sizeof(*m));
	if (!m)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	if (!b64url_decode(text + PREFIX_LEN, len - PREFIX_LEN, m->raw, sizeof(m->raw), &m->raw_len) || !parse_binary(m))
		return malformed(err);
	*ret = steal_ptr(&m);
	return 0;
}

/* HMAC("macaroons-key-generator", zero-padded to 32 bytes; key). */
void macaroon_root(const uint8_t key[32], uint8_t ret[MACAROON_ROOT_LEN])
{
	static const uint8_t generator[32] = "macaroons-key-generator";
	struct hkdf_part part = {key, 32};

	hmac_parts(generator, sizeof(generator), &part, 1, ret);
}

static void first_signature(const uint8_t root[MACAROON_ROOT_LEN], const uint8_t id[MACAROON_ID_LEN], uint8_t ret[32])
{
	struct hkdf_part part = {id, MACAROON_ID_LEN};

	hmac_parts(root, MACAROON_ROOT_LEN, &part, 1, ret);
}

static void next_signature(uint8_t sig[32], const void *caveat, size_t len)
{
	struct hkdf_part part = {caveat, len};
	uint8_t next[32];

	hmac_parts(sig, 32, &part, 1, next);
	memcpy(sig, next, 32);
	sodium_memzero(next, sizeof(next));
}

static int encode(const uint8_t *raw, size_t len, struct secret *ret, struct err *err)
{
	struct secret text = {0};
	int r = secret_new(&text, PREFIX_LEN + B64_LEN(len) + 1, err);

	if (r < 0)
		return r;
	memcpy(text.data, MACAROON_PREFIX, PREFIX_LEN);
	b64url_encode(raw, len, (char *)text.data + PREFIX_LEN);
	text.len = PREFIX_LEN + B64_LEN(len);
	*ret = text;
	return 0;
}

int macaroon_mint(const uint8_t root[MACAROON_ROOT_LEN], const uint8_t id[MACAROON_ID_LEN], struct secret *ret, struct err *err)
{
	uint8_t raw[64], sig[32];
	struct writer w = writer_init(raw, sizeof(raw));
	int r;

	first_signature(root, id, sig);
	writer_u8(&w, VERSION);
	writer_u8(&w, FIELD_IDENTIFIER);
	writer_u8(&w, MACAROON_ID_LEN);
	writer_bytes(&w, id, MACAROON_ID_LEN);
	writer_u8(&w, FIELD_EOS);
	writer_u8(&w, FIELD_EOS);
	writer_u8(&w, FIELD_SIGNATURE);
	writer_u8(&w, MACAROON_SIG_LEN);
	writer_bytes(&w, sig, sizeof(sig));
	r = encode(raw, w.len, ret, err);
	sodium_memzero(sig, sizeof(sig));
	sodium_memzero(raw, sizeof(raw));
	return r;
}

static void write_field(struct writer *w, uint8_t type, const void *data, size_t len)
{
	writer_u8(w, type);
	if (len > 0x7f)
		writer_u8(w, (uint8_t)(len & 0x7f) | 0x80u);
	writer_u8(w, (uint8_t)(len > 0x7f ? len >> 7 : len));
	writer_bytes(w, data, len);
}

int macaroon_narrow(const char *text, size_t len, const char *caveat, struct secret *ret, struct err *err)
{
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	CLEANUP(cleanup_secret_free) uint8_t *raw = NULL;
	size_t caveat_len = strlen(caveat);
	struct writer w;
	int r = macaroon_parse(text, len, &m, err);

	if (r < 0)
		return r;
	if (caveat_len == 0 || caveat_len > LIMIT_CAVEAT_LEN)
		return err_set(err, ERR_USAGE, "a caveat has 1 to %u bytes", LIMIT_CAVEAT_LEN);
	if (m->n_caveats == LIMIT_CAVEATS)
		return err_set(err, ERR_LIMIT, "a token has at most %u caveats", LIMIT_CAVEATS);
	raw = secret_alloc(LIMIT_TOKEN_LEN);
	if (!raw)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	w = writer_init(raw, LIMIT_TOKEN_LEN);
	/* all but the final EOS and the signature field stays as it is */
	writer_bytes(&w, m->raw, m->raw_len - 1 - 2 - MACAROON_SIG_LEN);
	write_field(&w, FIELD_IDENTIFIER, caveat, caveat_len);
	writer_u8(&w, FIELD_EOS);
	writer_u8(&w, FIELD_EOS);
	next_signature(m->sig, caveat, caveat_len);
	write_field(&w, FIELD_SIGNATURE, m->sig, MACAROON_SIG_LEN);
	if (w.failed)
		return err_set(err, ERR_LIMIT, "a token has at most %u bytes", LIMIT_TOKEN_LEN);
	return encode(raw, w.len, ret, err);
}

void macaroon_caveat_name(const uint8_t sig[MACAROON_SIG_LEN], uint8_t ret[MACAROON_NAME_LEN])
{
	uint8_t hash[32];

	crypto_hash_sha256(hash, sig, MACAROON_SIG_LEN);
	memcpy(ret, hash, MACAROON_NAME_LEN);
}

bool macaroon_verify(struct macaroon *m, const uint8_t root[MACAROON_ROOT_LEN])
{
	uint8_t sig[32];

	first_signature(root, m->id, sig);
	for (size_t i = 0; i < m->n_caveats; i++) {
		next_signature(sig, m->caveats[i].p, m->caveats[i].len);
		memcpy(m->sigs[i], sig, sizeof(m->sigs[i]));
	}
	m->verified = sodium_memcmp(sig, m->sig, sizeof(sig)) == 0;
	sodium_memzero(sig, sizeof(sig));
	return m->verified;
}
