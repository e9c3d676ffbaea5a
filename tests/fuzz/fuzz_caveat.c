/* A caveat that nobody can explain holds for nobody. */
#include "fuzz.h"

#include "broker/caveat.h"
#include "broker/policy.h"
#include "common/err.h"

#include <string.h>

/* Off the requests' path: "uses" alone asks the store, but not when a token is only looked up. */
static int check_lookup(const struct macaroon_caveat *caveat, struct err *err)
{
	const struct token_facts facts = {.uid = 1000, .gid = 1000};
	const struct token_row row = {.policies = "", .meta = ""};
	const struct caveat_context c = {.facts = &facts, .row = &row};

	return caveat_check(caveat, &c, err);
}

static void check_get(const struct macaroon_caveat *caveat, bool known)
{
	const struct token_facts facts = {
		.uid = 1000, .gid = 1000, .op = POLICY_GET, .path = "release/key", .wall_ms = 1700000000000};
	const struct token_row row = {.policies = "", .meta = ""};
	const struct caveat_context c = {.facts = &facts, .row = &row};
	struct err err = {0};
	int r;

	if (caveat->len >= 5 && memcmp(caveat->p, "uses ", 5) == 0)
		return;
	r = caveat_check(caveat, &c, &err);
	fuzz_check_result(r, &err);
	CHECK(r == -ERR_DENIED || (r == 0 && known));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	const struct macaroon_caveat caveat = {.p = data, .len = size};
	char sentence[256], small[16];
	struct err err = {0};
	bool known;
	int r;

	memset(sentence, 'x', sizeof(sentence));
	known = caveat_explain((const char *)data, size, sentence, sizeof(sentence));
	if (known) {
		CHECK(size <= LIMIT_CAVEAT_LEN && memchr(sentence, 0, sizeof(sentence)));
		for (const char *p = sentence; *p; p++)
			CHECK(*p >= 0x20 && *p < 0x7f);
		CHECK(caveat_explain((const char *)data, size, small, sizeof(small)) && memchr(small, 0, sizeof(small)));
	}
	r = check_lookup(&caveat, &err);
	fuzz_check_result(r, &err);
	CHECK(r == -ERR_DENIED || (r == 0 && known));
	check_get(&caveat, known);
	fuzz_end(used);
	return 0;
}
