/* A segment of the audit log. What the scan says about it must add up; cutting off the torn line changes nothing. */
#include "fuzz.h"

#include "broker/audit.h"
#include "common/err.h"

#include <string.h>
#include <unistd.h>

struct seen {
	uint64_t records, bytes;
};

struct scan {
	struct seen seen;
	struct merkle tree;
	struct audit_segment segment;
};

static int each(void *ctx, const char *line, size_t len)
{
	struct seen *seen = ctx;

	CHECK(len <= LIMIT_AUDIT_RECORD && len > 4 && memcmp(line, "seq=", 4) == 0 && !memchr(line, '\n', len));
	seen->records++;
	seen->bytes += len + 1;
	return 0;
}

static int scan(const uint8_t *data, size_t size, struct scan *s)
{
	struct err err = {0};
	int r;

	*s = (struct scan){0};
	r = audit_scan(fuzz_file(data, size), &s->tree, each, &s->seen, &s->segment, &err);
	fuzz_check_result(r, &err);
	CHECK(r == 0 || r == -ERR_TAMPERED);
	return r;
}

static void check_whole(const struct scan *s, const uint8_t *data, size_t size)
{
	struct scan again;
	uint8_t root[32], again_root[32];

	CHECK(s->segment.end + s->segment.torn == size && s->seen.bytes <= s->segment.end && s->tree.size >= s->seen.records);
	CHECK(memchr(s->segment.log_id, 0, sizeof(s->segment.log_id)));
	CHECK(s->segment.end == 0 || data[s->segment.end - 1] == '\n');
	CHECK(scan(data, s->segment.end, &again) == 0);
	CHECK(again.segment.torn == 0 && again.segment.end == s->segment.end && again.seen.records == s->seen.records);
	merkle_root(&s->tree, root);
	merkle_root(&again.tree, again_root);
	CHECK(memcmp(root, again_root, sizeof(root)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct scan s;

	if (scan(data, size, &s) == 0)
		check_whole(&s, data, size);
	fuzz_end(used);
	return 0;
}
