/* Whose connection is served next. */
#include "broker/turn.h"
#include "tests/unit/unit.h"

#include <string.h>

#define FLOOD 500

/* where none of these share a turn by chance */
static struct turns turns;

static void begin(void)
{
	static const uint8_t key[16] = {1};

	turns_init(&turns);
	memcpy(turns.key, key, sizeof(key));
}

static void join(struct conn *c, uid_t uid, uint64_t cgroup, int fd)
{
	*c = (struct conn){.fd = fd, .peer = {.uid = uid, .cgroup = cgroup, .pidfd = -1}};
	turns_join(&turns, c);
}

static int take(void)
{
	uint32_t events;
	struct conn *c = turns_take(&turns, &events);

	return c ? c->fd : -1;
}

/* Another one waits for one request of the flood, wherever it came; and the same uid in another cgroup is another one. */
static void test_a_flood_has_one_turn(void **state)
{
	static struct conn flood[FLOOD], one, other;

	(void)state;
	begin();
	assert_false(turns_waiting(&turns));
	for (int i = 0; i < FLOOD; i++) {
		join(&flood[i], 1000, 7, i);
		turns_add(&turns, &flood[i], 1);
	}
	join(&one, 1000, 8, 1000);
	join(&other, 1001, 7, 1001);
	assert_int_equal(take(), 0);
	turns_add(&turns, &one, 1);
	turns_add(&turns, &other, 1);
	assert_int_equal(take(), 1);
	assert_int_equal(take(), 1001);
	assert_int_equal(take(), 1000);
	turns_add(&turns, &one, 1);
	turns_add(&turns, &flood[0], 1);
	assert_int_equal(take(), 2);
	assert_int_equal(take(), 1000);
	for (int i = 3; i < FLOOD; i++)
		assert_int_equal(take(), i);
	assert_int_equal(take(), 0);
	assert_int_equal(take(), -1);
	assert_false(turns_waiting(&turns));
}

/* Who has many cgroups has no more than who has one. */
static void test_many_cgroups_are_one_user(void **state)
{
	static struct conn flood[64], one;

	(void)state;
	begin();
	for (int i = 0; i < 64; i++) {
		join(&flood[i], 1000, 100 + (uint64_t)i, i);
		turns_add(&turns, &flood[i], 1);
	}
	join(&one, 1001, 7, 1000);
	for (int i = 0; i < 63; i += 2) {
		turns_add(&turns, &one, 1);
		assert_int_not_equal(take(), 1000);
		assert_int_equal(take(), 1000);
	}
}

static void test_events_come_together_and_leave_with_it(void **state)
{
	static struct conn a, b, c;
	uint32_t events;

	(void)state;
	begin();
	join(&a, 1, 1, 1);
	join(&b, 1, 1, 2);
	join(&c, 2, 1, 3);
	turns_add(&turns, &a, 1);
	turns_add(&turns, &b, 1);
	turns_add(&turns, &c, 1);
	turns_add(&turns, &a, 4);
	assert_ptr_equal(turns_take(&turns, &events), &a);
	assert_int_equal(events, 5);
	turns_remove(&turns, &a); /* is not there any more */
	turns_remove(&turns, &c);
	assert_ptr_equal(turns_take(&turns, &events), &b);
	assert_int_equal(events, 1);
	assert_null(turns_take(&turns, &events));
	/* what is closed has no turn */
	a.dead = true;
	turns_add(&turns, &a, 1);
	assert_false(turns_waiting(&turns));
}

UNIT_MAIN(cmocka_unit_test(test_a_flood_has_one_turn), cmocka_unit_test(test_many_cgroups_are_one_user), cmocka_unit_test(test_events_come_together_and_leave_with_it))
