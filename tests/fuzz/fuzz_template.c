/* A template of cotter run: rendered, every place holds its value, and the rest is as it was. */
#include "fuzz.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"
#include "tools/template.h"

#include <string.h>

#define MARK "\1V"

static int count(void *context, const char *source, struct err *err)
{
	size_t *n = context;

	(void)err;
	CHECK(!strchr(source, '\n') && !strstr(source, "}}"));
	++*n;
	return 0;
}

static int look_up(void *context, const char *source, const struct secret **ret, struct err *err)
{
	(void)source;
	(void)err;
	*ret = context;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin(), n = 0, found = 0;
	struct secret text = {0}, value = {0}, out = {0};
	struct err err = {0};
	int r;

	CHECK(secret_copy(&text, data, size, &err) == 0 && secret_copy(&value, MARK, 2, &err) == 0);
	r = template_sources(&text, "t", count, &n, &err);
	fuzz_check_result(r, &err);
	if (r == 0) {
		CHECK(template_render(&text, look_up, &value, &out, &err) == 0);
		for (size_t i = 0; i + 1 < out.len; i++)
			found += memcmp(out.data + i, MARK, 2) == 0;
		CHECK(found >= n);
		CHECK(n || (out.len == size && (!size || memcmp(out.data, data, size) == 0)));
	}
	secret_clear(&text);
	secret_clear(&value);
	secret_clear(&out);
	fuzz_end(used);
	return 0;
}
