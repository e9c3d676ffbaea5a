#pragma once
/* Between wrapping and logging in. */
#include "broker/api.h"

/* A wrapping token becomes the token that it stands for, in the job of whoever shows it; ends the call. */
void auth_unwrap(struct call *call, const json_t *body, struct token_row *row);
