#pragma once
/*
 * The revocation list of pki (RFC 5280, section 5): signed when it is asked for, at most every half day and after each revocation, once
 * for everybody who waits for it. No token is needed to ask, so asking costs little: what failed is not tried again for a while.
 */
#include "broker/conn.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct call;
struct crl_build;
struct err;

#define CRL_MARK_LEN 32u

struct crl {
	struct shared_body *der, *pem; /* the last that was signed; NULL: none */
	uint8_t mark[CRL_MARK_LEN];    /* of the key and certificate that signed it */
	uint64_t signed_s;	       /* since 1970: a clock that was set back makes it one of the future */
	uint64_t until_ms;	       /* since boot: when the next is due */
	struct crl_build *build;       /* in the hardware; NULL: none */
	struct call *waiting;
	uint64_t retry_ms; /* not before, after a failure */
	int code;	   /* of that */
	char problem[256];
};

/* Answers the call, now or when the list is signed. */
void crl_reply(struct call *call, bool pem);
/* The call is gone. */
void crl_cancel(struct broker *b, const struct call *call);
/* Whether one more certificate finds room in a list of that CA. ERR_LIMIT. */
int crl_room(struct broker *b, struct err *err);
/* Something was revoked, or the CA's key is another: what was signed before is not served any more, nor what is being signed. */
void crl_forget(struct broker *b);
void crl_done(struct broker *b);
