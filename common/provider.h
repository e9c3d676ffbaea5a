#pragma once
/*
 * The key-provider interface: what cotter-keyd asks of hardware. pkcs11/ and tpm/ implement it, keyd_main.c serves it.
 * A provider is used by one call at a time, but for what says that others may run beside it.
 */
#include "common/keys.h"
#include "common/limits.h"
#include "common/p256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct secret;

enum provider_key_use { PROVIDER_KEY_SEAL, PROVIDER_KEY_SIGN };

struct provider_key {
	char ref[LIMIT_URI_LEN];       /* how to name it again: RFC 7512 URI, PEM file, persistent handle */
	char label[LIMIT_NAME_LEN + 1];
	uint32_t type;		       /* enum key_type */
	uint32_t can_agree, can_sign, can_decrypt; /* what the hardware says the key is for */
	uint8_t point[P256_POINT_LEN]; /* of KEY_P256, else zeros */
	uint32_t spki_len;
	uint8_t spki[KEY_SPKI_MAX];
};

/* One use of a private key: sign_check passed it. */
struct provider_sign {
	enum sign_scheme scheme;
	enum hash_type hash;
	size_t salt_len;
	const uint8_t *data;
	size_t len;
};

enum provider_state {
	PROVIDER_READY,
	PROVIDER_PIN_NEEDED, /* an operator must act: cotter unlock */
	PROVIDER_ABSENT,     /* no token, no TPM */
};

struct provider_status {
	uint32_t state;
	char description[160]; /* model, serial, firmware: for doctor and status */
	char problem[256];     /* empty when ready; else what is wrong and what to do */
	char srk_name[72];     /* TPM: hex name of the storage root key, to be pinned; else empty */
};

/* What open needs, strings by the caller's memory. */
struct provider_config {
	const char *uri;	/* "pkcs11:…" or "tpm:TCTI" */
	const char *srk_name;	/* TPM: the pinned name in hex, or "" at enrolment */
	const char *failed_pin; /* hash of a PIN that was refused before (crypto_pwhash_str), or "" */
};

struct provider; /* each implementation's own */

struct provider_ops {
	const char *scheme; /* of provider_config.uri */
	/* Opens the module or the TPM. A missing token or PIN is not a failure: status tells. ERR_INPUT for the URI. */
	int (*open)(const struct provider_config *config, struct provider **ret, struct err *err);
	/* One login attempt with a PIN from an operator (unlock), or NULL: with what the configuration names. ERR_PIN when it
	 * was refused; failed_pin then gives its hash, to be remembered. When logged in already, nothing is offered. by_operator: somebody
	 * asks for this try, so a low try counter is no obstacle; the last try never is used up. */
	int (*login)(struct provider *p, const struct secret *pin, bool by_operator, struct err *err);
	/* The hash of the last refused PIN, or "". */
	const char *(*failed_pin)(const struct provider *p);
	int (*list)(struct provider *p, size_t index, struct provider_key *ret, struct err *err);
	/* Makes a key; one that seals is a P-256 key. pcrs: "" or "sha256:0,2,7" (TPM). ret_pem receives the TPM's key file, else "". */
	int (*make)(struct provider *p, enum provider_key_use use, enum key_type type, const char *label, const char *pcrs,
		    struct provider_key *ret, char ret_pem[LIMIT_WIRE_DATA], struct err *err);
	/* Finds the key behind a reference. */
	int (*find)(struct provider *p, const char *ref, struct provider_key *ret, struct err *err);
	/* x coordinate of key × peer, 32 bytes. peer was checked to be on the curve. */
	int (*agree)(struct provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN],
		     uint8_t ret[P256_SECRET_LEN], struct err *err);
	/* Signs, or decrypts: see enum sign_scheme for what goes in and comes out. ERR_INPUT: this key or this hardware cannot do it so. */
	int (*sign)(struct provider *p, const char *ref, const struct provider_sign *q, uint8_t ret[KEY_SIGNATURE_MAX], size_t *ret_len,
		    struct err *err);
	/* The same while other threads, each with its own number below LIMIT_PARALLEL, are in this one and in ahead. False: it was not done so,
	 * for whatever reason; sign does it, or tells why not. NULL: one at a time. */
	bool (*sign_beside)(struct provider *p, unsigned int thread, const char *ref, const struct provider_sign *q, uint8_t ret[KEY_SIGNATURE_MAX],
			    size_t *ret_len);
	/* After an answer of that thread is out: what its next one would wait for. NULL: there is nothing such. */
	void (*ahead)(struct provider *p, unsigned int thread);
	int (*random)(struct provider *p, uint8_t *ret, size_t len, struct err *err);
	void (*status)(struct provider *p, struct provider_status *ret);
	void (*close)(struct provider *p);
};
