/* The values file of cotter mask and cotter scan: what it gives is in the file's order, and no more than the file holds. */
#include "fuzz.h"

#include "common/err.h"
#include "tools/values.h"

#include <string.h>

struct seen {
	size_t next, bytes;
};

static int found(void *context, size_t number, const char *name, const void *value, size_t len, struct err *err)
{
	struct seen *seen = context;
	volatile uint8_t sum = 0;

	CHECK(number == seen->next);
	seen->next++;
	seen->bytes += len + (name ? strlen(name) : 0);
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)value)[i]);
	/* the caller's own refusal comes back as it is */
	return len == 13 ? err_set(err, ERR_LIMIT, "thirteen") : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct seen seen = {0};
	struct err err = {0};
	int r = values_parse(data, size, found, &seen, &err);

	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_INPUT || r == -ERR_LIMIT || r == -ERR_BUSY);
	CHECK(seen.bytes <= size);
	fuzz_end(used);
	return 0;
}
