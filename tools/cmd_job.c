/* cotter job start|end|list, cotter login: tokens that live as long as a job does. */
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"
#include "tools/login.h"

#include <getopt.h>
#include <string.h>

struct options {
	struct login login;
	json_t *policies;
};

static void cleanup_options(struct options *o)
{
	json_decref(o->policies);
}

static int parse(struct cli *cli, int argc, char **argv, struct options *o, struct err *err)
{
	static const struct option options[] = {
		{"leader", required_argument, NULL, 'l'}, {"policy", required_argument, NULL, 'p'}, {"ttl", required_argument, NULL, 't'},
		{"uses", required_argument, NULL, 'u'},	  {"uid", required_argument, NULL, 'U'},    {"name", required_argument, NULL, 'n'},
		{"role", required_argument, NULL, 'r'},	  {"jwt-file", required_argument, NULL, 'f'}, {"unwrap", no_argument, NULL, 'w'},
		{"json", no_argument, NULL, 'j'},	  {0}};
	unsigned long long n;
	int opt, r = 0;

	o->login.uses = o->login.uid = -1;
	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'l':
			r = cli_number(cli, optarg, INT32_MAX, "--leader", &n, err);
			if (r == 0 && n == 0)
				r = cli_usage(cli, err, "--leader is a process id");
			o->login.leader = r == 0 ? (pid_t)n : 0;
			break;
		case 'p':
			r = json_array_append_new(o->policies, json_string(optarg)) < 0 ? cli_usage(cli, err, "not a policy's name") : 0;
			break;
		case 't': o->login.ttl = optarg; break;
		case 'u':
			r = cli_number(cli, optarg, 1000000000, "--uses", &n, err);
			if (r == 0 && n == 0)
				r = cli_usage(cli, err, "a token of no uses would open nothing");
			o->login.uses = (long long)n;
			break;
		case 'U':
			r = cli_number(cli, optarg, UINT32_MAX - 1, "--uid", &n, err);
			o->login.uid = (long long)n;
			break;
		case 'n': o->login.name = optarg; break;
		case 'r': o->login.role = optarg; break;
		case 'f': o->login.jwt_file = optarg; break;
		case 'w': o->login.unwrap = true; break;
		case 'j': cli->json = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	return r;
}

static int print_login(const struct cli *cli, const struct secret *token, const json_t *data, struct err *err)
{
	const char *job = json_string_value(json_object_get(data, "job"));
	char text[96];
	int r;

	if (!cli->json) {
		r = cli_write_all(1, token->data, token->len, err);
		if (r == 0)
			r = cli_write_all(1, "\n", 1, err);
		if (r == 0 && job)
			fprintf(stderr, "job %s\n", job);
		return r;
	}
	r = cli_write_all(1, "{\"token\":\"", 10, err);
	if (r == 0)
		r = cli_write_all(1, token->data, token->len, err);
	snprintf(text, sizeof(text), "\",\"job\":\"%.32s\"}\n", job ? job : "");
	return r < 0 ? r : cli_write_all(1, text, strlen(text), err);
}

static int ask(struct cli *cli, struct login *l, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	CLEANUP(client_json_free) json_t *data = NULL;
	int r = login_token(l, &token, &data, err);

	return r < 0 ? r : print_login(cli, &token, data, err);
}

static int start(struct cli *cli, struct options *o, struct err *err)
{
	if (!o->login.leader)
		return cli_usage(cli, err, "name the job's --leader: the process that lives as long as the job does");
	if (json_array_size(o->policies) == 0)
		return cli_usage(cli, err, "name at least one --policy");
	if (o->login.role || o->login.jwt_file || o->login.unwrap)
		return cli_usage(cli, err, "--role, --jwt-file and --unwrap are for 'cotter login'");
	o->login.policies = o->policies;
	return ask(cli, &o->login, err);
}

int cmd_login(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_options) struct options o = {.policies = json_array()};
	int r = parse(cli, argc, argv, &o, err);

	if (r < 0)
		return r;
	if (optind != argc)
		return cli_usage(cli, err, "no arguments: a token is never given on the command line");
	if (json_array_size(o.policies) || o.login.uses >= 0 || o.login.uid >= 0 || (o.login.unwrap && (o.login.jwt_file || o.login.ttl)))
		return cli_usage(cli, err, "the role or the wrapping token says what it may do: only --ttl shortens a role's time");
	if ((o.login.role != NULL) == o.login.unwrap)
		return cli_usage(cli, err, "say --role NAME, or --unwrap with a wrapping token on standard input");
	return ask(cli, &o.login, err);
}

static int end(struct cli *cli, const char *id, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();

	if (id)
		json_object_set_new(body, "job", json_string(id));
	else if (!getenv("COTTER_TOKEN"))
		return cli_usage(cli, err, "name the job, or set COTTER_TOKEN to end its own");
	return client_call(CLIENT_JOB, "POST", "/v1/cotter/jobs/end", body, &reply, err);
}

static int list(struct cli *cli, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	const json_t *jobs, *job;
	size_t i;
	int r = client_call(CLIENT_OPERATOR, "GET", "/v1/cotter/jobs", NULL, &reply, err);

	if (r < 0)
		return r;
	jobs = json_object_get(client_data(&reply), "jobs");
	if (cli->json) {
		json_dumpf(jobs, stdout, JSON_COMPACT);
		putchar('\n');
		return 0;
	}
	json_array_foreach(jobs, i, job) {
		printf("%s  uid %-6lld leader %-7lld cgroup %-6lld tokens %-3lld %llds left  %s ",
		       json_string_value(json_object_get(job, "job")), json_integer_value(json_object_get(job, "uid")),
		       json_integer_value(json_object_get(job, "leader")), json_integer_value(json_object_get(job, "cgroup")),
		       json_integer_value(json_object_get(job, "tokens")), json_integer_value(json_object_get(job, "ttl")),
		       json_string_value(json_object_get(job, "name")));
		cli_print_safe(stdout, json_string_value(json_object_get(job, "cgroup_path")));
		putchar('\n');
	}
	if (json_integer_value(json_object_get(client_data(&reply), "n")) > (json_int_t)json_array_size(jobs))
		printf("(%lld in all)\n", json_integer_value(json_object_get(client_data(&reply), "n")));
	return 0;
}

int cmd_job(struct cli *cli, int argc, char **argv, struct err *err)
{
	if (argc > 1 && strcmp(argv[1], "list") == 0)
		cli_json_plain();
	CLEANUP(cleanup_options) struct options o = {.policies = json_array()};
	int r;

	if (argc < 2)
		return cli_usage(cli, err, "say start, end or list");
	r = parse(cli, argc - 1, argv + 1, &o, err);
	if (r < 0)
		return r;
	if (strcmp(argv[1], "end") == 0)
		return argc - 1 - optind > 1 ? cli_usage(cli, err, "one job at a time") : end(cli, argv[1 + optind], err);
	if (optind != argc - 1)
		return cli_usage(cli, err, "'%.60s' is one word too many", argv[1 + optind]);
	if (strcmp(argv[1], "start") == 0)
		return start(cli, &o, err);
	if (strcmp(argv[1], "list") == 0)
		return list(cli, err);
	return cli_usage(cli, err, "unknown: job %.32s", argv[1]);
}
