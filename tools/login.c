#include "tools/login.h"

#include "broker/cgroup.h"
#include "broker/peer.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The inode of the leader's pidfd, so that the broker takes no other process for it; 0: there is no such process. */
static unsigned long long leader_id(pid_t pid)
{
	CLEANUP(cleanup_close) int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return process_id(fd);
}

/* What is said of the job, whoever says it. */
static int describe_job(const struct login *l, json_t *body, struct err *err)
{
	char path[LIMIT_CGROUP_PATH] = "";
	unsigned long long id = 0;

	if (l->leader) {
		id = leader_id(l->leader);
		if (id == 0)
			return err_set(err, ERR_NOT_FOUND, "there is no process %d", (int)l->leader);
		json_object_set_new(body, "leader", json_integer(l->leader));
		json_object_set_new(body, "leader_id", json_integer((json_int_t)id));
	}
	if (cgroup_root() && cgroup_hint(l->leader, path, NULL) == 0 && cgroup_path_valid(path))
		json_object_set_new(body, "cgroup", json_string(path));
	if (l->name && json_object_set_new(body, "name", json_string(l->name)) < 0)
		return err_set(err, ERR_USAGE, "--name: letters, digits and ._@+-");
	if (l->launch)
		json_object_set_new(body, "isolated", json_boolean(l->launch->isolated));
	return 0;
}

static int read_text(const char *file, size_t max, const char *key, json_t *body, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	json_t *value;
	int r = cli_read_secret(file, max, &text, err);

	if (r < 0)
		return r;
	cli_chomp(&text);
	value = json_stringn((const char *)text.data, text.len);
	if (!value || json_object_set_new(body, key, value) < 0)
		return err_set(err, ERR_INPUT, "%.200s: not a token", file);
	return 0;
}

static void describe_token(const struct login *l, json_t *body)
{
	json_object_set(body, "policies", l->policies);
	if (l->ttl)
		json_object_set_new(body, "ttl", json_string(l->ttl));
	if (l->uses > 0)
		json_object_set_new(body, "num_uses", json_integer(l->uses));
	if (l->uid >= 0)
		json_object_set_new(body, "uid", json_integer(l->uid));
}

static int build(const struct login *l, json_t *body, enum client_socket *ret_socket, const char **ret_path, struct err *err)
{
	*ret_socket = CLIENT_LOGIN;
	if (l->policies) {
		*ret_socket = CLIENT_OPERATOR;
		*ret_path = "/v1/cotter/jobs";
		describe_token(l, body);
		return 0;
	}
	if (l->unwrap) {
		*ret_path = "/v1/sys/wrapping/unwrap";
		return read_text("-", LIMIT_TOKEN_TEXT + 2, "token", body, err);
	}
	json_object_set_new(body, "role", json_string(l->role));
	if (l->ttl)
		json_object_set_new(body, "ttl", json_string(l->ttl));
	*ret_path = l->jwt_file ? "/v1/auth/jwt/login" : "/v1/auth/kernel/login";
	return l->jwt_file ? read_text(l->jwt_file, LIMIT_JWT_LEN + 2, "jwt", body, err) : 0;
}

int login_token(const struct login *l, struct secret *ret_token, json_t **ret_data, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	enum client_socket socket = CLIENT_LOGIN;
	const char *path = NULL;
	const json_t *token;
	int r = describe_job(l, body, err);

	if (r == 0)
		r = build(l, body, &socket, &path, err);
	if (r == 0)
		r = client_call(socket, "POST", path, body, &reply, err);
	/* Vault's status for a login that is refused is the one for a request that is wrong */
	if (r == -ERR_INPUT && socket == CLIENT_LOGIN && reply.status == 400)
		return -ERR_LOGIN;
	if (r < 0)
		return r;
	token = client_at(reply.json, "auth.client_token");
	if (!json_is_string(token))
		return err_set(err, ERR_FAILED, "the broker gave no token");
	r = secret_copy(ret_token, json_string_value(token), json_string_length(token), err);
	if (r == 0 && ret_data)
		*ret_data = json_incref(client_data(&reply));
	return r;
}
