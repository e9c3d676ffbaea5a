#pragma once
/* How a token's text comes from its row: for token.c and token_check.c alone. */
#include "broker/token.h"

/* What this epoch's macaroons begin with: rows of another one there are none. */
const uint8_t *token_root(const struct tokens *t);
/* The identifier in a row's macaroon. */
void token_macaroon_id(const struct token_row *row, uint8_t ret[MACAROON_ID_LEN]);
