/* SQLite, thinly: statements, transactions, row MACs; opening the store. */
#include "broker/store_sql.h"

#include "common/buf.h"
#include "common/err.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define SCHEMA_VERSION 11
#define TEXT_OF(x) #x
#define SET_VERSION(n) "PRAGMA user_version = " TEXT_OF(n)

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

int store_tampered(const char *path, struct err *err)
{
	return err_set(err, ERR_TAMPERED, "%.200s: the store's row is not what cotter wrote", path);
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
	r = store_exec(s, version == 0 ? store_secret_schema : store_token_drop, err);
	if (r == 0 && version > 0 && version < 9)
		r = store_exec(s, store_secret_alter, err);
	if (r == 0)
		r = store_exec(s, store_option_schema, err);
	if (r == 0)
		r = store_exec(s, store_token_schema, err);
	if (r == 0)
		r = store_exec(s, store_key_schema, err);
	if (r == 0)
		r = store_exec(s, store_cert_schema, err);
	if (r == 0)
		r = store_exec(s, store_approval_schema, err);
	if (r == 0)
		r = store_exec(s, store_received_schema, err);
	if (r == 0)
		r = store_exec(s, store_approle_schema, err);
	if (r == 0)
		r = store_exec(s, store_wrapped_schema, err);
	if (r == 0)
		r = store_exec(s, store_lease_schema, err);
	if (r == 0)
		r = store_exec(s, SET_VERSION(SCHEMA_VERSION), err);
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

int store_measure(struct store *s, uint64_t *ret_secrets, uint64_t *ret_bytes, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT (SELECT count(*) FROM secret), page_count * page_size FROM pragma_page_count, pragma_page_size", &q, err, "");

	if (r == 0)
		r = store_step(s, q, err);
	if (r < 0)
		return r;
	*ret_secrets = r ? store_column_u64(q, 0) : 0;
	*ret_bytes = r ? store_column_u64(q, 1) : 0;
	return 0;
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

	return r < 0 ? r : store_verify_root(s, err);
}
