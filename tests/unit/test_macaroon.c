#include "common/b64.h"
#include "common/macaroon.h"
#include "tests/unit/unit.h"

#include <string.h>

static const uint8_t key[32] = {1, 2, 3};
static const uint8_t id[MACAROON_ID_LEN] = {1, 0, 0, 0, 1, 9, 8, 7};

static void minted(struct secret *ret)
{
	struct err err;

	assert_int_equal(macaroon_mint(key, id, ret, &err), 0);
}

static bool opens(const struct secret *text, const uint8_t *with)
{
	struct macaroon *m;
	struct err err;
	bool ok;

	if (macaroon_parse((char *)text->data, text->len, &m, &err) < 0)
		return false;
	ok = macaroon_verify(m, with);
	secret_free(m);
	return ok;
}

static void test_mint_narrow_verify(void **state)
{
	struct secret token, narrow;
	uint8_t other[32] = {9};
	struct err err;

	(void)state;
	minted(&token);
	assert_true(opens(&token, key));
	assert_false(opens(&token, other));
	assert_int_equal(macaroon_narrow((char *)token.data, token.len, "op = get", &narrow, &err), 0);
	assert_true(opens(&narrow, key));
	secret_clear(&narrow);
	secret_clear(&token);
}

static void test_every_bit_counts(void **state)
{
	struct secret token, narrow, copy;
	uint8_t raw[256];
	struct err err;
	size_t n;

	(void)state;
	minted(&token);
	assert_int_equal(macaroon_narrow((char *)token.data, token.len, "path = a/b", &narrow, &err), 0);
	assert_true(b64url_decode((char *)narrow.data + 5, narrow.len - 5, raw, sizeof(raw), &n));
	assert_int_equal(secret_new(&copy, 512, &err), 0);
	for (size_t bit = 0; bit < n * 8; bit++) {
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
		memcpy(copy.data, MACAROON_PREFIX, 5);
		b64url_encode(raw, n, (char *)copy.data + 5);
		copy.len = 5 + B64_LEN(n);
		assert_false(opens(&copy, key));
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t len = 0; len < n; len++) {
		b64url_encode(raw, len, (char *)copy.data + 5);
		copy.len = 5 + B64_LEN(len);
		assert_false(opens(&copy, key));
	}
	secret_clear(&copy);
	secret_clear(&narrow);
	secret_clear(&token);
}

static void test_limits(void **state)
{
	struct secret token, narrow;
	char caveat[LIMIT_CAVEAT_LEN + 2];
	struct err err;
	int r = 0;
	unsigned int n = 0;

	(void)state;
	memset(caveat, 'x', sizeof(caveat) - 1);
	caveat[sizeof(caveat) - 1] = '\0';
	minted(&token);
	assert_int_equal(macaroon_narrow((char *)token.data, token.len, caveat, &narrow, &err), -ERR_USAGE);
	assert_int_equal(macaroon_narrow((char *)token.data, token.len, "", &narrow, &err), -ERR_USAGE);
	while (r == 0) {
		r = macaroon_narrow((char *)token.data, token.len, "op = get", &narrow, &err);
		if (r == 0) {
			n++;
			secret_clear(&token);
			token = narrow;
		}
	}
	assert_int_equal(n, LIMIT_CAVEATS);
	assert_int_equal(r, -ERR_LIMIT);
	secret_clear(&token);
	/* long caveats: the total is what ends it */
	minted(&token);
	caveat[LIMIT_CAVEAT_LEN] = '\0';
	for (n = 0, r = 0; r == 0; n++) {
		r = macaroon_narrow((char *)token.data, token.len, caveat, &narrow, &err);
		if (r == 0) {
			secret_clear(&token);
			token = narrow;
		}
	}
	assert_true(n < LIMIT_CAVEATS);
	assert_int_equal(r, -ERR_LIMIT);
	assert_true(opens(&token, key));
	secret_clear(&token);
}

static void parse_raw(const char *raw, size_t n, int want)
{
	char text[600] = MACAROON_PREFIX;
	struct macaroon *m = NULL;
	struct err err;

	b64url_encode(raw, n, text + 5);
	assert_int_equal(macaroon_parse(text, strlen(text), &m, &err), want);
	secret_free(m);
}

static void test_profile_is_strict(void **state)
{
#define ID "\x02\x15\x01\0\0\0\x01" "0123456789abcdef"
#define SIG "\x06\x20" "0123456789abcdef0123456789abcdef"
	(void)state;
	parse_raw("\x02" ID "\0\0" SIG, 1 + 23 + 2 + 34, 0);
	parse_raw("\x02\x01\0" ID "\0\0" SIG, 3 + 23 + 2 + 34, 0);		     /* empty location */
	parse_raw("\x02\x01\x01x" ID "\0\0" SIG, 4 + 23 + 2 + 34, -ERR_INPUT);	     /* a location */
	parse_raw("\x01" ID "\0\0" SIG, 1 + 23 + 2 + 34, -ERR_INPUT);		     /* version 1 */
	parse_raw("\x02" ID "\0\0" SIG "x", 1 + 23 + 2 + 35, -ERR_INPUT);	     /* trailing */
	parse_raw("\x02" ID "\0\x02\x01x\x04\x01v\0\0" SIG, 1 + 23 + 9 + 34, -ERR_INPUT); /* third party */
	parse_raw("\x02" ID "\0\x02\x81\0x\0\0" SIG, 1 + 23 + 7 + 34, -ERR_INPUT);   /* non-minimal varint */
	parse_raw("\x02" ID "\0\x02\0\0\0" SIG, 1 + 23 + 5 + 34, -ERR_INPUT);	     /* empty caveat */
	parse_raw("\x02\x02\x14" "0123456789abcdef0123" "\0\0" SIG, 1 + 22 + 2 + 34, -ERR_INPUT);
}

UNIT_MAIN(cmocka_unit_test(test_mint_narrow_verify), cmocka_unit_test(test_every_bit_counts), cmocka_unit_test(test_limits),
	  cmocka_unit_test(test_profile_is_strict))
