#pragma once
/* Caveats: each only narrows, all must hold, each is weighed against facts. Unknown or malformed: denied. One row each. */
#include "broker/token.h"

struct caveat_context {
	const struct token_facts *facts;
	struct store *store;
	const struct token_row *row;
	const uint8_t *sig;	 /* of the token at this caveat */
	bool count;		 /* uses: take one */
};

/* 0, or ERR_DENIED with a text for the audit log. */
int caveat_check(const struct macaroon_caveat *caveat, const struct caveat_context *c, struct err *err);

/* For people: writes a sentence about the caveat; false when it is unknown or malformed. */
bool caveat_explain(const char *text, size_t len, char *ret, size_t size);
