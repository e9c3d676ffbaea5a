#pragma once
/* The payload of an age v1 file: STREAM over ChaCha20-Poly1305 in 64 KiB chunks (C2SP age.md, "Payload"). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define AGE_CHUNK_LEN 65536u
#define AGE_TAG_LEN 16u
#define AGE_NONCE_LEN 16u /* stands before the first chunk */

/* Lives in the arena: it holds the payload key. */
struct age_stream {
	uint8_t key[32];
	uint8_t nonce[12];
};

/* A stream in the arena, or NULL when that is full; release with secret_free. */
struct age_stream *age_stream_new(const uint8_t *file_key, const uint8_t nonce[AGE_NONCE_LEN]);

/* Seals len ≤ AGE_CHUNK_LEN bytes into ret (len + AGE_TAG_LEN bytes); the last chunk of a file must be marked. */
void age_stream_seal(struct age_stream *s, const uint8_t *plain, size_t len, bool last, uint8_t *ret);
/* Opens one sealed chunk into ret (len - AGE_TAG_LEN bytes). ERR_AGE_PAYLOAD on any fault; nothing is written then. */
int age_stream_open(struct age_stream *s, const uint8_t *sealed, size_t len, bool last, uint8_t *ret, struct err *err);
