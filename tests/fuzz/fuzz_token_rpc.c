/* p11-kit's RPC: a conversation. Each message is two bytes of length and that many bytes; the first byte of all is the version. */
#include "fuzz.h"

#include "pkcs11/token_rpc.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t spki_p256[] = {
	0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03,
	0x42, 0x00, 0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d,
	0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c,
	0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5};

/* What reaches the backend was checked: that is what this target is for. */
static int backend(void *ctx, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data, size_t len,
		   uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err)
{
	(void)ctx;
	CHECK(sign_check(key->type, scheme, hash, salt_len, len, err) == 0 && data);
	*ret_len = key_row(key->type)->signature_len;
	memset(ret, 0x55, *ret_len);
	return 0;
}

static size_t converse(struct token_rpc *c, const uint8_t *data, size_t size, uint8_t *reply)
{
	uint8_t *message;
	size_t len, n = 0;
	int r;

	if (size < 2)
		return 0;
	len = (size_t)(data[0] << 8 | data[1]);
	len = len < size - 2 ? len : size - 2;
	message = malloc(len + 1); /* of just that size, so that reading past it is seen */
	CHECK(message);
	memcpy(message, data + 2, len);
	r = token_rpc_answer(c, message, len, reply, &n);
	free(message);
	CHECK(r < 0 || (n >= TOKEN_RPC_HEADER + 4 && n <= TOKEN_RPC_MESSAGE));
	return r < 0 ? 0 : len + 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin(), n;
	/* made once: it does not change */
	static struct token_key keys[2] = {{.name = "a/ec", .version = 1, .type = KEY_P256, .sign = true}, {.name = "a/again", .version = 1, .type = KEY_P256}};
	static uint8_t reply[TOKEN_RPC_MESSAGE];
	static struct token token;
	struct token_rpc rpc;

	if (size == 0)
		return 0;
	for (size_t i = 0; i < 2 && !token.keys; i++) {
		memcpy(keys[i].spki, spki_p256, sizeof(spki_p256));
		keys[i].spki_len = sizeof(spki_p256);
	}
	if (!token.keys)
		CHECK(token_init(&token, keys, 2, backend, NULL, NULL) == 0);
	CHECK(token_rpc_init(&rpc, &token, NULL) == 0);
	CHECK(token_rpc_hello(&rpc, data[0]) <= 2);
	for (size_t pos = 1; pos < size; pos += n)
		if ((n = converse(&rpc, data + pos, size - pos, reply)) == 0)
			break;
	token_rpc_done(&rpc);
	fuzz_end(used);
	return 0;
}
