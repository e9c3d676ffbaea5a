/* A manifest has one spelling: what is read is written again to the same text. */
#include "fuzz.h"

#include "common/bind.h"
#include "common/err.h"
#include "tools/manifest.h"

#include <stdlib.h>
#include <string.h>

struct again {
	char *text;
	size_t len;
	char last[LIMIT_PATH_LEN + 1];
};

static int take(void *ctx, const struct manifest_entry *e)
{
	struct again *a = ctx;
	char line[MANIFEST_LINE_LEN];
	size_t n = manifest_line(e, line);

	CHECK(path_valid(e->path) && e->version > 0 && strcmp(a->last, e->path) < 0);
	strcpy(a->last, e->path);
	memcpy(a->text + a->len, line, n);
	a->len += n;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct again a = {.text = malloc(len + MANIFEST_LINE_LEN)};
	struct err err = {0};
	size_t first = strlen(MANIFEST_FIRST_LINE);
	int r;

	CHECK(a.text);
	r = manifest_read((const char *)data, len, take, &a, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_INPUT || r == -ERR_LIMIT);
	CHECK(r < 0 || (a.len == len - first && memcmp(a.text, data + first, a.len) == 0));
	free(a.text);
	return 0;
}
