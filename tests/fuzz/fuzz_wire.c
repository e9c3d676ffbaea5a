/* A frame that is called valid can be used without another look: strings end, lengths fit. */
#include "fuzz.h"

#include "common/err.h"
#include "common/wire.h"

#include <string.h>

#define ENDS(s) (memchr((s), 0, sizeof(s)) != NULL)

static void check_request(const uint8_t *data, size_t size)
{
	struct wire_request q = {0};

	memcpy(&q, data, size < sizeof(q) ? size : sizeof(q));
	if (!wire_request_valid(&q, size))
		return;
	CHECK(size == wire_request_len(&q) && size <= sizeof(q) && q.magic == WIRE_MAGIC && q.op < WIRE_N && q.data_len <= sizeof(q.data));
	CHECK(ENDS(q.text) && ENDS(q.text2));
	CHECK(!wire_request_valid(&q, size - 1) && !wire_request_valid(&q, size + 1));
	memset(q.text2, 'x', sizeof(q.text2));
	CHECK(!wire_request_valid(&q, size));
}

static void check_reply(const uint8_t *data, size_t size)
{
	struct wire_reply a = {0};

	memcpy(&a, data, size < sizeof(a) ? size : sizeof(a));
	if (!wire_reply_valid(&a, size, a.id))
		return;
	CHECK(size == wire_reply_len(&a) && size <= sizeof(a) && a.magic == WIRE_MAGIC && a.op < WIRE_N && a.data_len <= sizeof(a.data));
	CHECK(a.result <= 0 && a.result > -1000);
	CHECK(ENDS(a.message) && ENDS(a.key.ref) && ENDS(a.key.label));
	CHECK(ENDS(a.status.description) && ENDS(a.status.problem) && ENDS(a.status.srk_name));
	CHECK(!wire_reply_valid(&a, size, a.id + 1) && !wire_reply_valid(&a, size - 1, a.id));
	/* the peer's number goes into the tables of err.h */
	CHECK(err_name(-a.result) && err_http_status(-a.result) >= 200 && err_exit_status(-a.result) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();

	check_request(data, size);
	check_reply(data, size);
	fuzz_end(used);
	return 0;
}
