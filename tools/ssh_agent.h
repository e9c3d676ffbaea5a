#pragma once
/*
 * The ssh-agent protocol (draft-miller-ssh-agent), what a job needs of it: list, sign, session-bind@openssh.com. Nothing is added,
 * removed, locked or loaded. A connection that was forwarded to another host signs nothing: the keys are this job's.
 */
#include "pkcs11/token.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SSH_AGENT_MESSAGE 65536u
#define SSH_AGENT_BINDS 16u

struct ssh_agent {
	struct token_key *keys; /* lent */
	size_t n_keys;
	token_backend *sign;
	void *ctx;
	/* of this connection */
	bool forwarded;
	struct {
		uint8_t id[64];
		size_t len;
	} binds[SSH_AGENT_BINDS];
	size_t n_binds;
};

/* Answers one message (without its length) into reply, which has room for SSH_AGENT_MESSAGE bytes, its length in front. why: words for
 * a log where signing failed, or "". */
size_t ssh_agent_answer(struct ssh_agent *a, const uint8_t *message, size_t len, uint8_t *reply, struct err *why);
