/* Key types, schemes, DER of ECDSA signatures, SSH's encodings, OAEP: against RFC 6979, RFC 8017 and RFC 8032. */
#include "common/der.h"
#include "common/err.h"
#include "common/keys.h"
#include "common/oaep.h"
#include "common/sshkey.h"
#include "unit.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <string.h>

static size_t hex(const char *text, uint8_t *ret, size_t cap)
{
	size_t n = 0;

	assert_int_equal(sodium_hex2bin(ret, cap, text, strlen(text), " ", &n, NULL), 0);
	return n;
}

/* RFC 6979, appendix A.2.5: P-256, SHA-256, "sample". */
static void test_ecdsa(void **state)
{
	uint8_t point[65] = {4}, back_point[KEY_POINT_MAX], spki[KEY_SPKI_MAX], signature[64], der[80], digest[HASH_MAX], back[64];
	size_t len = 0, n;

	(void)state;
	hex("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6", point + 1, 32);
	hex("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299", point + 33, 32);
	hex("EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", signature, 32);
	hex("F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8", signature + 32, 32);
	assert_int_equal(spki_from_ec(KEY_P256, point, sizeof(point), spki, &len, NULL), 0);
	assert_int_equal(spki_point(spki, len, back_point), sizeof(point));
	assert_memory_equal(back_point, point, sizeof(point));
	assert_int_equal(spki_point(spki, len - 1, back_point), 0);
	assert_int_equal(hash_digest(HASH_SHA256, "sample", 6, digest), 32);
	assert_int_equal(spki_verify(spki, len, SIGN_ECDSA, HASH_SHA256, 0, digest, 32, signature, 64, NULL), 0);
	n = ecdsa_to_der(signature, 32, der);
	assert_int_equal(n, 72); /* both numbers have their highest bit set */
	assert_true(ecdsa_from_der(der, n, 32, back));
	assert_memory_equal(back, signature, 64);
	for (size_t i = 0; i < n; i++)
		assert_false(ecdsa_from_der(der, i, 32, back));
	signature[0] ^= 1;
	assert_int_equal(spki_verify(spki, len, SIGN_ECDSA, HASH_SHA256, 0, digest, 32, signature, 64, NULL), -ERR_DENIED);
	point[64] ^= 1;
	assert_int_equal(spki_from_ec(KEY_P256, point, sizeof(point), spki, &len, NULL), -ERR_INPUT);
}

/* Taken apart as libcrypto wrote it; nothing shorter, longer or otherwise is. */
static void test_public_keys(void **state)
{
	uint8_t n[KEY_SIGNATURE_MAX] = {0xc1, 5, 7}, e[] = {1, 0, 1}, spki[KEY_SPKI_MAX + 1], back_n[KEY_SIGNATURE_MAX], back_e[16];
	size_t n_len, e_len, len = 0;
	enum key_type type;

	(void)state;
	for (enum key_type t = KEY_RSA2048; t <= KEY_RSA4096; t++) {
		size_t bytes = key_row(t)->signature_len, taken = 0;

		n[bytes - 1] |= 9;
		assert_int_equal(spki_from_rsa(n, bytes, e, sizeof(e), spki, &len, &type, NULL), 0);
		assert_int_equal(type, t);
		assert_true(spki_rsa(spki, len, back_n, &n_len, back_e, &e_len));
		assert_int_equal(n_len, bytes);
		assert_int_equal(e_len, 3);
		assert_memory_equal(back_n, n, bytes);
		assert_memory_equal(back_e, e, 3);
		assert_int_equal(spki_point(spki, len, back_n), 0);
		for (size_t i = 0; i < len; i++)
			assert_false(spki_rsa(spki, i, back_n, &n_len, back_e, &e_len));
		spki[len] = 0;
		assert_false(spki_rsa(spki, len + 1, back_n, &n_len, back_e, &e_len));
		for (size_t i = 0; i < 33; i++) {
			spki[i] ^= 0x81;
			taken += spki_rsa(spki, len, back_n, &n_len, back_e, &e_len);
			spki[i] ^= 0x81;
		}
		assert_int_equal(taken, 0);
	}
	assert_int_equal(spki_from_rsa(n, 255, e, sizeof(e), spki, &len, &type, NULL), -ERR_INPUT);
}

/* RFC 8032, section 7.1, test 2. */
static void test_ed25519(void **state)
{
	uint8_t public[32], spki[KEY_SPKI_MAX], signature[64];
	size_t len = 0;

	(void)state;
	hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", public, 32);
	hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00", signature, 64);
	assert_int_equal(spki_from_ed25519(public, spki, &len, NULL), 0);
	assert_int_equal(spki_verify(spki, len, SIGN_ED25519, HASH_NONE, 0, (const uint8_t *)"\x72", 1, signature, 64, NULL), 0);
	assert_int_equal(spki_verify(spki, len, SIGN_ED25519, HASH_NONE, 0, (const uint8_t *)"\x73", 1, signature, 64, NULL), -ERR_DENIED);
	assert_int_equal(spki_verify(spki, len, SIGN_ECDSA, HASH_SHA256, 0, public, 32, signature, 64, NULL), -ERR_INPUT);
}

static void test_what_a_scheme_takes(void **state)
{
	static const struct {
		enum key_type type;
		enum sign_scheme scheme;
		enum hash_type hash;
		size_t salt, len;
		bool good;
	} rows[] = {
		{KEY_P256, SIGN_ECDSA, HASH_SHA256, 0, 32, true},	{KEY_P256, SIGN_ECDSA, HASH_NONE, 0, 20, true},
		{KEY_P256, SIGN_ECDSA, HASH_SHA256, 0, 31, false},	{KEY_P256, SIGN_RSA_PSS, HASH_SHA256, 32, 32, false},
		{KEY_RSA2048, SIGN_ECDSA, HASH_SHA256, 0, 32, false},	{KEY_RSA2048, SIGN_RSA_PKCS1, HASH_NONE, 0, 245, true},
		{KEY_RSA2048, SIGN_RSA_PKCS1, HASH_NONE, 0, 246, false}, {KEY_RSA2048, SIGN_RSA_PKCS1, HASH_NONE, 0, 0, false},
		{KEY_RSA2048, SIGN_RSA_PSS, HASH_SHA256, 222, 32, true}, {KEY_RSA2048, SIGN_RSA_PSS, HASH_SHA256, 223, 32, false},
		{KEY_RSA2048, SIGN_RSA_PSS, HASH_SHA256, 32, 20, false}, {KEY_RSA2048, SIGN_RSA_PSS, HASH_NONE, 0, 0, false},
		{KEY_RSA2048, DECRYPT_OAEP, HASH_SHA1, 0, 256, true},	{KEY_RSA2048, DECRYPT_OAEP, HASH_SHA256, 0, 255, false},
		{KEY_ED25519, SIGN_ED25519, HASH_NONE, 0, 4096, true},	{KEY_ED25519, SIGN_ED25519, HASH_NONE, 0, 4097, false},
		{KEY_NONE, SIGN_ECDSA, HASH_SHA256, 0, 32, false},	{KEY_P256, SIGN_SCHEMES, HASH_SHA256, 0, 32, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(sign_check(rows[i].type, rows[i].scheme, rows[i].hash, rows[i].salt, rows[i].len, NULL), rows[i].good ? 0 : -ERR_INPUT);
	assert_int_equal(key_type_find("rsa-3072"), KEY_RSA3072);
	assert_int_equal(key_type_find("aes256-gcm96"), KEY_NONE);
	assert_int_equal(hash_type_find("sha2-384"), HASH_SHA384);
	assert_int_equal(hash_type_of_length(48), HASH_SHA384);
}

/* What libcrypto encrypts, the raw operation and our unpadding open. */
static void test_oaep(void **state)
{
	EVP_PKEY *key = EVP_RSA_gen(2048);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	uint8_t *spki = NULL, cipher[KEY_SIGNATURE_MAX], block[KEY_SIGNATURE_MAX], plain[KEY_SIGNATURE_MAX];
	size_t n, len = 0, block_len = sizeof(block);
	int spki_len = i2d_PUBKEY(key, &spki);

	(void)state;
	assert_int_equal(spki_encrypt(spki, (size_t)spki_len, HASH_SHA256, (const uint8_t *)"secret", 6, cipher, &n, NULL), 0);
	assert_int_equal(EVP_PKEY_decrypt_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING), 1);
	assert_int_equal(EVP_PKEY_decrypt(ctx, block, &block_len, cipher, n), 1);
	assert_int_equal(oaep_unpad(HASH_SHA256, block, block_len, plain, &len, NULL), 0);
	assert_int_equal(len, 6);
	assert_memory_equal(plain, "secret", 6);
	assert_int_equal(oaep_unpad(HASH_SHA1, block, block_len, plain, &len, NULL), -ERR_INPUT);
	block[block_len - 1] ^= 1;
	assert_int_equal(oaep_unpad(HASH_SHA256, block, block_len, plain, &len, NULL), -ERR_INPUT);
	assert_int_equal(spki_encrypt(spki, (size_t)spki_len, HASH_SHA256, block, 191, cipher, &n, NULL), -ERR_INPUT);
	OPENSSL_free(spki);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
}

/* RFC 4251, section 5. */
static void test_mpint(void **state)
{
	static const struct {
		const char *number, *written;
	} rows[] = {{"00", "00000000"}, {"09a378f9b2e332a7", "0000000809a378f9b2e332a7"}, {"80", "000000020080"}, {"0080", "000000020080"}};
	uint8_t number[16], written[32], out[32];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n = hex(rows[i].number, number, sizeof(number)), want = hex(rows[i].written, written, sizeof(written));
		struct writer w = writer_init(out, sizeof(out));

		ssh_put_mpint(&w, number, n);
		assert_int_equal(w.len, want);
		assert_memory_equal(out, written, want);
	}
}

/* X.690, section 8.1.3; a length that promises more than there is. */
static void test_der(void **state)
{
	static const uint8_t number[] = {0, 0, 0x80, 1}, long_form[] = {0x30, 0x81, 0x02, 1, 2, 9}, longer[] = {0x30, 0x82, 0, 1, 7, 9};
	uint8_t out[300], content[260] = {0};
	struct writer w = writer_init(out, sizeof(out));

	(void)state;
	der_put_integer(&w, number, sizeof(number));
	assert_memory_equal(out, "\x02\x03\x00\x80\x01", w.len);
	assert_int_equal(w.len, 5);
	assert_int_equal(der_sequence_len(long_form, sizeof(long_form)), 5);
	assert_int_equal(der_sequence_len(longer, sizeof(longer)), 5);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(der_sequence_len(long_form, i), 0);
		assert_int_equal(der_sequence_len(longer, i), 0);
	}
	w.len = 0;
	der_put(&w, DER_SEQUENCE, content, sizeof(content));
	assert_int_equal(der_sequence_len(out, w.len), w.len);
	assert_int_equal(der_sequence_len(out, w.len - 1), 0);
	out[0] = DER_INTEGER;
	assert_int_equal(der_sequence_len(out, w.len), 0);
	w = writer_init(out, 3);
	der_put_integer(&w, number, sizeof(number));
	assert_true(w.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ecdsa), cmocka_unit_test(test_ed25519), cmocka_unit_test(test_public_keys), cmocka_unit_test(test_what_a_scheme_takes),
		cmocka_unit_test(test_oaep),  cmocka_unit_test(test_mpint), cmocka_unit_test(test_der),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
