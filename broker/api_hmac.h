#pragma once
/* transit/hmac, and its half of transit/verify. */
#include "broker/api.h"

/* Whether what is to be verified are HMACs. */
bool hmac_is_verified(const json_t *body);
/* Ends the call. */
void hmac_verify(struct call *call, const json_t *body);
