#pragma once
/* One PKCS#11 module, one token, one logged-in session that is reused and opened again when it is lost. */
#include "common/limits.h"
#include "common/secret.h"

#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>
#include <stdbool.h>

struct err;

struct module {
	CK_FUNCTION_LIST *f;
	P11KitUri *uri;		 /* names the token; module-path or module-name, pin-source */
	CK_SLOT_ID slot;
	CK_SESSION_HANDLE session; /* CK_INVALID_HANDLE (0): none */
	CK_TOKEN_INFO token;
	bool have_token, logged_in;
	bool pin_refused;	 /* latched: only an operator's PIN clears it */
	struct secret pin;	 /* kept to log in again after the token was away */
	char failed_pin[128];	 /* hash of the last refused PIN */
};

/* RFC 7512 URI with module-path= (absolute) or module-name= (a p11-kit configuration), and optionally pin-source=
 * file:/path | credential:NAME. pin-value is refused: it would stand in a configuration file. */
int module_open(const char *uri, struct module *m, struct err *err);
void module_done(struct module *m);

/* Makes sure that there is a logged-in session. ERR_ABSENT: no token. ERR_PIN: an operator must act. */
int module_session(struct module *m, struct err *err);
/* Forgets the session, after the token said it is gone. */
void module_drop(struct module *m);
/* One login attempt; pin NULL: from pin-source. On ERR_PIN m->failed_pin holds the PIN's hash. */
int module_login(struct module *m, const struct secret *pin, bool by_operator, struct err *err);
/* Re-reads slot and token information; ERR_ABSENT when there is no such token. */
int module_find_token(struct module *m, struct err *err);
