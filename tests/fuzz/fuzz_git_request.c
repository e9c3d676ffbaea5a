/* What git asks its helper with. What comes back holds no line end, and a host is one component of a path. */
#include "fuzz.h"

#include "common/bind.h"
#include "common/err.h"
#include "tools/credential.h"

#include <stdio.h>
#include <string.h>

static void check_field(const char *field, size_t size)
{
	CHECK(memchr(field, 0, size) && !strchr(field, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct credential_place place;
	struct git_request q;
	struct err err = {0};
	char url[sizeof(q.protocol) + sizeof(q.host) + 4];
	int r = git_request_parse((const char *)data, size, &q, &err);

	fuzz_check_result(r, &err);
	if (r == 0) {
		check_field(q.protocol, sizeof(q.protocol));
		check_field(q.host, sizeof(q.host));
		check_field(q.path, sizeof(q.path));
		check_field(q.username, sizeof(q.username));
		snprintf(url, sizeof(url), "%s://%s", q.protocol, q.host);
		r = credential_place_parse(url, &place, &err);
		fuzz_check_result(r, &err);
		CHECK(r < 0 || (place.url && path_valid(place.host) && !strchr(place.host, '/')));
	}
	fuzz_end(used);
	return 0;
}
