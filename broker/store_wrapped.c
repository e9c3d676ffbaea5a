/* Answers that wait to be unwrapped, sealed with a key of their wrapping token. They go with its row. */
#include "broker/store_sql.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

const char store_wrapped_schema[] =
	"CREATE TABLE IF NOT EXISTS wrapped (id BLOB PRIMARY KEY, uid INTEGER NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;";

static int count(struct store *s, const char *sql, uint32_t uid, uint64_t *ret, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, sql, &q, err, strchr(sql, '?') ? "i" : "", (int64_t)uid);

	if (r == 0)
		r = store_step(s, q, err);
	*ret = r == 1 ? store_column_u64(q, 0) : 0;
	return r < 0 ? r : 0;
}

int store_wrapped_room(struct store *s, uint32_t uid, struct err *err)
{
	uint64_t all = 0, own = 0;
	int r = count(s, "SELECT count(*) FROM wrapped", 0, &all, err);

	if (r == 0)
		r = count(s, "SELECT count(*) FROM wrapped WHERE uid = ?", uid, &own, err);
	if (r < 0)
		return r;
	/* a quarter is kept for operators, as of the tokens */
	if (uid == TOKEN_ANY_UID ? all >= LIMIT_WRAPPED : all >= LIMIT_WRAPPED / 4 * 3 || own >= LIMIT_WRAPPED_PER_UID)
		return err_set(err, ERR_BUSY, "too many answers wait to be unwrapped already");
	return 0;
}

int store_wrapped_put(struct store *s, const uint8_t id[16], uint32_t uid, const uint8_t *sealed, size_t len, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "INSERT INTO wrapped VALUES (?, ?, ?)", &q, err, "bib", id, (size_t)16, (int64_t)uid, sealed, len);

	return r < 0 ? r : store_step(s, q, err);
}

int store_wrapped_get(struct store *s, const uint8_t id[16], uint8_t **ret, size_t *ret_len, struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "SELECT sealed FROM wrapped WHERE id = ?", &q, err, "b", id, (size_t)16);

	if (r == 0)
		r = store_step(s, q, err);
	if (r < 0)
		return r;
	*ret_len = r == 1 ? (size_t)sqlite3_column_bytes(q, 0) : 0;
	if (!*ret_len)
		return err_set(err, ERR_NOT_FOUND, "nothing is wrapped by it");
	*ret = malloc(*ret_len);
	if (!*ret)
		return err_set(err, ERR_FAILED, "out of memory");
	memcpy(*ret, sqlite3_column_blob(q, 0), *ret_len);
	return 0;
}

int store_wrapped_delete(struct store *s, const uint8_t id[16], struct err *err)
{
	STMT *q = NULL;
	int r = store_prepare(s, "DELETE FROM wrapped WHERE id = ?", &q, err, "b", id, (size_t)16);

	return r < 0 ? r : store_step(s, q, err);
}
