#pragma once
/*
 * Hardware recipients: the tagged P-256 recipient "p256tag" (C2SP age.md, "P-256 tagged recipient"), HPKE base mode
 * (RFC 9180) with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The only thing asked of hardware is one
 * P-256 ECDH on a point that was checked to lie on the curve.
 */
#include "common/age.h"

#define AGE_P256TAG_TEXT_LEN 67u /* age1tag1… */

extern const struct age_recipient_ops age_p256tag_recipient_ops;

int age_p256tag_check(const struct age_header *header, struct err *err);
/* ret_text: AGE_P256TAG_TEXT_LEN + 1 bytes. */
void age_p256tag_recipient_text(const uint8_t point[P256_POINT_LEN], char *ret_text);

/*
 * The asynchronous halves, for the broker. find: from *index on, the next stanza whose tag fits the key; ret_peer is
 * the point to agree with, checked. *index is then that stanza's place; pass it + 1 to go on. ERR_NO_MATCH at the end,
 * ERR_AGE_HEADER for a point off the curve. finish: from the hardware's answer to the file key; ERR_NO_MATCH if it
 * does not open.
 */
int age_p256tag_find(const struct age_header *header, const uint8_t point[P256_POINT_LEN], size_t *index,
		     uint8_t ret_peer[P256_POINT_LEN], struct err *err);
int age_p256tag_finish(const struct age_stanza *stanza, const uint8_t point[P256_POINT_LEN],
		       const uint8_t shared[P256_SECRET_LEN], uint8_t ret_file_key[AGE_FILE_KEY_LEN], struct err *err);

/* The synchronous identity: at most LIMIT_AGE_HARDWARE_OPS calls of agree a file. */
void age_p256tag_identity(const uint8_t point[P256_POINT_LEN],
			  int (*agree)(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN],
				       struct err *err),
			  void *ctx, struct age_identity *ret);
