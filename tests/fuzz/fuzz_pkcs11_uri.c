/* A provider's URI, up to where a module would be loaded: no input may bring foreign code into this process. */
#include "fuzz.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "pkcs11/module.h"

#include <string.h>

/* By p11-kit's own reading: it takes out white space first, so that a look at the text alone would be fooled. */
static bool names_module(const char *text)
{
	P11KitUri *uri = p11_kit_uri_new();
	const char *path;
	bool named = false;

	CHECK(uri);
	if (p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri) == P11_KIT_URI_OK) {
		path = p11_kit_uri_get_module_path(uri);
		named = (path && path[0] == '/') || p11_kit_uri_get_module_name(uri);
	}
	p11_kit_uri_free(uri);
	return named;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct module none;
	size_t used = fuzz_begin();
	CLEANUP(cleanup_free) char *text = fuzz_string(data, size);
	struct module m;
	struct err err = {0};
	int r;

	if (names_module(text))
		return 0;
	r = module_open(text, &m, &err);
	fuzz_check_result(r, &err);
	CHECK(r == -ERR_INPUT && memcmp(&m, &none, sizeof(m)) == 0);
	fuzz_end(used);
	return 0;
}
