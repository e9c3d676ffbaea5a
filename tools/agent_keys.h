#pragma once
/* The keys that a token may use, and their use, through the broker: what stands behind the agent's sockets. */
#include "pkcs11/token.h"
#include "tools/client.h"

struct agent_keys {
	struct client client;
	struct token_key *keys;
	size_t n;
};

/* Asks what the token (lent) may use. */
int agent_keys_load(struct agent_keys *a, const struct secret *token, struct err *err);
void agent_keys_done(struct agent_keys *a);
/* A token_backend; ctx is a struct agent_keys. The broker checks the token at each. */
int agent_keys_sign(void *ctx, const struct token_key *key, enum sign_scheme scheme, enum hash_type hash, size_t salt_len, const uint8_t *data,
		    size_t len, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len, struct err *err);
