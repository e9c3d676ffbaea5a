/* ssh/sign in Vault's dialect: OpenSSH certificates for a short time, signed by a CA key in hardware. */
#include "broker/api_ca.h"
#include "broker/sshcert.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/sshkey.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct work {
	struct store_key key;
	enum sign_scheme scheme;
	enum hash_type hash;
	uint64_t serial;
	char type[64], key_id[128];
	uint8_t tbs[LIMIT_CERTIFICATE], input[SIGN_INPUT_MAX];
	size_t tbs_len, input_len;
};

static void free_work(void *p)
{
	struct work *w = p;

	store_key_done(&w->key);
	free(w);
}

/* Certificates by RSA keys are signed with SHA-512, as ssh-keygen does. */
static const char *algorithm_of(const struct work *w)
{
	return key_is_rsa(w->key.type) ? "rsa-sha2-512" : ssh_key_name(w->key.type);
}

static void reply(struct call *call, const uint8_t *cert, size_t len)
{
	const struct work *w = call->work;
	CLEANUP(secret_clear) struct secret data = {0}, body = {0};
	char serial[20];
	uint64_t seq = 0;
	int r = secret_new(&data, 1024, NULL);

	if (r == 0)
		r = api_append(&data, "{\"serial_number\":\"%016llx\",\"signed_key\":\"%s ", (unsigned long long)w->serial, w->type);
	if (r == 0)
		r = api_append_base64(&data, cert, len);
	if (r == 0)
		r = api_append(&data, "\\n\"}");
	if (r == 0)
		r = api_envelope((char *)data.data, data.len, NULL, 0, &body);
	if (r < 0) {
		call_fail(call, -ERR_BUSY, "the locked memory is full: try again");
		return;
	}
	snprintf(serial, sizeof(serial), "%016llx", (unsigned long long)w->serial);
	ca_describe(call, &w->key, "ssh certificate", serial, cert, w->tbs_len);
	if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &body, seq);
}

static void signed_one(void *ctx, int result, const struct wire_reply *answer, const char *message)
{
	struct call *call = ctx;
	struct work *w = call->work;
	uint8_t blob[KEY_SIGNATURE_MAX + 64];
	struct writer whole = writer_init(w->tbs, sizeof(w->tbs));
	struct err err = {0};
	size_t n;
	int r = result;

	if (r == 0) {
		r = ca_check(&w->key, w->scheme, w->hash, w->input, w->input_len, answer, &err);
		if (r == 0)
			r = ca_still(call->broker, &w->key, &err);
		message = err.msg;
	}
	if (r < 0) {
		call_fail(call, r, message);
		return;
	}
	n = ssh_signature_blob(w->key.type, algorithm_of(w), answer->data, answer->data_len, blob, sizeof(blob));
	whole.len = w->tbs_len;
	ssh_put_string(&whole, blob, n);
	if (n == 0 || whole.failed)
		call_fail(call, -ERR_LIMIT, "the certificate is too long");
	else
		reply(call, w->tbs, whole.len);
}

/* {"permit-pty": ""}, or the role's. */
static size_t extensions(const json_t *body, const struct config_cert_role *role, char **ret)
{
	json_t *map = json_object_get(body, "extensions");
	const char *name;
	json_t *value;
	size_t n = 0;

	if (!json_is_object(map)) {
		for (; n < role->n_extensions; n++)
			ret[n] = role->extensions[n];
		return n;
	}
	json_object_foreach(map, name, value)
		if (n < LIMIT_CERT_EXTENSIONS)
			memcpy(&ret[n++], &name, sizeof(name)); /* the map lives as long as the body */
	return n;
}

static int build(struct call *call, const json_t *body, struct work *w, struct err *err)
{
	const struct config_ca *ca = &call->broker->config.ssh;
	const struct config_cert_role *role = ca_role(call, ca, err);
	char *wanted[LIMIT_CERT_EXTENSIONS];
	struct sshcert_request q = {.role = role, .extensions = wanted};
	uint8_t blob[1024];
	uint64_t now_s = token_wall_ms() / 1000, ttl_s = 0;
	const char *type = json_string_value(json_object_get(body, "cert_type")), *id = json_string_value(json_object_get(body, "key_id"));
	size_t n;
	int r = role ? ca_key(call->broker, ca, &w->key, err) : -ERR_INPUT;

	if (r == 0)
		r = ca_ttl(body, role, &ttl_s, err);
	q.public_key = json_string_value(json_object_get(body, "public_key"));
	q.principals = json_string_value(json_object_get(body, "valid_principals"));
	if (r == 0 && (!q.public_key || !q.principals))
		r = err_set(err, ERR_INPUT, "say public_key and valid_principals");
	if (r == 0 && type && strcmp(type, role->host ? "host" : "user") != 0)
		r = err_set(err, ERR_INPUT, "cert_type: this role is for %s certificates", role->host ? "host" : "user");
	if (r == 0 && id && (strlen(id) > LIMIT_NAME_LEN || !path_valid(id)))
		r = err_set(err, ERR_INPUT, "key_id: letters, digits and ._@+-, in components joined by slashes");
	if (r < 0)
		return r;
	/* who asked, so that the log of whoever it opens names it */
	snprintf(w->key_id, sizeof(w->key_id), "%s%s%s", call->job_id[0] ? call->job_id : call->token ? "token" : "operator", id ? "/" : "", id ? id : "");
	q.key_id = w->key_id;
	q.n_extensions = extensions(body, role, wanted);
	q.valid_after_s = now_s - 30;
	q.valid_before_s = now_s + ttl_s;
	n = ssh_key_blob(w->key.type, w->key.spki, w->key.spki_len, blob, sizeof(blob));
	r = store_counter(&call->broker->store, "ssh-serial", &w->serial, err); /* on disk before it is used */
	q.serial = w->serial;
	if (r == 0)
		r = sshcert_build(&q, blob, n, w->tbs, &w->tbs_len, w->type, err);
	w->scheme = key_scheme(w->key.type);
	w->hash = key_is_rsa(w->key.type) ? HASH_SHA512 : key_hash(w->key.type);
	return r < 0 ? r : ca_input(w->scheme, w->hash, w->tbs, w->tbs_len, w->input, &w->input_len, err);
}

void ssh_sign(struct call *call, const struct request *q)
{
	CLEANUP(json_cleanup) json_t *body = NULL;
	struct work *w = calloc(1, sizeof(*w));
	struct err err = {0};
	int r = w ? api_body(q, &body, &err) : err_set(&err, ERR_FAILED, "out of memory");

	call->work = w;
	call->free_work = w ? free_work : NULL;
	if (r == 0)
		r = build(call, body, w, &err);
	if (r == 0)
		r = ca_sign(call->broker, &w->key, w->scheme, w->hash, w->input, w->input_len, call_asker(call), signed_one, call, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

/* What sshd's TrustedUserCAKeys and known_hosts want: public, no token. */
void ssh_public_key(struct call *call, const struct request *q)
{
	CLEANUP(secret_clear) struct secret body = {0};
	struct store_key key;
	struct err err = {0};
	uint8_t blob[1024];
	size_t n;
	int r = ca_key(call->broker, &call->broker->config.ssh, &key, &err);

	(void)q;
	if (r == 0)
		r = secret_new(&body, 1024, &err);
	if (r == 0)
		r = api_append(&body, "%s ", ssh_key_name(key.type));
	if (r == 0) {
		n = ssh_key_blob(key.type, key.spki, key.spki_len, blob, sizeof(blob));
		r = api_append_base64(&body, blob, n);
	}
	if (r == 0)
		r = api_append(&body, "\n");
	store_key_done(&key);
	if (r < 0) {
		call_fail(call, r, err.msg);
		return;
	}
	call->conn->content_type = "text/plain";
	call_reply(call, 200, &body, 0);
}
