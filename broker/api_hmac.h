#pragma once
/* transit/verify of an HMAC instead of a signature. */
#include "broker/api.h"

/* The body names an hmac. */
bool hmac_is_verified(const struct request *q);
void hmac_verify(struct call *call, const struct request *q);
