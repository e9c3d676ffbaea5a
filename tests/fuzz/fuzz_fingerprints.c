/* A list of fingerprints, as an index or the broker's answer brings it, and a text to look through. */
#include "fuzz.h"

#include "common/err.h"
#include "mask/fingerprint.h"

#include <stdlib.h>
#include <string.h>

static void found(void *context, size_t at, const struct fingerprint *p)
{
	CHECK(p->len <= *(size_t *)context && at <= *(size_t *)context - p->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin(), list = size > 1 ? data[0] * FINGERPRINT_LEN : 0, left;
	struct fingerprints f = {0};
	struct err err = {0};
	uint8_t *text;
	int r;

	if (size == 0)
		return 0;
	data++;
	size--;
	/* a length that is no multiple, too */
	if (list > size)
		list = size;
	r = fingerprints_add(&f, data, list, 7, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_INPUT);
	if (r == 0) {
		left = size - list;
		text = (uint8_t *)fuzz_string(data + list, left);
		CHECK(fingerprints_build(&f, &err) == 0);
		fingerprints_scan(&f, false, text, left, found, &left);
		fingerprints_scan(&f, true, text, left, found, &left);
		free(text);
	}
	fingerprints_done(&f);
	fuzz_end(used);
	return 0;
}
