/* Secrets and their versions, and the sum over all of them, which notices a row that was put back or taken away. */
#include "broker/store_sql.h"

#include "common/err.h"

#include <stdlib.h>
#include <string.h>

const char store_secret_schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
	"CREATE TABLE secret (path TEXT PRIMARY KEY, current INTEGER NOT NULL, oldest INTEGER NOT NULL,"
	" created INTEGER NOT NULL, updated INTEGER NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE version (path TEXT NOT NULL, version INTEGER NOT NULL, created INTEGER NOT NULL,"
	" deleted INTEGER NOT NULL, destroyed INTEGER NOT NULL, uid INTEGER NOT NULL, meta TEXT NOT NULL, sealed BLOB,"
	" mac BLOB NOT NULL, PRIMARY KEY (path, version)) WITHOUT ROWID;";

/* ---- MACs ---------------------------------------------------------------------------------------------------- */

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

int store_verify_root(struct store *s, struct err *err)
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
	return store_verify_root(s, err);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

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

