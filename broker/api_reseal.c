/* cotter/reseal: what is sealed to other recipients than the configuration's is sealed anew, one version a request. */
#include "broker/api.h"

#include "common/age.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is being sealed anew; the store's own key where path is "". */
struct work {
	char path[LIMIT_PATH_LEN + 1];
	uint64_t left;
	struct store_version v;
};

static void free_work(void *p)
{
	struct work *w = p;

	free(w->v.sealed);
	free(w);
}

static int seal(const struct config *config, const char *path, const struct store_version *v, const struct secret *plain, uint8_t **ret, size_t *ret_len,
		struct err *err)
{
	struct bind bind;
	int r = bind_init(&bind, path, v->version, v->meta, err);

	return r < 0 ? r : age_seal_memory(config->recipients, config->n_recipients, &bind, plain, ret, ret_len, err);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	ssize_t n;

	for (; len; data += n, len -= (size_t)n)
		if ((n = write(fd, data, len)) <= 0)
			return -1;
	return 0;
}

/* The file is there whole, the old one or the new one. */
static int replace_key_file(const struct config *config, const uint8_t *sealed, size_t len, struct err *err)
{
	char path[LIMIT_FILE_PATH_LEN + 32], next[LIMIT_FILE_PATH_LEN + 40];
	CLEANUP(cleanup_close) int fd = -1;
	CLEANUP(cleanup_close) int dir = open(config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	snprintf(path, sizeof(path), "%s/%s", config->state_dir, BROKER_STORE_KEY_FILE);
	snprintf(next, sizeof(next), "%s.next", path);
	fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write_all(fd, sealed, len) < 0 || fsync(fd) < 0 || rename(next, path) < 0)
		return err_errno(err, errno, "%.300s", path);
	return dir >= 0 && fsync(dir) == 0 ? 0 : err_errno(err, errno, "%.300s", config->state_dir);
}

static int put(struct call *call, const struct work *w, uint8_t **sealed, size_t len, struct err *err)
{
	struct broker *b = call->broker;
	int r;

	if (w->path[0])
		return store_reseal(&b->store, w->path, &w->v, *sealed, len, config_seal_id(&b->config), err);
	if (len > LIMIT_AGE_HEADER)
		return err_set(err, ERR_LIMIT, "the store's key would be larger than it is read");
	r = replace_key_file(&b->config, *sealed, len, err);
	if (r < 0)
		return r;
	free(b->store_key_file);
	b->store_key_file = steal_ptr(sealed);
	b->store_key_file_len = len;
	return 0;
}

/* What was looked at, and how many versions are left behind it. problem: why it stays as it is; "": it was sealed anew. */
static void reply(struct call *call, const struct work *w, const char *problem, uint64_t seq)
{
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	int r = secret_new(&data, 1024, NULL);

	if (r == 0)
		r = api_append(&data, "{\"path\":\"%s\",\"version\":%llu,\"left\":%llu,\"problem\":", w->path, (unsigned long long)w->v.version,
			       (unsigned long long)(w->left ? w->left - 1 : 0));
	if (r == 0)
		r = api_append_string(&data, problem);
	if (r == 0)
		r = api_append(&data, "}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0)
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
	else
		call_reply(call, 200, &body, seq);
}

/* It stays as it is, and keeps none of the others. */
static void skip(struct call *call, const struct work *w, const char *message)
{
	uint64_t seq = 0;

	snprintf(call->path, sizeof(call->path), "%s", w->path);
	call->version = w->v.version;
	call_record(call, call->event, "failed", message, &seq, NULL);
	reply(call, w, message, seq);
}

static void opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message)
{
	struct call *call = ctx;
	struct work *w = call->work;
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	struct err err = {0};
	uint64_t seq = 0;
	size_t len = 0;
	int r = result;

	(void)header;
	if (r == 0) {
		r = seal(&call->broker->config, w->path[0] ? w->path : BROKER_STORE_KEY_PATH, &w->v, plain, &sealed, &len, &err);
		message = err.msg;
	}
	/* hardware that is not there now may be soon; a file that does not open never does, and keeps none of the others */
	if (r == -ERR_TAMPERED || r == -ERR_NO_MATCH || r == -ERR_AGE_HEADER || r == -ERR_AGE_HMAC || r == -ERR_AGE_PAYLOAD || r == -ERR_INPUT) {
		skip(call, w, message);
		return;
	}
	if (r < 0) {
		call_fail(call, r, message);
		return;
	}
	if (call_grant(call, &seq) < 0)
		return;
	r = put(call, w, &sealed, len, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		reply(call, w, "", seq);
}

static int find(struct call *call, const json_t *body, struct work *w, struct err *err)
{
	struct store *s = &call->broker->store;
	const char *after = json_string_value(json_object_get(body, "after"));
	json_int_t version = json_integer_value(json_object_get(body, "after_version"));
	int r;

	if (json_is_true(json_object_get(body, "store_key"))) {
		w->v.version = 1;
		strcpy(w->v.meta, "type=raw\n");
		w->v.sealed_len = call->broker->store_key_file_len;
		w->v.sealed = malloc(w->v.sealed_len);
		if (!w->v.sealed)
			return err_set(err, ERR_FAILED, "out of memory");
		memcpy(w->v.sealed, call->broker->store_key_file, w->v.sealed_len);
		return 0;
	}
	if (after && *after && !path_valid(after))
		return err_set(err, ERR_INPUT, "after is not a secret's path");
	r = store_to_reseal(s, config_seal_id(&call->broker->config), after ? after : "", version > 0 ? (uint64_t)version : 0, w->path, &w->v.version, &w->left, err);
	if (r < 0)
		return r;
	return store_get(s, w->path, w->v.version, &w->v, err);
}

void cotter_reseal(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = calloc(1, sizeof(*w));
	struct err err = {0};
	uint64_t seq = 0;
	int r = api_body(q, &body, &err);

	call->work = w;
	call->free_work = w ? free_work : NULL;
	if (r == 0)
		r = w ? find(call, body, w, &err) : err_set(&err, ERR_FAILED, "out of memory");
	if (r == -ERR_NOT_FOUND) {
		w->left = 0;
		w->v.version = 0;
		w->path[0] = '\0';
		if (call_grant(call, &seq) == 0)
			reply(call, w, "", seq);
		return;
	}
	if (r == -ERR_TAMPERED && w->path[0]) {
		skip(call, w, err.msg);
		return;
	}
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	snprintf(call->path, sizeof(call->path), "%s", w->path);
	call->version = w->v.version;
	unseal_start(&call->broker->unseals, w->path[0] ? w->path : BROKER_STORE_KEY_PATH, w->v.version, w->v.sealed, w->v.sealed_len, false, call_asker(call), opened,
		     call);
}
