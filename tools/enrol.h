#pragma once
/* Making a key in a provider and finding out what the hardware can really do with it. */
#include "broker/keyd.h"

struct config_provider;

struct enrolled {
	struct provider_key key; /* ref is what the configuration must say */
	char recipient[80];	 /* sealing keys: age1tag1… */
	char srk_name[72];	 /* TPM */
};

/* Makes the key, writes a TPM key's file to dir/NAME-LABEL.pem, and probes: an ECDH (or a signature) is compared with
 * libcrypto's result. ERR_HARDWARE says what the token cannot do. */
int enrol_key(struct keyd *k, enum provider_key_use use, enum key_type type, const char *label, const char *pcrs, const char *dir,
	      struct enrolled *ret, struct err *err);
/* The probe alone, for a key that exists. */
int enrol_probe(struct keyd *k, const struct provider_key *key, struct err *err);
/* Asks for the PIN on the terminal when none is configured. */
int enrol_login(struct keyd *k, struct err *err);
