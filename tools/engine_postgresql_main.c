/*
 * cotter-engine-postgresql: an engine for roles of a PostgreSQL server, see doc/engines.md. What it makes is named after its lease, so that an end
 * needs nothing but that. The server is told a SCRAM verifier, never the password.
 */
#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/limits.h"
#include "common/secret.h"
#include "tools/cli.h"

#include <libpq-fe.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_LEN 63u /* PostgreSQL's NAMEDATALEN - 1 */
#define PASSWORD_BYTES 24u
#define STATEMENT_LEN 65536u

static void cleanup_conn(PGconn **conn)
{
	PQfinish(*conn);
}

static void cleanup_result(PGresult **result)
{
	PQclear(*result);
}

struct request {
	const char *verb, *expires;
	const json_t *parameters, *config;
	char name[NAME_LEN + 1];
	const char *verifier; /* NULL: there is none */
};

/* ---- the server -------------------------------------------------------------------------------------------------- */

/* database: in place of the configured one; NULL: that one. */
static int connect_server(const json_t *config, const char *database, PGconn **ret, struct err *err)
{
	static const char *const known[] = {"host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "sslrootcert"};
	const char *keys[sizeof(known) / sizeof(known[0]) + 2], *values[sizeof(known) / sizeof(known[0]) + 2];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const json_t *value = json_object_get(config, known[i]);

		if (value && !json_is_string(value))
			return err_set(err, ERR_INPUT, "the engine's secret: %s is a string", known[i]);
		if (!value)
			continue;
		keys[n] = known[i];
		values[n++] = database && strcmp(known[i], "dbname") == 0 ? database : json_string_value(value);
	}
	keys[n] = "connect_timeout";
	values[n++] = "10";
	keys[n] = values[n] = NULL;
	*ret = PQconnectdbParams(keys, values, 0);
	return PQstatus(*ret) == CONNECTION_OK ? 0 : err_set(err, ERR_FAILED, "%.150s", PQerrorMessage(*ret));
}

/* The server's words could hold what a statement held: its code is enough. */
static int run(PGconn *conn, const char *sql, const char *what, struct err *err)
{
	CLEANUP(cleanup_result) PGresult *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return 0;
	return err_set(err, ERR_FAILED, "%s: the server refuses, SQLSTATE %.5s", what, code ? code : "?");
}

static int exists(PGconn *conn, const char *name, bool *ret, struct err *err)
{
	CLEANUP(cleanup_result) PGresult *result = PQexecParams(conn, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", 1, NULL, &name, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		return err_set(err, ERR_FAILED, "looking for the role: the server refuses");
	*ret = PQntuples(result) == 1;
	return 0;
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

/* What {{word}} stands for; NULL: nothing of that name. None of them holds a quote. */
static const char *value_of(const struct request *q, const char *word, size_t len)
{
	const struct {
		const char *word, *value;
	} rows[] = {{"name", q->name}, {"username", q->name}, {"password", q->verifier}, {"expiration", q->expires}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strlen(rows[i].word) == len && memcmp(rows[i].word, word, len) == 0)
			return rows[i].value;
	return NULL;
}

static int expand(const struct request *q, const char *statement, struct secret *ret, struct err *err)
{
	const char *open, *close, *value;
	int r = secret_new(ret, 512, err);

	for (; r == 0 && (open = strstr(statement, "{{")); statement = close + 2) {
		close = strstr(open, "}}");
		value = close ? value_of(q, open + 2, (size_t)(close - open) - 2) : NULL;
		if (!value)
			return err_set(err, ERR_INPUT, "a statement has a {{word}} that stands for nothing there: name, password, expiration");
		r = secret_append(ret, statement, (size_t)(open - statement), err);
		if (r == 0)
			r = secret_append(ret, value, strlen(value), err);
	}
	if (r == 0)
		r = secret_append(ret, statement, strlen(statement) + 1, err);
	return r == 0 && ret->len > STATEMENT_LEN ? err_set(err, ERR_LIMIT, "a statement is too long") : r;
}

static int run_all(PGconn *conn, const struct request *q, const char *const *statements, size_t n, const char *what, struct err *err)
{
	char where[80];
	int r = run(conn, "BEGIN", "BEGIN", err);

	for (size_t i = 0; r == 0 && i < n; i++) {
		CLEANUP(secret_clear) struct secret sql = {0};

		snprintf(where, sizeof(where), "statement %zu of %s", i + 1, what);
		r = expand(q, statements[i], &sql, err);
		if (r == 0)
			r = run(conn, (const char *)sql.data, where, err);
	}
	return r == 0 ? run(conn, "COMMIT", "COMMIT", err) : r;
}

/* A parameter's statements in place of the usual ones. */
static int run_named(PGconn *conn, const struct request *q, const char *parameter, const char *const *usual, size_t n_usual, struct err *err)
{
	const char *statements[LIMIT_PARAMETERS];
	const json_t *list = json_object_get(q->parameters, parameter);
	size_t n = json_array_size(list);

	if (n == 0)
		return run_all(conn, q, usual, n_usual, parameter, err);
	for (size_t i = 0; i < n && i < LIMIT_PARAMETERS; i++)
		statements[i] = json_string_value(json_array_get(list, i));
	return run_all(conn, q, statements, n < LIMIT_PARAMETERS ? n : LIMIT_PARAMETERS, parameter, err);
}

/* ---- verbs ------------------------------------------------------------------------------------------------------- */

static int create(PGconn *conn, struct request *q, struct secret *ret, struct err *err)
{
	static const char *const usual[] = {"CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"};
	CLEANUP(secret_clear) struct secret password = {0};
	char *verifier;
	int r = secret_new(&password, sodium_base64_ENCODED_LEN(PASSWORD_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING), err);
	uint8_t bytes[PASSWORD_BYTES];
	int n;

	if (r < 0)
		return r;
	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2base64((char *)password.data, password.cap, bytes, sizeof(bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
	verifier = PQencryptPasswordConn(conn, (const char *)password.data, q->name, "scram-sha-256");
	if (!verifier)
		return err_set(err, ERR_FAILED, "no SCRAM verifier can be made");
	q->verifier = verifier;
	r = run_named(conn, q, "creation_statements", usual, 1, err);
	q->verifier = NULL;
	PQfreemem(verifier);
	if (r == 0)
		r = secret_new(ret, 256, err);
	if (r < 0)
		return r;
	n = snprintf((char *)ret->data, ret->cap, "{\"data\":{\"username\":\"%s\",\"password\":\"%s\"}}\n", q->name, (const char *)password.data);
	ret->len = (size_t)n;
	return 0;
}

static int renew(PGconn *conn, const struct request *q, struct err *err)
{
	static const char *const usual[] = {"ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'"};

	return run_named(conn, q, "renew_statements", usual, 1, err);
}

/* What the role owns in another database would keep it from being dropped. */
static int drop_owned_there(const struct request *q, const char *database, struct err *err)
{
	static const char *const usual[] = {"DROP OWNED BY \"{{name}}\""};
	CLEANUP(cleanup_conn) PGconn *conn = NULL;
	int r = connect_server(q->config, database, &conn, err);

	return r < 0 ? r : run_all(conn, q, usual, 1, "what is usual", err);
}

static int drop_owned(PGconn *conn, const struct request *q, struct err *err)
{
	CLEANUP(cleanup_result) PGresult *names = PQexec(conn, "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn");
	int r = PQresultStatus(names) == PGRES_TUPLES_OK ? 0 : err_set(err, ERR_FAILED, "looking for databases: the server refuses");

	for (int i = 0; r == 0 && i < PQntuples(names); i++)
		r = drop_owned_there(q, PQgetvalue(names, i, 0), err);
	return r;
}

/*
 * Again and again, until nothing is left: what is gone already is no failure. Whatever keeps the role from being dropped, it cannot log in any
 * more: that is a transaction of its own, before anything else.
 */
static int drop(PGconn *conn, const struct request *q, struct err *err)
{
	static const char *const lock[] = {"ALTER ROLE \"{{name}}\" NOLOGIN VALID UNTIL '-infinity'"};
	static const char *const end[] = {"SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}'"};
	static const char *const usual[] = {"DROP ROLE \"{{name}}\""};
	bool there = false;
	int r = exists(conn, q->name, &there, err);

	if (r < 0 || !there)
		return r;
	r = run_all(conn, q, lock, 1, "locking the role", err);
	if (r == 0)
		r = run_all(conn, q, end, 1, "ending its sessions", err);
	if (r == 0 && json_array_size(json_object_get(q->parameters, "revocation_statements")) == 0)
		r = drop_owned(conn, q, err);
	return r < 0 ? r : run_named(conn, q, "revocation_statements", usual, 1, err);
}

/* ---- in and out -------------------------------------------------------------------------------------------------- */

static int parse(const json_t *said, struct request *q, struct err *err)
{
	const char *lease = json_string_value(json_object_get(said, "lease")), *role = json_string_value(json_object_get(said, "role"));

	q->verb = json_string_value(json_object_get(said, "verb"));
	q->expires = json_string_value(json_object_get(said, "expires"));
	q->parameters = json_object_get(said, "parameters");
	q->config = json_object_get(said, "config");
	if (!q->verb || !q->expires || !lease || strlen(lease) != 32 || lease[strspn(lease, "0123456789abcdef")] || !role || strpbrk(role, "'\"\\") ||
	    strchr(q->expires, '\''))
		return err_set(err, ERR_INPUT, "this is a program for cotterd: see doc/engines.md");
	if (!json_is_object(q->config) || !json_is_string(json_object_get(q->config, "dbname")))
		return err_set(err, ERR_INPUT, "the engine has no secret that says how to reach the server, with dbname");
	snprintf(q->name, sizeof(q->name), "v-%.20s-%.32s", role, lease);
	return 0;
}

static int serve(struct secret *ret, struct err *err)
{
	CLEANUP(secret_clear) struct secret in = {0};
	CLEANUP(json_cleanup) json_t *said = NULL;
	CLEANUP(cleanup_conn) PGconn *conn = NULL;
	struct request q = {0};
	int r = cli_read_secret("-", 2 * LIMIT_SECRET_LEN, &in, err);

	if (r == 0)
		r = json_parse((const char *)in.data, in.len, &said, err);
	if (r == 0)
		r = parse(said, &q, err);
	if (r == 0)
		r = connect_server(q.config, NULL, &conn, err);
	if (r < 0)
		return r;
	if (strcmp(q.verb, "create") == 0)
		return create(conn, &q, ret, err);
	return strcmp(q.verb, "renew") == 0    ? renew(conn, &q, err)
	       : strcmp(q.verb, "revoke") == 0 ? drop(conn, &q, err)
					       : err_set(err, ERR_UNSUPPORTED, "unknown verb");
}

int main(void)
{
	static const struct harden harden = {.keep_fd_below = 3, .clear_environment = 1, .arena_size = LIMIT_ARENA_TOOL};
	CLEANUP(secret_clear) struct secret out = {0};
	struct err err = {0};
	json_t *told;
	int r = harden_start(&harden, &err);

	json_set_alloc_funcs(secret_alloc, secret_free);
	if (r == 0)
		r = serve(&out, &err);
	if (r == 0 && out.len)
		return cli_write_all(1, out.data, out.len, NULL) < 0;
	if (r == 0)
		return cli_write_all(1, "{}\n", 3, NULL) < 0;
	told = json_pack("{s:s}", "error", err.msg);
	if (!told || json_dumpf(told, stdout, JSON_COMPACT) < 0)
		fputs("{\"error\":\"it failed\"}", stdout);
	json_decref(told);
	return 1;
}
