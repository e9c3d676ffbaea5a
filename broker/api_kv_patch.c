/* PATCH of secret/data (a JSON merge patch, RFC 7396) and secret/subkeys of KV version 2: both look into the current object. */
#include "broker/api_kv.h"
#include "broker/server.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

struct work {
	struct server *server;
	uid_t uid;
	bool counted;
	struct secret patch; /* as text: a tree of it would take many times as much of the arena while the hardware works */
	int64_t cas;
	uint64_t depth;
};

static void free_work(void *p)
{
	struct work *w = p;
	struct server_user *u = w->counted ? server_user(w->server, w->uid) : NULL;

	if (u)
		u->patches--;
	w->server->patches -= w->counted;
	secret_clear(&w->patch);
	free(w);
}

static struct work *begin(struct call *call)
{
	struct work *w = calloc(1, sizeof(*w));

	call->work = w;
	call->free_work = w ? free_work : NULL;
	if (w)
		*w = (struct work){.server = call->conn->server, .uid = call->conn->peer.uid};
	return w;
}

/* ---- patch ------------------------------------------------------------------------------------------------------ */

/* target: an object. No deeper than the parser let it be. false: no memory, and target is of no use. */
static bool merge(json_t *target, const json_t *patch)
{
	const char *name;
	json_t *value;
	bool good = true;

	json_object_foreach((json_t *)(size_t)patch, name, value) {
		if (json_is_null(value))
			json_object_del(target, name);
		else if (!json_is_object(value))
			good &= json_object_set(target, name, value) == 0;
		else if (json_is_object(json_object_get(target, name)) || json_object_set_new(target, name, json_object()) == 0)
			good &= merge(json_object_get(target, name), value);
		else
			good = false;
	}
	return good;
}

int kv_check_patch(const struct request *q, struct err *err)
{
	return q->merge_patch ? 0 : err_set(err, ERR_MEDIA, "a PATCH has the Content-Type application/merge-patch+json");
}

static int patched(struct call *call, const struct secret *object, struct secret *ret, struct err *err)
{
	const struct work *w = call->work;
	CLEANUP(json_cleanup) json_t *target = NULL, *patch = NULL;
	uint64_t read = call->version;
	int r = json_parse((const char *)object->data, object->len, &target, err);

	if (r == 0)
		r = json_parse((const char *)w->patch.data, w->patch.len, &patch, err);
	if (r == 0)
		r = kv_next(call, w->cas, err);
	if (r == 0 && call->version != read + 1)
		r = err_set(err, ERR_CONFLICT, "another version was written meanwhile: try again");
	if (r == 0 && !merge(target, patch))
		r = err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	return r < 0 ? r : json_write(target, LIMIT_SECRET_LEN, ret, err);
}

static void patch_opened(struct call *call, const struct secret *object)
{
	CLEANUP(secret_clear) struct secret plain = {0};
	struct err err = {0};
	int r;

	if (!object) {
		kv_reply(call, "data", NULL);
		return;
	}
	r = patched(call, object, &plain, &err);
	/* the hardware worked for it, and a size says something of the secret */
	if (r < 0 && call_spend(call, err.msg) < 0)
		return;
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	kv_store_object(call, &plain);
}

static int take_place(struct call *call, struct work *w, struct err *err)
{
	struct server_user *u = server_user(w->server, w->uid);

	if (!u || u->patches >= LIMIT_PATCHES_PER_UID || call->conn->server->patches >= LIMIT_PATCHES)
		return err_set(err, ERR_BUSY, "too many patches at once: try again");
	u->patches++;
	w->server->patches++;
	w->counted = true;
	return 0;
}

void kv_patch(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = begin(call);
	struct err err = {0};
	int r = w ? kv_check_patch(q, &err) : err_set(&err, ERR_FAILED, "out of memory");

	if (r == 0)
		r = api_body(q, &body, &err);
	if (r == 0 && !json_is_object(json_object_get(body, "data")))
		r = err_set(&err, ERR_INPUT, "no data provided: the body is {\"data\": {...}}");
	if (r == 0)
		r = kv_read_cas(json_object_get(body, "options"), &w->cas, &err);
	if (r == 0)
		r = kv_next(call, w->cas, &err);
	if (r == 0)
		r = take_place(call, w, &err);
	if (r == 0)
		r = json_write(json_object_get(body, "data"), LIMIT_SECRET_LEN, &w->patch, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_open(call, 0, patch_opened);
}

/* ---- subkeys ---------------------------------------------------------------------------------------------------- */

/* Every value becomes null; objects keep their names down to depth (0: all the way). NULL without memory. */
static json_t *bare(const json_t *object, uint64_t depth)
{
	json_t *out = json_object(), *inner;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(size_t)object, name, value) {
		inner = json_object_size(value) && depth != 1 ? bare(value, depth ? depth - 1 : 0) : json_null();
		if (json_object_set_new(out, name, inner) < 0) {
			json_decref(out);
			return NULL;
		}
	}
	return out;
}

static void subkeys_opened(struct call *call, const struct secret *object)
{
	const struct work *w = call->work;
	CLEANUP(json_cleanup) json_t *whole = NULL, *names = NULL;
	CLEANUP(secret_clear) struct secret text = {0};
	struct err err = {0};
	int r = object ? json_parse((const char *)object->data, object->len, &whole, &err) : 0;

	if (!object) {
		kv_reply(call, "subkeys", NULL);
		return;
	}
	names = r == 0 ? bare(whole, w->depth) : NULL;
	if (r == 0 && !names)
		r = err_set(&err, ERR_BUSY, "the locked memory for secrets is full: try again");
	if (r == 0)
		r = json_write(names, 2 * LIMIT_SECRET_LEN, &text, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	kv_reply(call, "subkeys", &text);
}

void kv_subkeys(struct call *call, const struct request *q)
{
	struct work *w = begin(call);

	if (!w) {
		call_fail(call, -ERR_FAILED, "out of memory");
		return;
	}
	w->depth = q->query_depth;
	kv_open(call, q->query_version, subkeys_opened);
}
