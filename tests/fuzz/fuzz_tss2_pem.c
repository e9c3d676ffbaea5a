/* A key that is read is written and read again: the same key. */
#include "fuzz.h"

#include "common/err.h"
#include "tpm/tss2_pem.h"

#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_mu.h>

/* By their marshalled form: the unions have room that no field uses. */
static void check_same(const struct tss2_key *a, const struct tss2_key *b)
{
	uint8_t x[1024] = {0}, y[1024] = {0};
	size_t nx = 0, ny = 0;

	CHECK(a->parent == b->parent && a->has_pcr_policy == b->has_pcr_policy);
	CHECK(Tss2_MU_TPM2B_PUBLIC_Marshal(&a->public, x, sizeof(x), &nx) == TSS2_RC_SUCCESS);
	CHECK(Tss2_MU_TPM2B_PUBLIC_Marshal(&b->public, y, sizeof(y), &ny) == TSS2_RC_SUCCESS);
	CHECK(nx == ny && memcmp(x, y, nx) == 0);
	CHECK(a->private.size == b->private.size && a->private.size <= sizeof(a->private.buffer));
	CHECK(memcmp(a->private.buffer, b->private.buffer, a->private.size) == 0);
	CHECK(a->pcr_digest.size == b->pcr_digest.size && a->pcr_digest.size <= sizeof(a->pcr_digest.buffer));
	CHECK(memcmp(a->pcr_digest.buffer, b->pcr_digest.buffer, a->pcr_digest.size) == 0);
	CHECK(a->pcrs.count == b->pcrs.count && a->pcrs.count <= TPM2_NUM_PCR_BANKS);
}

/* Text may stand around the key, but nothing but text inside it. */
static void check_ascii(const uint8_t *data, size_t size)
{
	static const char begin[] = "-----BEGIN TSS2 PRIVATE KEY-----\n", end[] = "-----END TSS2 PRIVATE KEY-----";
	const uint8_t *p = memmem(data, size, begin, sizeof(begin) - 1);
	const uint8_t *stop = p ? memmem(p, size - (size_t)(p - data), end, sizeof(end) - 1) : NULL;

	CHECK(p && stop);
	for (; p < stop; p++)
		CHECK(*p < 0x80);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct tss2_key key, again;
	struct err err = {0};
	char text[LIMIT_WIRE_DATA];
	int r;

	setenv("TSS2_LOG", "all+none", 1); /* a line for every refused key buries the finding */
	r = tss2_pem_read((const char *)data, size, &key, &err);
	fuzz_check_result(r, &err);
	if (r == 0) {
		CHECK(key.parent == TPM2_RH_OWNER);
		check_ascii(data, size);
		r = tss2_pem_write(&key, text, &err);
		fuzz_check_result(r, &err);
		/* what the file format holds can be more than what fits a packet */
		if (r == 0) {
			CHECK(memchr(text, 0, sizeof(text)));
			CHECK(tss2_pem_read(text, strlen(text), &again, &err) == 0);
			check_same(&key, &again);
		}
	} else {
		CHECK(r == -ERR_INPUT);
	}
	fuzz_end(used);
	return 0;
}
