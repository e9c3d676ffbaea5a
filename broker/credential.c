/* Credentials of systemd's units: the same secrets, opened and recorded as for everybody, by the kernel's word instead of a token. */
#include "broker/credential.h"

#include "broker/api_kv.h"
#include "broker/cgroup.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static bool in(char c, const char *set)
{
	return c && strchr(set, c);
}

static bool alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool credential_unit_valid(const char *unit, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!alnum(unit[i]) && !in(unit[i], ":-_.\\@"))
			return false;
	return len > 0 && len <= LIMIT_UNIT_LEN;
}

/* As the configuration has them: one component of a path. */
static bool name_valid(const char *name, size_t len)
{
	char text[LIMIT_NAME_LEN + 1] = "";

	if (len > LIMIT_NAME_LEN || memchr(name, 0, len) || memchr(name, '/', len))
		return false;
	memcpy(text, name, len);
	return path_valid(text);
}

int credential_name_parse(const char *address, size_t len, struct credential_name *ret, struct err *err)
{
	static const char word[] = "/unit/";
	const size_t word_len = sizeof(word) - 1;
	size_t hex = 1, unit, unit_len, name;
	const char *slash;

	while (hex < len && hex <= 16 && in(address[hex], "0123456789abcdef"))
		hex++;
	unit = hex + word_len;
	if (len < 2 || address[0] != '\0' || hex == 1 || unit >= len || memcmp(address + hex, word, word_len) != 0)
		return err_set(err, ERR_DENIED, "the caller's address is not that of systemd");
	slash = memchr(address + unit, '/', len - unit);
	unit_len = slash ? (size_t)(slash - address) - unit : 0;
	name = unit + unit_len + 1;
	if (!slash || !credential_unit_valid(address + unit, unit_len) || !name_valid(address + name, len - name))
		return err_set(err, ERR_DENIED, "the caller's address names no unit and credential");
	*ret = (struct credential_name){0};
	memcpy(ret->unit, address + unit, unit_len);
	memcpy(ret->name, address + name, len - name);
	return 0;
}

static int read_name(int fd, struct credential_name *ret, struct err *err)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	const size_t head = offsetof(struct sockaddr_un, sun_path);

	if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0 || len < head || len > sizeof(addr))
		return err_set(err, ERR_DENIED, "the caller has no address");
	return credential_name_parse(addr.sun_path, len - head, ret, err);
}

/* What the kernel says of the caller, and the configuration of its unit. */
static int find(const struct call *call, struct credential_name *ret_name, const struct config_credential **ret, struct err *err)
{
	const struct peer *p = &call->conn->peer;
	char path[LIMIT_CGROUP_PATH], unit[LIMIT_UNIT_LEN + 1];
	int r;

	if (p->problem)
		return err_set(err, ERR_DENIED, "%s", p->problem);
	if (p->uid != 0)
		return err_set(err, ERR_DENIED, "credentials are for systemd alone, which asks as root");
	r = read_name(call->conn->fd, ret_name, err);
	if (r == 0)
		r = cgroup_path(call->facts.cgroup, NULL, p->pid, path, err);
	if (r < 0)
		return r;
	if (!cgroup_unit(path, unit, sizeof(unit)) || strcmp(unit, ret_name->unit) != 0)
		return err_set(err, ERR_DENIED, "the caller does not stand in the cgroup of the unit that it names");
	*ret = config_credential(&call->broker->config, ret_name->unit, ret_name->name);
	return *ret ? 0 : err_set(err, ERR_DENIED, "the configuration has no such credential for this unit");
}

/* The configuration may have been read again while the hardware worked. */
static int find_again(const struct call *call, const struct config_credential **ret, struct err *err)
{
	struct credential_name name;
	int r = find(call, &name, ret, err);

	return r == 0 && strcmp((*ret)->path, call->path) != 0 ? err_set(err, ERR_DENIED, "the credential is another secret meanwhile") : r;
}

/* systemd takes an end without bytes for a credential that is empty, and so nothing empty is given for one. */
static int choose(const struct call *call, const struct secret *object, struct secret *ret, struct err *err)
{
	CLEANUP(json_cleanup) json_t *j = NULL;
	const struct config_credential *k = NULL;
	int r = find_again(call, &k, err);

	if (r < 0)
		return r;
	if (!object)
		return err_set(err, ERR_NOT_FOUND, "this version is deleted");
	r = json_parse((const char *)object->data, object->len, &j, err);
	if (r == 0)
		r = json_field(j, k->field[0] ? k->field : NULL, call->path, ret, err);
	return r == 0 && ret->len == 0 ? err_set(err, ERR_INPUT, "the value is empty") : r;
}

static void tell(struct call *call, const struct secret *object)
{
	CLEANUP(secret_clear) struct secret value = {0};
	struct err err = {0};
	uint64_t seq = 0;
	int r = choose(call, object, &value, &err);

	if (r < 0)
		call_fail(call, r, err.msg);
	else if (call_grant(call, &seq) == 0)
		call_reply(call, 200, &value, seq);
}

void credential_begin(struct conn *c)
{
	struct broker *b = c->server->broker;
	const struct config_credential *k = NULL;
	struct credential_name name;
	struct err err = {0};
	struct call *call;
	int r;

	/* units start when the broker does: the hardware gets its moment */
	if (!b->unsealed && token_boot_ms() < c->deadline_ms)
		return;
	b->n_requests++;
	call = api_call_new(b, c, "credential");
	if (!call) {
		conn_refuse(c, ERR_FAILED, "out of memory");
		return;
	}
	r = find(call, &name, &k, &err);
	if (r == 0) {
		snprintf(call->path, sizeof(call->path), "%s", k->path);
		snprintf(call->detail, sizeof(call->detail), "credential %.64s of %.84s", name.name, name.unit);
	}
	if (r == 0 && !b->unsealed)
		r = err_set(&err, ERR_SEALED, "Vault is sealed: %.200s", b->sealed_reason);
	if (r < 0)
		call_fail(call, r, err.msg);
	else
		kv_open(call, 0, tell);
}
