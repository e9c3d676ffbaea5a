#include "tools/ssh_agent.h"

#include "common/err.h"
#include "common/sshkey.h"

#include <string.h>

enum message {
	FAILURE = 5, SUCCESS = 6, REQUEST_IDENTITIES = 11, IDENTITIES_ANSWER = 12, SIGN_REQUEST = 13, SIGN_RESPONSE = 14, EXTENSION = 27,
	EXTENSION_FAILURE = 28,
};

#define USERAUTH_REQUEST 50u
#define RSA_SHA2_256 2u
#define RSA_SHA2_512 4u

static const struct token_key *find_key(const struct ssh_agent *a, const uint8_t *blob, size_t len)
{
	uint8_t own[1024];

	for (size_t i = 0; blob && i < a->n_keys; i++) {
		size_t n = a->keys[i].sign ? ssh_key_blob(a->keys[i].type, a->keys[i].spki, a->keys[i].spki_len, own, sizeof(own)) : 0;

		if (n && n == len && memcmp(own, blob, n) == 0)
			return &a->keys[i];
	}
	return NULL;
}

static void identities(const struct ssh_agent *a, struct writer *out)
{
	uint8_t blob[1024];
	uint32_t n_keys = 0;
	size_t count_at, len;

	writer_u8(out, IDENTITIES_ANSWER);
	count_at = out->len;
	writer_u32be(out, 0);
	for (size_t i = 0; i < a->n_keys; i++) {
		len = a->keys[i].sign ? ssh_key_blob(a->keys[i].type, a->keys[i].spki, a->keys[i].spki_len, blob, sizeof(blob)) : 0;
		if (!len)
			continue;
		ssh_put_string(out, blob, len);
		ssh_put_text(out, a->keys[i].name);
		n_keys++;
	}
	if (!out->failed) {
		struct writer count = writer_init(out->p + count_at, 4);

		writer_u32be(&count, n_keys);
	}
}

/* ---- signing ---------------------------------------------------------------------------------------------------- */

/* What a signature is over, as the key's scheme takes it. */
struct to_sign {
	enum sign_scheme scheme;
	enum hash_type hash;
	const char *name; /* of the signature's algorithm */
	const uint8_t *data;
	size_t len;
	uint8_t digest[SIGN_DIGEST_MAX];
};

static bool prepare(const struct token_key *k, uint32_t flags, struct to_sign *s)
{
	bool rsa = key_is_rsa(k->type), sha512 = flags & RSA_SHA2_512;

	if (rsa && !(flags & (RSA_SHA2_256 | RSA_SHA2_512)))
		return false; /* ssh-rsa is SHA-1 */
	s->scheme = key_scheme(k->type);
	s->hash = rsa && sha512 ? HASH_SHA512 : key_hash(k->type);
	s->name = rsa ? (sha512 ? "rsa-sha2-512" : "rsa-sha2-256") : ssh_key_name(k->type);
	if (s->scheme == SIGN_ED25519)
		return true;
	s->len = sign_input(s->scheme, s->hash, s->data, s->len, s->digest, sizeof(s->digest));
	s->data = s->digest;
	return s->len > 0;
}

/* On a connection that is bound, an authentication must be for the session that was bound last. */
static bool fits_session(const struct ssh_agent *a, const uint8_t *data, size_t len)
{
	struct reader r = reader_init(data, len);
	size_t n;
	const uint8_t *id = ssh_read_string(&r, &n);

	if (a->n_binds == 0 || reader_u8(&r) != USERAUTH_REQUEST || r.failed)
		return true; /* something else is signed: a commit, a file */
	return n == a->binds[a->n_binds - 1].len && memcmp(id, a->binds[a->n_binds - 1].id, n) == 0;
}

static bool sign(struct ssh_agent *a, struct reader *in, struct writer *out, struct err *why)
{
	uint8_t signature[KEY_SIGNATURE_MAX], blob_out[KEY_SIGNATURE_MAX + 64];
	struct to_sign s = {0};
	const struct token_key *k;
	const uint8_t *blob;
	size_t blob_len, len = 0;
	uint32_t flags;

	blob = ssh_read_string(in, &blob_len);
	s.data = ssh_read_string(in, &s.len);
	flags = reader_u32be(in);
	if (!reader_done(in))
		return false;
	k = find_key(a, blob, blob_len);
	if (!k) {
		err_set(why, ERR_NOT_FOUND, "a key that this token may not use");
		return false;
	}
	if (a->forwarded || !fits_session(a, s.data, s.len)) {
		err_set(why, ERR_DENIED, a->forwarded ? "%s: the connection comes from another host" : "%s: the signature is for another session than was bound", k->name);
		return false;
	}
	if (!prepare(k, flags, &s)) {
		err_set(why, ERR_UNSUPPORTED, "%s: ssh-rsa signatures are SHA-1: the other side must take rsa-sha2-256 or rsa-sha2-512", k->name);
		return false;
	}
	if (a->sign(a->ctx, k, s.scheme, s.hash, 0, s.data, s.len, signature, &len, why) < 0)
		return false;
	len = ssh_signature_blob(k->type, s.name, signature, len, blob_out, sizeof(blob_out));
	writer_u8(out, SIGN_RESPONSE);
	ssh_put_string(out, blob_out, len);
	return len > 0;
}

/* ---- session-bind@openssh.com (PROTOCOL.agent of OpenSSH, section 1) ---------------------------------------------- */

/* A host's key. KEY_NONE: of another kind. */
static enum key_type read_host_key(const uint8_t *blob, size_t len, uint8_t spki[KEY_SPKI_MAX], size_t *ret_len)
{
	struct reader r = reader_init(blob, len);
	size_t n, first_len, second_len;
	const uint8_t *name = ssh_read_string(&r, &n), *first = ssh_read_string(&r, &first_len), *second;
	enum key_type type;

	if (ssh_is_text(name, n, "ssh-ed25519") && first && first_len == 32 && reader_done(&r))
		return spki_from_ed25519(first, spki, ret_len, NULL) == 0 ? KEY_ED25519 : KEY_NONE;
	second = ssh_read_string(&r, &second_len);
	if (!reader_done(&r) || !second)
		return KEY_NONE;
	if (ssh_is_text(name, n, "ssh-rsa"))
		return spki_from_rsa(second, second_len, first, first_len, spki, ret_len, &type, NULL) == 0 ? type : KEY_NONE;
	type = ssh_is_text(name, n, "ecdsa-sha2-nistp256") ? KEY_P256 : ssh_is_text(name, n, "ecdsa-sha2-nistp384") ? KEY_P384 : KEY_NONE;
	return type && spki_from_ec(type, second, second_len, spki, ret_len, NULL) == 0 ? type : KEY_NONE;
}

/* r and s, each padded to half. */
static bool read_ecdsa(const uint8_t *p, size_t len, size_t half, uint8_t *ret)
{
	struct reader r = reader_init(p, len);

	for (int i = 0; i < 2; i++) {
		size_t n;
		const uint8_t *number = ssh_read_string(&r, &n);

		while (number && n && *number == 0) {
			number++;
			n--;
		}
		if (!number || n > half)
			return false;
		memset(ret + (size_t)i * half, 0, half);
		memcpy(ret + (size_t)i * half + half - n, number, n);
	}
	return reader_done(&r);
}

static bool host_signed(const uint8_t *blob, size_t blob_len, const uint8_t *id, size_t id_len, const uint8_t *sig, size_t sig_len)
{
	uint8_t spki[KEY_SPKI_MAX], digest[SIGN_DIGEST_MAX], raw[2 * 48];
	size_t spki_len = 0, n, len;
	enum key_type type = read_host_key(blob, blob_len, spki, &spki_len);
	struct reader r = reader_init(sig, sig_len);
	const uint8_t *name = ssh_read_string(&r, &n), *value = ssh_read_string(&r, &len);
	enum hash_type hash = ssh_is_text(name, n, "rsa-sha2-512") ? HASH_SHA512 : key_hash(type);

	if (type == KEY_NONE || !reader_done(&r) || !value)
		return false;
	if (key_is_rsa(type) && !ssh_is_text(name, n, "rsa-sha2-256") && !ssh_is_text(name, n, "rsa-sha2-512"))
		return false;
	if (key_is_ec(type)) {
		if (!read_ecdsa(value, len, key_row(type)->signature_len / 2, raw))
			return false;
		value = raw;
		len = key_row(type)->signature_len;
	}
	if (type != KEY_ED25519) {
		id_len = sign_input(key_scheme(type), hash, id, id_len, digest, sizeof(digest));
		id = digest;
	}
	return id_len && spki_verify(spki, spki_len, key_scheme(type), hash, 0, id, id_len, value, len, NULL) == 0;
}

static bool bind_session(struct ssh_agent *a, struct reader *in)
{
	size_t host_len, id_len, sig_len;
	const uint8_t *host = ssh_read_string(in, &host_len), *id = ssh_read_string(in, &id_len), *sig = ssh_read_string(in, &sig_len);
	bool forwarding = reader_u8(in);

	if (!reader_done(in) || id_len == 0 || id_len > sizeof(a->binds[0].id) || a->n_binds == SSH_AGENT_BINDS)
		return false;
	/* once a session is bound for authentication, nothing more may be bound */
	if ((a->n_binds && !a->forwarded) || !host_signed(host, host_len, id, id_len, sig, sig_len))
		return false;
	memcpy(a->binds[a->n_binds].id, id, id_len);
	a->binds[a->n_binds++].len = id_len;
	a->forwarded |= forwarding;
	return true;
}

static bool extension(struct ssh_agent *a, struct reader *in, struct writer *out)
{
	size_t n;
	const uint8_t *name = ssh_read_string(in, &n);
	bool bound = ssh_is_text(name, n, "session-bind@openssh.com");

	if (!bound)
		return false;
	/* what cannot be bound signs nothing any more: the client goes on after a failure */
	bound = bind_session(a, in);
	a->forwarded |= !bound;
	writer_u8(out, bound ? SUCCESS : EXTENSION_FAILURE);
	return true;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

size_t ssh_agent_answer(struct ssh_agent *a, const uint8_t *message, size_t len, uint8_t *reply, struct err *why)
{
	struct reader in = reader_init(message, len);
	struct writer out = writer_init(reply + 4, SSH_AGENT_MESSAGE - 4), head = writer_init(reply, 4);
	uint8_t type = reader_u8(&in);
	bool good = false;

	if (in.failed) {
		good = false;
	} else if (type == REQUEST_IDENTITIES && reader_done(&in)) {
		identities(a, &out);
		good = true;
	} else if (type == SIGN_REQUEST) {
		good = sign(a, &in, &out, why);
	} else if (type == EXTENSION) {
		good = extension(a, &in, &out);
	}
	if (!good || out.failed) {
		out.len = 0;
		out.failed = false;
		writer_u8(&out, FAILURE);
	}
	writer_u32be(&head, (uint32_t)out.len);
	return 4 + out.len;
}
