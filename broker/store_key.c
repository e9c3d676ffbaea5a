/* Keys that jobs use and never see: which path means which key of which provider. Only public things stand here. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

const char store_key_schema[] =
	"CREATE TABLE IF NOT EXISTS signing_key (path TEXT NOT NULL, version INTEGER NOT NULL, provider TEXT NOT NULL, ref TEXT NOT NULL,"
	" type INTEGER NOT NULL, spki BLOB NOT NULL, certificates BLOB NOT NULL, created INTEGER NOT NULL, mac BLOB NOT NULL,"
	" PRIMARY KEY (path, version)) WITHOUT ROWID;";

static void key_mac(const struct store *s, const struct store_key *k, uint8_t ret[STORE_MAC_LEN])
{
	crypto_generichash_state st;

	store_mac_start(s, &st, "signing_key");
	store_mac_text(&st, k->path);
	store_mac_u64(&st, k->version);
	store_mac_text(&st, k->provider);
	store_mac_text(&st, k->ref);
	store_mac_u64(&st, k->type);
	store_mac_u64(&st, k->spki_len);
	crypto_generichash_update(&st, k->spki, k->spki_len);
	store_mac_u64(&st, k->certificates_len);
	crypto_generichash_update(&st, k->certificates, k->certificates_len);
	store_mac_u64(&st, k->created_ms);
	store_mac_finish(&st, ret);
}

void store_key_done(struct store_key *k)
{
	free(k->certificates);
	*k = (struct store_key){0};
}

static int put(struct store *s, const char *sql, const struct store_key *k, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	key_mac(s, k, mac);
	s->key_changes++;
	r = store_prepare(s, sql, &q, err, "tittibbib", k->path,
			  (int64_t)k->version, k->provider, k->ref, (int64_t)k->type, k->spki, (size_t)k->spki_len,
			  k->certificates ? k->certificates : (const uint8_t *)"", k->certificates_len, (int64_t)k->created_ms, mac, sizeof(mac));
	return r < 0 ? r : store_step(s, q, err);
}

int store_key_add(struct store *s, const struct store_key *k, struct err *err)
{
	return put(s, "INSERT INTO signing_key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", k, err);
}

int store_key_put(struct store *s, const struct store_key *k, struct err *err)
{
	return put(s, "REPLACE INTO signing_key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", k, err);
}

int store_key_still(struct store *s, const struct store_key *k, struct err *err)
{
	STMT *q = NULL;
	int r;

	/* a look costs as much as the rest of what a signature asks of the store */
	if (k->seen == s->key_changes)
		return 0;
	r = store_prepare(s, "SELECT 1 FROM signing_key WHERE path = ? AND version = ? AND created = ? AND spki = ?", &q, err, "tiib", k->path,
			      (int64_t)k->version, (int64_t)k->created_ms, k->spki, (size_t)k->spki_len);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "there is no such key");
	return r < 0 ? r : 0;
}

static int read_key(struct store *s, sqlite3_stmt *q, struct store_key *ret, struct err *err)
{
	uint8_t mac[STORE_MAC_LEN], want[STORE_MAC_LEN];
	size_t n = (size_t)sqlite3_column_bytes(q, 5), certificates = (size_t)sqlite3_column_bytes(q, 6);

	*ret = (struct store_key){.version = store_column_u64(q, 1), .type = (enum key_type)sqlite3_column_int64(q, 4), .created_ms = store_column_u64(q, 7)};
	store_column_text(q, 0, ret->path, sizeof(ret->path));
	store_column_text(q, 2, ret->provider, sizeof(ret->provider));
	store_column_text(q, 3, ret->ref, sizeof(ret->ref));
	if (n > sizeof(ret->spki) || !store_column_blob(q, 5, ret->spki, n) || certificates > LIMIT_CERTIFICATES || !store_column_blob(q, 8, mac, sizeof(mac)))
		return store_tampered("signing key", err);
	ret->spki_len = (uint32_t)n;
	ret->certificates_len = certificates;
	if (certificates) {
		ret->certificates = malloc(certificates);
		if (!ret->certificates)
			return err_set(err, ERR_FAILED, "out of memory");
		memcpy(ret->certificates, sqlite3_column_blob(q, 6), certificates);
	}
	ret->seen = s->key_changes;
	key_mac(s, ret, want);
	if (sodium_memcmp(mac, want, sizeof(mac)) == 0)
		return 0;
	store_key_done(ret);
	return store_tampered("signing key", err);
}

int store_key_get(struct store *s, const char *path, uint64_t version, struct store_key *ret, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT path, version, provider, ref, type, spki, certificates, created, mac FROM signing_key "
				 "WHERE path = ? AND (? = 0 OR version = ?) ORDER BY version DESC LIMIT 1", &q, err, "tii", path, (int64_t)version,
			      (int64_t)version);

	if (r == 0)
		r = store_step(s, q, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "there is no such key");
	return r < 0 ? r : read_key(s, q, ret, err);
}

int store_key_look(struct store *s, const char *path, uint64_t version, uint64_t now_ms, struct store_key *ret, struct err *err)
{
	const size_t n = sizeof(s->keys_seen) / sizeof(s->keys_seen[0]);
	uint64_t generation;
	const bool known = !s->rolled_back && store_generation(s, now_ms, &generation, NULL) == 0;
	int r;

	for (size_t i = 0; known && i < n; i++) {
		const struct store_key_seen *seen = &s->keys_seen[i];

		if (seen->asked == version && seen->generation == generation && seen->changes == s->key_changes && strcmp(seen->key.path, path) == 0) {
			*ret = seen->key;
			return 0;
		}
	}
	r = store_key_get(s, path, version, ret, err);
	if (r < 0)
		return r;
	free(ret->certificates);
	ret->certificates = NULL;
	ret->certificates_len = 0;
	if (known)
		s->keys_seen[s->next_key_seen++ % n] = (struct store_key_seen){*ret, version, generation, s->key_changes};
	return 0;
}

int store_keys(struct store *s, const char *path, int (*each)(void *ctx, const struct store_key *k), void *ctx, struct err *err)
{
	struct store_key k;
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT path, version, provider, ref, type, spki, certificates, created, mac FROM signing_key "
				 "WHERE ? = '' OR path = ? ORDER BY path, version", &q, err, "tt", path, path);

	while (r == 0 && (r = store_step(s, q, err)) == 1) {
		r = read_key(s, q, &k, err);
		if (r == 0)
			r = each(ctx, &k);
		store_key_done(&k);
	}
	return r;
}

int store_key_delete(struct store *s, const char *path, struct err *err)
{
	STMT *q = NULL;
	int r;

	s->key_changes++;
	r = store_prepare(s, "DELETE FROM signing_key WHERE path = ?", &q, err, "t", path);
	return r < 0 ? r : store_step(s, q, err);
}
