#include "pkcs11/token_operation.h"

#include "common/err.h"
#include "pkcs11/names.h"

#include <sodium.h>
#include <string.h>

void token_operation_end(struct token_rpc_session *s)
{
	EVP_MD_CTX_free(s->digest);
	s->digest = NULL;
	sodium_memzero(s->input, s->input_len);
	s->input_len = 0;
	s->operation = TOKEN_RPC_IDLE;
}

/* Hash, MGF, and salt length or label. Both functions must use the same hash. */
static CK_RV read_params(struct message *m, struct token_rpc_session *s, const struct token_mechanism *mechanism)
{
	CK_MECHANISM_TYPE hash = message_read_ulong(m);
	CK_ULONG mgf = message_read_ulong(m), third = message_read_ulong(m);
	size_t label = 0;

	if (mechanism->scheme == DECRYPT_OAEP)
		message_read_bytes(m, &label);
	s->hash = hash_of_names(hash, mgf);
	s->salt_len = mechanism->scheme == SIGN_RSA_PSS ? third : 0;
	if (m->in.failed || s->hash == HASH_NONE || label || s->salt_len > KEY_SIGNATURE_MAX ||
	    (mechanism->hash && mechanism->hash != s->hash))
		return CKR_MECHANISM_PARAM_INVALID;
	return CKR_OK;
}

/* The two dialects differ in what follows a mechanism's number. NULL and CKR_OK: the operation is to be cancelled. */
static CK_RV read_mechanism(struct message *m, struct token_rpc_session *s, const struct token_mechanism **ret)
{
	bool newer = m->rpc->version >= 2;
	uint32_t type = reader_u32be(&m->in);
	size_t n;

	*ret = NULL;
	if (newer && type == UINT32_MAX)
		return CKR_OK;
	*ret = token_find_mechanism(m->rpc->token, type);
	if (!*ret)
		return CKR_MECHANISM_INVALID;
	s->hash = (*ret)->hash;
	s->salt_len = 0;
	if (!(*ret)->has_params) {
		if (!newer)
			message_read_bytes(m, &n);
		return CKR_OK;
	}
	if (newer && reader_u8(&m->in) == 0)
		return CKR_MECHANISM_PARAM_INVALID;
	return read_params(m, s, *ret);
}

static CK_RV start_digest(struct token_rpc_session *s, enum hash_type hash)
{
	s->digest = EVP_MD_CTX_new();
	return s->digest && EVP_DigestInit_ex(s->digest, EVP_get_digestbyname(hash_row(hash)->name), NULL) == 1 ? CKR_OK : CKR_HOST_MEMORY;
}

static CK_RV operation_init(struct message *m, enum token_rpc_operation operation)
{
	struct token_rpc_session *s = message_read_session(m);
	const struct token_mechanism *mechanism;
	const struct token_object *o;
	CK_RV rv;

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	token_operation_end(s); /* begun anew: some clients do it twice */
	rv = read_mechanism(m, s, &mechanism);
	if (rv != CKR_OK || !mechanism)
		return rv;
	o = operation == TOKEN_RPC_DIGEST ? NULL : message_read_object(m);
	if (operation != TOKEN_RPC_DIGEST && (!o || !o->key))
		return CKR_KEY_HANDLE_INVALID;
	if (operation == TOKEN_RPC_DIGEST ? mechanism->scheme != SIGN_SCHEMES
					  : mechanism->scheme == SIGN_SCHEMES || (operation == TOKEN_RPC_DECRYPT) != (mechanism->scheme == DECRYPT_OAEP))
		return CKR_MECHANISM_INVALID;
	/* before the hardware sees it: modules crash on some of these */
	if (o && !key_can(o->key->type, mechanism->scheme))
		return CKR_KEY_TYPE_INCONSISTENT;
	if (o && !(operation == TOKEN_RPC_SIGN ? o->key->sign : o->key->decrypt))
		return CKR_KEY_FUNCTION_NOT_PERMITTED;
	if (mechanism->hash)
		rv = start_digest(s, mechanism->hash);
	s->mechanism = mechanism;
	s->object = o;
	s->operation = rv == CKR_OK ? operation : TOKEN_RPC_IDLE;
	return rv;
}

CK_RV token_sign_init(struct message *m)
{
	return operation_init(m, TOKEN_RPC_SIGN);
}

CK_RV token_decrypt_init(struct message *m)
{
	return operation_init(m, TOKEN_RPC_DECRYPT);
}

CK_RV token_digest_init(struct message *m)
{
	return operation_init(m, TOKEN_RPC_DIGEST);
}

static CK_RV feed(struct token_rpc_session *s, const uint8_t *p, size_t n)
{
	if (s->digest)
		return n == 0 || EVP_DigestUpdate(s->digest, p, n) == 1 ? CKR_OK : CKR_FUNCTION_FAILED;
	if (n > sizeof(s->input) - s->input_len)
		return CKR_DATA_LEN_RANGE;
	if (n)
		memcpy(s->input + s->input_len, p, n);
	s->input_len += n;
	return CKR_OK;
}

static CK_RV rv_of(int r)
{
	switch (-r) {
	case ERR_DENIED: return CKR_FUNCTION_REJECTED;
	case ERR_INPUT: return CKR_DATA_LEN_RANGE;
	case ERR_LIMIT: return CKR_DATA_LEN_RANGE;
	case ERR_SEALED: return CKR_DEVICE_REMOVED; /* 503: token or TPM are not there, wait for their PIN, or fail */
	case ERR_NO_BROKER: return CKR_DEVICE_ERROR;
	default: return CKR_FUNCTION_FAILED;
	}
}

/* The bytes that the backend takes: a digest, behind its DigestInfo for PKCS#1, or what was given. */
static CK_RV prepare(struct token_rpc_session *s)
{
	const struct hash_row *hash = hash_row(s->hash);
	unsigned int n = 0;

	if (!s->digest)
		return CKR_OK;
	if (s->mechanism->scheme == SIGN_RSA_PKCS1) {
		memcpy(s->input, hash->info, hash->info_len);
		s->input_len = hash->info_len;
	}
	if (EVP_DigestFinal_ex(s->digest, s->input + s->input_len, &n) != 1)
		return CKR_FUNCTION_FAILED;
	s->input_len += n;
	return CKR_OK;
}

/* Bytes of the result at most; exact but for a decryption. */
static size_t result_length(const struct token_rpc_session *s)
{
	return s->operation == TOKEN_RPC_DIGEST ? hash_row(s->hash)->len : key_row(s->object->key->type)->signature_len;
}

static CK_RV finish(struct message *m, struct token_rpc_session *s)
{
	const struct token *t = m->rpc->token;
	uint8_t result[KEY_SIGNATURE_MAX];
	enum hash_type hash = s->mechanism->scheme == SIGN_ECDSA ? hash_type_of_length(s->input_len) : s->hash;
	size_t n = 0;
	struct err err = {0};
	CK_RV rv = prepare(s);
	int r = 0;

	if (rv == CKR_OK && s->operation == TOKEN_RPC_DIGEST) {
		memcpy(result, s->input, s->input_len);
		n = s->input_len;
	} else if (rv == CKR_OK) {
		if (s->mechanism->scheme == SIGN_ECDSA && s->digest)
			hash = s->hash;
		r = sign_check(s->object->key->type, s->mechanism->scheme, hash, s->salt_len, s->input_len, &err);
		if (r == 0)
			r = t->sign(t->ctx, s->object->key, s->mechanism->scheme, hash, s->salt_len, s->input, s->input_len, result, &n, &err);
		rv = r < 0 ? rv_of(r) : CKR_OK;
	}
	if (rv == CKR_OK)
		message_write_array(m, result, n);
	sodium_memzero(result, sizeof(result));
	token_operation_end(s);
	return rv;
}

/* Whether there is such a session, and it is at that. */
static CK_RV check_operation(const struct token_rpc_session *s, enum token_rpc_operation operation)
{
	return !s ? CKR_SESSION_HANDLE_INVALID : s->operation != operation ? CKR_OPERATION_NOT_INITIALIZED : CKR_OK;
}

/* Sign, Decrypt, Digest in one call: a question for the length costs nothing and ends nothing. */
static CK_RV operation_single(struct message *m, enum token_rpc_operation operation)
{
	struct token_rpc_session *s = message_read_session(m);
	size_t n;
	const uint8_t *p = message_read_array(m, &n);
	uint32_t room = reader_u32be(&m->in);
	CK_RV rv = check_operation(s, operation);

	if (rv != CKR_OK || m->in.failed) /* then the connection ends */
		return rv;
	if (room == MESSAGE_NULL || (room < result_length(s) && (room == 0 || operation != TOKEN_RPC_DECRYPT))) {
		message_write_array(m, NULL, result_length(s));
		return CKR_OK;
	}
	rv = feed(s, p, n);
	if (rv == CKR_OK)
		return finish(m, s);
	token_operation_end(s);
	return rv;
}

CK_RV token_sign(struct message *m)
{
	return operation_single(m, TOKEN_RPC_SIGN);
}

CK_RV token_decrypt(struct message *m)
{
	return operation_single(m, TOKEN_RPC_DECRYPT);
}

CK_RV token_digest(struct message *m)
{
	return operation_single(m, TOKEN_RPC_DIGEST);
}

static CK_RV operation_update(struct message *m, enum token_rpc_operation operation)
{
	struct token_rpc_session *s = message_read_session(m);
	size_t n;
	const uint8_t *p = message_read_array(m, &n);
	CK_RV rv = check_operation(s, operation);

	if (rv != CKR_OK || m->in.failed)
		return rv;
	rv = feed(s, p, n);
	if (rv != CKR_OK)
		token_operation_end(s);
	return rv;
}

CK_RV token_sign_update(struct message *m)
{
	return operation_update(m, TOKEN_RPC_SIGN);
}

CK_RV token_digest_update(struct message *m)
{
	return operation_update(m, TOKEN_RPC_DIGEST);
}

static CK_RV operation_final(struct message *m, enum token_rpc_operation operation)
{
	struct token_rpc_session *s = message_read_session(m);
	uint32_t room = reader_u32be(&m->in);
	CK_RV rv = check_operation(s, operation);

	if (rv != CKR_OK || m->in.failed)
		return rv;
	if (room == MESSAGE_NULL || room < result_length(s)) {
		message_write_array(m, NULL, result_length(s));
		return CKR_OK;
	}
	return finish(m, s);
}

CK_RV token_sign_final(struct message *m)
{
	return operation_final(m, TOKEN_RPC_SIGN);
}

CK_RV token_digest_final(struct message *m)
{
	return operation_final(m, TOKEN_RPC_DIGEST);
}
