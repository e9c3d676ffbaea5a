#include "broker/store_sql.h"

#include "common/buf.h"
#include "common/err.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA_VERSION 5

static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
	"CREATE TABLE secret (path TEXT PRIMARY KEY, current INTEGER NOT NULL, oldest INTEGER NOT NULL,"
	" created INTEGER NOT NULL, updated INTEGER NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE version (path TEXT NOT NULL, version INTEGER NOT NULL, created INTEGER NOT NULL,"
	" deleted INTEGER NOT NULL, destroyed INTEGER NOT NULL, uid INTEGER NOT NULL, meta TEXT NOT NULL, sealed BLOB,"
	" mac BLOB NOT NULL, PRIMARY KEY (path, version)) WITHOUT ROWID;";

/* ---- SQLite, thinly ------------------------------------------------------------------------------------------ */

int store_sql_err(struct store *s, struct err *err)
{
	return err_set(err, ERR_FAILED, "the store: %s", sqlite3_errmsg(s->db));
}

int store_exec(struct store *s, const char *sql, struct err *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_sql_err(s, err);
}

/* The statement stays prepared for its next use. */
void store_finalize(sqlite3_stmt **st)
{
	if (*st) {
		sqlite3_reset(*st);
		sqlite3_clear_bindings(*st);
	}
}

static int compile(struct store *s, const char *sql, sqlite3_stmt **ret)
{
	size_t i = 0, n = sizeof(s->prepared) / sizeof(s->prepared[0]);
	int rc;

	while (i < n && s->prepared[i].sql && s->prepared[i].sql != sql)
		i++;
	assert(i < n);
	if (!s->prepared[i].sql) {
		rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->prepared[i].st, NULL);
		if (rc != SQLITE_OK)
			return rc;
		s->prepared[i].sql = sql;
	}
	assert(!sqlite3_stmt_busy(s->prepared[i].st));
	*ret = s->prepared[i].st;
	return SQLITE_OK;
}

/* fmt: t text, b blob of the length that follows, i int64. */
int store_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, const char *fmt, ...)
{
	va_list ap;
	int rc = compile(s, sql, ret);
	const void *blob;

	va_start(ap, fmt);
	for (int i = 1; rc == SQLITE_OK && *fmt; fmt++, i++) {
		if (*fmt == 't') {
			rc = sqlite3_bind_text(*ret, i, va_arg(ap, const char *), -1, SQLITE_STATIC);
		} else if (*fmt == 'b') {
			blob = va_arg(ap, const void *);
			rc = sqlite3_bind_blob64(*ret, i, blob, va_arg(ap, size_t), SQLITE_STATIC);
		} else {
			rc = sqlite3_bind_int64(*ret, i, va_arg(ap, int64_t));
		}
	}
	va_end(ap);
	return rc == SQLITE_OK ? 0 : store_sql_err(s, err);
}

/* 1: a row, 0: none. */
int store_step(struct store *s, sqlite3_stmt *st, struct err *err)
{
	int rc = sqlite3_step(st);

	return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : store_sql_err(s, err);
}

uint64_t store_column_u64(sqlite3_stmt *st, int i)
{
	return (uint64_t)sqlite3_column_int64(st, i);
}

bool store_column_blob(sqlite3_stmt *st, int i, void *ret, size_t len)
{
	const void *p = sqlite3_column_blob(st, i);

	if (!p || (size_t)sqlite3_column_bytes(st, i) != len)
		return false;
	memcpy(ret, p, len);
	return true;
}

void store_column_text(sqlite3_stmt *st, int i, char *ret, size_t size)
{
	const unsigned char *p = sqlite3_column_text(st, i);

	snprintf(ret, size, "%s", p ? (const char *)p : "");
}

static int end_transaction(struct store *s, bool commit, struct err *err)
{
	if (commit && store_exec(s, "COMMIT", err) == 0)
		return 0;
	return sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK && !commit ? 0 : -ERR_FAILED;
}

int store_begin(struct store *s, struct err *err)
{
	int r = s->depth ? 0 : store_exec(s, "BEGIN IMMEDIATE", err);

	if (r < 0)
		return r;
	if (s->depth++ == 0)
		s->doomed = false;
	return 0;
}

int store_begin_removal(struct store *s, struct err *err)
{
	int r = store_begin(s, err);

	s->behind |= r < 0;
	return r;
}

int store_end(struct store *s, bool commit, struct err *err)
{
	bool written;
	int r;

	s->doomed |= !commit;
	if (--s->depth)
		return 0;
	r = end_transaction(s, !s->doomed, err);
	written = r == 0 && !s->doomed;
	s->behind |= s->removing && !written;
	s->removing = false;
	return r == 0 && commit && !written ? err_set(err, ERR_FAILED, "a part of it could not be written") : r;
}

/* ---- MACs ---------------------------------------------------------------------------------------------------- */

void store_mac_start(const struct store *s, crypto_generichash_state *st, const char *table)
{
	crypto_generichash_init(st, s->mac_key.data, s->mac_key.len, STORE_MAC_LEN);
	crypto_generichash_update(st, (const uint8_t *)table, strlen(table) + 1);
}

void store_mac_text(crypto_generichash_state *st, const char *text)
{
	crypto_generichash_update(st, (const uint8_t *)text, strlen(text) + 1);
}

void store_mac_u64(crypto_generichash_state *st, uint64_t v)
{
	uint8_t b[8];
	struct writer w = writer_init(b, sizeof(b));

	writer_u64be(&w, v);
	crypto_generichash_update(st, b, sizeof(b));
}

void store_mac_finish(crypto_generichash_state *st, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_final(st, ret, STORE_MAC_LEN);
	sodium_memzero(st, sizeof(*st));
}

static void version_mac(const struct store *s, const char *path, const struct store_version *v, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;
	uint8_t digest[32];

	crypto_hash_sha256(digest, v->sealed ? v->sealed : (const uint8_t *)"", v->sealed ? v->sealed_len : 0);
	store_mac_start(s, &st, "version");
	store_mac_text(&st, path);
	store_mac_u64(&st, v->version);
	store_mac_u64(&st, v->created_ms);
	store_mac_u64(&st, v->deleted_ms);
	store_mac_u64(&st, v->destroyed);
	store_mac_u64(&st, v->uid);
	store_mac_text(&st, v->meta);
	crypto_generichash_update(&st, digest, sizeof(digest));
	store_mac_finish(&st, ret);
}

/* Covers the MACs of all its versions, as they stand in the table now. */
static int secret_mac(struct store *s, const char *path, const struct store_secret *x, uint8_t ret[STORE_MAC_LEN],
		      struct err *err)
{
	crypto_generichash_state st;
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT mac FROM version WHERE path = ? ORDER BY version", &q, err, "t", path);

	if (r < 0)
		return r;
	store_mac_start(s, &st, "secret");
	store_mac_text(&st, path);
	store_mac_u64(&st, x->current);
	store_mac_u64(&st, x->oldest);
	store_mac_u64(&st, x->created_ms);
	store_mac_u64(&st, x->updated_ms);
	while ((r = store_step(s, q, err)) == 1)
		if (store_column_blob(q, 0, mac, sizeof(mac)))
			crypto_generichash_update(&st, mac, sizeof(mac));
	store_mac_finish(&st, ret);
	return r;
}

/* A secret's part of the sum: its name and its MAC. */
static void summand(const struct store *s, const char *path, const uint8_t mac[STORE_MAC_LEN], uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "sum");
	store_mac_text(&st, path);
	crypto_generichash_update(&st, mac, STORE_MAC_LEN);
	store_mac_finish(&st, ret);
}

static void root_mac(const struct store *s, const uint8_t root[STORE_MAC_LEN], uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "root");
	crypto_generichash_update(&st, root, STORE_MAC_LEN);
	store_mac_finish(&st, ret);
}

/* ---- the sum over all secrets --------------------------------------------------------------------------------- */

static int sum_all(struct store *s, uint8_t ret[STORE_MAC_LEN], struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], part[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT path, mac FROM secret", &q, err, "");

	memset(ret, 0, STORE_MAC_LEN);
	if (r < 0)
		return r;
	while ((r = store_step(s, q, err)) == 1)
		if (store_column_blob(q, 1, mac, sizeof(mac)) && sqlite3_column_text(q, 0)) {
			summand(s, (const char *)sqlite3_column_text(q, 0), mac, part);
			sodium_add(ret, part, sizeof(part));
		}
	return r;
}

static int write_root(struct store *s, const uint8_t root[STORE_MAC_LEN], struct err *err)
{
	uint8_t value[2 * STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	memcpy(value, root, STORE_MAC_LEN);
	root_mac(s, root, value + STORE_MAC_LEN);
	r = store_prepare(s, "INSERT OR REPLACE INTO meta VALUES ('root', ?)", &q, err, "b", value, sizeof(value));
	return r < 0 ? r : store_step(s, q, err);
}

static int64_t read_data_version(struct store *s)
{
	STMT *q = NULL;

	return store_prepare(s, "PRAGMA data_version", &q, NULL, "") == 0 && store_step(s, q, NULL) == 1 ? sqlite3_column_int64(q, 0) : -1;
}

static int verify_root(struct store *s, struct err *err)
{
	uint8_t value[2 * STORE_MAC_LEN], mac[STORE_MAC_LEN], sum[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT value FROM meta WHERE key = 'root'", &q, err, "");

	if (r < 0)
		return r;
	r = store_step(s, q, err);
	if (r < 0)
		return r;
	if (r == 0 || !store_column_blob(q, 0, value, sizeof(value)))
		memset(value, 0, sizeof(value)); /* an empty store has none yet */
	root_mac(s, value, mac);
	r = sum_all(s, sum, err);
	if (r < 0)
		return r;
	s->rolled_back = (sodium_memcmp(mac, value + STORE_MAC_LEN, sizeof(mac)) != 0 && !sodium_is_zero(value, sizeof(value))) ||
			 sodium_memcmp(sum, value, sizeof(sum)) != 0;
	memcpy(s->root, sum, sizeof(sum));
	s->data_version = read_data_version(s);
	if (s->rolled_back)
		return err_set(err, ERR_TAMPERED, "the store is not as cotter left it: secrets were taken away, put back or added by "
						  "another hand; restore it whole from a backup");
	return 0;
}

/* Before anything is believed: did another program write? Then the sum must still fit. */
static int check_foreign(struct store *s, struct err *err)
{
	if (s->mac_key.len == 0)
		return err_set(err, ERR_SEALED, "the store is sealed");
	if (!s->rolled_back && read_data_version(s) == s->data_version)
		return 0;
	return verify_root(s, err);
}

/* ---- open, close ---------------------------------------------------------------------------------------------- */

/* Token rows do not outlive a boot, nor a format. */
static int make_tables(struct store *s, int version, struct err *err)
{
	int r;

	if (version == SCHEMA_VERSION)
		return 0;
	if (version < 0 || version > SCHEMA_VERSION)
		return err_set(err, ERR_FAILED, "the store has format %d, this cotter knows %d", version, SCHEMA_VERSION);
	r = store_begin(s, err);
	if (r < 0)
		return r;
	r = store_exec(s, version == 0 ? schema : store_token_drop, err);
	if (r == 0)
		r = store_exec(s, store_token_schema, err);
	if (r == 0)
		r = store_exec(s, store_key_schema, err);
	if (r == 0)
		r = store_exec(s, store_cert_schema, err);
	if (r == 0)
		return store_end(s, true, err);
	store_end(s, false, NULL);
	return r;
}

int store_open(const char *path, struct store *s, struct err *err)
{
	STMT *q = NULL;
	int r, version;

	*s = (struct store){0};
	if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW, NULL) != SQLITE_OK) {
		r = err_set(err, ERR_FAILED, "the store %.300s: %s", path, s->db ? sqlite3_errmsg(s->db) : "out of memory");
		store_close(s);
		return r;
	}
	sqlite3_busy_timeout(s->db, 250); /* the loop waits with it */
	r = store_exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;"
		    "PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON", err);
	if (r == 0)
		r = store_prepare(s, "PRAGMA user_version", &q, err, "");
	if (r == 0)
		r = store_step(s, q, err);
	version = r == 1 ? sqlite3_column_int(q, 0) : -1;
	store_finalize(&q);
	q = NULL;
	if (r == 1)
		r = make_tables(s, version, err);
	if (r < 0)
		store_close(s);
	return r < 0 ? r : 0;
}

void store_close(struct store *s)
{
	for (size_t i = 0; i < sizeof(s->prepared) / sizeof(s->prepared[0]); i++)
		sqlite3_finalize(s->prepared[i].st);
	sqlite3_close(s->db);
	secret_clear(&s->mac_key);
	*s = (struct store){0};
}

int store_unlock(struct store *s, const uint8_t mac_key[32], struct err *err)
{
	int r = secret_copy(&s->mac_key, mac_key, 32, err);

	return r < 0 ? r : verify_root(s, err);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

int store_tampered(const char *path, struct err *err)
{
	return err_set(err, ERR_TAMPERED, "%.200s: the store's row is not what cotter wrote", path);
}

static int read_secret(struct store *s, const char *path, struct store_secret *ret, uint8_t ret_mac[STORE_MAC_LEN],
		       struct err *err)
{
	uint8_t want[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT current, oldest, created, updated, mac FROM secret WHERE path = ?", &q, err, "t", path);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "no secret %.300s", path);
	if (r < 0)
		return r;
	*ret = (struct store_secret){store_column_u64(q, 0), store_column_u64(q, 1), store_column_u64(q, 2), store_column_u64(q, 3)};
	if (!store_column_blob(q, 4, ret_mac, STORE_MAC_LEN))
		return store_tampered(path, err);
	r = secret_mac(s, path, ret, want, err);
	if (r < 0)
		return r;
	return sodium_memcmp(ret_mac, want, sizeof(want)) == 0 ? 0 : store_tampered(path, err);
}

static void read_version_columns(sqlite3_stmt *q, struct store_version *v)
{
	*v = (struct store_version){
		.version = store_column_u64(q, 0),
		.created_ms = store_column_u64(q, 1),
		.deleted_ms = store_column_u64(q, 2),
		.destroyed = sqlite3_column_int(q, 3) != 0,
		.uid = (uint32_t)sqlite3_column_int64(q, 4),
	};
	store_column_text(q, 5, v->meta, sizeof(v->meta));
}

int store_secret(struct store *s, const char *path, struct store_secret *ret, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	int r = check_foreign(s, err);

	return r < 0 ? r : read_secret(s, path, ret, mac, err);
}

/* The row as it stands, its own MAC checked. */
static int read_version(struct store *s, const char *path, uint64_t version, struct store_version *v, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT version, created, deleted, destroyed, uid, meta, sealed, mac FROM version "
			   "WHERE path = ? AND version = ?", &q, err, "ti", path, (int64_t)version);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "%.300s has no version %llu", path, (unsigned long long)version);
	if (r < 0)
		return r;
	read_version_columns(q, v);
	v->sealed_len = (size_t)sqlite3_column_bytes(q, 6);
	if (v->sealed_len > LIMIT_SEALED_LEN || !store_column_blob(q, 7, mac, sizeof(mac)))
		return store_tampered(path, err);
	if (sqlite3_column_type(q, 6) != SQLITE_NULL) {
		v->sealed = malloc(v->sealed_len + 1);
		if (!v->sealed)
			return err_set(err, ERR_FAILED, "out of memory");
		memcpy(v->sealed, sqlite3_column_blob(q, 6), v->sealed_len);
	}
	version_mac(s, path, v, want);
	if (sodium_memcmp(mac, want, sizeof(mac)) == 0)
		return 0;
	free(v->sealed);
	v->sealed = NULL;
	return store_tampered(path, err);
}

int store_get(struct store *s, const char *path, uint64_t version, struct store_version *ret, struct err *err)
{
	struct store_secret secret;
	struct store_version v = {0};
	int r = store_secret(s, path, &secret, err);

	if (r == 0)
		r = read_version(s, path, version ? version : secret.current, &v, err);
	if (r == 0)
		*ret = v;
	return r;
}

int store_versions(struct store *s, const char *path, int (*each)(void *ctx, const struct store_version *v), void *ctx,
		   struct err *err)
{
	struct store_version v;
	STMT *q = NULL;
	int r = check_foreign(s, err);

	if (r == 0)
		r = store_prepare(s, "SELECT version FROM version WHERE path = ? ORDER BY version", &q, err, "t", path);
	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		v = (struct store_version){0};
		r = read_version(s, path, store_column_u64(q, 0), &v, err);
		free(v.sealed);
		v.sealed = NULL;
		if (r == 0)
			r = each(ctx, &v);
	}
	return r;
}

int store_list(struct store *s, const char *folder, int (*each)(void *ctx, const char *name), void *ctx, struct err *err)
{
	char low[LIMIT_PATH_LEN + 3], high[LIMIT_PATH_LEN + 3], name[LIMIT_PATH_LEN + 2], last[LIMIT_PATH_LEN + 2] = "";
	size_t n = strlen(folder), len;
	const char *path;
	unsigned int count = 0;
	STMT *q = NULL;
	int r = check_foreign(s, err);

	/* "folder/" ≤ path < "folder0": '0' is the byte behind '/' */
	snprintf(low, sizeof(low), "%s%s", folder, n ? "/" : "");
	snprintf(high, sizeof(high), "%s%s", folder, n ? "0" : "\x7f");
	if (r == 0)
		r = store_prepare(s, "SELECT path FROM secret WHERE path >= ? AND path < ? ORDER BY path", &q, err, "tt", low, high);
	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		path = (const char *)sqlite3_column_text(q, 0) + strlen(low);
		len = strcspn(path, "/");
		len += path[len] == '/';
		if (len >= sizeof(name) || count >= LIMIT_LIST)
			break;
		memcpy(name, path, len);
		name[len] = '\0';
		r = 0;
		if (strcmp(name, last) == 0)
			continue;
		memcpy(last, name, len + 1);
		count++;
		r = each(ctx, name);
	}
	if (r < 0)
		return r;
	return count ? 0 : err_set(err, ERR_NOT_FOUND, "nothing under %.300s", n ? folder : "the root");
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

int store_next(struct store *s, const char *path, int64_t cas, uint64_t *ret_version, struct err *err)
{
	struct store_secret secret;
	int r = store_secret(s, path, &secret, err);

	if (r == -ERR_NOT_FOUND)
		secret.current = 0;
	else if (r < 0)
		return r;
	if (cas >= 0 && (uint64_t)cas != secret.current)
		return err_set(err, ERR_CONFLICT, "check-and-set parameter did not match the current version");
	*ret_version = secret.current + 1;
	return 0;
}

static int write_version(struct store *s, const char *path, const struct store_version *v, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	version_mac(s, path, v, mac);
	r = store_prepare(s, "INSERT OR REPLACE INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err, "tiiiiitbb", path,
		    (int64_t)v->version, (int64_t)v->created_ms, (int64_t)v->deleted_ms, (int64_t)v->destroyed, (int64_t)v->uid,
		    v->meta, v->sealed, v->sealed_len, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

/* Writes the secret's row anew and moves the sum. old_mac NULL: it was not there. */
static int write_secret(struct store *s, const char *path, const struct store_secret *x, const uint8_t *old_mac,
			uint8_t ret_root[STORE_MAC_LEN], struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], part[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = secret_mac(s, path, x, mac, err);

	if (r < 0)
		return r;
	r = store_prepare(s, "INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?, ?)", &q, err, "tiiiib", path, (int64_t)x->current,
		    (int64_t)x->oldest, (int64_t)x->created_ms, (int64_t)x->updated_ms, mac, sizeof(mac));
	if (r == 0)
		r = store_step(s, q, err);
	memcpy(ret_root, s->root, STORE_MAC_LEN);
	if (old_mac) {
		summand(s, path, old_mac, part);
		sodium_sub(ret_root, part, STORE_MAC_LEN);
	}
	summand(s, path, mac, part);
	sodium_add(ret_root, part, STORE_MAC_LEN);
	return r < 0 ? r : write_root(s, ret_root, err);
}

/* Inside a transaction: ends it, and only then believes the new sum. */
static int finish(struct store *s, int r, const uint8_t root[STORE_MAC_LEN], struct err *err)
{
	if (r < 0) {
		store_end(s, false, err);
		return r;
	}
	r = store_end(s, true, err);
	if (r == 0)
		memcpy(s->root, root, STORE_MAC_LEN);
	return r;
}

static int drop_old_versions(struct store *s, const char *path, struct store_secret *x, struct err *err)
{
	STMT *q = NULL;
	int r;

	if (x->current - x->oldest < LIMIT_VERSIONS)
		return 0;
	x->oldest = x->current - LIMIT_VERSIONS + 1;
	r = store_prepare(s, "DELETE FROM version WHERE path = ? AND version < ?", &q, err, "ti", path, (int64_t)x->oldest);
	return r < 0 ? r : store_step(s, q, err);
}

int store_put(struct store *s, const char *path, const struct store_version *v, struct err *err)
{
	uint8_t old_mac[STORE_MAC_LEN], root[STORE_MAC_LEN] = {0};
	struct store_secret x = {0};
	bool existed;
	int r = check_foreign(s, err);

	if (r == 0)
		r = store_begin(s, err);
	if (r < 0)
		return r;
	r = read_secret(s, path, &x, old_mac, err);
	existed = r == 0;
	if (r == -ERR_NOT_FOUND) {
		x = (struct store_secret){.oldest = 1, .created_ms = v->created_ms};
		r = 0;
	}
	if (r == 0 && v->version != x.current + 1)
		r = err_set(err, ERR_CONFLICT, "another version was written meanwhile: try again");
	if (r == 0) {
		x.current = v->version;
		x.updated_ms = v->created_ms;
		r = write_version(s, path, v, err);
	}
	if (r == 0)
		r = drop_old_versions(s, path, &x, err);
	if (r == 0)
		r = write_secret(s, path, &x, existed ? old_mac : NULL, root, err);
	return finish(s, r, root, err);
}

int store_delete(struct store *s, const char *path, uint64_t version, uint64_t now_ms, struct err *err)
{
	uint8_t old_mac[STORE_MAC_LEN], root[STORE_MAC_LEN] = {0};
	struct store_version v = {0};
	struct store_secret x;
	int r = check_foreign(s, err);

	if (r == 0)
		r = store_begin(s, err);
	if (r < 0)
		return r;
	r = read_secret(s, path, &x, old_mac, err);
	if (r == 0)
		r = read_version(s, path, version ? version : x.current, &v, err);
	if (r == 0 && v.deleted_ms == 0) {
		v.deleted_ms = now_ms;
		x.updated_ms = now_ms;
		r = write_version(s, path, &v, err);
	}
	if (r == 0)
		r = write_secret(s, path, &x, old_mac, root, err);
	free(v.sealed);
	return finish(s, r, root, err);
}

int store_purge(struct store *s, const char *path, struct err *err)
{
	uint8_t old_mac[STORE_MAC_LEN], part[STORE_MAC_LEN], root[STORE_MAC_LEN];
	struct store_secret x;
	STMT *versions = NULL;
	STMT *secret = NULL;
	int r = check_foreign(s, err);

	if (r == 0)
		r = store_begin(s, err);
	if (r < 0)
		return r;
	memcpy(root, s->root, sizeof(root));
	r = read_secret(s, path, &x, old_mac, err);
	if (r == 0)
		r = store_prepare(s, "DELETE FROM version WHERE path = ?", &versions, err, "t", path);
	if (r == 0)
		r = store_step(s, versions, err);
	if (r == 0)
		r = store_prepare(s, "DELETE FROM secret WHERE path = ?", &secret, err, "t", path);
	if (r == 0)
		r = store_step(s, secret, err);
	if (r == 0) {
		summand(s, path, old_mac, part);
		sodium_sub(root, part, sizeof(root));
		r = write_root(s, root, err);
	}
	return finish(s, r, root, err);
}

