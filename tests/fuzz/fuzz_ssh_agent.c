/* The ssh-agent protocol: messages on one connection, each two bytes of length and that many bytes. */
#include "fuzz.h"

#include "common/err.h"
#include "tools/ssh_agent.h"

#include <stdlib.h>
#include <string.h>

static int backend(void *ctx, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data, size_t len,
		   uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err)
{
	const struct ssh_agent *a = ctx;

	(void)hash;
	(void)salt_len;
	(void)data;
	(void)err;
	CHECK(!a->forwarded && scheme == SIGN_ED25519 && len <= SSH_AGENT_MESSAGE);
	*ret_len = key_row(key->type)->signature_len;
	memset(ret, 0x55, *ret_len);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t public[32] = {1, 2, 3};
	size_t used = fuzz_begin(), len;
	struct token_key key = {.name = "a/ed", .version = 1, .type = KEY_ED25519, .sign = true};
	struct ssh_agent agent = {.keys = &key, .n_keys = 1, .sign = backend};
	uint8_t *reply = malloc(SSH_AGENT_MESSAGE), *message;
	struct err why = {0};

	CHECK(reply && spki_from_ed25519(public, key.spki, &key.spki_len, NULL) == 0);
	agent.ctx = &agent;
	for (; size >= 2; data += 2 + len, size -= 2 + len) {
		size_t n;

		len = (size_t)(data[0] << 8 | data[1]);
		len = len < size - 2 ? len : size - 2;
		message = malloc(len + 1);
		CHECK(message);
		memcpy(message, data + 2, len);
		n = ssh_agent_answer(&agent, message, len, reply, &why);
		CHECK(n >= 5 && n <= SSH_AGENT_MESSAGE && n == 4 + ((size_t)reply[0] << 24 | (size_t)reply[1] << 16 | (size_t)reply[2] << 8 | reply[3]));
		free(message);
	}
	free(reply);
	fuzz_end(used);
	return 0;
}
