#pragma once
/* Canonical base64 without padding (RFC 4648 §4) and base64url (§5), constant-time, by libsodium. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define B64_LEN(n) (((n) * 4 + 2) / 3) /* characters for n bytes, without padding */

/* ret_text holds B64_LEN(len) + 1 bytes. */
void b64_encode(const void *data, size_t len, char *ret_text);
void b64url_encode(const void *data, size_t len, char *ret_text);
/* False unless text is canonical and fits cap. */
bool b64_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len);
bool b64url_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len);
/* With padding; the bytes of ignore (NULL: none) are skipped wherever they stand, as PEM's line ends. */
bool b64_decode_padded(const char *text, size_t text_len, const char *ignore, void *ret, size_t cap, size_t *ret_len);
