/* Armor in two pieces must give what it gives in one; the first byte of the input says where it is cut. */
#include "fuzz.h"

#include "common/age_armor.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

struct output {
	uint8_t *data;
	size_t len, cap;
};

static int collect(void *ctx, const uint8_t *data, size_t len, struct err *err)
{
	struct output *out = ctx;

	(void)err;
	CHECK(len <= out->cap - out->len);
	memcpy(out->data + out->len, data, len);
	out->len += len;
	return 0;
}

static int decode(const uint8_t *data, size_t size, size_t cut, struct output *out)
{
	struct age_armor a = {.write = collect, .ctx = out};
	struct err err = {0};
	int r;

	/* decoding only shrinks */
	*out = (struct output){.data = malloc(size + 1), .cap = size + 1};
	CHECK(out->data);
	r = age_armor_feed(&a, data, cut, &err);
	if (r == 0)
		r = age_armor_feed(&a, data + cut, size - cut, &err);
	if (r == 0)
		r = age_armor_finish(&a, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_AGE_ARMOR);
	return r;
}

/* What came out, armored again and taken apart again, comes out the same. */
static void check_round_trip(const struct output *out)
{
	struct output text = {.data = malloc(2 * out->len + 256), .cap = 2 * out->len + 256}, again;
	struct age_armor_writer w = {.write = collect, .ctx = &text};
	struct err err = {0};

	CHECK(text.data && age_armor_write_begin(&w, &err) == 0);
	CHECK(age_armor_write(&w, out->data, out->len, &err) == 0 && age_armor_write_end(&w, &err) == 0);
	CHECK(age_armor_detect(text.data, text.len));
	CHECK(decode(text.data, text.len, text.len / 2, &again) == 0);
	CHECK(again.len == out->len && memcmp(again.data, out->data, out->len) == 0);
	free(text.data);
	free(again.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct output whole, pieces;
	size_t used = fuzz_begin(), cut;

	if (size == 0)
		return 0;
	cut = size == 1 ? 0 : data[0] * 8u % size;
	data++;
	size--;
	if (decode(data, size, size, &whole) == 0) {
		CHECK(age_armor_detect(data, size));
		for (size_t i = 0; i < size; i++)
			CHECK(data[i] < 0x80);
		check_round_trip(&whole);
		CHECK(decode(data, size, cut, &pieces) == 0);
		CHECK(pieces.len == whole.len && memcmp(pieces.data, whole.data, whole.len) == 0);
	} else {
		CHECK(decode(data, size, cut, &pieces) < 0 && pieces.len == whole.len);
	}
	free(whole.data);
	free(pieces.data);
	fuzz_end(used);
	return 0;
}
