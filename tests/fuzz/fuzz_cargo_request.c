/* A line of cargo's credential protocol, and the options that may stand in it. */
#include "fuzz.h"

#include "common/err.h"
#include "tools/credential.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct cargo_request q;
	struct credential c = {.prefix = "cargo"};
	struct err err = {0};
	char **args;
	int r = cargo_request_parse((const char *)data, size, &q, &err), n;

	fuzz_check_result(r, &err);
	if (r == 0) {
		CHECK(q.json && q.url && q.n_args >= 0 && q.n_args <= (int)LIMIT_HELPER_ARGS);
		n = q.n_args;
		args = q.args;
		r = credential_options(&c, &n, &args, &err);
		fuzz_check_result(r, &err);
		CHECK(n >= 0 && args + n == q.args + q.n_args);
		CHECK(r < 0 || n < q.n_args || (!c.path && !c.host && !c.state_dir));
	}
	json_decref(q.json);
	fuzz_end(used);
	return 0;
}
