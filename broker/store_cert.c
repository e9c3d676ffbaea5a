/* Certificates that were issued: their serial numbers, which never come twice, and which were revoked. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

#define DAY_S 86400u
#define YEAR_S (366u * DAY_S)

const char store_cert_schema[] =
	"CREATE TABLE IF NOT EXISTS certificate (serial BLOB PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, expires INTEGER NOT NULL,"
	" revoked INTEGER NOT NULL, der BLOB NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS certificate_expires ON certificate (expires);"
	"CREATE INDEX IF NOT EXISTS certificate_revoked ON certificate (revoked) WHERE revoked > 0;"
	"CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;";

static void cert_mac(const struct store *s, const struct store_cert *c, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "certificate");
	crypto_generichash_update(&st, c->serial, sizeof(c->serial));
	store_mac_text(&st, c->role);
	store_mac_text(&st, c->name);
	store_mac_u64(&st, c->expires_s);
	store_mac_u64(&st, c->revoked_s);
	store_mac_u64(&st, c->der_len);
	crypto_generichash_update(&st, c->der, c->der_len);
	store_mac_finish(&st, ret);
}

static int put(struct store *s, const char *sql, const struct store_cert *c, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	cert_mac(s, c, mac);
	r = store_prepare(s, sql, &q, err, "bttiibb", c->serial, sizeof(c->serial), c->role, c->name, (int64_t)c->expires_s, (int64_t)c->revoked_s, c->der,
			  c->der_len, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_cert_reserve(struct store *s, const struct store_cert *c, uint64_t now_s, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM certificate WHERE expires < ? AND (revoked = 0 OR expires < ?)", &q, err, "ii",
			      (int64_t)(now_s > DAY_S ? now_s - DAY_S : 0), (int64_t)(now_s > YEAR_S ? now_s - YEAR_S : 0));

	if (r == 0)
		r = store_step(s, q, err);
	return r < 0 ? r : put(s, "INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?)", c, err);
}

int store_cert_put(struct store *s, const struct store_cert *c, struct err *err)
{
	return put(s, "REPLACE INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?)", c, err);
}

static int read_cert(struct store *s, sqlite3_stmt *q, struct store_cert *ret, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	size_t n = (size_t)sqlite3_column_bytes(q, 5);

	*ret = (struct store_cert){.expires_s = store_column_u64(q, 3), .revoked_s = store_column_u64(q, 4), .der_len = n};
	store_column_text(q, 1, ret->role, sizeof(ret->role));
	store_column_text(q, 2, ret->name, sizeof(ret->name));
	if (!store_column_blob(q, 0, ret->serial, sizeof(ret->serial)) || n > sizeof(ret->der) || (n && !store_column_blob(q, 5, ret->der, n)) ||
	    !store_column_blob(q, 6, mac, sizeof(mac)))
		return store_tampered("certificate", err);
	cert_mac(s, ret, want);
	return sodium_memcmp(mac, want, sizeof(mac)) == 0 ? 0 : store_tampered("certificate", err);
}

int store_cert_get(struct store *s, const uint8_t serial[STORE_SERIAL_LEN], struct store_cert *ret, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT serial, role, name, expires, revoked, der, mac FROM certificate WHERE serial = ?", &q, err, "b", serial,
			      (size_t)STORE_SERIAL_LEN);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "no certificate of that serial number was issued here");
	return r < 0 ? r : read_cert(s, q, ret, err);
}

int store_certs(struct store *s, bool revoked, uint64_t now_s, int (*each)(void *ctx, const struct store_cert *c), void *ctx, struct err *err)
{
	struct store_cert c;
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT serial, role, name, expires, revoked, der, mac FROM certificate WHERE expires > ? AND (? = 0 OR revoked > 0)", &q,
			      err, "ii", (int64_t)now_s, (int64_t)revoked);

	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		r = read_cert(s, q, &c, err);
		if (r == 0)
			r = each(ctx, &c);
	}
	return r;
}

int store_counter(struct store *s, const char *name, uint64_t *ret, struct err *err)
{
	crypto_generichash_state st;
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	STMT *q = NULL;
	STMT *put_next = NULL;
	int r = store_prepare(s, "SELECT value, mac FROM counter WHERE name = ?", &q, err, "t", name);

	if (r == 0)
		r = store_step(s, q, err);
	if (r < 0)
		return r;
	*ret = r == 1 ? store_column_u64(q, 0) : 0;
	store_mac_start(s, &st, "counter");
	store_mac_text(&st, name);
	store_mac_u64(&st, *ret);
	store_mac_finish(&st, want);
	if (r == 1 && (!store_column_blob(q, 1, mac, sizeof(mac)) || sodium_memcmp(mac, want, sizeof(mac)) != 0))
		return store_tampered("counter", err);
	++*ret;
	store_mac_start(s, &st, "counter");
	store_mac_text(&st, name);
	store_mac_u64(&st, *ret);
	store_mac_finish(&st, mac);
	r = store_prepare(s, "REPLACE INTO counter VALUES (?, ?, ?)", &put_next, err, "tib", name, (int64_t)*ret, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, put_next, err);
}
