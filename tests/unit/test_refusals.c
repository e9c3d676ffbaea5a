/* Who may cause how many records of refusals. */
#include "broker/refusals.h"
#include "common/limits.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

struct told {
	uint64_t n, of_one, several;
	uint32_t one;
};

static void tell(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n)
{
	struct told *t = ctx;

	(void)cgroup;
	t->n += n;
	t->of_one += uid == t->one && !several ? n : 0;
	t->several += several ? n : 0;
}

static size_t take(struct refusals *r, uint32_t uid, uint64_t cgroup, uint64_t now_ms, size_t n)
{
	size_t own = 0;

	for (size_t i = 0; i < n; i++)
		own += refusals_take(r, uid, cgroup, now_ms);
	return own;
}

static void test_a_burst_and_then_one_at_a_time(void **state)
{
	struct refusals *r = calloc(1, sizeof(*r));
	struct told t = {.one = 7};

	(void)state;
	assert_int_equal(take(r, 7, 1, 1000, 500), LIMIT_REFUSALS);
	assert_int_equal(take(r, 8, 1, 1000, 5), 5); /* others are not touched */
	/* what was counted comes before what follows */
	assert_int_equal(take(r, 7, 1, 1000 + LIMIT_REFUSAL_MS, 1), 0);
	refusals_flush(r, 1000 + LIMIT_REFUSAL_MS, false, tell, &t);
	assert_int_equal(t.of_one, 401);
	refusals_flush(r, 1000 + LIMIT_REFUSAL_MS, true, tell, &t);
	assert_int_equal(t.n, 401);
	assert_int_equal(take(r, 7, 1, 1000 + 3 * LIMIT_REFUSAL_MS, 5), 2);
	free(r);
}

/* However many cgroups it has, and however long it goes on. */
static void test_one_user_does_not_hide_another(void **state)
{
	struct refusals *r = calloc(1, sizeof(*r));
	struct told t = {.one = 9};
	size_t records = 0, own = 0, asked = 0;
	uint64_t now = 1000;

	(void)state;
	for (int round = 0; round < 600; round++, now += 1000) {
		for (uint64_t cgroup = 1; cgroup <= 300; cgroup++)
			records += take(r, 7, cgroup, now, 1 + (round == 0 ? 110 : 0));
		if (round % 10 == 0) {
			own += take(r, 9, 5, now, 1);
			asked++;
		}
		refusals_flush(r, now, false, tell, &t);
	}
	assert_int_equal(own, asked);
	assert_int_equal(t.of_one, 0);
	assert_int_equal(t.several, 0);
	assert_true(records <= 2 * LIMIT_REFUSALS + 600);
	free(r);
}

static void test_nothing_is_lost(void **state)
{
	struct refusals *r = calloc(1, sizeof(*r));
	struct told t = {0};
	size_t own = 0, total = 0;

	(void)state;
	for (uint32_t uid = 1; uid <= 1000; uid++, total += 10)
		own += take(r, uid, uid % 3, 1000, 10);
	refusals_flush(r, 2000, true, tell, &t);
	assert_int_equal(own + t.n, total);
	assert_true(own <= LIMIT_REFUSALS_ALL);
	free(r);
}

/* A clock that stands behind gives no credit twice. */
static void test_a_time_that_was_looked_at_before(void **state)
{
	struct refusals *r = calloc(1, sizeof(*r));
	struct told t = {0};

	(void)state;
	assert_int_equal(take(r, 7, 1, 100000, 500), LIMIT_REFUSALS);
	for (size_t i = 0; i < 10; i++) {
		refusals_flush(r, 100000, true, tell, &t);
		assert_int_equal(take(r, 7, 1, 40000, 5), 0);
		refusals_flush(r, 100000, true, tell, &t);
		assert_int_equal(take(r, 7, 1, 100000, 5), 0);
	}
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_time_that_was_looked_at_before),
		cmocka_unit_test(test_a_burst_and_then_one_at_a_time),
		cmocka_unit_test(test_one_user_does_not_hide_another),
		cmocka_unit_test(test_nothing_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
