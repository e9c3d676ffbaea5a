/* What secrets jobs were given, of the jobs that live. */
#include "broker/store_sql.h"
#include "common/err.h"

const char store_received_schema[] =
	"CREATE TABLE IF NOT EXISTS received (job BLOB NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, mac BLOB NOT NULL,"
	" PRIMARY KEY (job, path, version)) WITHOUT ROWID;";

static void received_mac(const struct store *s, const uint8_t job[JOB_ID_LEN], const char *path, uint64_t version, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "received");
	crypto_generichash_update(&st, job, JOB_ID_LEN);
	store_mac_text(&st, path);
	store_mac_u64(&st, version);
	store_mac_finish(&st, ret);
}

int store_received_put(struct store *s, const uint8_t job[JOB_ID_LEN], const char *path, uint64_t version, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	received_mac(s, job, path, version, mac);
	r = store_prepare(s, "REPLACE INTO received VALUES (?, ?, ?, ?)", &q, err, "btib", job, (size_t)JOB_ID_LEN, path, (int64_t)version, mac,
			  sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_received_delete(struct store *s, const uint8_t job[JOB_ID_LEN], struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM received WHERE job = ?", &q, err, "b", job, (size_t)JOB_ID_LEN);

	return r < 0 ? r : store_step(s, q, err);
}

int store_received(struct store *s, int (*each)(void *ctx, const uint8_t job[JOB_ID_LEN], const char *path, uint64_t version), void *ctx,
		   struct err *err)
{
	uint8_t job[JOB_ID_LEN], mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	char path[LIMIT_PATH_LEN + 1];
	STMT *drop = NULL;
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM received WHERE job NOT IN (SELECT id FROM job)", &drop, err, "");

	if (r == 0)
		r = store_step(s, drop, err);
	if (r == 0)
		r = store_prepare(s, "SELECT job, path, version, mac FROM received", &q, err, "");
	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		r = 0;
		store_column_text(q, 1, path, sizeof(path));
		if (!store_column_blob(q, 0, job, sizeof(job)) || !store_column_blob(q, 3, mac, sizeof(mac)))
			continue;
		received_mac(s, job, path, store_column_u64(q, 2), want);
		if (sodium_memcmp(mac, want, sizeof(mac)) == 0)
			r = each(ctx, job, path, store_column_u64(q, 2));
	}
	return r;
}
