/* What lives no longer than a boot: token rows, their uses, jobs; and the epoch, which only grows. */
#include "broker/job.h"
#include "broker/store_sql.h"
#include "common/err.h"

#include <string.h>

const char store_token_schema[] =
	"CREATE TABLE token (id BLOB PRIMARY KEY, parent BLOB NOT NULL, job BLOB NOT NULL, epoch INTEGER NOT NULL, uid INTEGER NOT NULL,"
	" cgroup INTEGER NOT NULL, boot TEXT NOT NULL, policies TEXT NOT NULL, meta TEXT NOT NULL, created INTEGER NOT NULL,"
	" deadline INTEGER NOT NULL, max_deadline INTEGER NOT NULL, ttl INTEGER NOT NULL, renewed INTEGER NOT NULL, uses_left INTEGER NOT NULL,"
	" wraps INTEGER NOT NULL, wrap_ttl INTEGER NOT NULL, wrap_uses INTEGER NOT NULL, path TEXT NOT NULL, display TEXT NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE token_use (id BLOB NOT NULL, chain BLOB NOT NULL, used INTEGER NOT NULL, mac BLOB NOT NULL,"
	" PRIMARY KEY (id, chain)) WITHOUT ROWID;"
	"CREATE TABLE job (id BLOB PRIMARY KEY, name TEXT NOT NULL, uid INTEGER NOT NULL, cgroup INTEGER NOT NULL, path TEXT NOT NULL,"
	" leader INTEGER NOT NULL, leader_id INTEGER NOT NULL, boot TEXT NOT NULL, created INTEGER NOT NULL, deadline INTEGER NOT NULL,"
	" mac BLOB NOT NULL) WITHOUT ROWID;"
	/* an ID token is good once: its hash, until it expires by itself */
	"CREATE TABLE replay (hash BLOB PRIMARY KEY, expires INTEGER NOT NULL, uid INTEGER NOT NULL, cgroup INTEGER NOT NULL,"
	" again INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX replay_expires ON replay (expires);"
	"CREATE INDEX replay_uid ON replay (uid);";

const char store_token_drop[] =
	"DROP TABLE IF EXISTS token; DROP TABLE IF EXISTS token_use; DROP TABLE IF EXISTS wrapped; DROP TABLE IF EXISTS job; DROP TABLE IF EXISTS replay;";

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

static void token_mac(const struct store *s, const char *boot_id, const struct token_row *t, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "token");
	crypto_generichash_update(&st, t->id, sizeof(t->id));
	crypto_generichash_update(&st, t->parent, sizeof(t->parent));
	crypto_generichash_update(&st, t->job_id, sizeof(t->job_id));
	store_mac_u64(&st, t->epoch);
	store_mac_u64(&st, t->uid);
	store_mac_u64(&st, t->cgroup);
	store_mac_text(&st, boot_id);
	store_mac_text(&st, t->policies);
	store_mac_text(&st, t->meta);
	store_mac_u64(&st, t->created_ms);
	store_mac_u64(&st, t->deadline_ms);
	store_mac_u64(&st, t->max_deadline_ms);
	store_mac_u64(&st, t->ttl_ms);
	store_mac_u64(&st, t->renewed_ms);
	store_mac_u64(&st, (uint64_t)t->uses_left);
	store_mac_u64(&st, t->wraps);
	store_mac_u64(&st, t->wrap_ttl_ms);
	store_mac_u64(&st, (uint64_t)t->wrap_uses);
	store_mac_text(&st, t->path);
	store_mac_text(&st, t->display);
	store_mac_finish(&st, ret);
}

int store_token_put(struct store *s, const char *boot_id, const struct token_row *t, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	token_mac(s, boot_id, t, mac);
	r = store_prepare(s, "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err,
			  "bbbiiitttiiiiiiiiittb",
			  t->id, sizeof(t->id), t->parent, sizeof(t->parent), t->job_id, sizeof(t->job_id), (int64_t)t->epoch,
			  (int64_t)t->uid, (int64_t)t->cgroup, boot_id, t->policies, t->meta, (int64_t)t->created_ms,
			  (int64_t)t->deadline_ms, (int64_t)t->max_deadline_ms, (int64_t)t->ttl_ms, (int64_t)t->renewed_ms, t->uses_left,
			  (int64_t)t->wraps, (int64_t)t->wrap_ttl_ms, t->wrap_uses, t->path, t->display, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

/* Whether what was to go did is known at the transaction's end. */
static int removed(struct store *s, int r)
{
	if (s->depth)
		s->removing = true;
	s->behind |= r < 0;
	return r;
}

/* One that could not begin: store_catch_up removes the row. */
static int is_left(const struct store *s, struct err *err)
{
	return s->behind && !s->depth ? err_set(err, ERR_FAILED, "the store cannot be written: it is tried again") : 0;
}

int store_token_delete(struct store *s, const uint8_t id[16], struct err *err)
{
	STMT *token = NULL;
	STMT *uses = NULL;
	int r = is_left(s, err);

	if (r < 0)
		return r;
	r = store_prepare(s, "DELETE FROM token WHERE id = ?", &token, err, "b", id, (size_t)16);

	if (r == 0)
		r = store_step(s, token, err);
	if (r == 0)
		r = store_prepare(s, "DELETE FROM token_use WHERE id = ?", &uses, err, "b", id, (size_t)16);
	if (r == 0)
		r = store_step(s, uses, err);
	return removed(s, r < 0 ? r : store_wrapped_delete(s, id, err));
}

/* false: another hand's row, which is no row. The texts stand in the caller's buffers. */
static bool read_token(struct store *s, sqlite3_stmt *q, const char *boot_id, char policies[LIMIT_TOKEN_POLICY_TEXT],
		       char meta[LIMIT_TOKEN_META_TEXT], char path[2][LIMIT_TOKEN_PATH_TEXT], struct token_row *t)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];

	*t = (struct token_row){
		.epoch = (uint32_t)sqlite3_column_int64(q, 3),
		.uid = (uint32_t)sqlite3_column_int64(q, 4),
		.cgroup = store_column_u64(q, 5),
		.created_ms = store_column_u64(q, 8),
		.deadline_ms = store_column_u64(q, 9),
		.max_deadline_ms = store_column_u64(q, 10),
		.ttl_ms = store_column_u64(q, 11),
		.renewed_ms = store_column_u64(q, 12),
		.uses_left = sqlite3_column_int64(q, 13),
		.wraps = (uint32_t)sqlite3_column_int64(q, 14),
		.wrap_ttl_ms = store_column_u64(q, 15),
		.wrap_uses = sqlite3_column_int64(q, 16),
		.policies = policies,
		.meta = meta,
		.path = path[0],
		.display = path[1],
	};
	store_column_text(q, 6, policies, LIMIT_TOKEN_POLICY_TEXT);
	store_column_text(q, 7, meta, LIMIT_TOKEN_META_TEXT);
	store_column_text(q, 17, path[0], LIMIT_TOKEN_PATH_TEXT);
	store_column_text(q, 18, path[1], LIMIT_TOKEN_PATH_TEXT);
	if (!store_column_blob(q, 0, t->id, sizeof(t->id)) || !store_column_blob(q, 1, t->parent, sizeof(t->parent)) ||
	    !store_column_blob(q, 2, t->job_id, sizeof(t->job_id)) || !store_column_blob(q, 19, mac, sizeof(mac)))
		return false;
	token_mac(s, boot_id, t, want);
	return sodium_memcmp(mac, want, sizeof(mac)) == 0;
}

int store_tokens(struct store *s, const char *boot_id, int (*each)(void *ctx, const struct token_row *row), void *ctx,
		 struct err *err)
{
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT], path[2][LIMIT_TOKEN_PATH_TEXT];
	struct token_row row;
	STMT *drop = NULL;
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM token WHERE boot <> ?", &drop, err, "t", boot_id);

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_exec(s, "DELETE FROM token_use WHERE id NOT IN (SELECT id FROM token); DELETE FROM wrapped WHERE id NOT IN (SELECT id FROM token)", err);
	if (r == 0)
		r = store_prepare(s, "SELECT id, parent, job, epoch, uid, cgroup, policies, meta, created, deadline, max_deadline, ttl, renewed, "
				     "uses_left, wraps, wrap_ttl, wrap_uses, path, display, mac FROM token", &q, err, "");
	while (r == 0 && (r = store_step(s, q, err)) == 1)
		r = read_token(s, q, boot_id, policies, meta, path, &row) ? each(ctx, &row) : 0;
	return r;
}

/* ---- uses ------------------------------------------------------------------------------------------------------- */

static void use_mac(const struct store *s, const uint8_t id[16], const uint8_t chain[16], uint64_t used,
		    uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "use");
	crypto_generichash_update(&st, id, 16);
	crypto_generichash_update(&st, chain, 16);
	store_mac_u64(&st, used);
	store_mac_finish(&st, ret);
}

int store_use_get(struct store *s, const uint8_t id[16], const uint8_t chain[16], uint64_t *ret, struct err *err)
{
	STMT *q = NULL;
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	int r = store_prepare(s, "SELECT used, mac FROM token_use WHERE id = ? AND chain = ?", &q, err, "bb", id, (size_t)16, chain,
			      (size_t)16);

	if (r == 0)
		r = store_step(s, q, err);
	*ret = r == 1 ? store_column_u64(q, 0) : 0;
	if (r != 1)
		return r;
	use_mac(s, id, chain, *ret, want);
	return store_column_blob(q, 1, mac, sizeof(mac)) && sodium_memcmp(mac, want, sizeof(mac)) == 0 ? 0
												     : store_tampered("token use", err);
}

int store_use_put(struct store *s, const uint8_t id[16], const uint8_t chain[16], uint64_t used, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	use_mac(s, id, chain, used, mac);
	r = store_prepare(s, "INSERT OR REPLACE INTO token_use VALUES (?, ?, ?, ?)", &q, err, "bbib", id, (size_t)16, chain, (size_t)16,
			  (int64_t)used, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

static void job_mac(const struct store *s, const char *boot_id, const struct job *j, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "job");
	crypto_generichash_update(&st, j->id, sizeof(j->id));
	store_mac_text(&st, j->name);
	store_mac_u64(&st, j->uid);
	store_mac_u64(&st, j->cgroup);
	store_mac_text(&st, j->cgroup_path);
	store_mac_u64(&st, (uint64_t)j->leader);
	store_mac_u64(&st, j->leader_id);
	store_mac_text(&st, boot_id);
	store_mac_u64(&st, j->created_ms);
	store_mac_u64(&st, j->deadline_ms);
	store_mac_finish(&st, ret);
}

int store_job_put(struct store *s, const char *boot_id, const struct job *j, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	job_mac(s, boot_id, j, mac);
	r = store_prepare(s, "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err, "btiitiitiib", j->id,
			  sizeof(j->id), j->name, (int64_t)j->uid, (int64_t)j->cgroup, j->cgroup_path, (int64_t)j->leader,
			  (int64_t)j->leader_id, boot_id, (int64_t)j->created_ms, (int64_t)j->deadline_ms, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_job_delete(struct store *s, const uint8_t id[JOB_ID_LEN], struct err *err)
{
	STMT *q = NULL;
	int r = is_left(s, err);

	if (r < 0)
		return r;
	r = store_prepare(s, "DELETE FROM job WHERE id = ?", &q, err, "b", id, (size_t)JOB_ID_LEN);
	return removed(s, r < 0 ? r : store_step(s, q, err));
}

int store_jobs(struct store *s, const char *boot_id, int (*each)(void *ctx, const struct job *job), void *ctx, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	char path[LIMIT_CGROUP_PATH];
	struct job job;
	STMT *drop = NULL;
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM job WHERE boot <> ?", &drop, err, "t", boot_id);

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_prepare(s, "SELECT id, name, uid, cgroup, path, leader, leader_id, created, deadline, mac FROM job", &q, err, "");
	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		job = (struct job){.uid = (uint32_t)sqlite3_column_int64(q, 2),
				   .cgroup = store_column_u64(q, 3),
				   .leader = (pid_t)sqlite3_column_int64(q, 5),
				   .leader_id = store_column_u64(q, 6),
				   .created_ms = store_column_u64(q, 7),
				   .deadline_ms = store_column_u64(q, 8),
				   .cgroup_path = path,
				   .pidfd = -1,
				   .watch = -1};
		store_column_text(q, 1, job.name, sizeof(job.name));
		store_column_text(q, 4, path, sizeof(path));
		r = 0;
		if (!store_column_blob(q, 0, job.id, sizeof(job.id)) || !store_column_blob(q, 9, mac, sizeof(mac)))
			continue;
		job_mac(s, boot_id, &job, want);
		if (sodium_memcmp(mac, want, sizeof(mac)) == 0)
			r = each(ctx, &job);
	}
	return r;
}

/* ---- epoch ------------------------------------------------------------------------------------------------------ */

static void epoch_mac(const struct store *s, uint32_t epoch, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "epoch");
	store_mac_u64(&st, epoch);
	store_mac_finish(&st, ret);
}

int store_epoch(struct store *s, uint32_t *ret, struct err *err)
{
	uint8_t value[4 + STORE_MAC_LEN], want[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT value FROM meta WHERE key = 'epoch'", &q, err, "");

	if (r == 0)
		r = store_step(s, q, err);
	if (r < 0)
		return r;
	*ret = 1;
	if (r == 0)
		return 0;
	if (!store_column_blob(q, 0, value, sizeof(value)))
		return store_tampered("epoch", err);
	*ret = (uint32_t)value[0] << 24 | (uint32_t)value[1] << 16 | (uint32_t)value[2] << 8 | value[3];
	epoch_mac(s, *ret, want);
	return sodium_memcmp(value + 4, want, sizeof(want)) == 0 ? 0 : store_tampered("epoch", err);
}

static int put_epoch(struct store *s, uint32_t epoch, struct err *err)
{
	uint8_t value[4 + STORE_MAC_LEN] = {(uint8_t)(epoch >> 24), (uint8_t)(epoch >> 16), (uint8_t)(epoch >> 8), (uint8_t)epoch};
	STMT *q = NULL;
	int r;

	epoch_mac(s, epoch, value + 4);
	r = store_prepare(s, "INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", &q, err, "b", value, sizeof(value));
	return r < 0 ? r : store_step(s, q, err);
}

int store_tokens_clear(struct store *s, uint32_t epoch, struct err *err)
{
	int r = store_begin(s, err);

	if (r < 0)
		return removed(s, r);
	r = removed(s, store_exec(s, "DELETE FROM token; DELETE FROM token_use; DELETE FROM wrapped", err));
	if (r == 0)
		r = put_epoch(s, epoch, err);
	if (r == 0)
		return store_end(s, true, err);
	store_end(s, false, NULL);
	return r;
}

/* ---- rows that could not go ------------------------------------------------------------------------------------- */

#define CATCH_UP_AT_ONCE 1024u

/* The dead among them, at most so many. */
static int find_dead(struct store *s, const char *select, size_t len, bool (*lives)(void *ctx, const uint8_t *id, size_t len), void *ctx,
		     uint8_t ret[CATCH_UP_AT_ONCE][16], size_t *ret_n, struct err *err)
{
	uint8_t id[16] = {0};
	STMT *q = NULL;
	int r = store_prepare(s, select, &q, err, "");

	*ret_n = 0;
	while (r == 0 && *ret_n < CATCH_UP_AT_ONCE && (r = store_step(s, q, err)) == 1) {
		r = 0;
		if (store_column_blob(q, 0, id, len) && !lives(ctx, id, len))
			memcpy(ret[(*ret_n)++], id, sizeof(id));
	}
	return r;
}

int store_catch_up(struct store *s, bool (*lives)(void *ctx, const uint8_t *id, size_t len), void *ctx, struct err *err)
{
	uint8_t dead[CATCH_UP_AT_ONCE][16];
	size_t n, n_jobs = 0;
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = find_dead(s, "SELECT id FROM token", 16, lives, ctx, dead, &n, err);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = store_token_delete(s, dead[i], err);
	if (r == 0)
		r = find_dead(s, "SELECT id FROM job", JOB_ID_LEN, lives, ctx, dead, &n_jobs, err);
	for (size_t i = 0; r == 0 && i < n_jobs; i++)
		r = store_job_delete(s, dead[i], err);
	if (r < 0) {
		store_end(s, false, NULL);
		return r;
	}
	r = store_end(s, true, err);
	if (r == 0)
		s->behind = n == CATCH_UP_AT_ONCE || n_jobs == CATCH_UP_AT_ONCE;
	return r;
}

/* ---- ID tokens seen --------------------------------------------------------------------------------------------- */

/* 1: so many are remembered that there is no room for one more of that uid. */
static int replays_full(struct store *s, uint32_t uid, struct err *err)
{
	STMT *all = NULL;
	STMT *own = NULL;
	int r = store_prepare(s, "SELECT count(*) FROM replay", &all, err, "");

	if (r == 0)
		r = store_step(s, all, err);
	if (r != 1 || store_column_u64(all, 0) >= LIMIT_REPLAYS)
		return r;
	r = store_prepare(s, "SELECT count(*) FROM replay WHERE uid = ?", &own, err, "i", (int64_t)uid);
	if (r == 0)
		r = store_step(s, own, err);
	return r < 0 ? r : store_column_u64(own, 0) >= LIMIT_REPLAYS / 2;
}

int store_replay(struct store *s, const struct store_seen *seen, uint64_t now_ms, struct err *err)
{
	STMT *drop = NULL;
	STMT *q = NULL;
	STMT *put = NULL;
	int r = store_prepare(s, "DELETE FROM replay WHERE expires < ?", &drop, err, "i", (int64_t)now_ms);

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_prepare(s, "SELECT uid, cgroup, again FROM replay WHERE hash = ?", &q, err, "b", seen->hash, sizeof(seen->hash));
	if (r == 0)
		r = store_step(s, q, err);
	/* both uses must allow it: one role may be stricter than another */
	if (r == 1 && seen->again && store_column_u64(q, 2) == 1 && seen->cgroup && store_column_u64(q, 0) == seen->uid &&
	    store_column_u64(q, 1) == seen->cgroup)
		return 0;
	if (r == 1)
		return err_set(err, ERR_CONFLICT, "it was used before: an ID token is good once");
	if (r == 0)
		r = replays_full(s, seen->uid, err);
	if (r == 1)
		return err_set(err, ERR_BUSY, "too many ID tokens are remembered already: they go as they expire");
	if (r == 0)
		r = store_prepare(s, "INSERT INTO replay VALUES (?, ?, ?, ?, ?)", &put, err, "biiii", seen->hash, sizeof(seen->hash),
				  (int64_t)seen->expires_ms, (int64_t)seen->uid, (int64_t)seen->cgroup, (int64_t)seen->again);
	return r < 0 ? r : store_step(s, put, err);
}
