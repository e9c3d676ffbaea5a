/* cotter rotate: a new value for a secret, by the program that the configuration names for it. */
#include "broker/config.h"
#include "broker/json.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"
#include "tools/kv.h"
#include "tools/program.h"

#include <getopt.h>
#include <string.h>

struct rotation {
	const char *path;
	char pending[LIMIT_PATH_LEN + 1]; /* where the new value waits until it holds: whatever happens meanwhile, it is not lost */
	struct program program;
	uint64_t grace_ms, version; /* version: of the current value; 0: there is none */
	json_t *current, *next;
};

static void rotation_done(struct rotation *x)
{
	json_decref(x->current);
	json_decref(x->next);
}

/* What the program is told: {"path": …, "current": {…} or null, "pending": {…} or null}. */
static int run(const struct rotation *x, const char *verb, struct secret *ret, struct err *err)
{
	CLEANUP(client_json_free) json_t *said = json_pack("{s:s, s:O?, s:O?}", "path", x->path, "current", x->current, "pending", x->next);
	CLEANUP(secret_clear) struct secret in = {0};
	struct program program = x->program;
	size_t n = said ? json_dumpb(said, NULL, 0, JSON_COMPACT) : 0;
	int r = n ? secret_new(&in, n, err) : err_set(err, ERR_BUSY, "the locked memory for secrets is full");

	if (r < 0)
		return r;
	in.len = json_dumpb(said, (char *)in.data, n, JSON_COMPACT);
	program.verb = verb;
	return in.len == n ? program_run(&program, &in, ret, err) : err_set(err, ERR_BUSY, "the locked memory for secrets is full");
}

/* cas: the version that it replaces. */
static int put(const char *path, json_t *object, json_int_t cas, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_pack("{s:O, s:{s:I}}", "data", object, "options", "cas", cas);
	char url[LIMIT_PATH_LEN + 64];

	snprintf(url, sizeof(url), "/v1/secret/data/%s", path);
	return client_call(CLIENT_OPERATOR, "POST", url, body, &reply, err);
}

/* The object of the current version. */
static int get(const char *path, json_t **ret, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];
	int r;

	snprintf(url, sizeof(url), "/v1/secret/data/%s", path);
	r = client_call(CLIENT_OPERATOR, "GET", url, NULL, &reply, err);
	if (r < 0)
		return r;
	*ret = json_incref(json_object_get(client_data(&reply), "data"));
	return 0;
}

static int drop_pending(const struct rotation *x, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];

	snprintf(url, sizeof(url), "/v1/secret/metadata/%s", x->pending);
	return client_call(CLIENT_OPERATOR, "DELETE", url, NULL, &reply, err);
}

/* What an interrupted rotation left, or a new one. */
static int create(struct rotation *x, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	int r = get(x->pending, &x->next, err);

	if (r == 0) {
		fprintf(stderr, "%s: an earlier rotation did not come to its end: going on with it\n", x->path);
		return 0;
	}
	if (r != -ERR_NOT_FOUND)
		return err_wrap(err, "%s: what an earlier rotation left cannot be read", x->pending);
	r = run(x, "create", &text, err);
	if (r == 0)
		r = json_parse((char *)text.data, text.len, &x->next, err);
	if (r < 0)
		return r;
	r = put(x->pending, x->next, 0, err);
	return r == -ERR_CONFLICT || r == -ERR_INPUT ? err_wrap(err, "%s: is it rotated by somebody else just now?", x->path) : r;
}

/* err says what failed; all is as it was, or it is said that it is not. */
static int undo(const struct rotation *x, int failed, struct err *err)
{
	struct err why = {0};
	int r = run(x, "undo", NULL, &why);

	if (r == 0)
		r = drop_pending(x, &why);
	if (r < 0) {
		fprintf(stderr, "%s: it could NOT be undone: ", x->path);
		cli_print_safe(stderr, why.msg);
		fprintf(stderr, "\nThe value that may hold now is kept as %s; 'cotter rotate %s' goes on with it.\n", x->pending, x->path);
		return failed;
	}
	return err_wrap(err, "%s: undone, the current value holds as before", x->path);
}

/* The version before can be read for a while. */
static int retire(const struct rotation *x, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_pack("{s:[I], s:I}", "versions", (json_int_t)x->version, "cotter_after", (json_int_t)((x->grace_ms + 999) / 1000));
	char url[LIMIT_PATH_LEN + 64];

	if (x->version == 0)
		return 0;
	snprintf(url, sizeof(url), "/v1/secret/delete/%s", x->path);
	return client_call(CLIENT_OPERATOR, "POST", url, body, &reply, err);
}

/* The current value, if it is readable, and its number, if there is any: a deleted one still counts. */
static int get_current(struct rotation *x, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];
	int r;

	snprintf(url, sizeof(url), "/v1/secret/metadata/%s", x->path);
	r = client_call(CLIENT_OPERATOR, "GET", url, NULL, &reply, err);
	if (r == -ERR_NOT_FOUND)
		return 0;
	if (r < 0)
		return r;
	x->version = (uint64_t)json_integer_value(json_object_get(client_data(&reply), "current_version"));
	r = get(x->path, &x->current, err);
	return r == -ERR_NOT_FOUND ? 0 : r;
}

/* The broker may have stored it although its answer was lost: what is there now tells. */
static int store(const struct rotation *x, bool *ret_unknown, struct err *err)
{
	CLEANUP(client_json_free) json_t *now = NULL;
	int r = put(x->path, x->next, (json_int_t)x->version, err);

	*ret_unknown = false;
	if (r == 0 || r == -ERR_INPUT || r == -ERR_CONFLICT || r == -ERR_DENIED || r == -ERR_LIMIT)
		return r;
	if (get(x->path, &now, NULL) < 0)
		*ret_unknown = true;
	else if (json_equal(now, x->next))
		return 0;
	return r;
}

static int tidy_up(const struct rotation *x, struct err *err)
{
	int r = retire(x, err);

	if (r == 0)
		r = drop_pending(x, err);
	return r < 0 ? err_wrap(err, "%s: the new value is current; what was to be tidied up was not", x->path) : 0;
}

static int rotate(struct rotation *x, struct err *err)
{
	bool unknown = false;
	int r = get_current(x, err);

	if (r == 0)
		r = create(x, err);
	if (r < 0)
		return r;
	/* an earlier one whose answer was lost: all but the tidying up was done */
	if (x->current && json_equal(x->current, x->next)) {
		x->version--;
		return tidy_up(x, err);
	}
	r = run(x, "apply", NULL, err);
	if (r == 0)
		r = run(x, "check", NULL, err);
	/* what is not there before is version 0, and so is its cas */
	if (r == 0)
		r = store(x, &unknown, err);
	if (r < 0 && unknown)
		return err_wrap(err, "%s: the new value holds, and whether it is current is not known: call it again when the broker answers", x->path);
	return r < 0 ? undo(x, r, err) : tidy_up(x, err);
}

static int prepare(struct rotation *x, const struct config *config, const char *program, struct err *err)
{
	const struct config_rotation *rule = config_rotation(config, x->path);

	if (!program && (!rule || !rule->program[0]))
		return err_set(err, ERR_INPUT, "%s: the configuration names no program that rotates it (rotations): add one, or say --program", x->path);
	x->program.path = program ? program : rule->program;
	x->grace_ms = rule ? rule->grace_ms : 3600000;
	if (x->program.path[0] != '/')
		return err_set(err, ERR_USAGE, "--program takes an absolute path");
	if ((size_t)snprintf(x->pending, sizeof(x->pending), PATH_PENDING "%s", x->path) >= sizeof(x->pending))
		return err_set(err, ERR_LIMIT, "%s: the path is too long for it", x->path);
	return 0;
}

int cmd_rotate(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {
		{"program", required_argument, NULL, 'p'}, {"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(rotation_done) struct rotation x = {.program = {.timeout_ms = LIMIT_PROGRAM_MS, .saved = cli->saved}};
	const char *program = NULL, *file = NULL;
	struct config config;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'p')
			program = optarg;
		else if (opt == 'c')
			file = optarg;
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	if (argc - optind != 1 || !path_valid(argv[optind]))
		return cli_usage(cli, err, "name one secret");
	x.path = x.program.argument = argv[optind];
	r = config_load(cli_config_path(file), &config, err);
	if (r < 0)
		return r;
	r = prepare(&x, &config, program, err);
	if (r == 0)
		r = rotate(&x, err);
	config_done(&config);
	if (r < 0)
		return r;
	if (cli->json)
		printf("{\"version\":%llu}\n", (unsigned long long)x.version + 1);
	else
		printf("%s: version %llu is current%s\n", x.path, (unsigned long long)x.version + 1, x.version ? "; the one before can be read for a while" : "");
	return 0;
}
