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

bool b64_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len)
{
	return sodium_base642bin(ret, cap, text, text_len, NULL, ret_len, NULL,
				 sodium_base64_VARIANT_ORIGINAL_NO_PADDING) == 0;
}

bool b64url_decode(const char *text, size_t text_len, void *ret, size_t cap, size_t *ret_len)
{
	return sodium_base642bin(ret, cap, text, text_len, NULL, ret_len, NULL,
				 sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}
