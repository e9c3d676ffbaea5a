#pragma once
/* A call of p11-kit's RPC while it is answered: the values of its messages, read and written. For token_rpc.c and token_operation.c. */
#include "common/buf.h"
#include "pkcs11/token_rpc.h"

#define MESSAGE_NULL UINT32_MAX /* length of a byte array: it is NULL */

struct message {
	struct token_rpc *rpc;
	struct reader in;
	struct writer out;
};

CK_ULONG message_read_ulong(struct message *m);
/* A byte array; NULL is an array of none. The pointer is into the message. */
const uint8_t *message_read_bytes(struct message *m, size_t *ret_len);
/* "ay", which may come without data. */
const uint8_t *message_read_array(struct message *m, size_t *ret_len);
/* NULL: there is none of that handle. */
struct token_rpc_session *message_read_session(struct message *m);
const struct token_object *message_read_object(struct message *m);

void message_write_bytes(struct message *m, const void *p, size_t n);
/* "ay": data, or with p NULL the length alone: it did not fit, or was only asked for. */
void message_write_array(struct message *m, const void *p, size_t n);
/* A string of that size, at most 64, padded with spaces. */
void message_write_padded(struct message *m, const char *text, size_t size);
void message_write_version(struct message *m, uint8_t major, uint8_t minor);
