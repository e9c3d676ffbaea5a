#include "broker/rate.h"

#include "common/err.h"

#include <stdlib.h>
#include <string.h>

/* When all is paid back if n more are taken now. */
static uint64_t paid_after(const struct rate *r, struct config_rate limit, uint32_t n, uint64_t now_us)
{
	uint64_t from = r && r->paid_us > now_us ? r->paid_us : now_us;

	return from + n * ((limit.per_ms * 1000 + limit.n - 1) / limit.n);
}

uint64_t rate_wait(const struct rate *list, const uint8_t id[RATE_ID_LEN], struct config_rate limit, uint32_t n, uint64_t boot_ms)
{
	uint64_t now_us = boot_ms * 1000, paid;
	/* a burst of n is as long as n of them, each rounded up */
	uint64_t most = now_us + limit.n * ((limit.per_ms * 1000 + limit.n - 1) / limit.n);

	if (n > limit.n)
		return UINT64_MAX;
	for (; list && memcmp(list->id, id, RATE_ID_LEN) != 0; list = list->next)
		;
	paid = paid_after(list, limit, n, now_us);
	return paid <= most ? 0 : (paid - most + 999) / 1000;
}

int rate_take(struct rate **list, const uint8_t id[RATE_ID_LEN], uint32_t uid, struct config_rate limit, uint32_t n, uint64_t boot_ms, struct err *err)
{
	struct rate *r = *list;

	while (r && memcmp(r->id, id, RATE_ID_LEN) != 0)
		r = r->next;
	/* what is paid back is as good as new */
	for (struct rate *old = *list; !r && old; old = old->next)
		if (old->paid_us <= boot_ms * 1000)
			r = old;
	if (!r) {
		r = calloc(1, sizeof(*r));
		if (!r)
			return err_set(err, ERR_FAILED, "out of memory");
		r->next = *list;
		*list = r;
	}
	memcpy(r->id, id, RATE_ID_LEN);
	r->uid = uid;
	r->paid_us = paid_after(r, limit, n, boot_ms * 1000);
	return 0;
}

bool rate_known(const struct rate *list, const uint8_t id[RATE_ID_LEN], uint64_t boot_ms)
{
	for (; list; list = list->next)
		if (list->paid_us > boot_ms * 1000 && memcmp(list->id, id, RATE_ID_LEN) == 0)
			return true;
	return false;
}

size_t rate_count(const struct rate *list, uint32_t uid, uint64_t boot_ms)
{
	size_t n = 0;

	for (; list; list = list->next)
		n += list->uid == uid && list->paid_us > boot_ms * 1000;
	return n;
}

void rates_done(struct rate **list)
{
	struct rate *next;

	for (struct rate *r = *list; r; r = next) {
		next = r->next;
		free(r);
	}
	*list = NULL;
}
