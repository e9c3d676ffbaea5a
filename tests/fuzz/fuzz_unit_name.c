/* The address that a peer chose for its end. What is read from it is all that stands there. */
#include "fuzz.h"

#include "broker/credential.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct credential_name name;
	struct err err = {0};
	char tail[sizeof(name) + 8];
	int r = credential_name_parse((const char *)data, size, &name, &err), n;

	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_DENIED);
	if (r == 0) {
		n = snprintf(tail, sizeof(tail), "/unit/%s/%s", name.unit, name.name);
		CHECK(n > 0 && (size_t)n + 2 <= size && size <= (size_t)n + 17 && data[0] == 0);
		CHECK(memcmp(data + size - (size_t)n, tail, (size_t)n) == 0);
		CHECK(credential_unit_valid(name.unit, strlen(name.unit)) && path_valid(name.name));
	}
	fuzz_end(used);
	return 0;
}
