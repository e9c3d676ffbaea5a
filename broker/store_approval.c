/* What operators said of the keys that jobs want to use. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <string.h>

const char store_approval_schema[] =
	"CREATE TABLE IF NOT EXISTS approval (job BLOB NOT NULL, key TEXT NOT NULL, uid INTEGER NOT NULL, refused INTEGER NOT NULL,"
	" at INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (job, key, uid)) WITHOUT ROWID;";

static void approval_mac(const struct store *s, const struct store_approval *a, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "approval");
	crypto_generichash_update(&st, a->job, sizeof(a->job));
	store_mac_text(&st, a->key);
	store_mac_u64(&st, a->uid);
	store_mac_u64(&st, a->refused);
	store_mac_u64(&st, a->at_ms);
	store_mac_finish(&st, ret);
}

int store_approval_put(struct store *s, const struct store_approval *a, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	approval_mac(s, a, mac);
	r = store_prepare(s, "REPLACE INTO approval VALUES (?, ?, ?, ?, ?, ?)", &q, err, "btiiib", a->job, sizeof(a->job), a->key, (int64_t)a->uid,
			  (int64_t)a->refused, (int64_t)a->at_ms, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_approvals_delete(struct store *s, const uint8_t job[JOB_ID_LEN], struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM approval WHERE job = ?", &q, err, "b", job, (size_t)JOB_ID_LEN);

	return r < 0 ? r : store_step(s, q, err);
}

int store_approvals(struct store *s, int (*each)(void *ctx, const struct store_approval *a), void *ctx, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	struct store_approval a;
	STMT *drop = NULL;
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM approval WHERE job NOT IN (SELECT id FROM job)", &drop, err, "");

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_prepare(s, "SELECT job, key, uid, refused, at, mac FROM approval", &q, err, "");
	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		a = (struct store_approval){.uid = (uint32_t)sqlite3_column_int64(q, 2), .refused = sqlite3_column_int64(q, 3) != 0, .at_ms = store_column_u64(q, 4)};
		store_column_text(q, 1, a.key, sizeof(a.key));
		r = 0;
		if (!store_column_blob(q, 0, a.job, sizeof(a.job)) || !store_column_blob(q, 5, mac, sizeof(mac)))
			continue;
		approval_mac(s, &a, want);
		if (sodium_memcmp(mac, want, sizeof(mac)) == 0) /* else it counts for nothing */
			r = each(ctx, &a);
	}
	return r;
}
