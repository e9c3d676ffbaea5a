/* Encodings and key derivation against published vectors. */
#include "common/age.h"
#include "common/age_p256tag.h"
#include "common/b64.h"
#include "common/bech32.h"
#include "common/buf.h"
#include "common/hkdf.h"
#include "tests/unit/unit.h"

#include <sodium.h>
#include <string.h>

static void test_hkdf_rfc5869(void **state)
{
	/* RFC 5869 A.1 (first 32 bytes) and A.3 (no salt, no info) */
	uint8_t ikm[22], salt[13], prk[32], okm[32], want[32];
	const uint8_t info_bytes[] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9};
	struct hkdf_part info = {info_bytes, sizeof(info_bytes)};

	(void)state;
	memset(ikm, 0x0b, sizeof(ikm));
	for (uint8_t i = 0; i < sizeof(salt); i++)
		salt[i] = i;
	hkdf_extract(salt, sizeof(salt), ikm, sizeof(ikm), prk);
	sodium_hex2bin(want, 32, "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", 64, NULL, NULL, NULL);
	assert_memory_equal(prk, want, 32);
	hkdf_expand(prk, &info, 1, okm, 32);
	sodium_hex2bin(want, 32, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf", 64, NULL, NULL, NULL);
	assert_memory_equal(okm, want, 32);
	hkdf(NULL, 0, ikm, sizeof(ikm), "", okm);
	sodium_hex2bin(want, 32, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d", 64, NULL, NULL, NULL);
	assert_memory_equal(okm, want, 32);
}

static void test_bech32_round_trip_and_strictness(void **state)
{
	static const char good[] = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h";
	struct age_recipient r;
	struct err err;
	char text[80], bad[80];

	(void)state;
	assert_int_equal(age_recipient_parse(good, &r, &err), 0);
	age_p256tag_recipient_text(r.key, text);
	assert_string_equal(text, good);
	for (size_t i = 0; i < strlen(good); i++) {
		memcpy(bad, good, sizeof(good));
		bad[i] = bad[i] == 'q' ? 'p' : 'q';
		assert_int_not_equal(age_recipient_parse(bad, &r, &err), 0);
	}
	memcpy(bad, good, sizeof(good));
	bad[20] = 'Q';
	assert_int_equal(age_recipient_parse(bad, &r, &err), -ERR_INPUT);
	bad[66] = '\0';
	assert_int_equal(age_recipient_parse(bad, &r, &err), -ERR_INPUT);
	assert_int_equal(age_recipient_parse("", &r, &err), -ERR_INPUT);
	assert_int_equal(age_recipient_parse("1", &r, &err), -ERR_INPUT);
	assert_int_equal(age_recipient_parse("AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0", &r, &err), -ERR_INPUT);
	assert_non_null(strstr(err.msg, "secret key"));
}

static void test_b64_is_canonical(void **state)
{
	uint8_t out[16];
	size_t n;

	(void)state;
	assert_true(b64_decode("AQ", 2, out, sizeof(out), &n) && n == 1 && out[0] == 1);
	assert_false(b64_decode("AR", 2, out, sizeof(out), &n)); /* trailing bits */
	assert_false(b64_decode("AQ==", 4, out, sizeof(out), &n));
	assert_false(b64_decode("A\n", 2, out, sizeof(out), &n));
	assert_false(b64_decode("AAAAAAAAAAAAAAAAAAAAAAAA", 24, out, sizeof(out), &n)); /* too long */
	assert_true(b64url_decode("_-8", 3, out, sizeof(out), &n) && n == 2);
	assert_false(b64url_decode("/+8", 3, out, sizeof(out), &n));
}

static int software_agree(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN], struct err *err)
{
	(void)ctx;
	(void)peer;
	(void)ret;
	return err_set(err, ERR_HARDWARE, "asked");
}

static void test_hardware_is_not_asked_without_reason(void **state)
{
	/* a tag that does not match, an X25519 file: no operation; two stanzas for us: not more than two operations */
	struct age_recipient r;
	struct age_identity id;
	struct age_header h;
	struct secret key = {0};
	struct err err = {0};
	uint8_t buf[2048];
	struct writer w = writer_init(buf, sizeof(buf));

	(void)state;
	assert_int_equal(age_recipient_parse("age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h", &r, &err), 0);
	assert_int_equal(age_wrap(&r, 1, NULL, &w, &key, &err), 0);
	secret_clear(&key);
	assert_int_equal(age_header_parse(buf, w.len, &h, &err), 0);
	age_p256tag_identity(r.key, software_agree, NULL, &id);
	assert_int_equal(age_unwrap(&h, &id, 1, &key, &err), -ERR_HARDWARE);
	assert_string_equal(err.msg, "asked");
	id.point[64] ^= 1; /* another key: the tag differs */
	assert_int_equal(age_unwrap(&h, &id, 1, &key, &err), -ERR_NO_MATCH);
	age_header_clear(&h);
}

static void test_reader_and_writer_stick(void **state)
{
	uint8_t buf[4];
	struct writer w = writer_init(buf, sizeof(buf));
	struct reader r = reader_init("\x01\x02\x03", 3);

	(void)state;
	writer_u16be(&w, 0x1234);
	writer_u32be(&w, 1);
	assert_true(w.failed && w.len == 2);
	writer_u8(&w, 1);
	assert_int_equal(w.len, 2);
	assert_int_equal(reader_u16be(&r), 0x0102);
	assert_int_equal(reader_u16be(&r), 0);
	assert_true(r.failed);
	assert_null(reader_bytes(&r, 1));
	r = reader_init("abc", 3);
	assert_null(reader_bytes(&r, SIZE_MAX));
}

static void test_p256_points(void **state)
{
	uint8_t point[65] = {4}, compressed[33] = {2};
	struct err err;

	(void)state;
	assert_int_equal(p256_check(point, &err), -ERR_INPUT); /* 0,0 is not on the curve */
	memset(compressed + 1, 0xff, 32);
	assert_int_equal(p256_decompress(compressed, point, &err), -ERR_INPUT); /* x beyond the field */
	compressed[0] = 4;
	assert_int_equal(p256_decompress(compressed, point, &err), -ERR_INPUT);
}

UNIT_MAIN(cmocka_unit_test(test_hkdf_rfc5869), cmocka_unit_test(test_bech32_round_trip_and_strictness), cmocka_unit_test(test_b64_is_canonical),
	  cmocka_unit_test(test_hardware_is_not_asked_without_reason), cmocka_unit_test(test_reader_and_writer_stick),
	  cmocka_unit_test(test_p256_points))
