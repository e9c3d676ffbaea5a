#pragma once
/*
 * Tokens that were verified lately, so that a token's chain of HMACs is computed once and not at each of its requests: it is
 * known again by its whole text. That says it is genuine and no more: row, peer, caveats and policies are weighed each time.
 */
#include "common/macaroon.h"

struct err;

#define TOKEN_SEEN 64u

struct token_seen_entry;

struct token_seen {
	struct token_seen_entry *entries; /* in the arena, one block; NULL: there was no room, and none is remembered */
	uint8_t key[16];			      /* random: nobody chooses whose place a token takes */
};

void token_seen_init(struct token_seen *s);
void token_seen_done(struct token_seen *s);
/* As macaroon_parse; (*ret)->verified when it was seen. */
int token_seen_parse(const struct token_seen *s, const char *text, size_t len, struct macaroon **ret, struct err *err);
/* m is what text was parsed to, and verified. Forgets another one for it. */
void token_seen_put(struct token_seen *s, const char *text, size_t len, const struct macaroon *m);
