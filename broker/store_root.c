/* The sum over all secrets' MACs, which notices a row that was put back or taken away. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <string.h>

void store_root_summand(const struct store *s, const char *path, const uint8_t mac[STORE_MAC_LEN], uint8_t ret[STORE_MAC_LEN])
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
			store_root_summand(s, (const char *)sqlite3_column_text(q, 0), mac, part);
			sodium_add(ret, part, sizeof(part));
		}
	return r;
}

int store_root_write(struct store *s, const uint8_t root[STORE_MAC_LEN], struct err *err)
{
	uint8_t value[2 * STORE_MAC_LEN];
	STMT *q = NULL;
	int r;

	s->generation++;
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
	s->generation++;
	s->rolled_back = (sodium_memcmp(mac, value + STORE_MAC_LEN, sizeof(mac)) != 0 && !sodium_is_zero(value, sizeof(value))) ||
			 sodium_memcmp(sum, value, sizeof(sum)) != 0;
	memcpy(s->root, sum, sizeof(sum));
	s->data_version = read_data_version(s);
	if (s->rolled_back)
		return err_set(err, ERR_TAMPERED, "the store is not as cotter left it: secrets were taken away, put back or added by "
						  "another hand; restore it whole from a backup");
	return 0;
}

int store_root_check(struct store *s, struct err *err)
{
	if (s->mac_key.len == 0)
		return err_set(err, ERR_SEALED, "the store is sealed");
	if (!s->rolled_back && read_data_version(s) == s->data_version)
		return 0;
	return store_verify_root(s, err);
}

int store_generation(struct store *s, uint64_t now_ms, uint64_t *ret, struct err *err)
{
	int r = 0;

	if (s->rolled_back || !s->looked_ms || now_ms - s->looked_ms >= STORE_LOOK_MS) {
		r = store_root_check(s, err);
		s->looked_ms = r == 0 ? now_ms : 0;
	}
	*ret = s->generation;
	return r;
}
