#include "tools/identities.h"

#include "common/age_p256tag.h"
#include "common/age_scrypt.h"
#include "common/age_x25519.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <string.h>

#define IDENTITY_FILE_MAX 65536u

static struct age_identity *next(struct identities *ids, struct err *err)
{
	if (ids->n == LIMIT_IDENTITIES) {
		err_set(err, ERR_LIMIT, "more than %u identities", LIMIT_IDENTITIES);
		return NULL;
	}
	return &ids->list[ids->n];
}

static int add_line(struct identities *ids, const char *line, const char *config_path, struct err *err)
{
	struct age_identity *id = next(ids, err);
	int r;

	if (!id)
		return -ERR_LIMIT;
	if (strncmp(line, "AGE-PLUGIN-COTTER-1", 19) == 0)
		return identities_add_hardware(ids, config_path, err);
	r = age_x25519_identity(line, id, err);
	if (r == -ERR_NOT_MINE)
		return err_set(err, ERR_INPUT, "a line is no identity that cotter knows (AGE-SECRET-KEY-1...)");
	if (r == 0)
		ids->n++;
	return r;
}

int identities_add_file(struct identities *ids, const char *path, const char *config_path, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	char *line, *end;
	int r = cli_read_secret(path, IDENTITY_FILE_MAX, &text, err);

	if (r == 0)
		r = secret_append(&text, "\n", 2, err); /* ends the last line and, with its NUL, the text */
	for (line = (char *)text.data; r == 0 && *line; line = end + 1) {
		end = line + strcspn(line, "\n");
		*end = '\0';
		if (end > line && end[-1] == '\r')
			end[-1] = '\0';
		if (*line && *line != '#')
			r = add_line(ids, line, config_path, err);
	}
	return r < 0 ? err_wrap(err, "identity file %.200s", path) : 0;
}

int identities_add_passphrase(struct identities *ids, const char *path, struct err *err)
{
	CLEANUP(secret_clear) struct secret passphrase = {0};
	struct age_identity *id = next(ids, err);
	int r;

	if (!id)
		return -ERR_LIMIT;
	r = cli_read_secret(path, 4096, &passphrase, err);
	if (r < 0)
		return r;
	cli_chomp(&passphrase);
	age_scrypt_identity(&passphrase, id);
	ids->n++;
	return 0;
}

/* A provider that does not start must not keep another from opening the file: the failure is told when it is used. */
static int broken_agree(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN], struct err *err)
{
	const struct keyd_key *key = ctx;
	struct keyd k;
	int r = keyd_start(key->keyd->config, key->keyd->state_dir, &k, err);

	(void)peer;
	(void)ret;
	keyd_done(&k);
	return r < 0 ? err_wrap(err, "provider '%s'", key->keyd->config->name) : -ERR_HARDWARE;
}

int identities_add_hardware(struct identities *ids, const char *config_path, struct err *err)
{
	const struct config_provider *p;
	struct age_identity *id;
	struct keyd_key *key;
	struct err ignored = {0};
	int r = config_load(config_path, &ids->config, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ids->config.n_providers; i++) {
		p = &ids->config.providers[i];
		r = keyd_start(p, ids->config.state_dir, &ids->keyds[i], &ignored);
		ids->keyds[i].config = p;
		ids->keyds[i].state_dir = ids->config.state_dir;
		for (size_t k = 0; k < p->n_keys; k++) {
			id = next(ids, err);
			if (!id)
				return -ERR_LIMIT;
			key = &ids->keys[ids->n_keys++];
			*key = (struct keyd_key){&ids->keyds[i], p->keys[k].ref};
			if (r == 0)
				keyd_identity(key, p->keys[k].point, id);
			else
				age_p256tag_identity(p->keys[k].point, broken_agree, key, id);
			ids->n++;
		}
	}
	return 0;
}

void identities_done(struct identities *ids)
{
	for (size_t i = 0; i < ids->n; i++)
		secret_clear(&ids->list[i].key);
	for (size_t i = 0; i < LIMIT_PROVIDERS; i++)
		keyd_done(&ids->keyds[i]);
	config_done(&ids->config);
}
