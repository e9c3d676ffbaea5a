#include "broker/token_key.h"

#include "broker/job.h"
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

/* ---- the table ------------------------------------------------------------------------------------------------- */

static struct token_row **bucket(struct tokens *t, const uint8_t id[16])
{
	/* ids are random: their first bytes spread evenly */
	return &t->buckets[((unsigned int)id[0] << 8 | id[1]) % TOKEN_BUCKETS];
}

struct token_row *token_find(struct tokens *t, const uint8_t id[16])
{
	struct token_row *row = *bucket(t, id);

	while (row && memcmp(row->id, id, 16) != 0)
		row = row->next;
	return row;
}

/* A copy with its texts behind it; NULL: no room. */
static struct token_row *insert(struct tokens *t, const struct token_row *row)
{
	size_t policies = strlen(row->policies) + 1, meta = strlen(row->meta) + 1, path = strlen(row->path) + 1, display = strlen(row->display) + 1;
	struct token_row *copy = t->n < LIMIT_TOKENS ? malloc(sizeof(*copy) + policies + meta + path + display) : NULL;
	struct token_row **head = bucket(t, row->id);
	char *text;

	if (!copy)
		return NULL;
	*copy = *row;
	text = (char *)(copy + 1);
	memcpy(text, row->policies, policies);
	memcpy(text + policies, row->meta, meta);
	copy->policies = text;
	memcpy(text + policies + meta, row->path, path);
	copy->meta = text + policies;
	copy->path = text + policies + meta;
	memcpy(text + policies + meta + path, row->display, display);
	copy->display = text + policies + meta + path;
	copy->next = *head;
	*head = copy;
	t->n++;
	t->by_uid[copy->uid % TOKEN_UIDS]++;
	if (copy->job)
		job_add_token(copy->job, copy);
	return copy;
}

static int load_row(void *ctx, const struct token_row *row)
{
	insert(ctx, row); /* surplus rows of a store are no reason to stay sealed: no row, no access */
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
	token_seen_done(&t->seen);
	memset(t->by_uid, 0, sizeof(t->by_uid));
	t->n = 0;
}

static void make_root(struct tokens *t)
{
	uint8_t key[32];

	crypto_kdf_derive_from_key(key, sizeof(key), t->epoch, "cot-mac1", t->key.data);
	macaroon_root(key, t->key.data + 32);
	t->key.len = 32 + MACAROON_ROOT_LEN;
	sodium_memzero(key, sizeof(key));
}

int tokens_load(struct tokens *t, struct store *store, const struct config *config, const uint8_t key[32], struct err *err)
{
	CLEANUP(cleanup_close) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, t->boot_id, 36);
	int r;

	if (n != 36)
		return err_set(err, ERR_FAILED, "cannot read the boot id: is /proc mounted?");
	t->boot_id[36] = '\0';
	t->store = store;
	t->config = config;
	token_seen_init(&t->seen);
	r = store_epoch(store, &t->epoch, err);
	if (r == 0)
		r = secret_new(&t->key, 32 + MACAROON_ROOT_LEN, err);
	if (r == 0) {
		memcpy(t->key.data, key, 32);
		make_root(t);
	}
	return r < 0 ? r : store_tokens(store, t->boot_id, load_row, t, err);
}

/* ---- rows that go ---------------------------------------------------------------------------------------------- */

#define EXPIRE_AT_ONCE 256u /* in one transaction: the loop must go on */

static void unlink_row(struct tokens *t, struct token_row **at)
{
	struct token_row *row = *at;

	if (row->job)
		job_remove_token(row->job, row);
	*at = row->next;
	t->by_uid[row->uid % TOKEN_UIDS]--;
	free(row);
	t->n--;
}

static int remove_row(struct tokens *t, struct token_row **at, struct err *err)
{
	int r = store_token_delete(t->store, (*at)->id, err);

	unlink_row(t, at);
	return r;
}

void tokens_expire(struct tokens *t, uint64_t boot_ms)
{
	size_t budget = EXPIRE_AT_ONCE;
	int begun = -ERR_FAILED;

	for (size_t i = 0; i < TOKEN_BUCKETS && budget; i++) {
		for (struct token_row **at = &t->buckets[i]; *at && budget;) {
			if ((*at)->deadline_ms <= boot_ms) {
				if (budget-- == EXPIRE_AT_ONCE)
					begun = store_begin_removal(t->store, NULL);
				remove_row(t, at, NULL);
			} else {
				at = &(*at)->next;
			}
		}
	}
	if (begun == 0)
		store_end(t->store, true, NULL);
}

/* NULL: it has none, or that one is gone. */
static struct token_row *parent_of(struct tokens *t, const struct token_row *row)
{
	return sodium_is_zero(row->parent, sizeof(row->parent)) ? NULL : token_find(t, row->parent);
}

/* It or any that it was made from is to go. A lineage is at most as long as there are tokens. */
static bool descends_from_doomed(struct tokens *t, const struct token_row *row)
{
	for (size_t n = 0; row && n < LIMIT_TOKENS; n++, row = parent_of(t, row))
		if (row->doomed)
			return true;
	return false;
}

static int remove_doomed(struct tokens *t, size_t *ret_n, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		for (struct token_row **at = &t->buckets[i]; *at;) {
			if (!(*at)->doomed) {
				at = &(*at)->next;
				continue;
			}
			if ((*at)->job)
				(*at)->job->bereft = true;
			if (remove_row(t, at, err) < 0)
				r = -ERR_FAILED;
			(*ret_n)++;
		}
	}
	return r;
}

int tokens_revoke(struct tokens *t, bool (*which)(void *ctx, const struct token_row *row), void *ctx, size_t *ret_n, struct err *err)
{
	size_t n = 0;
	int begun, r;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++)
		for (struct token_row *row = t->buckets[i]; row; row = row->next)
			row->doomed = which(ctx, row);
	for (size_t i = 0; i < TOKEN_BUCKETS; i++)
		for (struct token_row *row = t->buckets[i]; row; row = row->next)
			row->doomed = descends_from_doomed(t, row);
	begun = store_begin_removal(t->store, err);
	r = remove_doomed(t, &n, err);
	if (begun == 0) {
		int ended = store_end(t->store, r == 0, err);

		r = r < 0 ? r : ended;
	} else {
		r = begun;
	}
	*ret_n = n;
	return r;
}

static bool is_row(void *ctx, const struct token_row *row)
{
	return row == ctx;
}

void token_forget(struct tokens *t, const uint8_t id[16])
{
	struct token_row **at = bucket(t, id);

	while (*at && memcmp((*at)->id, id, 16) != 0)
		at = &(*at)->next;
	if (*at)
		unlink_row(t, at);
}

int token_revoke(struct tokens *t, struct token_row *row, size_t *ret_n, struct err *err)
{
	return tokens_revoke(t, is_row, row, ret_n, err);
}

/* Where the store cannot say it (begun < 0), they keep a parent that is gone, which is as good. */
static int free_children(struct tokens *t, const struct token_row *row, int begun, struct err *err)
{
	int r = begun;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		for (struct token_row *child = t->buckets[i]; child; child = child->next) {
			if (memcmp(child->parent, row->id, sizeof(row->id)) != 0)
				continue;
			memset(child->parent, 0, sizeof(child->parent));
			if (r == 0)
				r = store_token_put(t->store, t->boot_id, child, err);
		}
	}
	return r;
}

int token_revoke_alone(struct tokens *t, struct token_row *row, struct err *err)
{
	size_t n;
	int begun = store_begin_removal(t->store, err), freed = free_children(t, row, begun, err), r = token_revoke(t, row, &n, err), ended;

	if (begun < 0)
		return begun;
	ended = store_end(t->store, freed == 0 && r == 0, err);
	return freed < 0 ? freed : r < 0 ? r : ended;
}

int tokens_end_job(struct tokens *t, struct job *job, struct err *err)
{
	int r = 0;

	while (job->tokens) {
		struct token_row **at = bucket(t, job->tokens->id);

		while (*at != job->tokens)
			at = &(*at)->next;
		if (remove_row(t, at, err) < 0)
			r = -ERR_FAILED;
	}
	return r;
}

int tokens_revoke_all(struct tokens *t, struct err *err)
{
	int r = t->epoch == UINT32_MAX ? err_set(err, ERR_LIMIT, "the last epoch is reached") : 0;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		while (t->buckets[i]) {
			struct token_row *row = t->buckets[i];

			if (row->job)
				job_remove_token(row->job, row);
			t->buckets[i] = row->next;
			free(row);
			t->n--;
		}
	}
	memset(t->by_uid, 0, sizeof(t->by_uid));
	if (r == 0)
		r = store_tokens_clear(t->store, t->epoch + 1, err);
	if (r == 0) {
		t->epoch++;
		make_root(t);
		token_seen_done(&t->seen);
		token_seen_init(&t->seen);
	}
	return r;
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

const uint8_t *token_root(const struct tokens *t)
{
	return t->key.data + 32;
}

void token_macaroon_id(const struct token_row *row, uint8_t ret[MACAROON_ID_LEN])
{
	struct writer w = writer_init(ret, MACAROON_ID_LEN);

	writer_u8(&w, 1);
	writer_u32be(&w, row->epoch);
	writer_bytes(&w, row->id, sizeof(row->id));
}

int token_room(const struct tokens *t, const struct token_request *q, struct err *err)
{
	/* a quarter is kept for operators: one job cannot take every place */
	if (t->n >= (q->by_operator ? LIMIT_TOKENS : LIMIT_TOKENS / 4 * 3))
		return err_set(err, ERR_BUSY, "there are %zu live tokens already", t->n);
	if (!q->by_operator && t->by_uid[q->uid % TOKEN_UIDS] >= LIMIT_TOKENS_PER_UID)
		return err_set(err, ERR_BUSY, "this uid has %u live tokens already", t->by_uid[q->uid % TOKEN_UIDS]);
	if (q->parent && !q->wraps && q->parent->n_children >= LIMIT_TOKEN_CHILDREN)
		return err_set(err, ERR_BUSY, "a token makes at most %u others", LIMIT_TOKEN_CHILDREN);
	if (q->job && q->job->n_tokens >= LIMIT_JOB_TOKENS)
		return err_set(err, ERR_BUSY, "a job has at most %u tokens", LIMIT_JOB_TOKENS);
	if (strlen(q->policies) >= LIMIT_TOKEN_POLICY_TEXT || strlen(q->meta) >= LIMIT_TOKEN_META_TEXT || strlen(q->path) >= LIMIT_TOKEN_PATH_TEXT ||
	    strlen(q->display) >= LIMIT_TOKEN_PATH_TEXT)
		return err_set(err, ERR_LIMIT, "too many policies or claims for one token");
	return 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Until when a token may live that would like to live until then. */
static uint64_t cut(uint64_t deadline_ms, const struct token_row *parent, const struct job *job)
{
	if (parent)
		deadline_ms = least(deadline_ms, parent->deadline_ms);
	return job ? least(deadline_ms, job->deadline_ms) : deadline_ms;
}

static void fill_row(const struct tokens *t, const struct token_request *q, struct token_row *row)
{
	uint64_t now = token_boot_ms();

	*row = (struct token_row){.epoch = t->epoch, .uid = q->uid, .cgroup = q->cgroup, .uses_left = q->uses, .job = q->job, .wraps = q->wraps,
				  .wrap_ttl_ms = q->wrap_ttl_ms, .wrap_uses = q->wrap_uses, .policies = q->policies, .meta = q->meta,
				  .path = q->path, .display = q->display, .created_ms = token_wall_ms(),
				  .deadline_ms = cut(now + least(q->ttl_ms, LIMIT_TOKEN_TTL_S * 1000ull), q->parent, q->job)};
	if (q->max_ttl_ms) {
		row->max_deadline_ms = now + q->max_ttl_ms;
		row->deadline_ms = least(row->deadline_ms, row->max_deadline_ms);
	}
	row->ttl_ms = row->deadline_ms - now;
	randombytes_buf(row->id, sizeof(row->id));
	if (q->parent)
		memcpy(row->parent, q->parent->id, sizeof(row->parent));
	else if (q->unwrapped_from)
		memcpy(row->parent, q->unwrapped_from, sizeof(row->parent));
	if (q->job)
		memcpy(row->job_id, q->job->id, sizeof(row->job_id));
}

int token_make(struct tokens *t, const struct token_request *q, struct secret *ret_text, struct token_row **ret_row, struct err *err)
{
	struct token_row row, *made;
	uint8_t id[MACAROON_ID_LEN];
	int r = token_room(t, q, err);

	if (r < 0)
		return r;
	fill_row(t, q, &row);
	token_macaroon_id(&row, id);
	r = macaroon_mint(token_root(t), id, ret_text, err);
	if (r == 0)
		r = store_token_put(t->store, t->boot_id, &row, err);
	if (r == 0) {
		made = insert(t, &row);
		if (made)
			*ret_row = made;
		else
			r = err_set(err, ERR_FAILED, "out of memory");
	}
	if (r == 0 && q->parent && !q->wraps)
		q->parent->n_children++;
	if (r < 0)
		secret_clear(ret_text);
	return r;
}

int token_renew(struct tokens *t, struct token_row *row, uint64_t increment_ms, struct err *err)
{
	uint64_t deadline_ms, old_ms = row->deadline_ms, renewed_ms = row->renewed_ms;
	int r;

	if (!row->max_deadline_ms)
		return err_set(err, ERR_INPUT, "lease is not renewable");
	/* it may not be swept away yet */
	if (row->deadline_ms <= token_boot_ms())
		return err_set(err, ERR_DENIED, "the token has expired");
	deadline_ms = token_boot_ms() + least(increment_ms ? increment_ms : row->ttl_ms, LIMIT_TOKEN_TTL_S * 1000ull);
	deadline_ms = least(cut(deadline_ms, parent_of(t, row), row->job), row->max_deadline_ms);
	/* never shorter: those made with it would outlive it, and belong to nobody */
	if (deadline_ms > row->deadline_ms)
		row->deadline_ms = deadline_ms;
	row->renewed_ms = token_wall_ms();
	r = store_token_put(t->store, t->boot_id, row, err);
	if (r < 0) {
		row->deadline_ms = old_ms;
		row->renewed_ms = renewed_ms;
	}
	return r;
}

void token_wrap_key(const struct tokens *t, const struct token_row *row, uint8_t ret[32])
{
	uint8_t key[32];

	crypto_kdf_derive_from_key(key, sizeof(key), row->epoch, "cot-wrp1", t->key.data);
	crypto_generichash(ret, 32, row->id, sizeof(row->id), key, sizeof(key));
	sodium_memzero(key, sizeof(key));
}

bool token_descends(struct tokens *t, const struct token_row *row, const struct token_row *of)
{
	for (size_t n = 0; row && n < LIMIT_TOKENS; n++, row = parent_of(t, row))
		if (row == of)
			return true;
	return false;
}
