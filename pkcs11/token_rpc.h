#pragma once
/*
 * p11-kit's RPC protocol, the server's side, for the virtual token: what the distributions' p11-kit-client.so speaks, of 0.24 and of
 * 0.26, whose mechanisms look different on the wire. A message is at most 64 KiB, nothing recurses, nothing is allocated by what it
 * says; a call that is not known is answered so, without a look at its arguments.
 */
#include "pkcs11/token.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_RPC_MESSAGE 65536u
#define TOKEN_RPC_HEADER 12u
#define TOKEN_RPC_SESSIONS 32u
#define TOKEN_RPC_INPUT 4096u /* of one signature that is not hashed by us */

enum token_rpc_operation { TOKEN_RPC_IDLE, TOKEN_RPC_SIGN, TOKEN_RPC_DECRYPT, TOKEN_RPC_DIGEST };

struct token_rpc_session {
	bool open;
	CK_FLAGS flags;
	bool finding;
	size_t *found; /* indices of objects */
	size_t n_found, next_found;
	enum token_rpc_operation operation;
	const struct token_mechanism *mechanism;
	const struct token_object *object;
	enum hash_type hash; /* of PSS and OAEP, by the parameters */
	size_t salt_len;
	EVP_MD_CTX *digest; /* NULL: what is given is kept */
	uint8_t input[TOKEN_RPC_INPUT];
	size_t input_len;
};

struct token_rpc {
	const struct token *token;
	int version;	  /* what the client offered; -1: it has not spoken yet */
	bool initialized; /* C_Initialize came */
	bool logged_in;
	struct token_rpc_session *sessions; /* TOKEN_RPC_SESSIONS of them; handle n is sessions[n - 1] */
};

int token_rpc_init(struct token_rpc *c, const struct token *token, struct err *err);
void token_rpc_done(struct token_rpc *c);

/* The first byte of a connection: the version that the client offers. Returns the byte to answer. */
uint8_t token_rpc_hello(struct token_rpc *c, uint8_t offered);
/* Of a message's header: how many bytes follow it. ERR_LIMIT, ERR_INPUT: the connection is to be closed. */
int token_rpc_length(const uint8_t header[TOKEN_RPC_HEADER], size_t *ret, struct err *err);
/* Answers one message, header included; reply has room for TOKEN_RPC_MESSAGE bytes. Below 0: the connection is to be closed. */
int token_rpc_answer(struct token_rpc *c, const uint8_t *message, size_t len, uint8_t *reply, size_t *ret_len);
