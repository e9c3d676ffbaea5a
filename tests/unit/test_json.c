/* What is written as JSON is written whole, however little memory there is. */
#include "broker/api.h"
#include "common/err.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#define BLOCKS 1024u /* of an arena of 64 KiB */

static json_t *deep(void)
{
	char pad[1201];
	json_t *j = json_integer(1), *outer;

	for (size_t i = 0; i < 27; i++) {
		outer = json_object();
		json_object_set_new(outer, "d", j);
		j = outer;
	}
	memset(pad, 'p', 1200);
	pad[1200] = '\0';
	json_object_set_new(j, "pad", json_string(pad));
	return j;
}

static void test_whole_or_not_at_all(void **state)
{
	static void *taken[BLOCKS];
	size_t n = 0, wrote = 0, refused = 0, whole;
	json_t *j;

	(void)state;
	assert_int_equal(secret_arena_init(65536, NULL), 0);
	json_set_alloc_funcs(secret_alloc, secret_free);
	j = deep();
	whole = json_dumpb(j, NULL, 0, JSON_COMPACT);
	assert_true(whole > 1200);
	while (n < BLOCKS && (taken[n] = secret_alloc(1)))
		n++;
	/* from none free to all of them */
	for (;;) {
		struct secret text = {0};
		struct err err = {0};

		if (json_write(j, LIMIT_SECRET_LEN, &text, &err) == 0) {
			assert_int_equal(text.len, whole);
			assert_int_equal(text.data[whole - 1], '}');
			wrote++;
		} else {
			assert_int_equal(err.code, ERR_BUSY);
			refused++;
		}
		secret_clear(&text);
		if (n == 0)
			break;
		secret_free(taken[--n]);
	}
	assert_true(wrote > 100);
	assert_true(refused > 20);
	assert_int_equal(json_write(j, whole - 1, &(struct secret){0}, NULL), -ERR_LIMIT);
	json_decref(j);
	json_set_alloc_funcs(malloc, free);
	secret_arena_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
