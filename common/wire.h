#pragma once
/*
 * Frames between cotterd (or cotter) and cotter-keyd: one struct a SOCK_SEQPACKET packet, of its data what there is of it, in the machine's
 * own layout, since both ends come from one build.
 */
#include "common/provider.h"

#define WIRE_MAGIC 0x436b6433u /* changes with the layout */

enum wire_op {
	WIRE_OPEN,   /* text: URI, text2: SRK name, data: hash of a refused PIN, number: requests that may be answered beside each other */
	WIRE_LOGIN,  /* data: the PIN, or empty: the configured one; number: 1 when an operator asks */
	WIRE_STATUS,
	WIRE_LIST,   /* number: index */
	WIRE_MAKE,   /* number: use, type: of the key, text: label, text2: PCRs; answers key, data: PEM */
	WIRE_FIND,   /* text: reference */
	WIRE_AGREE,  /* text: reference, data: peer point; answers data: 32 bytes */
	WIRE_SIGN,   /* text: reference, type: of the key, number: enum sign_scheme, hash, salt_len, data; answers data */
	WIRE_RANDOM, /* number: bytes */
	WIRE_N
};

struct wire_request {
	uint32_t magic, id, op, number;
	uint32_t type, hash, salt_len;
	char text[LIMIT_URI_LEN];
	char text2[96];
	uint32_t data_len;
	uint8_t data[LIMIT_WIRE_DATA]; /* last: see wire_*_len */
};

struct wire_reply {
	uint32_t magic, id, op, number;
	int32_t result; /* 0 or -ERR_* */
	char message[256];
	struct provider_key key;
	struct provider_status status;
	uint32_t data_len;
	uint8_t data[LIMIT_WIRE_DATA]; /* last: see wire_*_len */
};

/* Bytes of a packet, whose data_len was set here or is valid. */
size_t wire_request_len(const struct wire_request *q);
size_t wire_reply_len(const struct wire_reply *a);

/* Size, magic, terminated strings, lengths: the first thing done with a packet. */
bool wire_request_valid(const struct wire_request *q, size_t len);
bool wire_reply_valid(const struct wire_reply *a, size_t len, uint32_t id);
