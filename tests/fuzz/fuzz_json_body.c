/* A request's body. An object that comes back is written out and read again: the same object. */
#include "fuzz.h"

#include "broker/api.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

static int read_body(const char *body, size_t len, json_t **ret)
{
	struct request q = {.method = METHOD_POST, .body = body, .body_len = len};
	struct err err = {0};
	int r = api_body(&q, ret, &err);

	fuzz_check_result(r, &err);
	CHECK(r == 0 ? json_is_object(*ret) : r == -ERR_INPUT && !*ret);
	return r;
}

static void check_round_trip(const json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);
	json_t *again = NULL;

	/* NULL: the arena is full, and then it may also be for reading */
	if (text && read_body(text, strlen(text), &again) == 0)
		CHECK(json_equal(object, again));
	else
		CHECK(secret_arena_used() > LIMIT_ARENA_BROKER / 8);
	json_decref(again);
	secret_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	json_t *object = NULL;

	if (read_body((const char *)data, size, &object) == 0)
		check_round_trip(object);
	json_decref(object);
	fuzz_end(used);
	return 0;
}
