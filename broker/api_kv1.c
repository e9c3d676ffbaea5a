/* KV version 1 on mounts of the configuration: the current version of a secret, and what is written is the next one. */
#include "broker/api_kv.h"
#include "common/cleanup.h"
#include "common/err.h"

static void reply_read(struct call *call, const struct secret *object)
{
	call->gives = object != NULL;
	if (!object)
		call_fail(call, -ERR_NOT_FOUND, "its current version is deleted or destroyed");
	else
		call_reply_data(call, object, 0);
}

void kv1_read(struct call *call, const struct request *q)
{
	(void)q;
	kv_open(call, 0, reply_read);
}

void kv1_write(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	CLEANUP(secret_clear) struct secret plain = {0};
	struct err err = {0};
	int r = api_body(q, &body, &err);

	if (r == 0 && json_object_size(body) == 0)
		r = err_set(&err, ERR_INPUT, "missing data fields: the body is the secret's object");
	if (r == 0)
		r = kv_next(call, -1, &err);
	if (r == 0)
		r = json_write(body, LIMIT_SECRET_LEN, &plain, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->plain = true;
	kv_store_object(call, &plain);
}
