#pragma once
/* Signing as a CA, with a named key in hardware: for pki and ssh. */
#include "broker/api.h"

/* What the configuration says is the CA's key. ERR_UNSUPPORTED: it names none. store_key_done releases it. */
int ca_key(struct broker *b, const struct config_ca *ca, struct store_key *ret, struct err *err);
/* Bytes of the key's own certificate, the first of those that it has; 0: none. */
size_t ca_certificate_len(const struct store_key *k);
/* Whether the key of that name signs as a CA: it signs nothing that a job made up. */
bool ca_is_key(const struct broker *b, const char *path);
/* The role behind "pki/" or "ssh/" in the call's path; NULL with err. */
const struct config_cert_role *ca_role(const struct call *call, const struct config_ca *ca, struct err *err);
/* "ttl" of a body, at most the role's. */
int ca_ttl(const json_t *body, const struct config_cert_role *role, uint64_t *ret_s, struct err *err);
/* What the hardware is to sign: see sign_input. */
int ca_input(enum sign_scheme scheme, enum hash_type hash, const uint8_t *tbs, size_t len, uint8_t ret[SIGN_INPUT_MAX], size_t *ret_len, struct err *err);
/* Signs with it; done gets a reply whose data is the signature in the form of SIGN_*, checked against the public key. */
int ca_sign(struct broker *b, const struct store_key *key, enum sign_scheme scheme, enum hash_type hash, const uint8_t *data, size_t len, uint64_t asker,
	    hardware_done *done, void *ctx, struct err *err);
/* Whether that is still the CA's key: the configuration may be another one than when it was read. ERR_INPUT. */
int ca_is_of(const struct config_ca *ca, const struct store_key *key, struct err *err);
/* Whether that key is still there, with the same version. ERR_INPUT. */
int ca_still(struct broker *b, const struct store_key *key, struct err *err);
/* For the record: what was signed, with which version of the CA's key. serial: hex. */
void ca_describe(struct call *call, const struct store_key *key, const char *kind, const char *serial, const uint8_t *tbs, size_t len);
/* Whether what came is a signature of that key over data. ERR_HARDWARE. */
int ca_check(const struct store_key *key, enum sign_scheme scheme, enum hash_type hash, const uint8_t *data, size_t len, const struct wire_reply *reply,
	     struct err *err);
