#include "broker/token.h"

#include "broker/caveat.h"
#include "broker/config.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t token_boot_ms(void)
{
	return now_ms(CLOCK_BOOTTIME);
}

uint64_t token_wall_ms(void)
{
	return now_ms(CLOCK_REALTIME);
}

static struct token_row **bucket(struct tokens *t, const uint8_t id[16])
{
	/* ids are random: their first bytes spread evenly */
	return &t->buckets[((unsigned int)id[0] << 8 | id[1]) % TOKEN_BUCKETS];
}

static struct token_row *find(struct tokens *t, const uint8_t id[16])
{
	struct token_row *row = *bucket(t, id);

	while (row && memcmp(row->id, id, 16) != 0)
		row = row->next;
	return row;
}

static int insert(void *ctx, const struct token_row *row)
{
	struct tokens *t = ctx;
	struct token_row *copy = t->n < LIMIT_TOKENS ? malloc(sizeof(*copy)) : NULL;
	struct token_row **head = bucket(t, row->id);

	if (!copy)
		return 0; /* surplus rows of a store are no reason to stay sealed: no row, no access */
	*copy = *row;
	copy->next = *head;
	*head = copy;
	t->n++;
	return 0;
}

void tokens_done(struct tokens *t)
{
	struct token_row *next;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		for (struct token_row *row = t->buckets[i]; row; row = next) {
			next = row->next;
			free(row);
		}
		t->buckets[i] = NULL;
	}
	secret_clear(&t->key);
	t->n = 0;
}

int tokens_load(struct tokens *t, struct store *store, const uint8_t key[32], struct err *err)
{
	CLEANUP(cleanup_close) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, t->boot_id, 36);
	int r;

	if (n != 36)
		return err_set(err, ERR_FAILED, "cannot read the boot id: is /proc mounted?");
	t->boot_id[36] = '\0';
	t->epoch = 1;
	r = secret_copy(&t->key, key, 32, err);
	return r < 0 ? r : store_tokens(store, t->boot_id, insert, t, err);
}

#define EXPIRE_AT_ONCE 256u /* in one transaction: the loop must go on */

static void remove_row(struct tokens *t, struct store *store, struct token_row **at)
{
	struct token_row *row = *at;

	store_token_delete(store, row->id, NULL);
	*at = row->next;
	free(row);
	t->n--;
}

void tokens_expire(struct tokens *t, struct store *store, uint64_t boot_ms)
{
	size_t budget = EXPIRE_AT_ONCE;
	bool writing = false;

	for (size_t i = 0; i < TOKEN_BUCKETS && budget; i++) {
		for (struct token_row **at = &t->buckets[i]; *at && budget;) {
			if ((*at)->deadline_ms <= boot_ms) {
				writing = writing || store_begin(store, NULL) == 0;
				budget--;
				remove_row(t, store, at);
			} else {
				at = &(*at)->next;
			}
		}
	}
	if (writing)
		store_end(store, true, NULL);
}

static void epoch_key(const struct tokens *t, uint32_t epoch, uint8_t ret[32])
{
	crypto_kdf_derive_from_key(ret, 32, epoch, "cot-mac1", t->key.data);
}

static void macaroon_id(const struct token_row *row, uint8_t ret[MACAROON_ID_LEN])
{
	struct writer w = writer_init(ret, MACAROON_ID_LEN);

	writer_u8(&w, 1);
	writer_u32be(&w, row->epoch);
	writer_bytes(&w, row->id, sizeof(row->id));
}

int token_make(struct tokens *t, struct store *store, const struct token_request *q, struct secret *ret_text,
	       struct token_row **ret_row, struct err *err)
{
	struct token_row row = {.epoch = t->epoch, .uid = q->uid, .uses_left = q->uses, .created_ms = token_wall_ms()};
	uint8_t id[MACAROON_ID_LEN], key[32];
	int r;

	/* a quarter is kept for operators: one job cannot take every place */
	if (t->n >= (q->parent ? LIMIT_TOKENS / 4 * 3 : LIMIT_TOKENS))
		return err_set(err, ERR_BUSY, "there are %zu live tokens already", t->n);
	if (q->parent && q->parent->n_children >= LIMIT_TOKEN_CHILDREN)
		return err_set(err, ERR_BUSY, "a token makes at most %u others", LIMIT_TOKEN_CHILDREN);
	if (strlen(q->policies) >= sizeof(row.policies))
		return err_set(err, ERR_LIMIT, "too many policies for one token");
	randombytes_buf(row.id, sizeof(row.id));
	snprintf(row.policies, sizeof(row.policies), "%s", q->policies);
	snprintf(row.boot_id, sizeof(row.boot_id), "%s", t->boot_id);
	row.deadline_ms = token_boot_ms() + q->ttl_ms;
	macaroon_id(&row, id);
	epoch_key(t, row.epoch, key);
	r = macaroon_mint(key, id, ret_text, err);
	sodium_memzero(key, sizeof(key));
	if (r == 0)
		r = store_token_put(store, &row, err);
	if (r == 0) {
		insert(t, &row);
		*ret_row = find(t, row.id);
		if (!*ret_row)
			r = err_set(err, ERR_FAILED, "out of memory");
	}
	if (r == 0 && q->parent)
		q->parent->n_children++;
	if (r < 0)
		secret_clear(ret_text);
	return r;
}

static int denied(struct err *err, const char *why)
{
	return err_set(err, ERR_DENIED, "%s", why);
}

static int check_policies(const struct token_row *row, const struct config *config, const struct token_facts *facts,
			  struct err *err)
{
	char name[LIMIT_NAME_LEN + 1];
	const struct config_policy *policy;
	const char *p = row->policies;
	size_t n;

	for (;; p += n + 1) {
		n = strcspn(p, ",");
		if (n <= LIMIT_NAME_LEN) {
			memcpy(name, p, n);
			name[n] = '\0';
			policy = config_policy(config, name);
			if (policy && policy_allows(policy, facts->path, facts->op))
				return 0;
		}
		if (!p[n])
			return denied(err, "no policy of the token allows it");
	}
}

/* Everything behind the HMAC chain; count takes one use. */
static int weigh(struct token_row *row, struct store *store, const struct config *config, const struct macaroon *m,
		 const struct token_facts *facts, bool count, struct err *err)
{
	struct caveat_context c = {.facts = facts, .store = store, .token_id = row->id, .count = count};
	int r;

	if (row->uid != TOKEN_ANY_UID && row->uid != facts->uid)
		return denied(err, "the token belongs to another uid");
	if (facts->boot_ms >= row->deadline_ms)
		return denied(err, "the token has expired");
	if (facts->op && row->uses_left == 0)
		return denied(err, "the token's uses are used up");
	for (size_t i = 0; i < m->n_caveats; i++) {
		c.chain = m->chain[i];
		r = caveat_check(&m->caveats[i], &c, err);
		if (r < 0)
			return r;
	}
	return facts->op ? check_policies(row, config, facts, err) : 0;
}

static int find_row(struct tokens *t, const struct macaroon *m, struct token_row **ret_row, struct err *err)
{
	struct token_row *row = find(t, m->id + 5);
	uint8_t id[MACAROON_ID_LEN];

	if (!row)
		return denied(err, "no such token: it ended, or was never made here");
	macaroon_id(row, id);
	if (memcmp(id, m->id, sizeof(id)) != 0)
		return denied(err, "no such token");
	*ret_row = row;
	return 0;
}

int token_check(struct tokens *t, struct store *store, const struct config *config, struct macaroon *m,
		const struct token_facts *facts, struct token_row **ret_row, struct err *err)
{
	uint8_t key[32];
	int r = find_row(t, m, ret_row, err);

	if (r < 0)
		return r;
	epoch_key(t, (*ret_row)->epoch, key);
	if (!macaroon_verify(m, key))
		r = denied(err, "the token's signature is wrong");
	sodium_memzero(key, sizeof(key));
	return r < 0 ? r : weigh(*ret_row, store, config, m, facts, false, err);
}

static bool has_uses_caveat(const struct macaroon *m)
{
	for (size_t i = 0; i < m->n_caveats; i++)
		if (m->caveats[i].len > 5 && memcmp(m->caveats[i].p, "uses ", 5) == 0)
			return true;
	return false;
}

int token_use(struct tokens *t, struct store *store, const struct config *config, const struct macaroon *m,
	      const struct token_facts *facts, struct err *err)
{
	struct token_row *row;
	int64_t uses_left;
	int r;

	/* the bytes in the arena are those that token_check verified: the chain need not be computed again */
	if (!m->verified)
		return denied(err, "the token was not verified");
	r = find_row(t, m, &row, err);
	if (r < 0)
		return r;
	uses_left = row->uses_left;
	if (facts->op == 0 || (row->uses_left < 0 && !has_uses_caveat(m)))
		return weigh(row, store, config, m, facts, false, err);
	r = store_begin(store, err);
	if (r < 0)
		return r;
	r = weigh(row, store, config, m, facts, true, err);
	if (r == 0 && row->uses_left > 0) {
		row->uses_left--;
		r = store_token_put(store, row, err);
	}
	if (r == 0)
		r = store_end(store, true, err);
	else
		store_end(store, false, NULL);
	if (r < 0)
		row->uses_left = uses_left;
	return r;
}
