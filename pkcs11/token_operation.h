#pragma once
/* Signing, decrypting and digesting in a session of the virtual token: the handlers of those calls. */
#include "pkcs11/token_message.h"

CK_RV token_sign_init(struct message *m);
CK_RV token_sign(struct message *m);
CK_RV token_sign_update(struct message *m);
CK_RV token_sign_final(struct message *m);
CK_RV token_decrypt_init(struct message *m);
CK_RV token_decrypt(struct message *m);
CK_RV token_digest_init(struct message *m);
CK_RV token_digest(struct message *m);
CK_RV token_digest_update(struct message *m);
CK_RV token_digest_final(struct message *m);

/* What a session is at is given up. */
void token_operation_end(struct token_rpc_session *s);
