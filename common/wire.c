#include "common/wire.h"

#include "common/err.h"

#include <stddef.h>
#include <string.h>

static bool terminated(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

size_t wire_request_len(const struct wire_request *q)
{
	return offsetof(struct wire_request, data) + q->data_len;
}

size_t wire_reply_len(const struct wire_reply *a)
{
	return offsetof(struct wire_reply, data) + a->data_len;
}

bool wire_request_valid(const struct wire_request *q, size_t len)
{
	return len >= offsetof(struct wire_request, data) && len == wire_request_len(q) && q->magic == WIRE_MAGIC && q->op < WIRE_N &&
	       terminated(q->text, sizeof(q->text)) && terminated(q->text2, sizeof(q->text2)) && q->data_len <= sizeof(q->data) && q->type < KEY_TYPES && q->hash < HASH_TYPES;
}

bool wire_reply_valid(const struct wire_reply *a, size_t len, uint32_t id)
{
	return len >= offsetof(struct wire_reply, data) && len == wire_reply_len(a) && a->magic == WIRE_MAGIC && a->id == id && a->op < WIRE_N &&
	       a->result <= 0 && a->result > -ERR_N && terminated(a->message, sizeof(a->message)) &&
	       terminated(a->key.ref, sizeof(a->key.ref)) && terminated(a->key.label, sizeof(a->key.label)) &&
	       a->key.type < KEY_TYPES && a->key.spki_len <= sizeof(a->key.spki) &&
	       terminated(a->status.description, sizeof(a->status.description)) &&
	       terminated(a->status.problem, sizeof(a->status.problem)) &&
	       terminated(a->status.srk_name, sizeof(a->status.srk_name)) && a->data_len <= sizeof(a->data);
}
