/* The dense view of a text: places come in order, stand in the text, and hold what the view says. */
#include "fuzz.h"

#include "common/cleanup.h"
#include "mask/dense.h"

#include <stdlib.h>
#include <string.h>

static uint8_t translate(uint8_t c)
{
	return c == '-' ? '+' : c == '_' ? '/' : c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* of just that size, so that a byte too many is seen */
	CLEANUP(cleanup_free) uint8_t *text = malloc(size ? size : 1);
	CLEANUP(cleanup_free) uint8_t *bytes = malloc(size ? size : 1);
	CLEANUP(cleanup_free) struct dense_mark *marks = malloc(DENSE_MARKS(size) * sizeof(*marks));
	struct dense d = {.bytes = bytes, .marks = marks};

	CHECK(text && bytes && marks);
	if (size)
		memcpy(text, data, size);
	dense_init(&d);
	for (int final = 0; final < 2; final++) {
		size_t before = 0;

		dense_make(&d, text, size, final);
		CHECK(d.len <= size && d.n_marks <= DENSE_MARKS(size) && d.unfinished <= size);
		CHECK(!final || d.unfinished == size);
		CHECK(size - d.unfinished <= DENSE_SEQUENCE_MAX);
		for (size_t i = 0; i < d.len; i++) {
			size_t place = dense_place(&d, text, i);

			CHECK(place < size && (i == 0 || place > before) && bytes[i] == translate(text[place]));
			CHECK(dense_outside(&d, text, size, place) == place);
			before = place;
		}
		for (size_t at = 0; at <= size; at++) {
			size_t outside = dense_outside(&d, text, size, at);

			CHECK(outside <= at && at - outside <= DENSE_SEQUENCE_MAX);
		}
	}
	return 0;
}
