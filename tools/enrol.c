#include "tools/enrol.h"

#include "broker/config.h"
#include "common/age_p256tag.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>

int enrol_login(struct keyd *k, struct err *err)
{
	CLEANUP(secret_clear) struct secret pin = {0};
	char prompt[128];
	int r = keyd_login(k, NULL, err);

	/* asked for only where no source is configured: a refused PIN is an operator's matter */
	if (r != -ERR_PIN || strstr(k->config->uri, "pin-source="))
		return r;
	snprintf(prompt, sizeof(prompt), "PIN of '%s': ", k->config->name);
	r = isatty(0) ? cli_ask(prompt, &pin, err) : cli_read_secret("-", LIMIT_PIN_LEN + 2, &pin, err);
	if (r < 0)
		return r;
	cli_chomp(&pin);
	if (pin.len == 0)
		return err_set(err, ERR_PIN, "no PIN is configured: name a pin-source, or give the PIN on standard input");
	return keyd_login(k, &pin, err);
}

static int probe_agree(struct keyd *k, const struct provider_key *key, struct err *err)
{
	uint8_t peer[P256_POINT_LEN], ours[P256_SECRET_LEN], theirs[P256_SECRET_LEN];
	struct keyd_key ref = {k, key->ref};
	struct age_identity id;
	int r = p256_ephemeral_ecdh(key->point, peer, ours, err);

	keyd_identity(&ref, key->point, &id);
	if (r == 0)
		r = id.agree(id.ctx, peer, theirs, err);
	if (r == 0 && sodium_memcmp(ours, theirs, sizeof(ours)) != 0)
		r = err_set(err, ERR_HARDWARE, "the hardware's ECDH result is wrong");
	return r < 0 ? err_wrap(err, "this key cannot open sealed files") : 0;
}

static int probe_sign(struct keyd *k, const struct provider_key *key, struct err *err)
{
	enum key_type type = (enum key_type)key->type;
	enum sign_scheme scheme = key_scheme(type);
	uint8_t message[32], data[SIGN_DIGEST_MAX];
	size_t len;
	int r;

	randombytes_buf(message, sizeof(message));
	len = sign_input(scheme, HASH_SHA256, message, sizeof(message), data, sizeof(data));
	keyd_prepare(k, WIRE_SIGN);
	snprintf(k->request->text, sizeof(k->request->text), "%s", key->ref);
	k->request->type = key->type;
	k->request->number = scheme;
	k->request->hash = HASH_SHA256;
	memcpy(k->request->data, data, len);
	k->request->data_len = (uint32_t)len;
	r = keyd_call(k, err);
	if (r == 0)
		r = spki_verify(key->spki, key->spki_len, scheme, HASH_SHA256, 0, data, len, k->reply->data, k->reply->data_len, err);
	return r < 0 ? err_wrap(err, "this key cannot sign") : 0;
}

int enrol_probe(struct keyd *k, const struct provider_key *key, struct err *err)
{
	return key->can_agree ? probe_agree(k, key, err) : probe_sign(k, key, err);
}

static int write_pem(struct keyd *k, const char *label, const char *dir, struct provider_key *key, struct err *err)
{
	CLEANUP(cleanup_close) int fd = -1;
	char path[LIMIT_URI_LEN];
	int n = snprintf(path, sizeof(path), "%s/%s-%s.pem", dir, k->config->name, label);

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(err, ERR_INPUT, "the key file's path is longer than %u bytes", LIMIT_URI_LEN - 1);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, errno, "key file %.300s", path);
	if (cli_write_all(fd, k->reply->data, k->reply->data_len, err) < 0 || fsync(fd) < 0)
		return err_set(err, ERR_FAILED, "key file %.300s cannot be written", path);
	memcpy(key->ref, path, sizeof(path));
	return 0;
}

int enrol_key(struct keyd *k, enum provider_key_use use, enum key_type type, const char *label, const char *pcrs, const char *dir,
	      struct enrolled *ret, struct err *err)
{
	int r = enrol_login(k, err);

	*ret = (struct enrolled){0};
	if (r < 0)
		return r;
	keyd_prepare(k, WIRE_MAKE);
	k->request->number = use;
	k->request->type = type;
	snprintf(k->request->text, sizeof(k->request->text), "%s", label);
	snprintf(k->request->text2, sizeof(k->request->text2), "%s", pcrs);
	r = keyd_call(k, err);
	if (r < 0)
		return r;
	ret->key = k->reply->key;
	if (k->reply->data_len)
		r = write_pem(k, label, dir, &ret->key, err);
	if (r == 0)
		r = enrol_probe(k, &ret->key, err);
	if (r < 0)
		return r;
	if (use == PROVIDER_KEY_SEAL)
		age_p256tag_recipient_text(ret->key.point, ret->recipient);
	keyd_prepare(k, WIRE_STATUS);
	if (keyd_call(k, err) == 0)
		snprintf(ret->srk_name, sizeof(ret->srk_name), "%s", k->reply->status.srk_name);
	return 0;
}
