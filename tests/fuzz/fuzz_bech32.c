/* Bech32 has one spelling in each case: what decodes is encoded to the same text. */
#include "fuzz.h"

#include "common/age.h"
#include "common/age_p256tag.h"
#include "common/bech32.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

static void lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
}

static void check_decode(const char *text, const char *hrp, size_t data_len)
{
	CLEANUP(cleanup_free) uint8_t *data = malloc(data_len);
	CLEANUP(cleanup_free) char *back = malloc(bech32_len(strlen(hrp), data_len) + 1);
	CLEANUP(cleanup_free) char *want = strdup(text);
	struct err err = {0};
	int r;

	CHECK(data && back && want);
	r = bech32_decode(text, hrp, data, data_len, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_NOT_MINE || r == -ERR_INPUT);
	if (r < 0)
		return;
	lower(want);
	bech32_encode(hrp, data, data_len, 0, back);
	CHECK(strcmp(back, want) == 0);
}

static void check_recipient(const char *text)
{
	struct age_recipient recipient = {0};
	struct err err = {0};
	char back[AGE_P256TAG_TEXT_LEN + 1];
	CLEANUP(cleanup_free) char *want = strdup(text);
	int r = age_recipient_parse(text, &recipient, &err);

	fuzz_check_result(r, &err);
	CHECK(want && (r == -ERR_INPUT || (r == 0 && recipient.ops)));
	if (r < 0 || recipient.ops != &age_p256tag_recipient_ops)
		return;
	CHECK(p256_check(recipient.key, &err) == 0);
	lower(want);
	age_p256tag_recipient_text(recipient.key, back);
	CHECK(strcmp(back, want) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	CLEANUP(cleanup_free) char *text = fuzz_string(data, size);

	check_decode(text, "age", 32);
	check_decode(text, "age1tag", P256_COMPRESSED_LEN);
	check_decode(text, "age-secret-key-", 32);
	/* lengths whose last character has no, one and four bits of padding */
	check_decode(text, "a", 5);
	check_decode(text, "a", 3);
	check_decode(text, "a", 2);
	check_recipient(text);
	fuzz_end(used);
	return 0;
}
