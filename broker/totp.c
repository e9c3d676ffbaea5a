#include "broker/totp.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a';
	return c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

size_t base32_decode(const char *text, size_t len, uint8_t ret[TOTP_KEY_MAX])
{
	uint32_t bits = 0;
	unsigned int n_bits = 0;
	size_t n = 0;
	int v;

	while (len && text[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		v = value_of(text[i]);
		if (v < 0 || n == TOTP_KEY_MAX)
			return 0;
		bits = bits << 5 | (uint32_t)v;
		n_bits += 5;
		if (n_bits >= 8) {
			n_bits -= 8;
			ret[n++] = (uint8_t)(bits >> n_bits);
		}
	}
	/* what is left over is less than a character, and zeros */
	return n_bits < 5 && (bits & ((1u << n_bits) - 1)) == 0 ? n : 0;
}

void base32_encode(const uint8_t *data, size_t len, char *ret)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	uint32_t bits = 0;
	unsigned int n_bits = 0;

	for (size_t i = 0; i < len; i++) {
		bits = bits << 8 | data[i];
		for (n_bits += 8; n_bits >= 5; n_bits -= 5)
			*ret++ = letters[bits >> (n_bits - 5) & 31];
	}
	if (n_bits)
		*ret++ = letters[bits << (5 - n_bits) & 31];
	*ret = '\0';
}

bool totp_code(enum hash_type hash, unsigned int digits, const uint8_t *key, size_t key_len, uint64_t counter, char ret[TOTP_CODE_LEN + 1])
{
	uint8_t message[8], mac[HASH_MAX];
	uint32_t number;
	size_t n, offset;

	for (size_t i = 0; i < 8; i++)
		message[i] = (uint8_t)(counter >> (56 - 8 * i));
	n = hash_hmac(hash, key, key_len, message, sizeof(message), mac);
	if (n == 0)
		return false;
	offset = mac[n - 1] & 15;
	number = (uint32_t)(mac[offset] & 0x7f) << 24 | (uint32_t)mac[offset + 1] << 16 | (uint32_t)mac[offset + 2] << 8 | mac[offset + 3];
	snprintf(ret, TOTP_CODE_LEN + 1, "%0*u", (int)digits, number % (digits == 8 ? 100000000u : 1000000u));
	sodium_memzero(mac, sizeof(mac));
	return true;
}
