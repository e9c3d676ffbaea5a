/* RFC 6238 appendix B, RFC 4648 section 10. */
#include "unit.h"

#include "broker/totp.h"

#include <stdio.h>
#include <string.h>

static void test_rfc_6238(void **state)
{
	static const struct {
		uint64_t seconds;
		const char *sha1, *sha256, *sha512;
	} rows[] = {
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1234567890, "89005924", "91819424", "93441116"},
		{20000000000, "65353130", "77737706", "47863826"},
	};
	static const char seed[] = "1234567890123456789012345678901234567890123456789012345678901234";
	char code[TOTP_CODE_LEN + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(totp_code(HASH_SHA1, 8, (const uint8_t *)seed, 20, rows[i].seconds / 30, code));
		assert_string_equal(code, rows[i].sha1);
		assert_true(totp_code(HASH_SHA256, 8, (const uint8_t *)seed, 32, rows[i].seconds / 30, code));
		assert_string_equal(code, rows[i].sha256);
		assert_true(totp_code(HASH_SHA512, 8, (const uint8_t *)seed, 64, rows[i].seconds / 30, code));
		assert_string_equal(code, rows[i].sha512);
		assert_true(totp_code(HASH_SHA1, 6, (const uint8_t *)seed, 20, rows[i].seconds / 30, code));
		assert_string_equal(code, rows[i].sha1 + 2);
	}
}

static void test_base32(void **state)
{
	static const char *const rows[][2] = {{"f", "MY"}, {"fo", "MZXQ"}, {"foo", "MZXW6"}, {"foob", "MZXW6YQ"}, {"fooba", "MZXW6YTB"}, {"foobar", "MZXW6YTBOI"}};
	static const char *const bad[] = {"M", "MZX", "MZ1", "M Y", "MZXR", "MY=A", "MZXW6Y"};
	uint8_t bytes[TOTP_KEY_MAX];
	char text[24], padded[32];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		base32_encode((const uint8_t *)rows[i][0], strlen(rows[i][0]), text);
		assert_string_equal(text, rows[i][1]);
		snprintf(padded, sizeof(padded), "%s====", text);
		assert_int_equal(base32_decode(padded, strlen(padded), bytes), strlen(rows[i][0]));
		assert_memory_equal(bytes, rows[i][0], strlen(rows[i][0]));
	}
	assert_int_equal(base32_decode("mzxw6ytboi", 10, bytes), 6);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(base32_decode(bad[i], strlen(bad[i]), bytes), 0);
}

UNIT_MAIN(cmocka_unit_test(test_rfc_6238), cmocka_unit_test(test_base32))
