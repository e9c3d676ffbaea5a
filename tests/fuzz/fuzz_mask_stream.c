/* The masker: secrets and a stream. However the stream is cut, the same comes out, and no secret. */
#include "fuzz.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "mask/mask.h"

#include <stdlib.h>
#include <string.h>

#define SECRETS 4u
#define MIN 4u

struct output {
	uint8_t *bytes;
	size_t len;
};

struct input {
	const uint8_t *p;
	size_t left;
};

static int collect(void *context, const void *data, size_t len, struct err *err)
{
	struct output *o = context;

	(void)err;
	o->bytes = realloc(o->bytes, o->len + len);
	CHECK(o->bytes);
	memcpy(o->bytes + o->len, data, len);
	o->len += len;
	return 0;
}

static uint8_t take(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

/* One of n of its own at the beginning of the input: its length, its bytes. */
static struct input take_secret(struct input *in)
{
	size_t len = take(in);
	struct input secret = {in->p, len < in->left ? len : in->left};

	in->p += secret.left;
	in->left -= secret.left;
	return secret;
}

/* cuts 0: in one piece; else pieces of a length that it and the stream choose. idle: now and then nothing comes. */
static struct output masked(struct mask_values *v, struct input stream, unsigned int cuts, bool idle)
{
	CLEANUP(mask_free) struct mask *m = NULL;
	struct output out = {0};
	struct mask_options o = {.text = "#", .write = collect, .context = &out};
	struct err err = {0};

	CHECK(mask_new(v, &o, &m, &err) == 0);
	while (stream.left) {
		size_t room, n;
		uint8_t *to = mask_room(m, &room);

		CHECK(room >= MASK_WINDOW);
		n = cuts ? 1 + (*stream.p ^ cuts) % cuts : stream.left;
		n = n > stream.left ? stream.left : n;
		memcpy(to, stream.p, n);
		CHECK(mask_put(m, n, &err) == 0);
		if (idle && *stream.p % 3 == 0)
			CHECK(mask_idle(m, &err) == 0);
		stream.p += n;
		stream.left -= n;
	}
	CHECK(mask_end(m, &err) == 0);
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = fuzz_begin();
	struct input in = {data, size}, secrets[SECRETS];
	uint8_t flags = take(&in);
	CLEANUP(mask_values_free) struct mask_values *v = NULL;
	struct output whole, cut;
	struct err err = {0};
	bool added[SECRETS];
	size_t n = flags % SECRETS + 1;
	int r = mask_values_new(MIN, flags & 0x80, NULL, 0, &v, &err);

	CHECK(r == 0);
	for (size_t i = 0; i < n; i++) {
		secrets[i] = take_secret(&in);
		r = mask_values_add(v, secrets[i].p, secrets[i].left, NULL, &added[i], &err);
		fuzz_check_result(r, &err);
		added[i] &= r == 0;
	}
	CHECK(mask_values_ready(v, &err) == 0);
	if (in.left > MASK_WINDOW)
		in.left = MASK_WINDOW;
	whole = masked(v, in, 0, false);
	for (size_t i = 0; i < n; i++)
		/* what stands around a mask may make one that holds '#' */
		if (added[i] && !memchr(secrets[i].p, '#', secrets[i].left))
			CHECK(!whole.len || !memmem(whole.bytes, whole.len, secrets[i].p, secrets[i].left));
	for (unsigned int cuts = 1; cuts < 10; cuts = 5 * cuts + 1) {
		cut = masked(v, in, cuts, false);
		CHECK(cut.len == whole.len && (!cut.len || memcmp(cut.bytes, whole.bytes, cut.len) == 0));
		free(cut.bytes);
	}
	cut = masked(v, in, 7, true);
	free(cut.bytes);
	free(whole.bytes);
	mask_values_free(&v);
	fuzz_end(used);
	return 0;
}
