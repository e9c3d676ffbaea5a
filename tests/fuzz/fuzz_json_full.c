/* JSON in an arena that has next to no room left: whatever allocation fails, nothing of the parse stays, and nothing else is hurt. */
#include "fuzz.h"

#include "broker/json.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/secret.h"

#include <string.h>

/* Fills the arena but for about as many bytes as the first two of the input say. */
static size_t fill(void **ret, size_t max, size_t room)
{
	size_t n = 0;

	for (size_t size = LIMIT_ARENA_BROKER / 2; size >= 64; size /= 2) {
		while (n < max && secret_arena_used() + size + room <= LIMIT_ARENA_BROKER) {
			ret[n] = secret_alloc(size);
			if (!ret[n])
				break;
			n++;
		}
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin(), n, full;
	struct err err = {0};
	json_t *j = NULL;
	void *blocks[256];
	int r;

	if (size < 2)
		return 0;
	n = fill(blocks, sizeof(blocks) / sizeof(blocks[0]), (size_t)(data[0] << 8 | data[1]) * 4);
	full = secret_arena_used();
	r = json_parse((const char *)data + 2, size - 2, &j, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 ? json_is_object(j) : (r == -ERR_INPUT || r == -ERR_BUSY) && !j);
	json_decref(j);
	CHECK(secret_arena_used() == full);
	while (n)
		secret_free(blocks[--n]);
	fuzz_end(used);
	return 0;
}
