#include "tests/unit/unit.h"

#include <string.h>

static void test_blocks_do_not_overlap_and_are_wiped(void **state)
{
	uint8_t *p[64];
	size_t before = secret_arena_used();

	(void)state;
	for (size_t i = 0; i < 64; i++) {
		p[i] = secret_alloc(1 + i * 37);
		assert_non_null(p[i]);
		for (size_t k = 0; k < 1 + i * 37; k++)
			assert_int_equal(p[i][k], 0);
		memset(p[i], (int)i + 1, 1 + i * 37);
	}
	for (size_t i = 0; i < 64; i++)
		for (size_t k = 0; k < 1 + i * 37; k++)
			assert_int_equal(p[i][k], i + 1);
	for (size_t i = 0; i < 64; i += 2)
		secret_free(p[i]);
	for (size_t i = 1; i < 64; i += 2) {
		assert_int_equal(p[i][0], i + 1);
		secret_free(p[i]);
	}
	assert_int_equal(secret_arena_used(), before);
}

static void test_exhaustion_is_told_and_recovers(void **state)
{
	void *all[2048];
	struct secret s;
	struct err err = {0};
	size_t n = 0;

	(void)state;
	while (n < 2048 && (all[n] = secret_alloc(1024)))
		n++;
	assert_int_equal(n, (1u << 20) / 1024);
	assert_int_equal(secret_new(&s, 64, &err), -ERR_BUSY);
	while (n)
		secret_free(all[--n]);
	all[0] = secret_alloc(1u << 20); /* one block again: all buddies met */
	assert_non_null(all[0]);
	secret_free(all[0]);
	assert_null(secret_alloc((1u << 20) + 1));
	assert_null(secret_alloc(SIZE_MAX));
}

static void test_append_grows(void **state)
{
	struct secret s = {0};
	struct err err;

	(void)state;
	assert_int_equal(secret_new(&s, 1, &err), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(secret_append(&s, "abc", 3, &err), 0);
	assert_int_equal(s.len, 3000);
	assert_memory_equal(s.data + 2997, "abc", 3);
	secret_clear(&s);
	assert_null(s.data);
	secret_clear(&s);
}

UNIT_MAIN(cmocka_unit_test(test_blocks_do_not_overlap_and_are_wiped), cmocka_unit_test(test_exhaustion_is_told_and_recovers),
	  cmocka_unit_test(test_append_grows))
