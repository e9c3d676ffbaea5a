/* Rates of keys: so many in a time, and as many at once. */
#include "broker/rate.h"
#include "common/err.h"
#include "unit.h"

#include <string.h>

static const struct config_rate three_in_ten = {.n = 3, .per_ms = 10000};
static const uint8_t one[RATE_ID_LEN] = {1}, other[RATE_ID_LEN] = {2};

static size_t take(struct rate **list, const uint8_t *id, uint64_t now_ms, size_t n)
{
	size_t taken = 0;

	for (size_t i = 0; i < n && rate_wait(*list, id, three_in_ten, 1, now_ms) == 0; i++)
		taken += rate_take(list, id, RATE_OF_ALL, three_in_ten, 1, now_ms, NULL) == 0;
	return taken;
}

static void test_as_many_at_once_and_then_one_by_one(void **state)
{
	struct rate *list = NULL;

	(void)state;
	assert_int_equal(take(&list, one, 5000, 100), 3);
	assert_int_equal(rate_wait(list, one, three_in_ten, 1, 5000), 3334);
	assert_int_equal(rate_wait(list, one, three_in_ten, 3, 5000), 10001);
	assert_int_equal(take(&list, one, 5000 + 3333, 100), 0);
	assert_int_equal(take(&list, one, 5000 + 3334, 100), 1);
	assert_int_equal(take(&list, other, 5000, 100), 3); /* another key is not touched */
	/* in a minute no more than its rate and one burst */
	size_t n = 0;
	for (uint64_t now = 100000; now < 160000; now += 50)
		n += take(&list, one, now, 100);
	assert_in_range(n, 18, 21);
	rates_done(&list);
}

static void test_a_batch_is_taken_whole_or_never(void **state)
{
	struct rate *list = NULL;

	(void)state;
	assert_true(rate_wait(list, one, three_in_ten, 4, 1000) == UINT64_MAX);
	assert_int_equal(rate_wait(list, one, three_in_ten, 3, 1000), 0);
	assert_int_equal(rate_take(&list, one, RATE_OF_ALL, three_in_ten, 2, 1000, NULL), 0);
	assert_true(rate_wait(list, one, three_in_ten, 2, 1000) > 0);
	assert_int_equal(rate_wait(list, one, three_in_ten, 1, 1000), 0);
	assert_int_equal(rate_wait(list, one, three_in_ten, 0, 1000), 0);
	rates_done(&list);
}

static void test_what_is_paid_back_takes_no_room(void **state)
{
	struct rate *list = NULL;
	uint8_t id[RATE_ID_LEN] = {0};
	size_t n = 0;

	(void)state;
	for (uint32_t i = 1; i <= 1000; i++) {
		memcpy(id, &i, sizeof(i));
		assert_int_equal(rate_take(&list, id, RATE_OF_ALL, three_in_ten, 1, (uint64_t)i * 60000, NULL), 0);
	}
	for (const struct rate *r = list; r; r = r->next)
		n++;
	assert_int_equal(n, 1);
	rates_done(&list);
	assert_null(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_many_at_once_and_then_one_by_one),
		cmocka_unit_test(test_a_batch_is_taken_whole_or_never),
		cmocka_unit_test(test_what_is_paid_back_takes_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
