#include "broker/api_ca.h"

#include "broker/duration.h"
#include "common/der.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

int ca_key(struct broker *b, const struct config_ca *ca, struct store_key *ret, struct err *err)
{
	int r;

	*ret = (struct store_key){0};
	if (!ca->key[0])
		return err_set(err, ERR_UNSUPPORTED, "the configuration names no CA here");
	if (!b->unsealed)
		return err_set(err, ERR_SEALED, "Vault is sealed: %.200s", b->sealed_reason);
	r = store_key_get(&b->store, ca->key, 0, ret, err);
	return r == -ERR_NOT_FOUND ? err_set(err, ERR_INPUT, "the CA's key %.200s is not there: 'cotter key add' makes it known", ca->key) : r;
}

size_t ca_certificate_len(const struct store_key *k)
{
	return der_sequence_len(k->certificates, k->certificates_len);
}

bool ca_is_key(const struct broker *b, const char *path)
{
	return strcmp(path, b->config.pki.key) == 0 || strcmp(path, b->config.ssh.key) == 0;
}

const struct config_cert_role *ca_role(const struct call *call, const struct config_ca *ca, struct err *err)
{
	const char *slash = strchr(call->path, '/');
	const struct config_cert_role *r = slash ? config_cert_role(ca->roles, ca->n_roles, slash + 1) : NULL;

	if (!r)
		err_set(err, ERR_INPUT, "unknown role");
	return r;
}

int ca_ttl(const json_t *body, const struct config_cert_role *role, uint64_t *ret_s, struct err *err)
{
	const json_t *j = json_object_get(body, "ttl");
	uint64_t s = role->ttl_ms / 1000;

	if (json_is_integer(j))
		s = json_integer_value(j) > 0 ? (uint64_t)json_integer_value(j) : 0;
	else if (json_is_string(j) && json_string_length(j))
		s = duration_parse(json_string_value(j), json_string_length(j), LIMIT_CERT_TTL_MS / 1000);
	if (s == 0 || s > role->max_ttl_ms / 1000)
		return err_set(err, ERR_INPUT, "ttl is a duration such as 30m, of at most %llu s with this role", (unsigned long long)(role->max_ttl_ms / 1000));
	*ret_s = s;
	return 0;
}

int ca_input(enum sign_scheme scheme, enum hash_type hash, const uint8_t *tbs, size_t len, uint8_t ret[SIGN_INPUT_MAX], size_t *ret_len, struct err *err)
{
	*ret_len = sign_input(scheme, hash, tbs, len, ret, SIGN_INPUT_MAX);
	return *ret_len ? 0 : err_set(err, ERR_LIMIT, "this CA's key signs at most %u bytes", SIGN_INPUT_MAX);
}

int ca_sign(struct broker *b, const struct store_key *key, enum sign_scheme scheme, enum hash_type hash, const uint8_t *data, size_t len, uint64_t asker,
	    hardware_done *done, void *ctx, struct err *err)
{
	struct hardware_provider *p = hardware_provider(&b->hardware, key->provider);
	const struct provider_sign q = {.scheme = scheme, .hash = hash, .data = data, .len = len};

	if (!p)
		return err_set(err, ERR_HARDWARE, "the configuration no longer has the provider '%s'", key->provider);
	return hardware_sign(p, key->ref, key->type, &q, asker, done, ctx, err);
}

void ca_describe(struct call *call, const struct store_key *key, const char *kind, const char *serial, const uint8_t *tbs, size_t len)
{
	uint8_t hash[32];
	char hex[2 * sizeof(hash) + 1];

	crypto_hash_sha256(hash, tbs, len);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	call->version = key->version;
	snprintf(call->detail, sizeof(call->detail), "%s %.64s sha2-256 %s", kind, serial, hex);
}

int ca_is_of(const struct config_ca *ca, const struct store_key *key, struct err *err)
{
	return strcmp(ca->key, key->path) == 0 ? 0 : err_set(err, ERR_INPUT, "the CA is another one now: ask again");
}

int ca_still(struct broker *b, const struct store_key *key, struct err *err)
{
	int r = store_key_still(&b->store, key, err);

	return r == -ERR_NOT_FOUND ? err_set(err, ERR_INPUT, "the key was removed meanwhile") : r;
}

int ca_check(const struct store_key *key, enum sign_scheme scheme, enum hash_type hash, const uint8_t *data, size_t len, const struct wire_reply *reply,
	     struct err *err)
{
	if (spki_verify(key->spki, key->spki_len, scheme, hash, 0, data, len, reply->data, reply->data_len, NULL) < 0)
		return err_set(err, ERR_HARDWARE, "the hardware's signature is wrong: it is not given away");
	return 0;
}
