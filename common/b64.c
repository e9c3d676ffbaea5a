#include "common/b64.h"

#include <sodium.h>

void b64_encode(const void *data, size_t len, char *ret_text)
{
	sodium_bin2base64(ret_text, B64_LEN(len) + 1, data, len, sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
}

void b64url_encode(const void *data, size_t len, char *ret_text)
{
	sodium_bin2base64(ret_text, B64_LEN(len) + 1, data, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* libsodium 1.0.18 takes every byte from 0x80 on for the digit 63 where char is signed: those are sorted out first. */
static bool decode(const char *text, size_t text_len, const char *ignore, int variant, void *ret, size_t cap, size_t *ret_len)
{
	unsigned char seen = 0;

	for (size_t i = 0; i < text_len; i++)
		seen |= (unsigned char)text[i];
	return seen < 0x80 && sodium_base642bin(ret, cap, text, text_len, ignore, ret_len, NULL, variant) == 0;
}

bool b64_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len)
{
	return decode(text, text_len, NULL, sodium_base64_VARIANT_ORIGINAL_NO_PADDING, ret, cap, ret_len);
}

bool b64url_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len)
{
	return decode(text, text_len, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING, ret, cap, ret_len);
}

bool b64_decode_padded(const char *text, size_t text_len, const char *ignore, void *ret, size_t cap, size_t *ret_len)
{
	return decode(text, text_len, ignore, sodium_base64_VARIANT_ORIGINAL, ret, cap, ret_len);
}
