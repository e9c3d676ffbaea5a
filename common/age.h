#pragma once
/*
 * age v1 files (C2SP age.md), both ways. The whole extension story is two small tables: a recipient wraps a file key
 * into a stanza, an identity finds it again. One stanza type a file: age_p256tag, age_x25519, age_scrypt.
 */
#include "common/age_header.h"
#include "common/p256.h"
#include "common/secret.h"

struct bind;

/* Public; by value. */
struct age_recipient {
	const struct age_recipient_ops {
		const char *hrp;
		int (*parse)(const char *text, struct age_recipient *ret, struct err *err);
		int (*wrap)(const struct age_recipient *recipient, const uint8_t file_key[AGE_FILE_KEY_LEN],
			    struct writer *w, struct err *err);
	} *ops;
	uint8_t key[P256_POINT_LEN];
};

struct age_identity {
	const struct age_identity_ops {
		/* 0 and the file key; ERR_NO_MATCH: try the next identity; anything else ends the search. */
		int (*unwrap)(const struct age_identity *identity, const struct age_header *header,
			      uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err);
	} *ops;
	struct secret key;		 /* X25519 scalar, passphrase; empty for hardware */
	uint8_t point[P256_POINT_LEN];	 /* hardware: the sealing key's public point */
	/* hardware: one ECDH with the key behind point */
	int (*agree)(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN], struct err *err);
	void *ctx;
};

/* An age1… or age1tag1… string. ERR_INPUT says what is wrong with it. */
int age_recipient_parse(const char *text, struct age_recipient *ret, struct err *err);

/* ERR_AGE_HEADER when any known stanza is malformed: asked of the whole header before anything is unwrapped. */
int age_check_stanzas(const struct age_header *header, struct err *err);

/* Unwraps the file key with the first identity that fits and verifies the header's MAC.
 * ERR_NO_MATCH ("no match: …"), ERR_AGE_HEADER, ERR_AGE_HMAC, or what the hardware said. ret is in the arena. */
int age_unwrap(const struct age_header *header, const struct age_identity *identities, size_t n_identities,
	       struct secret *ret_file_key, struct err *err);

/* The header for a fresh file key, and that key. bind may be NULL. ret_header is public, ret_file_key in the arena. */
int age_wrap(const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
	     struct writer *ret_header, struct secret *ret_file_key, struct err *err);

/* Whole files in memory: secrets of at most LIMIT_SECRET_LEN. ret_sealed is malloc'ed (public). */
int age_seal_memory(const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
		    const struct secret *plain, uint8_t **ret_sealed, size_t *ret_len, struct err *err);
/* data: the file behind its header (nonce and chunks). Releases nothing on failure. */
int age_open_memory(const uint8_t *data, size_t len, const struct secret *file_key, struct secret *ret, struct err *err);
