#pragma once
/* What the handlers of auth/token share. */
#include "broker/api.h"

/* Vault's answer with an auth object. text: the token, NULL: it is not told. data: JSON text for "data", or NULL; warning: or NULL. ERR_BUSY. */
int token_answer(const struct token_row *row, const struct secret *text, const struct secret *data, const char *warning, struct secret *ret,
		 struct err *err);

/* How a request says which token it means. */
enum token_by { TOKEN_BY_SELF, TOKEN_BY_TEXT, TOKEN_BY_ACCESSOR };
/*
 * The token that a request is about. A holder reaches its own, what was made with it, and a token that it has in hand, if that one would
 * be good where it stands; an operator any. change: it is to be renewed or ended: narrowed tokens do neither. ERR_INPUT, ERR_DENIED.
 */
int token_named(struct call *call, const json_t *body, enum token_by by, bool change, struct token_row **ret, struct err *err);
