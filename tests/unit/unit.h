#pragma once
/* What every unit test needs: cmocka and an arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/secret.h"

static inline int unit_arena(void **state)
{
	struct err err = {0};

	(void)state;
	return secret_arena_init(1u << 20, &err);
}

/* Every secret must have been released. */
static inline int unit_arena_done(void **state)
{
	size_t left = secret_arena_used();

	(void)state;
	secret_arena_done();
	return left == 0 ? 0 : -1;
}

#define UNIT_MAIN(...)                                                                                                                               \
	int main(void)                                                                                                                               \
	{                                                                                                                                            \
		const struct CMUnitTest tests[] = {__VA_ARGS__};                                                                                     \
                                                                                                                                                     \
		return cmocka_run_group_tests(tests, unit_arena, unit_arena_done);                                                                   \
	}
