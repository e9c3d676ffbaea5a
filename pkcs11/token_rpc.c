#include "pkcs11/token_rpc.h"

#include "common/err.h"
#include "pkcs11/token_operation.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define ATTRIBUTES_MAX 64u
#define RANDOM_MAX 1024u
#define SLOT 1u

/* p11-kit's numbers of the calls that have an answer of ours. */
enum call {
	CALL_ERROR = 0, CALL_INITIALIZE, CALL_FINALIZE, CALL_GET_INFO, CALL_GET_SLOT_LIST, CALL_GET_SLOT_INFO, CALL_GET_TOKEN_INFO,
	CALL_GET_MECHANISM_LIST, CALL_GET_MECHANISM_INFO, CALL_OPEN_SESSION = 10, CALL_CLOSE_SESSION, CALL_CLOSE_ALL_SESSIONS, CALL_GET_SESSION_INFO,
	CALL_LOGIN = 18, CALL_LOGOUT, CALL_GET_ATTRIBUTE_VALUE = 24, CALL_FIND_OBJECTS_INIT = 26, CALL_FIND_OBJECTS, CALL_FIND_OBJECTS_FINAL,
	CALL_DECRYPT_INIT = 33, CALL_DECRYPT, CALL_DIGEST_INIT = 37, CALL_DIGEST, CALL_DIGEST_UPDATE, CALL_DIGEST_FINAL = 41,
	CALL_SIGN_INIT = 42, CALL_SIGN, CALL_SIGN_UPDATE, CALL_SIGN_FINAL, CALL_GENERATE_RANDOM = 64,
	CALL_MAX = 256,
};

typedef CK_RV handler(struct message *m);

/* How p11-kit writes an attribute's value; a type that it does not know is bytes. -1: nested, which nobody needs. */
static int value_kind(CK_ATTRIBUTE_TYPE type)
{
	static const CK_ATTRIBUTE_TYPE bytes[] = {
		CKA_TOKEN, CKA_PRIVATE, CKA_TRUSTED, CKA_SENSITIVE, CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_SIGN, CKA_SIGN_RECOVER,
		CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_DERIVE, CKA_EXTRACTABLE, CKA_LOCAL, CKA_NEVER_EXTRACTABLE, CKA_ALWAYS_SENSITIVE, CKA_MODIFIABLE,
		CKA_COPYABLE, CKA_SECONDARY_AUTH, CKA_ALWAYS_AUTHENTICATE, CKA_WRAP_WITH_TRUSTED, CKA_RESET_ON_INIT, CKA_HAS_RESET, CKA_COLOR};
	static const CK_ATTRIBUTE_TYPE ulongs[] = {
		CKA_CLASS, CKA_CERTIFICATE_TYPE, CKA_CERTIFICATE_CATEGORY, CKA_JAVA_MIDP_SECURITY_DOMAIN, CKA_KEY_TYPE, CKA_MODULUS_BITS,
		CKA_PRIME_BITS, CKA_SUB_PRIME_BITS, CKA_VALUE_BITS, CKA_VALUE_LEN, CKA_KEY_GEN_MECHANISM, CKA_AUTH_PIN_FLAGS, CKA_HW_FEATURE_TYPE,
		CKA_PIXEL_X, CKA_PIXEL_Y, CKA_RESOLUTION, CKA_CHAR_ROWS, CKA_CHAR_COLUMNS, CKA_BITS_PER_PIXEL, CKA_MECHANISM_TYPE};

	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		if (bytes[i] == type)
			return TOKEN_BYTE;
	for (size_t i = 0; i < sizeof(ulongs) / sizeof(ulongs[0]); i++)
		if (ulongs[i] == type)
			return TOKEN_ULONG;
	return type == CKA_WRAP_TEMPLATE || type == CKA_UNWRAP_TEMPLATE || type == CKA_ALLOWED_MECHANISMS || type == CKA_START_DATE || type == CKA_END_DATE
		       ? -1
		       : TOKEN_BYTES;
}

/* ---- the library and the slot ----------------------------------------------------------------------------------- */

static CK_RV initialize(struct message *m)
{
	size_t n;

	message_read_array(m, &n);
	reader_u8(&m->in);
	message_read_array(m, &n);
	m->rpc->initialized = true;
	return CKR_OK;
}

static void session_close(struct token_rpc_session *s)
{
	free(s->found);
	token_operation_end(s);
	*s = (struct token_rpc_session){0};
}

static void close_all(struct token_rpc *c)
{
	for (size_t i = 0; i < TOKEN_RPC_SESSIONS; i++)
		if (c->sessions[i].open)
			session_close(&c->sessions[i]);
}

static CK_RV finalize(struct message *m)
{
	close_all(m->rpc);
	m->rpc->initialized = m->rpc->logged_in = false;
	return CKR_OK;
}

static CK_RV get_info(struct message *m)
{
	message_write_version(m, 2, 40);
	message_write_padded(m, "cotter", 32);
	writer_u64be(&m->out, 0);
	message_write_padded(m, "cotter virtual token", 32);
	message_write_version(m, 1, 0);
	return CKR_OK;
}

/* Handles or mechanisms: as many as there is room for, or their number. */
static void write_list(struct message *m, const CK_ULONG *list, size_t n, size_t room)
{
	writer_u8(&m->out, room >= n && room);
	writer_u32be(&m->out, (uint32_t)n);
	for (size_t i = 0; room >= n && room && i < n; i++)
		writer_u64be(&m->out, list[i]);
}

static CK_RV get_slot_list(struct message *m)
{
	static const CK_ULONG slots[] = {SLOT};

	reader_u8(&m->in); /* the token is always there */
	write_list(m, slots, 1, reader_u32be(&m->in));
	return CKR_OK;
}

static CK_RV get_slot_info(struct message *m)
{
	if (message_read_ulong(m) != SLOT)
		return CKR_SLOT_ID_INVALID;
	message_write_padded(m, "cotter", 64);
	message_write_padded(m, "cotter", 32);
	writer_u64be(&m->out, CKF_TOKEN_PRESENT);
	message_write_version(m, 1, 0);
	message_write_version(m, 1, 0);
	return CKR_OK;
}

static size_t n_open(const struct token_rpc *c)
{
	size_t n = 0;

	for (size_t i = 0; i < TOKEN_RPC_SESSIONS; i++)
		n += c->sessions[i].open;
	return n;
}

static CK_RV get_token_info(struct message *m)
{
	const CK_ULONG unknown = CK_UNAVAILABLE_INFORMATION;

	if (message_read_ulong(m) != SLOT)
		return CKR_SLOT_ID_INVALID;
	message_write_padded(m, "cotter", 32);
	message_write_padded(m, "cotter", 32);
	message_write_padded(m, "virtual", 16);
	message_write_padded(m, m->rpc->token->serial, 16);
	/* no PIN, the kernel says who asks; and no log-in required, or ssh in BatchMode, which cannot ask for a PIN, gives up at once */
	writer_u64be(&m->out, CKF_RNG | CKF_USER_PIN_INITIALIZED | CKF_TOKEN_INITIALIZED | CKF_PROTECTED_AUTHENTICATION_PATH);
	writer_u64be(&m->out, TOKEN_RPC_SESSIONS);
	writer_u64be(&m->out, n_open(m->rpc));
	writer_u64be(&m->out, TOKEN_RPC_SESSIONS);
	writer_u64be(&m->out, n_open(m->rpc));
	writer_u64be(&m->out, 31); /* a PIN that some tool insists on: it is not looked at */
	writer_u64be(&m->out, 0);
	for (int i = 0; i < 4; i++)
		writer_u64be(&m->out, unknown);
	message_write_version(m, 1, 0);
	message_write_version(m, 1, 0);
	message_write_padded(m, "", 16);
	return CKR_OK;
}

static CK_RV get_mechanism_list(struct message *m)
{
	CK_ULONG types[64];
	size_t n = 0;

	if (message_read_ulong(m) != SLOT)
		return CKR_SLOT_ID_INVALID;
	for (size_t i = 0; i < token_n_mechanisms; i++)
		if (token_offers(m->rpc->token, &token_mechanisms[i]))
			types[n++] = token_mechanisms[i].type;
	write_list(m, types, n, reader_u32be(&m->in));
	return CKR_OK;
}

static CK_RV get_mechanism_info(struct message *m)
{
	CK_ULONG slot = message_read_ulong(m);
	const struct token_mechanism *mechanism = token_find_mechanism(m->rpc->token, message_read_ulong(m));

	if (slot != SLOT)
		return CKR_SLOT_ID_INVALID;
	if (!mechanism)
		return CKR_MECHANISM_INVALID;
	writer_u64be(&m->out, mechanism->min_bits);
	writer_u64be(&m->out, mechanism->max_bits);
	writer_u64be(&m->out, mechanism->flags);
	return CKR_OK;
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static CK_RV open_session(struct message *m)
{
	CK_ULONG slot = message_read_ulong(m), flags = message_read_ulong(m);

	if (slot != SLOT)
		return CKR_SLOT_ID_INVALID;
	if (!(flags & CKF_SERIAL_SESSION))
		return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
	for (size_t i = 0; i < TOKEN_RPC_SESSIONS; i++) {
		if (m->rpc->sessions[i].open)
			continue;
		m->rpc->sessions[i].open = true;
		m->rpc->sessions[i].flags = flags; /* for writing, too: ssh insists, and writes nothing */
		writer_u64be(&m->out, i + 1);
		return CKR_OK;
	}
	return CKR_SESSION_COUNT;
}

static CK_RV close_session(struct message *m)
{
	struct token_rpc_session *s = message_read_session(m);

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	session_close(s);
	return CKR_OK;
}

static CK_RV close_all_sessions(struct message *m)
{
	if (message_read_ulong(m) != SLOT)
		return CKR_SLOT_ID_INVALID;
	close_all(m->rpc);
	return CKR_OK;
}

static CK_RV get_session_info(struct message *m)
{
	const struct token_rpc_session *s = message_read_session(m);
	bool rw;

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	rw = s->flags & CKF_RW_SESSION;
	writer_u64be(&m->out, SLOT);
	writer_u64be(&m->out, m->rpc->logged_in ? (rw ? CKS_RW_USER_FUNCTIONS : CKS_RO_USER_FUNCTIONS) : rw ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION);
	writer_u64be(&m->out, s->flags);
	writer_u64be(&m->out, 0);
	return CKR_OK;
}

/* Whatever PIN comes, or none: the socket is the job's own. Some clients log in again and again. */
static CK_RV login(struct message *m)
{
	const struct token_rpc_session *s = message_read_session(m);
	size_t n;

	message_read_ulong(m);
	message_read_array(m, &n);
	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	m->rpc->logged_in = true;
	return CKR_OK;
}

static CK_RV logout(struct message *m)
{
	if (!message_read_session(m))
		return CKR_SESSION_HANDLE_INVALID;
	m->rpc->logged_in = false;
	return CKR_OK;
}

/* ---- objects ---------------------------------------------------------------------------------------------------- */

/* Such an attribute is there and stays there. */
static bool is_secret(const struct token_object *o, CK_ATTRIBUTE_TYPE type)
{
	return o->key && (type == CKA_VALUE || type == CKA_PRIVATE_EXPONENT || (type >= CKA_PRIME_1 && type <= CKA_COEFFICIENT));
}

static void write_value(struct message *m, const struct token_attribute *a, bool size_only)
{
	writer_u32be(&m->out, (uint32_t)a->len);
	if (a->kind == TOKEN_BYTE)
		writer_u8(&m->out, (uint8_t)a->number);
	else if (a->kind == TOKEN_ULONG)
		writer_u64be(&m->out, a->number);
	else if (size_only)
		writer_u32be(&m->out, MESSAGE_NULL);
	else
		message_write_bytes(m, a->bytes, a->len);
}

static CK_RV get_attribute_value(struct message *m)
{
	const struct token_rpc_session *s = message_read_session(m);
	const struct token_object *o = message_read_object(m);
	uint32_t n = reader_u32be(&m->in);
	CK_RV rv = CKR_OK;

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	if (!o)
		return CKR_OBJECT_HANDLE_INVALID;
	if (n > ATTRIBUTES_MAX)
		return CKR_ARGUMENTS_BAD;
	writer_u32be(&m->out, n);
	for (uint32_t i = 0; i < n && !m->in.failed; i++) {
		CK_ATTRIBUTE_TYPE type = reader_u32be(&m->in);
		uint32_t room = reader_u32be(&m->in);
		const struct token_attribute *a = token_attribute(o, type);

		if (value_kind(type) < 0 && room)
			return CKR_ATTRIBUTE_TYPE_INVALID; /* what follows is nested */
		writer_u32be(&m->out, (uint32_t)type);
		writer_u8(&m->out, a && !(room && room < a->len));
		if (!a)
			rv = is_secret(o, type) ? CKR_ATTRIBUTE_SENSITIVE : CKR_ATTRIBUTE_TYPE_INVALID;
		else if (room && room < a->len)
			rv = CKR_BUFFER_TOO_SMALL;
		else
			write_value(m, a, room == 0);
	}
	writer_u64be(&m->out, rv);
	return CKR_OK;
}

/* One attribute of a template; the objects that do not have it are struck out. */
static CK_RV match_next(struct message *m, bool *keep)
{
	const struct token *t = m->rpc->token;
	CK_ATTRIBUTE_TYPE type = reader_u32be(&m->in);
	bool valid = reader_u8(&m->in);
	int kind = value_kind(type);
	const uint8_t *p = NULL;
	uint64_t number = 0;
	size_t n = 0;

	if (!valid || kind < 0)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	reader_u32be(&m->in); /* the length as the client's machine has it */
	if (kind == TOKEN_BYTE)
		number = reader_u8(&m->in);
	else if (kind == TOKEN_ULONG)
		number = reader_u64be(&m->in);
	else
		p = message_read_bytes(m, &n);
	for (size_t i = 0; i < t->n_objects && !m->in.failed; i++) {
		const struct token_attribute *a = token_attribute(&t->objects[i], type);

		keep[i] = keep[i] && a && (kind == TOKEN_BYTES ? a->len == n && (n == 0 || memcmp(a->bytes, p, n) == 0) : a->number == number);
	}
	return CKR_OK;
}

static CK_RV find_objects_init(struct message *m)
{
	struct token_rpc_session *s = message_read_session(m);
	size_t total = m->rpc->token->n_objects;
	uint32_t n = reader_u32be(&m->in);
	bool *keep;
	CK_RV rv = CKR_OK;

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	if (s->finding)
		return CKR_OPERATION_ACTIVE;
	if (n > ATTRIBUTES_MAX)
		return CKR_ARGUMENTS_BAD;
	keep = malloc(total + 1);
	free(s->found);
	s->found = calloc(total + 1, sizeof(*s->found));
	s->n_found = s->next_found = 0;
	if (!keep || !s->found) {
		free(keep);
		return CKR_HOST_MEMORY;
	}
	memset(keep, true, total + 1);
	for (uint32_t i = 0; rv == CKR_OK && i < n && !m->in.failed; i++)
		rv = match_next(m, keep);
	for (size_t i = 0; rv == CKR_OK && i < total; i++)
		if (keep[i])
			s->found[s->n_found++] = i;
	free(keep);
	s->finding = rv == CKR_OK;
	return rv;
}

static CK_RV find_objects(struct message *m)
{
	struct token_rpc_session *s = message_read_session(m);
	uint32_t room = reader_u32be(&m->in);
	size_t n;

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	if (!s->finding)
		return CKR_OPERATION_NOT_INITIALIZED;
	n = s->n_found - s->next_found;
	n = n < room ? n : room;
	n = n < 1024 ? n : 1024;
	writer_u8(&m->out, 1);
	writer_u32be(&m->out, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		writer_u64be(&m->out, s->found[s->next_found++] + 1);
	return CKR_OK;
}

static CK_RV find_objects_final(struct message *m)
{
	struct token_rpc_session *s = message_read_session(m);

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	if (!s->finding)
		return CKR_OPERATION_NOT_INITIALIZED;
	s->finding = false;
	return CKR_OK;
}

static CK_RV generate_random(struct message *m)
{
	const struct token_rpc_session *s = message_read_session(m);
	uint32_t n = reader_u32be(&m->in);
	uint8_t random[RANDOM_MAX];

	if (!s)
		return CKR_SESSION_HANDLE_INVALID;
	if (n > sizeof(random))
		return CKR_ARGUMENTS_BAD;
	randombytes_buf(random, n);
	message_write_array(m, random, n);
	return CKR_OK;
}

/* ---- the calls -------------------------------------------------------------------------------------------------- */

static const struct {
	const char *request, *response; /* p11-kit's signatures of them */
	handler *handle;
} calls[CALL_MAX] = {
	[CALL_INITIALIZE] = {"ayyay", "", initialize},
	[CALL_FINALIZE] = {"", "", finalize},
	[CALL_GET_INFO] = {"", "vsusv", get_info},
	[CALL_GET_SLOT_LIST] = {"yfu", "au", get_slot_list},
	[CALL_GET_SLOT_INFO] = {"u", "ssuvv", get_slot_info},
	[CALL_GET_TOKEN_INFO] = {"u", "ssssuuuuuuuuuuuvvs", get_token_info},
	[CALL_GET_MECHANISM_LIST] = {"ufu", "au", get_mechanism_list},
	[CALL_GET_MECHANISM_INFO] = {"uu", "uuu", get_mechanism_info},
	[CALL_OPEN_SESSION] = {"uu", "u", open_session},
	[CALL_CLOSE_SESSION] = {"u", "", close_session},
	[CALL_CLOSE_ALL_SESSIONS] = {"u", "", close_all_sessions},
	[CALL_GET_SESSION_INFO] = {"u", "uuuu", get_session_info},
	[CALL_LOGIN] = {"uuay", "", login},
	[CALL_LOGOUT] = {"u", "", logout},
	[CALL_GET_ATTRIBUTE_VALUE] = {"uufA", "aAu", get_attribute_value},
	[CALL_FIND_OBJECTS_INIT] = {"uaA", "", find_objects_init},
	[CALL_FIND_OBJECTS] = {"ufu", "au", find_objects},
	[CALL_FIND_OBJECTS_FINAL] = {"u", "", find_objects_final},
	[CALL_DECRYPT_INIT] = {"uMu", "", token_decrypt_init},
	[CALL_DECRYPT] = {"uayfy", "ay", token_decrypt},
	[CALL_DIGEST_INIT] = {"uM", "", token_digest_init},
	[CALL_DIGEST] = {"uayfy", "ay", token_digest},
	[CALL_DIGEST_UPDATE] = {"uay", "", token_digest_update},
	[CALL_DIGEST_FINAL] = {"ufy", "ay", token_digest_final},
	[CALL_SIGN_INIT] = {"uMu", "", token_sign_init},
	[CALL_SIGN] = {"uayfy", "ay", token_sign},
	[CALL_SIGN_UPDATE] = {"uay", "", token_sign_update},
	[CALL_SIGN_FINAL] = {"ufy", "ay", token_sign_final},
	[CALL_GENERATE_RANDOM] = {"ufy", "ay", generate_random},
};

/* 1: a well-formed message was answered with values; 0: with an error; below 0: it is no message. */
static int answer_call(struct message *m, uint32_t call, CK_RV *ret_rv)
{
	if (call >= CALL_MAX || !calls[call].handle) {
		*ret_rv = CKR_FUNCTION_NOT_SUPPORTED;
		return 0;
	}
	if (!m->rpc->initialized && call != CALL_INITIALIZE) {
		*ret_rv = CKR_CRYPTOKI_NOT_INITIALIZED;
		return 0;
	}
	writer_u32be(&m->out, call);
	message_write_bytes(m, calls[call].response, strlen(calls[call].response));
	*ret_rv = calls[call].handle(m);
	if (*ret_rv != CKR_OK)
		return 0;
	return reader_done(&m->in) ? 1 : -ERR_INPUT;
}

int token_rpc_answer(struct token_rpc *c, const uint8_t *message, size_t len, uint8_t *reply, size_t *ret_len)
{
	struct message m = {.rpc = c, .in = reader_init(message, len), .out = writer_init(reply + TOKEN_RPC_HEADER, TOKEN_RPC_MESSAGE - TOKEN_RPC_HEADER)};
	struct writer head = writer_init(reply, TOKEN_RPC_HEADER);
	uint32_t code = reader_u32be(&m.in), options = reader_u32be(&m.in), body = reader_u32be(&m.in), call;
	const uint8_t *signature;
	CK_RV rv = CKR_OK;
	size_t n;
	int r;

	reader_bytes(&m.in, options);
	if (m.in.failed || body != m.in.len - m.in.pos)
		return -ERR_INPUT;
	call = reader_u32be(&m.in);
	signature = message_read_bytes(&m, &n);
	if (m.in.failed || !signature || call == CALL_ERROR)
		return -ERR_INPUT;
	if (call < CALL_MAX && calls[call].handle && (n != strlen(calls[call].request) || memcmp(signature, calls[call].request, n) != 0))
		return -ERR_INPUT;
	r = answer_call(&m, call, &rv);
	if (r < 0 || (r == 1 && m.in.failed))
		return -ERR_INPUT;
	if (r == 0 || m.out.failed) {
		m.out.len = 0;
		m.out.failed = false;
		writer_u32be(&m.out, CALL_ERROR);
		message_write_bytes(&m, "u", 1);
		writer_u64be(&m.out, rv != CKR_OK ? rv : CKR_DEVICE_MEMORY);
	}
	writer_u32be(&head, code);
	writer_u32be(&head, 0);
	writer_u32be(&head, (uint32_t)m.out.len);
	*ret_len = TOKEN_RPC_HEADER + m.out.len;
	return 0;
}

int token_rpc_length(const uint8_t header[TOKEN_RPC_HEADER], size_t *ret, struct err *err)
{
	struct reader r = reader_init(header, TOKEN_RPC_HEADER);
	uint32_t code = reader_u32be(&r);
	uint64_t len = reader_u32be(&r);

	len += reader_u32be(&r);
	if (code == 0)
		return err_set(err, ERR_INPUT, "what speaks there is no p11-kit client");
	if (len > TOKEN_RPC_MESSAGE - TOKEN_RPC_HEADER)
		return err_set(err, ERR_LIMIT, "a message of more than %u bytes", TOKEN_RPC_MESSAGE);
	*ret = (size_t)len;
	return 0;
}

uint8_t token_rpc_hello(struct token_rpc *c, uint8_t offered_version)
{
	c->version = offered_version;
	return offered_version < 2 ? offered_version : 2;
}

int token_rpc_init(struct token_rpc *c, const struct token *token, struct err *err)
{
	*c = (struct token_rpc){.token = token, .version = -1, .sessions = calloc(TOKEN_RPC_SESSIONS, sizeof(*c->sessions))};
	return c->sessions ? 0 : err_set(err, ERR_FAILED, "out of memory");
}

void token_rpc_done(struct token_rpc *c)
{
	if (c->sessions)
		close_all(c);
	free(c->sessions);
	*c = (struct token_rpc){0};
}
