/* Rows of leases. */
#include "broker/lease.h"
#include "broker/store_sql.h"
#include "common/err.h"

#include <string.h>

const char store_lease_schema[] =
	"CREATE TABLE IF NOT EXISTS lease (id BLOB PRIMARY KEY, token BLOB NOT NULL, engine TEXT NOT NULL, role TEXT NOT NULL, job TEXT NOT NULL,"
	" uid INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, max INTEGER NOT NULL, renewed INTEGER NOT NULL, state INTEGER NOT NULL,"
	" mac BLOB NOT NULL) WITHOUT ROWID;";

static void lease_mac(const struct store *s, const struct lease *l, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "lease");
	crypto_generichash_update(&st, l->id, sizeof(l->id));
	crypto_generichash_update(&st, l->token, sizeof(l->token));
	store_mac_text(&st, l->engine);
	store_mac_text(&st, l->role);
	store_mac_text(&st, l->job);
	store_mac_u64(&st, l->uid);
	store_mac_u64(&st, l->created_ms);
	store_mac_u64(&st, l->expires_ms);
	store_mac_u64(&st, l->max_ms);
	store_mac_u64(&st, l->renewed_ms);
	store_mac_u64(&st, (uint64_t)l->state);
	store_mac_finish(&st, ret);
}

int store_lease_put(struct store *s, const struct lease *l, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	lease_mac(s, l, mac);
	r = store_prepare(s, "REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err, "bbtttiiiiiib", l->id, sizeof(l->id), l->token,
			  sizeof(l->token), l->engine, l->role, l->job, (int64_t)l->uid, (int64_t)l->created_ms, (int64_t)l->expires_ms, (int64_t)l->max_ms,
			  (int64_t)l->renewed_ms, (int64_t)l->state, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_lease_delete(struct store *s, const uint8_t id[16], struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM lease WHERE id = ?", &q, err, "b", id, (size_t)16);

	return r < 0 ? r : store_step(s, q, err);
}

int store_leases(struct store *s, int (*each)(void *ctx, const struct lease *l), void *ctx, size_t *ret_n_bad, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	struct lease l;
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT id, token, engine, role, job, uid, created, expires, max, renewed, state, mac FROM lease", &q, err, "");

	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		l = (struct lease){.uid = (uint32_t)sqlite3_column_int64(q, 5), .created_ms = store_column_u64(q, 6), .expires_ms = store_column_u64(q, 7),
				   .max_ms = store_column_u64(q, 8), .renewed_ms = store_column_u64(q, 9), .state = (enum lease_state)sqlite3_column_int(q, 10)};
		store_column_text(q, 2, l.engine, sizeof(l.engine));
		store_column_text(q, 3, l.role, sizeof(l.role));
		store_column_text(q, 4, l.job, sizeof(l.job));
		r = 0;
		if (!store_column_blob(q, 0, l.id, sizeof(l.id)) || !store_column_blob(q, 1, l.token, sizeof(l.token)) ||
		    !store_column_blob(q, 11, mac, sizeof(mac)))
			(*ret_n_bad)++;
		else if (lease_mac(s, &l, want), sodium_memcmp(mac, want, sizeof(mac)) == 0)
			r = each(ctx, &l);
		else
			(*ret_n_bad)++;
	}
	return r;
}
