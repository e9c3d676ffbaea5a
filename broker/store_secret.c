/* Secrets, their versions and options. */
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
	" mac BLOB NOT NULL, job TEXT NOT NULL DEFAULT '', seal INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (path, version)) WITHOUT ROWID;";
/* From before format 9. */
const char store_secret_alter[] = "ALTER TABLE version ADD COLUMN job TEXT NOT NULL DEFAULT ''; ALTER TABLE version ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;";

/* Only of secrets that have any. The secret's MAC covers its MAC. */
const char store_option_schema[] =
	"CREATE TABLE IF NOT EXISTS secret_option (path TEXT PRIMARY KEY, max_versions INTEGER NOT NULL, cas_required INTEGER NOT NULL,"
	" delete_after INTEGER NOT NULL, custom TEXT NOT NULL, custom_hash BLOB NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;";

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
	/* older rows have neither */
	if (v->job[0] || v->seal) {
		store_mac_text(&st, v->job);
		store_mac_u64(&st, v->seal);
	}
	store_mac_finish(&st, ret);
}

static bool has_options(const struct store_options *o)
{
	return o->max_versions || o->cas_required || o->delete_after_ms || !sodium_is_zero(o->custom_hash, sizeof(o->custom_hash));
}

static void option_mac(const struct store *s, const char *path, const struct store_options *o, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "secret_option");
	store_mac_text(&st, path);
	store_mac_u64(&st, o->max_versions);
	store_mac_u64(&st, o->cas_required);
	store_mac_u64(&st, o->delete_after_ms);
	crypto_generichash_update(&st, o->custom_hash, sizeof(o->custom_hash));
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
	/* a MAC of options must not pass for one of a version */
	store_mac_start(s, &st, has_options(&x->options) ? "secret with options" : "secret");
	store_mac_text(&st, path);
	store_mac_u64(&st, x->current);
	store_mac_u64(&st, x->oldest);
	store_mac_u64(&st, x->created_ms);
	store_mac_u64(&st, x->updated_ms);
	while ((r = store_step(s, q, err)) == 1)
		if (store_column_blob(q, 0, mac, sizeof(mac)))
			crypto_generichash_update(&st, mac, sizeof(mac));
	if (has_options(&x->options)) {
		option_mac(s, path, &x->options, mac);
		crypto_generichash_update(&st, mac, sizeof(mac));
	}
	store_mac_finish(&st, ret);
	return r;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int read_secret(struct store *s, const char *path, struct store_secret *ret, uint8_t ret_mac[STORE_MAC_LEN],
		       struct err *err)
{
	uint8_t want[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT current, oldest, created, updated, secret.mac, max_versions, cas_required, delete_after, custom_hash "
				 "FROM secret LEFT JOIN secret_option USING (path) WHERE path = ?", &q, err, "t", path);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "no secret %.300s", path);
	if (r < 0)
		return r;
	*ret = (struct store_secret){.current = store_column_u64(q, 0), .oldest = store_column_u64(q, 1), .created_ms = store_column_u64(q, 2),
				     .updated_ms = store_column_u64(q, 3)};
	if (!store_column_blob(q, 4, ret_mac, STORE_MAC_LEN))
		return store_tampered(path, err);
	if (sqlite3_column_type(q, 5) != SQLITE_NULL) {
		ret->options = (struct store_options){.max_versions = (uint32_t)sqlite3_column_int64(q, 5), .cas_required = sqlite3_column_int(q, 6) != 0,
						      .delete_after_ms = store_column_u64(q, 7)};
		if (!store_column_blob(q, 8, ret->options.custom_hash, sizeof(ret->options.custom_hash)))
			return store_tampered(path, err);
	}
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
	int r = store_root_check(s, err);

	return r < 0 ? r : read_secret(s, path, ret, mac, err);
}

/* The row as it stands, its own MAC checked. */
static int read_version(struct store *s, const char *path, uint64_t version, struct store_version *v, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT version, created, deleted, destroyed, uid, meta, sealed, mac, job, seal FROM version "
			   "WHERE path = ? AND version = ?", &q, err, "ti", path, (int64_t)version);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "%.300s has no version %llu", path, (unsigned long long)version);
	if (r < 0)
		return r;
	read_version_columns(q, v);
	store_column_text(q, 8, v->job, sizeof(v->job));
	v->seal = store_column_u64(q, 9);
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

bool store_deleted(const struct store_version *v, uint64_t now_ms)
{
	return v->deleted_ms && v->deleted_ms <= now_ms;
}

int store_custom(struct store *s, const char *path, char **ret, struct err *err)
{
	struct store_secret x;
	uint8_t hash[32];
	STMT *q = NULL;
	int r = store_secret(s, path, &x, err);

	*ret = NULL;
	if (r < 0 || sodium_is_zero(x.options.custom_hash, sizeof(hash)))
		return r;
	r = store_prepare(s, "SELECT custom FROM secret_option WHERE path = ?", &q, err, "t", path);
	if (r == 0)
		r = store_step(s, q, err);
	if (r < 0)
		return r;
	if (r == 1 && sqlite3_column_text(q, 0)) {
		crypto_hash_sha256(hash, sqlite3_column_text(q, 0), (unsigned long long)sqlite3_column_bytes(q, 0));
		if (sodium_memcmp(hash, x.options.custom_hash, sizeof(hash)) == 0) {
			*ret = strdup((const char *)sqlite3_column_text(q, 0));
			return *ret ? 0 : err_set(err, ERR_FAILED, "out of memory");
		}
	}
	return store_tampered(path, err);
}

int store_get(struct store *s, const char *path, uint64_t version, struct store_version *ret, struct err *err)
{
	struct store_secret secret;
	struct store_version v = {0};
	int r = store_secret(s, path, &secret, err);

	if (r == 0)
		r = read_version(s, path, version ? version : secret.current, &v, err);
	if (r == 0) {
		*ret = v;
		ret->custom = !sodium_is_zero(secret.options.custom_hash, sizeof(secret.options.custom_hash));
	}
	return r;
}

int store_versions(struct store *s, const char *path, int (*each)(void *ctx, const struct store_version *v), void *ctx,
		   struct err *err)
{
	struct store_version v;
	STMT *q = NULL;
	int r = store_root_check(s, err);

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

int store_ages(struct store *s, int (*each)(void *ctx, const char *path, uint64_t created_ms), void *ctx, struct err *err)
{
	STMT *q = NULL;
	int r = store_root_check(s, err);

	if (r == 0)
		r = store_prepare(s, "SELECT secret.path, version.created FROM secret JOIN version ON version.path = secret.path AND version.version = secret.current",
				  &q, err, "");
	while (r == 0 && (r = store_step(s, q, err)) == 1)
		r = each(ctx, (const char *)sqlite3_column_text(q, 0), store_column_u64(q, 1));
	return r;
}

int store_list(struct store *s, const char *folder, int (*each)(void *ctx, const char *name), void *ctx, struct err *err)
{
	char low[LIMIT_PATH_LEN + 3], high[LIMIT_PATH_LEN + 3], name[LIMIT_PATH_LEN + 2], last[LIMIT_PATH_LEN + 2] = "";
	size_t n = strlen(folder), len;
	const char *path;
	unsigned int count = 0;
	STMT *q = NULL;
	int r = store_root_check(s, err);

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

int store_next(struct store *s, const char *path, int64_t cas, struct store_secret *ret, struct err *err)
{
	struct store_secret secret = {0};
	int r = store_secret(s, path, &secret, err);

	if (r == -ERR_NOT_FOUND)
		secret = (struct store_secret){0};
	else if (r < 0)
		return r;
	else if (cas < 0 && secret.options.cas_required)
		return err_set(err, ERR_INPUT, "check-and-set parameter required for this call");
	if (cas >= 0 && (uint64_t)cas != secret.current)
		return err_set(err, ERR_CONFLICT, "check-and-set parameter did not match the current version");
	*ret = secret;
	return 0;
}

static int write_version(struct store *s, const char *path, const struct store_version *v, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	version_mac(s, path, v, mac);
	r = store_prepare(s, "INSERT OR REPLACE INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err, "tiiiiitbbti", path,
		    (int64_t)v->version, (int64_t)v->created_ms, (int64_t)v->deleted_ms, (int64_t)v->destroyed, (int64_t)v->uid,
		    v->meta, v->sealed, v->sealed_len, mac, sizeof(mac), v->job, (int64_t)v->seal);
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
		store_root_summand(s, path, old_mac, part);
		sodium_sub(ret_root, part, STORE_MAC_LEN);
	}
	store_root_summand(s, path, mac, part);
	sodium_add(ret_root, part, STORE_MAC_LEN);
	return r < 0 ? r : store_root_write(s, ret_root, err);
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
	uint64_t keep = x->options.max_versions ? x->options.max_versions : LIMIT_VERSIONS;
	STMT *q = NULL;
	int r;

	if (x->current + 1 - x->oldest <= keep)
		return 0;
	if (x->oldest < x->current - keep + 1)
		x->oldest = x->current - keep + 1;
	r = store_prepare(s, "DELETE FROM version WHERE path = ? AND version < ?", &q, err, "ti", path, (int64_t)x->oldest);
	return r < 0 ? r : store_step(s, q, err);
}

/* A change of one secret, within a transaction. */
struct change {
	struct store_secret x;
	uint8_t old_mac[STORE_MAC_LEN];
	bool existed;
};

/* make_ms: when it is made where it is not there; 0: then ERR_NOT_FOUND. */
static int begin_change(struct store *s, const char *path, uint64_t make_ms, struct change *ret, struct err *err)
{
	int r = store_root_check(s, err);

	if (r == 0)
		r = store_begin(s, err);
	if (r < 0)
		return r;
	r = read_secret(s, path, &ret->x, ret->old_mac, err);
	ret->existed = r == 0;
	if (r == -ERR_NOT_FOUND && make_ms) {
		ret->x = (struct store_secret){.oldest = 1, .created_ms = make_ms};
		r = 0;
	}
	if (r < 0)
		store_end(s, false, NULL);
	return r;
}

/* r: whether all went well so far. */
static int end_change(struct store *s, const char *path, const struct change *c, int r, struct err *err)
{
	uint8_t root[STORE_MAC_LEN] = {0};

	if (r == 0)
		r = write_secret(s, path, &c->x, c->existed ? c->old_mac : NULL, root, err);
	return finish(s, r, root, err);
}

static int put(struct store *s, const char *path, const struct store_version *v, bool gap, struct err *err)
{
	struct store_version row = *v;
	struct change c;
	int r = begin_change(s, path, v->created_ms, &c, err);

	if (r < 0)
		return r;
	r = v->version == c.x.current + 1 || (gap && v->version > c.x.current)
		    ? 0 : err_set(err, ERR_CONFLICT, "another version was written meanwhile: try again");
	if (r == 0 && !c.x.current)
		c.x.oldest = v->version;
	if (r == 0) {
		c.x.current = v->version;
		c.x.updated_ms = v->created_ms;
		row.deleted_ms = c.x.options.delete_after_ms ? v->created_ms + c.x.options.delete_after_ms : 0;
		r = write_version(s, path, &row, err);
	}
	if (r == 0)
		r = drop_old_versions(s, path, &c.x, err);
	return end_change(s, path, &c, r, err);
}

int store_put(struct store *s, const char *path, const struct store_version *v, struct err *err)
{
	return put(s, path, v, false, err);
}

int store_put_later(struct store *s, const char *path, const struct store_version *v, struct err *err)
{
	return put(s, path, v, true, err);
}

static int change_one(struct store *s, const char *path, enum store_change change, uint64_t version, uint64_t at_ms, struct err *err)
{
	struct store_version v = {0};
	int r = read_version(s, path, version, &v, err);

	if (r == 0 && change == STORE_DELETE && !store_deleted(&v, at_ms))
		v.deleted_ms = at_ms;
	if (r == 0 && change == STORE_UNDELETE && !v.destroyed)
		v.deleted_ms = 0;
	if (r == 0 && change == STORE_DESTROY) {
		v.destroyed = true;
		free(v.sealed);
		v.sealed = NULL;
		v.sealed_len = 0;
	}
	if (r == 0)
		r = write_version(s, path, &v, err);
	free(v.sealed);
	return r == -ERR_NOT_FOUND ? 0 : r;
}

int store_change(struct store *s, const char *path, enum store_change change, const uint64_t *versions, size_t n, uint64_t at_ms,
		 uint64_t now_ms, struct err *err)
{
	struct change c;
	int r = begin_change(s, path, 0, &c, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = change_one(s, path, change, versions[i], at_ms, err);
	c.x.updated_ms = now_ms;
	return end_change(s, path, &c, r, err);
}

static int write_options(struct store *s, const char *path, const struct store_options *o, const char *custom, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	option_mac(s, path, o, mac);
	if (!has_options(o))
		r = store_prepare(s, "DELETE FROM secret_option WHERE path = ?", &q, err, "t", path);
	else if (custom)
		r = store_prepare(s, "REPLACE INTO secret_option VALUES (?, ?, ?, ?, ?, ?, ?)", &q, err, "tiiitbb", path, (int64_t)o->max_versions,
				  (int64_t)o->cas_required, (int64_t)o->delete_after_ms, custom, o->custom_hash, sizeof(o->custom_hash), mac, sizeof(mac));
	else
		r = store_prepare(s, "INSERT INTO secret_option VALUES (?1, ?2, ?3, ?4, '', ?5, ?6) ON CONFLICT (path) DO UPDATE SET "
				     "max_versions = ?2, cas_required = ?3, delete_after = ?4, mac = ?6", &q, err, "tiiibb", path, (int64_t)o->max_versions,
				  (int64_t)o->cas_required, (int64_t)o->delete_after_ms, o->custom_hash, sizeof(o->custom_hash), mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_set_options(struct store *s, const char *path, const struct store_options *options, const char *custom, uint64_t now_ms, struct err *err)
{
	struct store_options o = *options;
	struct change c;
	int r = begin_change(s, path, now_ms, &c, err);

	if (r < 0)
		return r;
	memcpy(o.custom_hash, c.x.options.custom_hash, sizeof(o.custom_hash));
	if (custom)
		memset(o.custom_hash, 0, sizeof(o.custom_hash));
	if (custom && *custom)
		crypto_hash_sha256(o.custom_hash, (const uint8_t *)custom, strlen(custom));
	c.x.options = o;
	c.x.updated_ms = now_ms;
	return end_change(s, path, &c, write_options(s, path, &o, custom, err), err);
}

int store_purge(struct store *s, const char *path, struct err *err)
{
	uint8_t part[STORE_MAC_LEN], root[STORE_MAC_LEN];
	struct change c;
	STMT *versions = NULL;
	STMT *secret = NULL;
	STMT *option = NULL;
	int r = begin_change(s, path, 0, &c, err);

	if (r < 0)
		return r;
	memcpy(root, s->root, sizeof(root));
	r = store_prepare(s, "DELETE FROM version WHERE path = ?", &versions, err, "t", path);
	if (r == 0)
		r = store_step(s, versions, err);
	if (r == 0)
		r = store_prepare(s, "DELETE FROM secret WHERE path = ?", &secret, err, "t", path);
	if (r == 0)
		r = store_step(s, secret, err);
	if (r == 0)
		r = store_prepare(s, "DELETE FROM secret_option WHERE path = ?", &option, err, "t", path);
	if (r == 0)
		r = store_step(s, option, err);
	if (r == 0) {
		store_root_summand(s, path, c.old_mac, part);
		sodium_sub(root, part, sizeof(root));
		r = store_root_write(s, root, err);
	}
	return finish(s, r, root, err);
}

/* ---- another seal ------------------------------------------------------------------------------------------------ */

int store_reseal(struct store *s, const char *path, const struct store_version *v, const uint8_t *sealed, size_t len, uint64_t seal, struct err *err)
{
	struct store_version now = {0}, row;
	struct change c;
	int r = begin_change(s, path, 0, &c, err);

	if (r < 0)
		return r;
	r = read_version(s, path, v->version, &now, err);
	if (r == 0 && (now.sealed_len != v->sealed_len || !now.sealed || memcmp(now.sealed, v->sealed, v->sealed_len) != 0))
		r = err_set(err, ERR_CONFLICT, "another version was written meanwhile: try again");
	row = now;
	row.sealed = (uint8_t *)(uintptr_t)sealed;
	row.sealed_len = len;
	row.seal = seal;
	if (r == 0)
		r = write_version(s, path, &row, err);
	free(now.sealed);
	return end_change(s, path, &c, r, err);
}

#define BEHIND "FROM version WHERE sealed IS NOT NULL AND seal <> ? AND (path, version) > (?, ?)"

int store_to_reseal(struct store *s, uint64_t seal, const char *path, uint64_t version, char ret_path[LIMIT_PATH_LEN + 1], uint64_t *ret_version,
		    uint64_t *ret_left, struct err *err)
{
	STMT *count = NULL;
	STMT *q = NULL;
	int r = store_root_check(s, err);

	/* counted once: it is as long a way as the whole table */
	if (r == 0 && !*path)
		r = store_prepare(s, "SELECT count(*) " BEHIND, &count, err, "iti", (int64_t)seal, path, (int64_t)version);
	if (r == 0 && count)
		r = store_step(s, count, err);
	if (r < 0)
		return r;
	*ret_left = count ? store_column_u64(count, 0) : 0;
	r = store_prepare(s, "SELECT path, version " BEHIND " ORDER BY path, version LIMIT 1", &q, err, "iti", (int64_t)seal, path, (int64_t)version);
	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "everything is sealed to the seal");
	if (r < 0)
		return r;
	store_column_text(q, 0, ret_path, LIMIT_PATH_LEN + 1);
	*ret_version = store_column_u64(q, 1);
	return 0;
}
