/* Secret ids of AppRoles: known by a keyed hash alone. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <string.h>

const char store_approle_schema[] =
	"CREATE TABLE IF NOT EXISTS secret_id (hash BLOB PRIMARY KEY, accessor BLOB NOT NULL UNIQUE, role TEXT NOT NULL, created INTEGER NOT NULL,"
	" expires INTEGER NOT NULL, uses_left INTEGER NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;";

#define COLUMNS "hash, accessor, role, created, expires, uses_left, mac"

static void secret_id_mac(const struct store *s, const struct store_secret_id *x, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "secret_id");
	crypto_generichash_update(&st, x->hash, sizeof(x->hash));
	crypto_generichash_update(&st, x->accessor, sizeof(x->accessor));
	store_mac_text(&st, x->role);
	store_mac_u64(&st, x->created_ms);
	store_mac_u64(&st, x->expires_ms);
	store_mac_u64(&st, (uint64_t)x->uses_left);
	store_mac_finish(&st, ret);
}

void store_secret_id_hash(const struct store *s, const char *text, size_t len, uint8_t ret[32])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "secret_id text");
	crypto_generichash_update(&st, (const uint8_t *)text, len);
	store_mac_finish(&st, ret);
}

static int read_row(struct store *s, sqlite3_stmt *q, struct store_secret_id *ret, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];

	*ret = (struct store_secret_id){.created_ms = store_column_u64(q, 3), .expires_ms = store_column_u64(q, 4), .uses_left = sqlite3_column_int64(q, 5)};
	store_column_text(q, 2, ret->role, sizeof(ret->role));
	if (!store_column_blob(q, 0, ret->hash, sizeof(ret->hash)) || !store_column_blob(q, 1, ret->accessor, sizeof(ret->accessor)) ||
	    !store_column_blob(q, 6, mac, sizeof(mac)))
		return store_tampered("a secret id", err);
	secret_id_mac(s, ret, want);
	return sodium_memcmp(mac, want, sizeof(mac)) == 0 ? 0 : store_tampered("a secret id", err);
}

/* Those that are over go first. */
static int make_room(struct store *s, uint64_t now_ms, struct err *err)
{
	STMT *drop = NULL;
	STMT *count = NULL;
	int r = store_prepare(s, "DELETE FROM secret_id WHERE expires <> 0 AND expires <= ?", &drop, err, "i", (int64_t)now_ms);

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_prepare(s, "SELECT count(*) FROM secret_id", &count, err, "");
	if (r == 0)
		r = store_step(s, count, err);
	if (r < 0)
		return r;
	return store_column_u64(count, 0) >= LIMIT_SECRET_IDS ? err_set(err, ERR_LIMIT, "there are %u secret ids already", LIMIT_SECRET_IDS) : 0;
}

int store_secret_id_put(struct store *s, const struct store_secret_id *x, uint64_t now_ms, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	struct store_secret_id there;
	int r = store_secret_id_get(s, x->hash, x->role, now_ms, &there, NULL) == 0 ? 0 : make_room(s, now_ms, err);

	secret_id_mac(s, x, mac);
	if (r == 0)
		r = store_prepare(s, "REPLACE INTO secret_id (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?)", &q, err, "bbtiiib", x->hash, sizeof(x->hash),
				  x->accessor, sizeof(x->accessor), x->role, (int64_t)x->created_ms, (int64_t)x->expires_ms, x->uses_left, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

static int find(struct store *s, const char *sql, const void *key, size_t len, const char *role, uint64_t now_ms, struct store_secret_id *ret,
		struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, sql, &q, err, "b", key, len);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 1)
		r = read_row(s, q, ret, err) < 0 ? -ERR_TAMPERED : 1;
	if (r < 0)
		return r;
	if (r == 0 || strcmp(ret->role, role) != 0 || (ret->expires_ms && ret->expires_ms <= now_ms))
		return err_set(err, ERR_NOT_FOUND, "no such secret id");
	return 0;
}

int store_secret_id_get(struct store *s, const uint8_t hash[32], const char *role, uint64_t now_ms, struct store_secret_id *ret, struct err *err)
{
	return find(s, "SELECT " COLUMNS " FROM secret_id WHERE hash = ?", hash, 32, role, now_ms, ret, err);
}

int store_secret_id_by_accessor(struct store *s, const uint8_t accessor[16], const char *role, uint64_t now_ms, struct store_secret_id *ret,
				struct err *err)
{
	return find(s, "SELECT " COLUMNS " FROM secret_id WHERE accessor = ?", accessor, 16, role, now_ms, ret, err);
}

int store_secret_id_delete(struct store *s, const uint8_t hash[32], struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM secret_id WHERE hash = ?", &q, err, "b", hash, (size_t)32);

	return r < 0 ? r : store_step(s, q, err);
}

int store_secret_ids(struct store *s, const char *role, uint64_t now_ms, int (*each)(void *ctx, const struct store_secret_id *x), void *ctx,
		     struct err *err)
{
	struct store_secret_id x;
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT " COLUMNS " FROM secret_id WHERE role = ? ORDER BY created", &q, err, "t", role);

	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		r = read_row(s, q, &x, err);
		if (r == 0 && (!x.expires_ms || x.expires_ms > now_ms))
			r = each(ctx, &x);
	}
	return r;
}
