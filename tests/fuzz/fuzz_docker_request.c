/* A server's name, as docker says it. It becomes one component of a path, and names the same place when it is read again. */
#include "fuzz.h"

#include "common/bind.h"
#include "common/err.h"
#include "tools/credential.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct credential_place place, again;
	struct err err = {0};
	char text[sizeof(place.host)], *port;
	int r = docker_request_parse((const char *)data, size, &place, &err);

	fuzz_check_result(r, &err);
	if (r == 0) {
		CHECK(path_valid(place.host) && !strchr(place.host, '/') && !strpbrk(place.host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ:@"));
		memcpy(text, place.host, sizeof(text));
		port = strchr(text, '+');
		if (port)
			*port = ':';
		CHECK(credential_place_parse(text, &again, &err) == 0 && strcmp(again.host, place.host) == 0);
	}
	fuzz_end(used);
	return 0;
}
