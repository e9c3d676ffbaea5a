/* ssh/sign in Vault's dialect: OpenSSH certificates for a short time, signed by a CA key in hardware. */
#include "broker/api_ca.h"
#include "broker/key_rule.h"
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
	/* what is asked for; malloc'ed */
	char *public_key, *principals, *extensions[LIMIT_CERT_EXTENSIONS];
	size_t n_extensions;
	bool extensions_given, host;
	uint64_t ttl_s;
	char type[64], key_id[128];
	uint8_t tbs[LIMIT_CERTIFICATE], input[SIGN_INPUT_MAX];
	size_t tbs_len, input_len;
};

static void free_work(void *p)
{
	struct work *w = p;

	for (size_t i = 0; i < w->n_extensions; i++)
		free(w->extensions[i]);
	free(w->public_key);
	free(w->principals);
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

/* The configuration may be another one than when it was asked for. */
static int build(struct call *call, struct work *w, struct err *err)
{
	const struct config_cert_role *role = ca_role(call, &call->broker->config.ssh, err);
	struct sshcert_request q = {.role = role, .public_key = w->public_key, .principals = w->principals, .key_id = w->key_id};
	uint8_t blob[1024];
	uint64_t now_s = token_wall_ms() / 1000;
	size_t n;
	int r;

	if (!role || ca_is_of(&call->broker->config.ssh, &w->key, err) < 0)
		return -ERR_INPUT;
	if (w->ttl_s > role->max_ttl_ms / 1000 || role->host != w->host)
		return err_set(err, ERR_INPUT, "the role gives no such certificate any more");
	q.extensions = w->extensions_given ? w->extensions : role->extensions;
	q.n_extensions = w->extensions_given ? w->n_extensions : role->n_extensions;
	q.valid_after_s = now_s - 30;
	q.valid_before_s = now_s + w->ttl_s;
	n = ssh_key_blob(w->key.type, w->key.spki, w->key.spki_len, blob, sizeof(blob));
	r = store_counter(&call->broker->store, "ssh-serial", &w->serial, err); /* on disk before it is used */
	q.serial = w->serial;
	if (r == 0)
		r = sshcert_build(&q, blob, n, w->tbs, &w->tbs_len, w->type, err);
	w->scheme = key_scheme(w->key.type);
	w->hash = key_is_rsa(w->key.type) ? HASH_SHA512 : key_hash(w->key.type);
	return r < 0 ? r : ca_input(w->scheme, w->hash, w->tbs, w->tbs_len, w->input, &w->input_len, err);
}

static void issue(struct call *call)
{
	struct work *w = call->work;
	struct err err = {0};
	int r = build(call, w, &err);

	if (r == 0)
		r = ca_sign(call->broker, &w->key, w->scheme, w->hash, w->input, w->input_len, call_asker(call), signed_one, call, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
}

/* {"permit-pty": ""}; without it they are the role's. */
static int read_extensions(struct work *w, json_t *map, struct err *err)
{
	const char *name;
	json_t *value;

	w->extensions_given = json_is_object(map);
	json_object_foreach(map, name, value) {
		if (w->n_extensions == LIMIT_CERT_EXTENSIONS)
			return err_set(err, ERR_INPUT, "at most %u extensions", LIMIT_CERT_EXTENSIONS);
		w->extensions[w->n_extensions] = strdup(name);
		if (!w->extensions[w->n_extensions])
			return err_set(err, ERR_FAILED, "out of memory");
		w->n_extensions++;
	}
	return 0;
}

static int read_text(const json_t *body, const char *name, size_t max, char **ret, struct err *err)
{
	const char *text = json_string_value(json_object_get(body, name));

	if (!text || strlen(text) > max)
		return err_set(err, ERR_INPUT, text ? "%s is longer than %zu bytes" : "say %s", name, max);
	*ret = strdup(text);
	return *ret ? 0 : err_set(err, ERR_FAILED, "out of memory");
}

static int read_request(struct call *call, const json_t *body, struct work *w, struct err *err)
{
	const struct config_ca *ca = &call->broker->config.ssh;
	const struct config_cert_role *role = ca_role(call, ca, err);
	const char *type = json_string_value(json_object_get(body, "cert_type")), *id = json_string_value(json_object_get(body, "key_id"));
	int r = role ? ca_key(call->broker, ca, &w->key, err) : -ERR_INPUT;

	if (r == 0)
		r = ca_ttl(body, role, &w->ttl_s, err);
	if (r == 0)
		r = read_text(body, "public_key", LIMIT_SSH_KEY, &w->public_key, err);
	if (r == 0)
		r = read_text(body, "valid_principals", LIMIT_SSH_PRINCIPALS, &w->principals, err);
	if (r == 0)
		r = read_extensions(w, json_object_get(body, "extensions"), err);
	if (r == 0 && type && strcmp(type, role->host ? "host" : "user") != 0)
		r = err_set(err, ERR_INPUT, "cert_type: this role is for %s certificates", role->host ? "host" : "user");
	if (r == 0 && id && (strlen(id) > LIMIT_NAME_LEN || !path_valid(id)))
		r = err_set(err, ERR_INPUT, "key_id: letters, digits and ._@+-, in components joined by slashes");
	if (r < 0)
		return r;
	w->host = role->host;
	/* who asked, so that the log of whoever it opens names it */
	snprintf(w->key_id, sizeof(w->key_id), "%s%s%s", call->job_id[0] ? call->job_id : call->token ? "token" : "operator", id ? "/" : "", id ? id : "");
	snprintf(call->detail, sizeof(call->detail), "ssh certificate %s", w->key_id);
	return 0;
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
		r = read_request(call, body, w, &err);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		key_rule_admit(call, 1, issue);
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
