#include "common/bech32.h"

#include "common/err.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

static const char charset[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

static uint32_t polymod_step(uint32_t c, uint8_t v)
{
	static const uint32_t gen[] = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3};
	uint32_t top = c >> 25;

	c = (c & 0x1ffffff) << 5 ^ v;
	for (unsigned int i = 0; i < 5; i++)
		c ^= gen[i] & (0u - (top >> i & 1u));
	return c;
}

static uint32_t polymod_hrp(const char *hrp, size_t len)
{
	uint32_t c = 1;

	for (size_t i = 0; i < len; i++)
		c = polymod_step(c, (uint8_t)((uint8_t)hrp[i] >> 5));
	c = polymod_step(c, 0);
	for (size_t i = 0; i < len; i++)
		c = polymod_step(c, (uint8_t)hrp[i] & 31);
	return c;
}

size_t bech32_len(size_t hrp_len, size_t data_len)
{
	return hrp_len + 1 + (data_len * 8 + 4) / 5 + 6;
}

void bech32_encode(const char *hrp, const uint8_t *data, size_t data_len, int upper, char *ret_text)
{
	size_t n = strlen(hrp);
	uint32_t c = polymod_hrp(hrp, n), acc = 0;
	unsigned int bits = 0;
	char *p = ret_text;

	memcpy(p, hrp, n);
	p += n;
	*p++ = '1';
	for (size_t i = 0; i < data_len; i++) {
		acc = (acc << 8 | data[i]) & 0xfff;
		for (bits += 8; bits >= 5;) {
			bits -= 5;
			c = polymod_step(c, acc >> bits & 31);
			*p++ = charset[acc >> bits & 31];
		}
	}
	if (bits) {
		c = polymod_step(c, acc << (5 - bits) & 31);
		*p++ = charset[acc << (5 - bits) & 31];
	}
	for (unsigned int i = 0; i < 6; i++)
		c = polymod_step(c, 0);
	c ^= 1;
	for (unsigned int i = 0; i < 6; i++)
		*p++ = charset[c >> 5 * (5 - i) & 31];
	*p = '\0';
	if (upper)
		for (p = ret_text; *p; p++)
			if (*p >= 'a' && *p <= 'z')
				*p = (char)(*p - 'a' + 'A');
	sodium_memzero(&acc, sizeof(acc));
}

/* The value of one character, or -1. Mixed case is caught by the caller. */
static int char_value(char ch)
{
	const char *at;

	if (ch >= 'A' && ch <= 'Z')
		ch = (char)(ch - 'A' + 'a');
	at = ch ? strchr(charset, ch) : NULL;
	return at ? (int)(at - charset) : -1;
}

static bool mixed_case(const char *text)
{
	bool lower = false, upper = false;

	for (; *text; text++) {
		lower |= *text >= 'a' && *text <= 'z';
		upper |= *text >= 'A' && *text <= 'Z';
	}
	return lower && upper;
}

static bool hrp_matches(const char *text, const char *hrp, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char ch = text[i];

		if (ch >= 'A' && ch <= 'Z')
			ch = (char)(ch - 'A' + 'a');
		if (ch != hrp[i])
			return false;
	}
	return true;
}

int bech32_decode(const char *text, const char *hrp, uint8_t *ret_data, size_t data_len, struct err *err)
{
	size_t n = strlen(hrp), len = strlen(text), out = 0;
	const char *sep = strrchr(text, '1');
	uint32_t c, acc = 0;
	unsigned int bits = 0;
	int v;

	if (!sep || (size_t)(sep - text) != n || !hrp_matches(text, hrp, n))
		return err_set(err, ERR_NOT_MINE, "not a %s1... string", hrp);
	if (mixed_case(text))
		return err_set(err, ERR_INPUT, "%s1...: mixed upper and lower case", hrp);
	if (len != bech32_len(n, data_len))
		return err_set(err, ERR_INPUT, "%s1...: %zu characters where %zu were expected", hrp, len,
			       bech32_len(n, data_len));
	c = polymod_hrp(hrp, n);
	for (size_t i = n + 1; i < len; i++) {
		v = char_value(text[i]);
		if (v < 0)
			return err_set(err, ERR_INPUT, "%s1...: a character that Bech32 does not have", hrp);
		c = polymod_step(c, (uint8_t)v);
		if (i >= len - 6)
			continue;
		acc = (acc << 5 | (uint32_t)v) & 0xfff;
		bits += 5;
		if (bits >= 8) {
			bits -= 8;
			ret_data[out++] = (uint8_t)(acc >> bits);
		}
	}
	if (c != 1)
		return err_set(err, ERR_INPUT, "%s1...: checksum is wrong (a typing error?)", hrp);
	if (bits >= 5 || (acc & ((1u << bits) - 1)))
		return err_set(err, ERR_INPUT, "%s1...: padding is not zero", hrp);
	sodium_memzero(&acc, sizeof(acc));
	return 0;
}
