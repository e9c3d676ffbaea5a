/* sys/…: what clients ask before anything else. Open to all, no secret in it; answered while sealed. */
#include "broker/api.h"

#include "common/cleanup.h"
#include "common/err.h"

#include "build-config.h"

static void reply_text(struct call *call, int status, struct secret *body, int r)
{
	if (r < 0)
		call_reply(call, 503, NULL, 0);
	else
		call_reply(call, status, body, 0);
}

void sys_health(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	bool sealed = !call->broker->unsealed;
	int r = secret_new(&body, 512, NULL);

	if (r == 0 && q->method != METHOD_HEAD)
		r = api_append(&body,
			       "{\"initialized\":true,\"sealed\":%s,\"standby\":false,\"performance_standby\":false,"
			       "\"replication_performance_mode\":\"disabled\",\"replication_dr_mode\":\"disabled\","
			       "\"server_time_utc\":%llu,\"version\":\"" COTTER_VERSION "\"}\n",
			       sealed ? "true" : "false", (unsigned long long)(token_wall_ms() / 1000));
	reply_text(call, sealed ? 503 : 200, &body, r);
}

void sys_seal_status(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct broker *b = call->broker;
	int r = secret_new(&body, 512, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&body,
			       "{\"type\":\"cotter\",\"initialized\":true,\"sealed\":%s,\"t\":0,\"n\":0,\"progress\":0,\"nonce\":\"\","
			       "\"recovery_seal\":true,\"version\":\"" COTTER_VERSION "\",\"build_date\":\"\",\"migration\":false,"
			       "\"storage_type\":\"sqlite\",\"cotter_reason\":",
			       b->unsealed ? "false" : "true");
	if (r == 0)
		r = api_append_string(&body, b->unsealed ? "" : b->sealed_reason);
	if (r == 0)
		r = api_append(&body, "}\n");
	reply_text(call, 200, &body, r);
}

void sys_leader(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	int r = secret_new(&body, 64, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&body, "{\"ha_enabled\":false}\n");
	reply_text(call, 200, &body, r);
}

void sys_init(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	int r = secret_new(&body, 64, NULL);

	(void)q;
	if (r == 0)
		r = api_append(&body, "{\"initialized\":true}\n");
	reply_text(call, 200, &body, r);
}
