#include "pkcs11/token_message.h"

#include <string.h>

CK_ULONG message_read_ulong(struct message *m)
{
	return (CK_ULONG)reader_u64be(&m->in);
}

const uint8_t *message_read_bytes(struct message *m, size_t *ret_len)
{
	uint32_t n = reader_u32be(&m->in);

	*ret_len = n == MESSAGE_NULL ? 0 : n;
	return n == MESSAGE_NULL ? NULL : reader_bytes(&m->in, n);
}

const uint8_t *message_read_array(struct message *m, size_t *ret_len)
{
	if (reader_u8(&m->in) != 0)
		return message_read_bytes(m, ret_len);
	/* no data, but a length, which is of no use to anybody */
	reader_u32be(&m->in);
	*ret_len = 0;
	return NULL;
}

void message_write_bytes(struct message *m, const void *p, size_t n)
{
	writer_u32be(&m->out, (uint32_t)n);
	writer_bytes(&m->out, p, n);
}

void message_write_array(struct message *m, const void *p, size_t n)
{
	writer_u8(&m->out, p != NULL);
	if (p)
		message_write_bytes(m, p, n);
	else
		writer_u32be(&m->out, (uint32_t)n);
}

void message_write_padded(struct message *m, const char *text, size_t size)
{
	char padded[64];

	memset(padded, ' ', sizeof(padded));
	memcpy(padded, text, strlen(text) < size ? strlen(text) : size);
	message_write_bytes(m, padded, size);
}

void message_write_version(struct message *m, uint8_t major, uint8_t minor)
{
	writer_u8(&m->out, major);
	writer_u8(&m->out, minor);
}

struct token_rpc_session *message_read_session(struct message *m)
{
	CK_ULONG handle = message_read_ulong(m);

	return handle >= 1 && handle <= TOKEN_RPC_SESSIONS && m->rpc->sessions[handle - 1].open ? &m->rpc->sessions[handle - 1] : NULL;
}

const struct token_object *message_read_object(struct message *m)
{
	CK_ULONG handle = message_read_ulong(m);

	return handle >= 1 && handle <= m->rpc->token->n_objects ? &m->rpc->token->objects[handle - 1] : NULL;
}
