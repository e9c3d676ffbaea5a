#pragma once
/* SSH's values (RFC 4251, section 5), keys (RFC 4253, section 6.6; RFC 5656, section 3.1; RFC 8709) and signatures. */
#include "common/buf.h"
#include "common/keys.h"

const uint8_t *ssh_read_string(struct reader *r, size_t *ret_len);
void ssh_put_string(struct writer *w, const void *p, size_t n);
void ssh_put_text(struct writer *w, const char *text);
/* Of a number without a sign, big-endian. */
void ssh_put_mpint(struct writer *w, const uint8_t *p, size_t n);
bool ssh_is_text(const uint8_t *p, size_t n, const char *text);

/* "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", … */
const char *ssh_key_name(enum key_type type);
/* The public key's blob; 0: it does not fit, or the key is malformed. */
size_t ssh_key_blob(enum key_type type, const uint8_t *spki, size_t spki_len, uint8_t *ret, size_t cap);
/* A signature in the form of SIGN_* as a blob; algorithm: its name, which for RSA is not the key's. 0: it does not fit. */
size_t ssh_signature_blob(enum key_type type, const char *algorithm, const uint8_t *signature, size_t len, uint8_t *ret, size_t cap);
