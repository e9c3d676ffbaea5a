#pragma once
/* How a token's text comes from its row: for token.c and token_check.c alone. */
#include "broker/token.h"

/* The key that an epoch's macaroons are made with; the caller wipes it. */
void token_epoch_key(const struct tokens *t, uint32_t epoch, uint8_t ret[32]);
/* The identifier in a row's macaroon. */
void token_macaroon_id(const struct token_row *row, uint8_t ret[MACAROON_ID_LEN]);
