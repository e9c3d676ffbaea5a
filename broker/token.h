#pragma once
/* Capability tokens: rows that say which live, caveats weighed against facts. No row, no access. */
#include "common/limits.h"
#include "common/macaroon.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct err;
struct store;

#define TOKEN_ANY_UID UINT32_MAX

/* What the holder can neither see nor change. */
struct token_row {
	uint8_t id[16];
	uint32_t epoch, uid;	 /* TOKEN_ANY_UID: no uid bound */
	char boot_id[37];
	char policies[LIMIT_TOKEN_POLICY_TEXT]; /* names joined by commas */
	uint64_t created_ms;	 /* wall clock */
	uint64_t deadline_ms;	 /* boot-time clock: a clock set back does not revive it */
	int64_t uses_left;	 /* -1: not limited */
	uint32_t n_children;	 /* made with it since the broker started */
	struct token_row *next;	 /* in its bucket */
};

#define TOKEN_BUCKETS 4096u

struct tokens {
	struct token_row *buckets[TOKEN_BUCKETS];
	size_t n;
	struct secret key; /* derives every epoch's root key; empty: sealed */
	char boot_id[37];
	uint32_t epoch;
};

/* What a request is, by the kernel's word and its own path. */
struct token_facts {
	uint32_t uid, gid;
	uint32_t op;	   /* one enum policy_op_bit; 0: only to be known (lookup-self) */
	const char *path;  /* NULL with op 0 */
	uint64_t wall_ms, boot_ms;
};

void tokens_done(struct tokens *t);
/* Reads the rows of this boot from the store. */
int tokens_load(struct tokens *t, struct store *store, const uint8_t key[32], struct err *err);

struct token_request {
	const char *policies;
	uint32_t uid;
	uint64_t ttl_ms;
	int64_t uses;
	struct token_row *parent; /* NULL: an operator asks */
};
/* Makes a row and its token text (in the arena). */
int token_make(struct tokens *t, struct store *store, const struct token_request *q, struct secret *ret_text,
	       struct token_row **ret_row, struct err *err);
/* Rows past their deadline go, in the store too. */
void tokens_expire(struct tokens *t, struct store *store, uint64_t boot_ms);

/*
 * The whole check of a presented token, in the order of doc/threat-model.md: row, HMAC chain, row against peer, caveats,
 * policy. ERR_DENIED; the text is for the audit log only. Nothing is counted yet.
 */
int token_check(struct tokens *t, struct store *store, const struct config *config, struct macaroon *m,
		const struct token_facts *facts, struct token_row **ret_row, struct err *err);
/* Row, peer, caveats and policy again for a token that token_check verified, and count one use: on disk before the answer leaves. ERR_DENIED when none is left. */
int token_use(struct tokens *t, struct store *store, const struct config *config, const struct macaroon *m,
	      const struct token_facts *facts, struct err *err);

uint64_t token_boot_ms(void);
uint64_t token_wall_ms(void);
