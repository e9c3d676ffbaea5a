#include "broker/unseal.h"

#include "common/age.h"
#include "common/age_p256tag.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

struct waiter {
	struct waiter *next;
	unseal_done *done;
	void *ctx;
};

struct unseal {
	struct unseal *next;
	struct unseals *owner;
	struct waiter *waiters;
	char path[LIMIT_PATH_LEN + 1];
	uint64_t version, asker;
	bool share;
	uint8_t *sealed;
	size_t sealed_len;
	struct age_header header;
	/* where the search for a key that fits has come to; the providers twice, see try_next */
	size_t provider, key, stanza;
	uint32_t tried; /* providers that were ready when their turn came, a bit each */
	unsigned int hardware_ops;
	struct err hardware_err; /* why a key that fits could not be used */
};

static void finish(struct unseal *x, int result, const struct secret *plain, const char *message)
{
	struct waiter *w = x->waiters, *next;

	for (struct unseal **at = &x->owner->running; *at; at = &(*at)->next) {
		if (*at == x) {
			*at = x->next;
			break;
		}
	}
	for (; w; w = next) {
		next = w->next;
		w->done(w->ctx, result, plain, &x->header, message);
		free(w);
	}
	age_header_clear(&x->header);
	free(x->sealed);
	free(x);
}

static int open_payload(struct unseal *x, const struct secret *file_key, struct secret *ret, struct err *err)
{
	int r = age_header_verify(&x->header, file_key->data, err);

	if (r == 0)
		r = bind_enforce(&x->header, x->path, x->version, err);
	if (r == 0)
		r = age_open_memory(x->sealed + x->header.len, x->sealed_len - x->header.len, file_key, ret, err);
	return r;
}

static void try_next(struct unseal *x);

static struct hardware_provider *provider_of(const struct unseal *x)
{
	struct hardware *h = x->owner->hardware;

	return &h->providers[x->provider % h->n_providers];
}

static void agreed(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct unseal *x = ctx;
	CLEANUP(secret_clear) struct secret key = {0}, plain = {0};
	struct err err = {0};
	int r = result;

	if (r < 0) {
		err_set(&x->hardware_err, (enum err_code)-result, "%.255s", message);
		/* it waited in vain, or the token was gone: no hardware did anything */
		x->hardware_ops -= result == -ERR_ABSENT || result == -ERR_PIN;
		x->stanza++;
		try_next(x);
		return;
	}
	r = secret_new(&key, AGE_FILE_KEY_LEN, &err);
	key.len = AGE_FILE_KEY_LEN;
	if (r == 0 && reply->data_len != P256_SECRET_LEN)
		r = err_set(&err, ERR_HARDWARE, "the helper talks nonsense");
	if (r == 0)
		r = age_p256tag_finish(&x->header.stanzas[x->stanza],
				       provider_of(x)->config->keys[x->key].point, reply->data, key.data,
				       &err);
	if (r == -ERR_NO_MATCH) {
		x->stanza++;
		try_next(x);
		return;
	}
	if (r == 0)
		r = open_payload(x, &key, &plain, &err);
	finish(x, r, r == 0 ? &plain : NULL, err.msg);
}

/* The next stanza that one of our keys fits, and the hardware asked for it: first what is there, then what has to be waited for. */
static void try_next(struct unseal *x)
{
	const size_t n = x->owner->hardware->n_providers;
	uint8_t peer[P256_POINT_LEN];
	struct err err = {0};
	int r;

	for (; x->provider < 2 * n; x->provider++, x->key = x->stanza = 0) {
		struct hardware_provider *p = provider_of(x);
		const uint32_t bit = 1u << (x->provider % n);

		/* a state may change while something is waited for: each has one turn, and is not left in the middle of it */
		if (x->provider < n ? !(x->tried & bit) && p->state != HARDWARE_READY : (x->tried & bit) != 0)
			continue;
		x->tried |= x->provider < n ? bit : 0;
		for (; x->key < p->config->n_keys; x->key++, x->stanza = 0) {
			r = age_p256tag_find(&x->header, p->config->keys[x->key].point, &x->stanza, peer, &err);
			if (r == -ERR_NO_MATCH)
				continue;
			if (r == 0 && x->hardware_ops == LIMIT_AGE_HARDWARE_OPS)
				r = err_set(&err, ERR_INPUT, "the file would need more than %u hardware operations", LIMIT_AGE_HARDWARE_OPS);
			if (r < 0) {
				finish(x, r, NULL, err.msg);
				return;
			}
			r = hardware_agree(p, p->config->keys[x->key].ref, peer, x->asker, agreed, x, &err);
			if (r == 0) {
				x->hardware_ops++;
				return;
			}
			x->hardware_err = err; /* perhaps another provider's key fits */
		}
	}
	if (x->hardware_err.code)
		finish(x, -x->hardware_err.code, NULL, x->hardware_err.msg);
	else
		finish(x, -ERR_NO_MATCH, NULL, "no match: the file is not sealed to any key that is configured here");
}

/* Old types whose cryptography cotter does not have, passphrases, and post-quantum recipients, which must not be mixed with
 * the hardware's: none of them belongs into the store. */
static int check_types(const struct age_header *header, struct err *err)
{
	static const char *const refused[] = {"scrypt", "ssh-rsa", "piv-p256", "mlkem768x25519", "mlkem768p256tag"};

	for (size_t i = 0; i < header->n_stanzas; i++)
		for (size_t k = 0; k < sizeof(refused) / sizeof(refused[0]); k++)
			if (age_stanza_is(&header->stanzas[i], refused[k]))
				return err_set(err, ERR_INPUT, "the broker opens no file with a recipient of type %s%s", refused[k],
					       k == 0 ? " (a passphrase): use 'cotter open'" : "");
	return 0;
}

static int parse(struct unseal *x, struct err *err)
{
	int r = x->sealed_len > LIMIT_SEALED_LEN ? err_set(err, ERR_LIMIT, "the sealed file is larger than %u bytes", LIMIT_SEALED_LEN)
						 : age_header_parse(x->sealed, x->sealed_len, &x->header, err);

	if (r == 0)
		r = age_check_stanzas(&x->header, err);
	if (r == 0)
		r = check_types(&x->header, err);
	if (r == 0)
		r = bind_enforce(&x->header, x->path, x->version, err); /* cheap, so before the hardware; again after the MAC */
	return r;
}

static bool join(struct unseals *u, const char *path, uint64_t version, const uint8_t *sealed, size_t len, struct waiter *w)
{
	for (struct unseal *x = u->running; x; x = x->next) {
		/* the same bytes: a secret purged and written anew has the same path and version */
		if (x->share && x->version == version && strcmp(x->path, path) == 0 && x->sealed_len == len &&
		    memcmp(x->sealed, sealed, len) == 0) {
			w->next = x->waiters;
			x->waiters = w;
			return true;
		}
	}
	return false;
}

void unseal_start(struct unseals *u, const char *path, uint64_t version, const uint8_t *sealed, size_t len, bool share, uint64_t asker,
		  unseal_done *done, void *ctx)
{
	struct waiter *w = calloc(1, sizeof(*w));
	struct unseal *x;
	struct err err = {0};
	int r;

	if (w)
		*w = (struct waiter){.done = done, .ctx = ctx};
	if (w && share && join(u, path, version, sealed, len, w))
		return;
	x = w ? calloc(1, sizeof(*x)) : NULL;
	if (!x || !(x->sealed = malloc(len + 1))) {
		free(w);
		free(x);
		done(ctx, -ERR_FAILED, NULL, NULL, "out of memory");
		return;
	}
	x->owner = u;
	x->waiters = w;
	x->version = version;
	x->share = share;
	x->asker = asker;
	snprintf(x->path, sizeof(x->path), "%s", path);
	memcpy(x->sealed, sealed, len);
	x->sealed_len = len;
	x->next = u->running;
	u->running = x;
	r = parse(x, &err);
	if (r < 0)
		finish(x, r, NULL, err.msg);
	else
		try_next(x);
}

void unseal_cancel(struct unseals *u, void *ctx)
{
	struct unseal *next;

	for (struct unseal *x = u->running; x; x = next) {
		next = x->next;
		for (struct waiter **at = &x->waiters; *at;) {
			struct waiter *w = *at;

			if (w->ctx == ctx) {
				*at = w->next;
				free(w);
			} else {
				at = &w->next;
			}
		}
		/* nobody waits any more: the hardware is not asked for nothing */
		if (!x->waiters) {
			hardware_cancel(u->hardware, x);
			finish(x, -ERR_FAILED, NULL, "");
		}
	}
}

void unseals_done(struct unseals *u)
{
	while (u->running) {
		struct unseal *x = u->running;

		hardware_cancel(u->hardware, x);
		finish(x, -ERR_FAILED, NULL, "cotterd stops");
	}
}
