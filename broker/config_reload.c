/* What of the configuration may change while the broker runs. */
#include "broker/config.h"

#include "common/err.h"

#include <string.h>

static bool same_strings(char *const *a, size_t n_a, char *const *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	for (size_t i = 0; i < n_a; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return true;
}

static bool same_provider(const struct config_provider *a, const struct config_provider *b)
{
	if (strcmp(a->name, b->name) != 0 || strcmp(a->uri, b->uri) != 0 || strcmp(a->srk_name, b->srk_name) != 0 || a->parallel != b->parallel ||
	    a->n_keys != b->n_keys)
		return false;
	for (size_t i = 0; i < a->n_keys; i++)
		if (strcmp(a->keys[i].recipient, b->keys[i].recipient) != 0 || strcmp(a->keys[i].ref, b->keys[i].ref) != 0)
			return false;
	return same_strings(a->environment, a->n_environment, b->environment, b->n_environment) &&
	       same_strings(a->writable, a->n_writable, b->writable, b->n_writable) &&
	       same_strings(a->readable, a->n_readable, b->readable, b->n_readable);
}

/* What the launcher knows of it since the start; roles may change. */
static bool same_engine(const struct config_engine *a, const struct config_engine *b)
{
	return strcmp(a->name, b->name) == 0 && strcmp(a->program, b->program) == 0 &&
	       same_strings(a->readable, a->n_readable, b->readable, b->n_readable) && same_strings(a->writable, a->n_writable, b->writable, b->n_writable);
}

static const char *fixed_part(const struct config *a, const struct config *b)
{
	if (strcmp(a->socket, b->socket) != 0 || strcmp(a->operator_socket, b->operator_socket) != 0)
		return "the sockets";
	if (memcmp(&a->listen, &b->listen, sizeof(a->listen)) != 0)
		return "http.listen";
	if (strcmp(a->state_dir, b->state_dir) != 0)
		return "state_dir";
	if (a->audit_sync != b->audit_sync)
		return "audit";
	if (!same_strings(a->recipient_texts, a->n_recipient_texts, b->recipient_texts, b->n_recipient_texts))
		return "seal";
	if (!a->n_units != !b->n_units)
		return "credentials from none to some, or back,";
	if (a->n_engines != b->n_engines)
		return "engines";
	for (size_t i = 0; i < a->n_engines; i++)
		if (!same_engine(&a->engines[i], &b->engines[i]))
			return "engines";
	if (a->n_providers != b->n_providers)
		return "providers";
	for (size_t i = 0; i < a->n_providers; i++)
		if (!same_provider(&a->providers[i], &b->providers[i]))
			return "providers";
	return NULL;
}

#define SWAP(member)                                       \
	do {                                               \
		__typeof__(c->member) kept = c->member;    \
		c->member = next->member;                  \
		next->member = kept;                       \
	} while (0)

int config_reload(struct config *c, struct config *next, struct err *err)
{
	const char *fixed = fixed_part(c, next);

	if (fixed)
		return err_set(err, ERR_INPUT, "%.200s: a change of %s needs a restart: nothing of it is in force yet", c->file, fixed);
	SWAP(operators);
	SWAP(n_operators);
	SWAP(cache_ms);
	SWAP(require_cgroup);
	SWAP(require_isolation);
	SWAP(require_request_header);
	SWAP(policies);
	SWAP(n_policies);
	SWAP(issuers);
	SWAP(n_issuers);
	SWAP(roles);
	SWAP(n_roles);
	SWAP(pki);
	SWAP(ssh);
	SWAP(key_rules);
	SWAP(n_key_rules);
	SWAP(scopes);
	SWAP(n_scopes);
	SWAP(mounts);
	SWAP(n_mounts);
	SWAP(rotations);
	SWAP(n_rotations);
	SWAP(engines);
	SWAP(n_engines);
	SWAP(units);
	SWAP(n_units);
	return 0;
}
