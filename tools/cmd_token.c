/* cotter token make|narrow|show|why|revoke. A token is read from standard input or $COTTER_TOKEN, never from the command line. */
#include "broker/caveat.h"
#include "broker/duration.h"
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/macaroon.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

static int print_token(struct cli *cli, const struct secret *token, struct err *err)
{
	int r;

	if (!cli->json) {
		r = cli_write_all(1, token->data, token->len, err);
		return r < 0 ? r : cli_write_all(1, "\n", 1, err);
	}
	r = cli_write_all(1, "{\"token\":\"", 10, err);
	if (r == 0)
		r = cli_write_all(1, token->data, token->len, err);
	return r < 0 ? r : cli_write_all(1, "\"}\n", 3, err);
}

static int narrow_by(struct secret *token, char (*caveats)[LIMIT_CAVEAT_LEN + 1], size_t n, struct err *err)
{
	char sentence[LIMIT_CAVEAT_LEN + 64];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct secret narrower = {0};

		/* an unknown caveat would make a token that opens nothing: surely a typing error */
		if (!caveat_explain(caveats[i], strlen(caveats[i]), sentence, sizeof(sentence)))
			return err_set(err, ERR_USAGE, "'%.100s' is not a caveat: see 'cotter token --help'", caveats[i]);
		r = macaroon_narrow((char *)token->data, token->len, caveats[i], &narrower, err);
		if (r == 0) {
			secret_clear(token);
			*token = narrower;
		}
	}
	return r;
}

struct token_options {
	json_t *policies, *body, *meta;
	char caveats[LIMIT_CAVEATS][LIMIT_CAVEAT_LEN + 1];
	size_t n_caveats;
	const char *wrap, *op, *role, *job;
	long long uid, gid, cgroup, pid;
	bool lineage, all;
};

static void cleanup_options(struct token_options *o)
{
	json_decref(o->policies);
	json_decref(o->body);
	json_decref(o->meta);
}

static int add_caveat(struct cli *cli, struct token_options *o, const char *before, const char *text, struct err *err)
{
	if (o->n_caveats == LIMIT_CAVEATS)
		return cli_usage(cli, err, "at most %u caveats", LIMIT_CAVEATS);
	if ((size_t)snprintf(o->caveats[o->n_caveats], LIMIT_CAVEAT_LEN + 1, "%s%s", before, text) > LIMIT_CAVEAT_LEN)
		return cli_usage(cli, err, "a caveat has at most %u bytes", LIMIT_CAVEAT_LEN);
	o->n_caveats++;
	return 0;
}

/* A folder ends with a slash. */
static int narrow_path(struct cli *cli, struct token_options *o, const char *text, struct err *err)
{
	size_t n = strlen(text);

	return add_caveat(cli, o, n && text[n - 1] == '/' ? "path under " : "path = ", text, err);
}

static int narrow_for(struct cli *cli, struct token_options *o, const char *text, struct err *err)
{
	uint64_t s = duration_parse(text, strlen(text), LIMIT_TOKEN_TTL_S);
	time_t end = time(NULL) + (time_t)s;
	char when[32];
	struct tm tm;

	if (!s || !gmtime_r(&end, &tm) || !strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm))
		return cli_usage(cli, err, "--for takes a duration such as 90s or 10m");
	return add_caveat(cli, o, "time < ", when, err);
}

static int set_number(struct cli *cli, const char *text, unsigned long long max, const char *what, long long *ret, struct err *err)
{
	unsigned long long n;
	int r = cli_number(cli, text, max, what, &n, err);

	if (r == 0)
		*ret = (long long)n;
	return r;
}

static int set_uses(struct cli *cli, struct token_options *o, bool narrows, const char *text, struct err *err)
{
	long long n = 0;
	int r = set_number(cli, text, 1000000000, "--uses", &n, err);

	if (r == 0 && n == 0)
		r = cli_usage(cli, err, "a token of no uses would open nothing");
	if (r == 0 && narrows)
		return add_caveat(cli, o, "uses <= ", text, err);
	json_object_set_new(o->body, "num_uses", json_integer(n));
	return r;
}

static int set_meta(struct cli *cli, struct token_options *o, const char *text, struct err *err)
{
	const char *equals = strchr(text, '=');
	char name[64];

	if (!equals || equals == text || (size_t)(equals - text) >= sizeof(name))
		return cli_usage(cli, err, "--meta takes name=value");
	snprintf(name, sizeof(name), "%.*s", (int)(equals - text), text);
	if (json_object_set_new(o->meta, name, json_string(equals + 1)) < 0)
		return cli_usage(cli, err, "--meta takes text in UTF-8");
	json_object_set(o->body, "meta", o->meta);
	return 0;
}

enum option_value { POLICY = 256, TTL, USES, UID, CAVEAT, JSON, WRAP, META, JOB, OP, PATH, FOR, GID, CGROUP, PID, ROLE, LINEAGE, ALL, MAX_TTL };

static const struct option options[] = {
	{"policy", required_argument, NULL, POLICY}, {"ttl", required_argument, NULL, TTL},	{"max-ttl", required_argument, NULL, MAX_TTL}, {"uses", required_argument, NULL, USES},
	{"uid", required_argument, NULL, UID},	     {"caveat", required_argument, NULL, CAVEAT}, {"json", no_argument, NULL, JSON},
	{"wrap", required_argument, NULL, WRAP},     {"meta", required_argument, NULL, META},	{"job", required_argument, NULL, JOB},
	{"op", required_argument, NULL, OP},	     {"path", required_argument, NULL, PATH},	{"for", required_argument, NULL, FOR},
	{"gid", required_argument, NULL, GID},	     {"cgroup", required_argument, NULL, CGROUP}, {"pid", required_argument, NULL, PID},
	{"role", required_argument, NULL, ROLE},     {"lineage", no_argument, NULL, LINEAGE},	{"all", no_argument, NULL, ALL},
	{0}};

static int parse_one(struct cli *cli, int opt, bool narrows, struct token_options *o, struct err *err)
{
	switch (opt) {
	case 'p':
	case POLICY: return json_array_append_new(o->policies, json_string(optarg)) < 0 ? cli_usage(cli, err, "not a policy's name") : 0;
	case TTL: return json_object_set_new(o->body, "ttl", json_string(optarg)) < 0 ? cli_usage(cli, err, "not a duration") : 0;
	case MAX_TTL: return json_object_set_new(o->body, "explicit_max_ttl", json_string(optarg)) < 0 ? cli_usage(cli, err, "not a duration") : 0;
	case USES: return set_uses(cli, o, narrows, optarg, err);
	case UID: return set_number(cli, optarg, UINT32_MAX - 1, "--uid", &o->uid, err);
	case GID: return set_number(cli, optarg, UINT32_MAX - 1, "--gid", &o->gid, err);
	case CGROUP: return set_number(cli, optarg, INT64_MAX, "--cgroup", &o->cgroup, err);
	case PID: return set_number(cli, optarg, INT32_MAX, "--pid", &o->pid, err);
	case 'c':
	case CAVEAT: return add_caveat(cli, o, "", optarg, err);
	case PATH: return narrow_path(cli, o, optarg, err);
	case FOR: return narrow_for(cli, o, optarg, err);
	case OP: o->op = optarg; return narrows ? add_caveat(cli, o, strchr(optarg, ',') ? "op in " : "op = ", optarg, err) : 0;
	case META: return set_meta(cli, o, optarg, err);
	case WRAP: o->wrap = optarg; return 0;
	case JOB: o->job = optarg; return 0;
	case ROLE: o->role = optarg; return 0;
	case JSON: cli->json = true; return 0;
	case LINEAGE: o->lineage = true; return 0;
	case ALL: o->all = true; return 0;
	default: return cli_usage(cli, err, "unknown option");
	}
}

/* One that is passed over in silence would leave a token wider than it was asked for. */
static int belongs(struct cli *cli, const char *verb, int opt, struct err *err)
{
	static const struct {
		const char *verb;
		int options[12];
	} rows[] = {
		{"make", {'p', POLICY, TTL, MAX_TTL, USES, UID, 'c', CAVEAT, JSON, WRAP, META, JOB}},
		{"narrow", {PATH, OP, USES, FOR, 'c', CAVEAT, JSON}},
		{"show", {JSON}},
		{"why", {OP, UID, GID, CGROUP, PID, JSON}},
		{"revoke", {JOB, ROLE, LINEAGE, ALL, JSON}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(rows[i].verb, verb) != 0)
			continue;
		for (size_t k = 0; k < sizeof(rows[i].options) / sizeof(rows[i].options[0]); k++)
			if (rows[i].options[k] == opt)
				return 0;
		return cli_usage(cli, err, "unknown option, or not one of 'token %s'", verb);
	}
	return 0; /* an unknown verb is told by the caller */
}

static int parse(struct cli *cli, int argc, char **argv, struct token_options *o, struct err *err)
{
	bool narrows = strcmp(argv[0], "narrow") == 0;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "p:c:", options, NULL)) != -1 && (r = belongs(cli, argv[0], opt, err)) == 0)
		r = parse_one(cli, opt, narrows, o, err);
	return r;
}

static int make(struct cli *cli, struct token_options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret token = {0};
	const json_t *text;
	int r;

	if (json_array_size(o->policies) == 0)
		return cli_usage(cli, err, "name at least one --policy");
	json_object_set(o->body, "policies", o->policies);
	if (o->uid >= 0)
		json_object_set_new(o->body, "cotter_uid", json_integer(o->uid));
	if (o->job)
		json_object_set_new(o->body, "cotter_job", json_string(o->job));
	if (!json_object_get(o->body, "explicit_max_ttl"))
		json_object_set_new(o->body, "renewable", json_false());
	if (o->wrap && o->n_caveats)
		return cli_usage(cli, err, "narrow the token after it was unwrapped: a wrapping token is good for unwrapping alone");
	r = client_call_wrapped(CLIENT_OPERATOR, "POST", "/v1/auth/token/create", o->body, o->wrap, &reply, err);
	if (r < 0)
		return r;
	text = client_at(reply.json, o->wrap ? "wrap_info.token" : "auth.client_token");
	if (!json_is_string(text))
		return err_set(err, ERR_FAILED, "the broker gave no token");
	r = secret_copy(&token, json_string_value(text), json_string_length(text), err);
	if (r == 0)
		r = narrow_by(&token, o->caveats, o->n_caveats, err);
	return r < 0 ? r : print_token(cli, &token, err);
}

static int read_token(struct secret *ret, struct err *err)
{
	const char *env = getenv("COTTER_TOKEN");
	int r;

	if (env && *env && isatty(0))
		return secret_copy(ret, env, strlen(env), err);
	r = cli_read_secret("-", LIMIT_TOKEN_TEXT + 2, ret, err);
	if (r == 0)
		cli_chomp(ret);
	if (r == 0 && ret->len == 0 && env && *env) {
		secret_clear(ret);
		r = secret_copy(ret, env, strlen(env), err);
	}
	return r;
}

static int narrow(struct cli *cli, struct token_options *o, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	int r;

	if (o->n_caveats == 0)
		return cli_usage(cli, err, "say what it is to be narrowed to: --path, --op, --uses, --for, --caveat");
	r = read_token(&token, err);
	if (r == 0)
		r = narrow_by(&token, o->caveats, o->n_caveats, err);
	return r < 0 ? r : print_token(cli, &token, err);
}

/* Bytes of a caveat that nobody here made: what is not printable ASCII is shown as \xHH. */
static void printable(const struct macaroon_caveat *c, char ret[4 * LIMIT_CAVEAT_LEN + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < c->len && i < LIMIT_CAVEAT_LEN; i++) {
		if (c->p[i] >= 0x20 && c->p[i] < 0x7f)
			ret[n++] = (char)c->p[i];
		else
			n += (size_t)snprintf(ret + n, 5, "\\x%02x", c->p[i]);
	}
	ret[n] = '\0';
}

static void show_text(const struct macaroon *m, const char *id)
{
	char sentence[LIMIT_CAVEAT_LEN + 64], text[4 * LIMIT_CAVEAT_LEN + 1];

	printf("token %s\n", id);
	if (m->n_caveats == 0)
		puts("  not narrowed: all that its policies allow, until its deadline");
	for (size_t i = 0; i < m->n_caveats; i++) {
		printable(&m->caveats[i], text);
		printf("  ");
		if (caveat_explain((const char *)m->caveats[i].p, m->caveats[i].len, sentence, sizeof(sentence))) {
			cli_print_safe(stdout, sentence);
		} else {
			cli_print_safe(stdout, text);
			printf("  (unknown: the broker will refuse this token)");
		}
		putchar('\n');
	}
}

/* What the broker knows of it, when it answers to this caller. */
static void show_row(const struct secret *token)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	const json_t *data, *policy, *policies;
	const char *job;
	size_t i;

	if (client_call_token(token, "GET", "/v1/auth/token/lookup-self", &reply, NULL) < 0) {
		puts("  (the broker tells no more of it here: it ended, or is bound to another job, or no broker answers)");
		return;
	}
	data = client_data(&reply);
	policies = json_object_get(data, "policies");
	printf("  policies:");
	json_array_foreach(policies, i, policy)
		printf(" %s", json_string_value(policy));
	printf("\n  until %s\n", json_string_value(json_object_get(data, "expire_time")));
	if (json_integer_value(json_object_get(data, "num_uses")))
		printf("  %lld uses left\n", json_integer_value(json_object_get(data, "num_uses")));
	if (json_integer_value(json_object_get(data, "cotter_uid")) >= 0)
		printf("  only for uid %lld\n", json_integer_value(json_object_get(data, "cotter_uid")));
	if (json_integer_value(json_object_get(data, "cotter_cgroup")))
		printf("  only in the cgroup with the id %lld\n", json_integer_value(json_object_get(data, "cotter_cgroup")));
	job = json_string_value(json_object_get(data, "cotter_job"));
	if (job && *job)
		printf("  ends with the job %s\n", job);
}

static int show(struct cli *cli, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	CLEANUP(client_json_free) json_t *out = NULL;
	json_t *caveats = json_array();
	char id[33], text[4 * LIMIT_CAVEAT_LEN + 1];
	int r = read_token(&token, err);

	if (r == 0)
		r = macaroon_parse((char *)token.data, token.len, &m, err);
	if (r < 0) {
		json_decref(caveats);
		return r;
	}
	sodium_bin2hex(id, sizeof(id), m->id + 5, 16);
	for (size_t i = 0; i < m->n_caveats; i++) {
		printable(&m->caveats[i], text);
		json_array_append_new(caveats, json_string(text));
	}
	out = json_pack("{s:s, s:o}", "accessor", id, "caveats", caveats);
	if (cli->json) {
		json_dumpf(out, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		show_text(m, id);
		show_row(&token);
	}
	return 0;
}

/* ---- why, revoke ------------------------------------------------------------------------------------------------ */

static void set_who(const struct token_options *o, json_t *body)
{
	const struct {
		const char *name;
		long long value;
	} rows[] = {{"uid", o->uid}, {"gid", o->gid}, {"cgroup", o->cgroup}, {"pid", o->pid}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].value >= 0)
			json_object_set_new(body, rows[i].name, json_integer(rows[i].value));
}

static void print_why(const json_t *data, const char *path)
{
	const char *policy = json_string_value(json_object_get(data, "policy"));

	printf("%s: %s %s\n", json_is_true(json_object_get(data, "allowed")) ? "allowed" : "denied",
	       json_string_value(json_object_get(data, "op")), path);
	if (!json_is_true(json_object_get(data, "allowed")))
		printf("  by the %s: %s\n", json_string_value(json_object_get(data, "step")), json_string_value(json_object_get(data, "reason")));
	if (json_integer_value(json_object_get(data, "caveat_number"))) {
		printf("  caveat %lld: ", json_integer_value(json_object_get(data, "caveat_number")));
		cli_print_safe(stdout, json_string_value(json_object_get(data, "caveat")));
		putchar('\n');
	}
	if (policy && *policy)
		printf("  policy '%s', rule %s on line %lld\n", policy, json_string_value(json_object_get(data, "rule")),
		       json_integer_value(json_object_get(data, "line")));
	printf("  asked as uid %lld, cgroup %lld; the token's policies: %s\n", json_integer_value(json_object_get(data, "uid")),
	       json_integer_value(json_object_get(data, "cgroup")), json_string_value(json_object_get(data, "policies")));
}

static int why(struct cli *cli, struct token_options *o, const char *path, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret token = {0};
	int r = path && path_valid(path) ? read_token(&token, err) : cli_usage(cli, err, "name one path");

	if (r < 0)
		return r;
	json_object_set_new(o->body, "token", json_stringn((char *)token.data, token.len));
	json_object_set_new(o->body, "path", json_string(path));
	if (o->op)
		json_object_set_new(o->body, "op", json_string(o->op));
	set_who(o, o->body);
	r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/why", o->body, &reply, err);
	if (r < 0)
		return r;
	if (cli->json) {
		json_dumpf(client_data(&reply), stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		print_why(client_data(&reply), path);
	}
	return json_is_true(json_object_get(client_data(&reply), "allowed")) ? 0 : err_set(err, ERR_DENIED, "denied");
}

/* An accessor is no secret: it may stand on a command line. */
static int revoke_them(struct cli *cli, struct token_options *o, const char *accessor, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	int r;

	if ((accessor != NULL) + (o->role != NULL) + (o->job != NULL) + o->all != 1)
		return cli_usage(cli, err, "say one of: ACCESSOR [--lineage], --job ID, --role NAME, --all");
	if (accessor)
		json_object_set_new(o->body, "accessor", json_string(accessor));
	if (accessor && o->lineage)
		json_object_set_new(o->body, "lineage", json_true());
	if (o->role)
		json_object_set_new(o->body, "role", json_string(o->role));
	if (o->job)
		json_object_set_new(o->body, "job", json_string(o->job));
	if (o->all)
		json_object_set_new(o->body, "all", json_true());
	r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/revoke", o->body, &reply, err);
	if (r == 0)
		printf(cli->json ? "{\"revoked\":%lld}\n" : "%lld revoked\n", json_integer_value(json_object_get(client_data(&reply), "revoked")));
	return r;
}

int cmd_token(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_options) struct token_options o = {
		.policies = json_array(), .body = json_object(), .meta = json_object(), .uid = -1, .gid = -1, .cgroup = -1, .pid = -1};
	const char *verb = argc > 1 ? argv[1] : "", *word;
	int r;

	if (argc < 2)
		return cli_usage(cli, err, "say make, narrow, show, why or revoke");
	r = parse(cli, argc - 1, argv + 1, &o, err);
	if (r < 0)
		return r;
	word = optind < argc - 1 ? argv[1 + optind] : NULL;
	if (optind + 1 < argc - 1)
		return cli_usage(cli, err, "one word at a time");
	if (strcmp(verb, "why") == 0)
		return why(cli, &o, word, err);
	if (strcmp(verb, "revoke") == 0)
		return revoke_them(cli, &o, word, err);
	if (word)
		return cli_usage(cli, err, "a token is read from standard input or COTTER_TOKEN, never from the command line");
	if (strcmp(verb, "make") == 0)
		return make(cli, &o, err);
	if (strcmp(verb, "narrow") == 0)
		return narrow(cli, &o, err);
	if (strcmp(verb, "show") == 0)
		return show(cli, err);
	return cli_usage(cli, err, "unknown: token %.32s", verb);
}
