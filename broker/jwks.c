#include "broker/jwks.h"

#include "broker/config.h"
#include "broker/token.h"
#include "broker/json.h"
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RSA_MIN 256u  /* bytes of the modulus: 2048 bits */
#define RSA_MAX 1024u /* 8192 bits: what verifying costs is bounded */
#define ALARM_MS 86400000ull

static void key_done(struct jwks_key *k)
{
	free(k->kid);
	free(k->alg);
	free(k->kty);
	free(k->crv);
	free(k->x);
	free(k->y);
	free(k->e);
}

static void set_free(struct jwks_set *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_keys; i++)
		key_done(&s->keys[i]);
	free(s->keys);
	free(s);
}

void jwks_done(struct jwks *j)
{
	for (size_t i = 0; i < j->n; i++)
		set_free(j->sets[i]);
	j->n = 0;
}

static char *copy(const json_t *jwk, const char *name)
{
	const char *text = json_string_value(json_object_get(jwk, name));

	return text ? strdup(text) : NULL;
}

static size_t decoded_len(const char *text)
{
	uint8_t bytes[RSA_MAX];
	size_t n = 0;

	return text && b64url_decode(text, strlen(text), bytes, sizeof(bytes), &n) ? n : 0;
}

static bool usable(const struct jwks_key *k)
{
	if (strcmp(k->kty, "RSA") == 0)
		return decoded_len(k->x) >= RSA_MIN && decoded_len(k->e) >= 1 && decoded_len(k->e) <= 8;
	if (!k->crv)
		return false;
	if (strcmp(k->kty, "EC") == 0)
		return strcmp(k->crv, "P-256") == 0 && decoded_len(k->x) == 32 && decoded_len(k->y) == 32;
	return strcmp(k->kty, "OKP") == 0 && strcmp(k->crv, "Ed25519") == 0 && decoded_len(k->x) == 32 && !k->y;
}

/* What is no signature key of a kind that is spoken here is passed over: sets hold others, too. */
static void add_key(struct jwks_set *s, const json_t *jwk)
{
	const char *use = json_string_value(json_object_get(jwk, "use")), *kty = json_string_value(json_object_get(jwk, "kty"));
	struct jwks_key k = {0};

	if (!kty || (use && strcmp(use, "sig") != 0))
		return;
	k = (struct jwks_key){.kid = copy(jwk, "kid"), .alg = copy(jwk, "alg"), .kty = strdup(kty), .crv = copy(jwk, "crv"),
			      .x = copy(jwk, strcmp(kty, "RSA") == 0 ? "n" : "x"), .y = copy(jwk, "y"), .e = copy(jwk, "e")};
	if (k.kty && usable(&k))
		s->keys[s->n_keys++] = k;
	else
		key_done(&k);
}

static int parse_set(struct jwks_set *s, const char *text, size_t len, struct err *err)
{
	CLEANUP(json_cleanup) json_t *j = NULL;
	const json_t *keys, *key;
	size_t i;
	int r = json_parse(text, len, &j, err);

	if (r < 0)
		return r;
	keys = json_object_get(j, "keys");
	if (!json_is_array(keys) || json_array_size(keys) > LIMIT_JWKS_KEYS)
		return err_set(err, ERR_INPUT, "no \"keys\", or more than %u", LIMIT_JWKS_KEYS);
	s->keys = calloc(LIMIT_JWKS_KEYS, sizeof(*s->keys));
	if (!s->keys)
		return err_set(err, ERR_FAILED, "out of memory");
	json_array_foreach(keys, i, key)
		add_key(s, key);
	return s->n_keys ? 0 : err_set(err, ERR_INPUT, "no key for RS256 (2048 bits and more), ES256 or EdDSA");
}

static void remember(struct jwks_set *s, const struct stat *st)
{
	s->device = st->st_dev;
	s->inode = st->st_ino;
	s->size = (uint64_t)st->st_size;
	s->changed_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
	s->mtime_ms = s->changed_ns / 1000000u;
}

static bool is_same(const struct jwks_set *s, const struct stat *st)
{
	struct jwks_set now = {0};

	remember(&now, st);
	return now.device == s->device && now.inode == s->inode && now.size == s->size && now.changed_ns == s->changed_ns;
}

static int read_set(const char *file, struct jwks_set **ret, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would stop the loop */
	CLEANUP(cleanup_free) char *text = malloc(LIMIT_JWKS_LEN + 1);
	struct jwks_set *s = calloc(1, sizeof(*s));
	struct stat st;
	ssize_t n = -1;
	int r;

	if (!text || !s)
		r = err_set(err, ERR_FAILED, "out of memory");
	else if (fd < 0 || fstat(fd, &st) < 0 || (S_ISREG(st.st_mode) && (n = read(fd, text, LIMIT_JWKS_LEN + 1)) < 0))
		r = err_errno(err, errno, "it cannot be read (a folder that is new to the configuration needs a restart)");
	else if (!S_ISREG(st.st_mode))
		r = err_set(err, ERR_INPUT, "it is not a regular file");
	else if ((st.st_mode & (S_IWGRP | S_IWOTH)) || (st.st_uid != 0 && st.st_uid != geteuid()))
		r = err_set(err, ERR_INPUT, "it must belong to root or to cotter's user, and not be writable by group or others (chmod go-w)");
	else if (n > (ssize_t)LIMIT_JWKS_LEN)
		r = err_set(err, ERR_LIMIT, "it is longer than %u bytes", LIMIT_JWKS_LEN);
	else
		r = parse_set(s, text, (size_t)n, err);
	if (r < 0) {
		set_free(s);
		return r;
	}
	snprintf(s->file, sizeof(s->file), "%s", file);
	remember(s, &st);
	*ret = s;
	return 0;
}

unsigned int jwks_age_days(const struct jwks_set *set, uint64_t wall_ms)
{
	return wall_ms > set->mtime_ms ? (unsigned int)((wall_ms - set->mtime_ms) / 86400000u) : 0;
}

static void alarm_when_old(struct jwks_set *s, const struct config_issuer *issuer, uint64_t wall_ms)
{
	if (wall_ms < s->mtime_ms + issuer->max_age_ms || (s->warned_ms && wall_ms < s->warned_ms + ALARM_MS))
		return;
	s->warned_ms = wall_ms;
	log_warn("the key set of issuer '%s' (%s) is %u days old: fetch its current one before the issuer's next rotation", issuer->name, s->file,
		 jwks_age_days(s, wall_ms));
}

int jwks_get(struct jwks *j, const struct config_issuer *issuer, uint64_t wall_ms, const struct jwks_set **ret, struct err *err)
{
	struct jwks_set *s = NULL;
	struct err why = {0};
	struct stat st;
	uint64_t now_ms = token_boot_ms();
	size_t i = 0;

	while (i < j->n && strcmp(j->sets[i]->file, issuer->jwks_file) != 0)
		i++;
	if (i < j->n && stat(issuer->jwks_file, &st) == 0 && is_same(j->sets[i], &st)) {
		s = j->sets[i];
	} else {
		if (read_set(issuer->jwks_file, &s, &why) < 0) {
			/* anybody can make it be tried again, and again */
			if (now_ms >= j->quiet_until_ms)
				log_error("issuer '%s': the key set %.300s: %s", issuer->name, issuer->jwks_file, why.msg);
			j->quiet_until_ms = now_ms + 1000;
			return err_set(err, ERR_LOGIN, "error validating token: the issuer's pinned key set cannot be used: the broker's log says why");
		}
		if (i == j->n && j->n == LIMIT_ISSUERS)
			i = 0; /* of files that the configuration no longer names */
		else if (i == j->n)
			j->sets[j->n++] = NULL;
		set_free(j->sets[i]);
		j->sets[i] = s;
		log_info("issuer '%s': %zu keys from %s", issuer->name, s->n_keys, s->file);
	}
	alarm_when_old(s, issuer, wall_ms);
	*ret = s;
	return 0;
}

/* A kid is the client's: only what is harmless anywhere is shown. */
static void show_kid(const char *kid, char ret[LIMIT_JWT_KID + 1])
{
	size_t n = strspn(kid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+=/:");

	snprintf(ret, LIMIT_JWT_KID + 1, "%s", kid[n] || n > LIMIT_JWT_KID ? "(not printable)" : kid);
}

int jwks_try(const struct jwks_set *set, const char *kid, uint64_t wall_ms, int (*each)(void *ctx, const struct jwks_key *key, struct err *err),
	     void *ctx, struct err *err)
{
	char shown[LIMIT_JWT_KID + 1];
	size_t tried = 0;
	int r = -ERR_LOGIN;

	if (!kid && set->n_keys > 1)
		return err_set(err, ERR_LOGIN, "error validating token: it names no key, and the pinned set has %zu", set->n_keys);
	for (size_t i = 0; i < set->n_keys && tried < 4; i++) {
		if (kid && (!set->keys[i].kid || strcmp(set->keys[i].kid, kid) != 0))
			continue;
		tried++;
		r = each(ctx, &set->keys[i], err);
		if (r == 0)
			return 0;
	}
	if (tried)
		return r;
	show_kid(kid, shown);
	return err_set(err, ERR_LOGIN, "error validating token: unknown key id '%s': the pinned set has %zu keys and is %u days old; if the issuer "
				       "rotated its keys, an operator must replace the set", shown, set->n_keys, jwks_age_days(set, wall_ms));
}
