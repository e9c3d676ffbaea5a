/* cotter history, cotter rollback: the versions of a secret. */
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

static void print_version(const char *number, const json_t *v)
{
	const struct passwd *p = getpwuid((uid_t)json_integer_value(json_object_get(v, "cotter_uid")));
	const char *job = json_string_value(json_object_get(v, "cotter_job")), *deleted = json_string_value(json_object_get(v, "deletion_time"));

	printf("%4s  %-24s  ", number, json_string_value(json_object_get(v, "created_time")));
	if (p)
		cli_print_safe(stdout, p->pw_name);
	else
		printf("uid %lld", json_integer_value(json_object_get(v, "cotter_uid")));
	if (job && *job)
		printf("  job %s", job);
	if (json_is_true(json_object_get(v, "destroyed")))
		printf("  destroyed");
	else if (deleted && *deleted)
		printf("  deleted from %s on", deleted);
	putchar('\n');
}

int cmd_history(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64], number[24];
	const json_t *versions, *v;
	json_int_t last;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_usage(cli, err, "unknown option");
		cli->json = true;
	}
	if (argc - optind != 1 || !path_valid(argv[optind]))
		return cli_usage(cli, err, "name one secret");
	snprintf(url, sizeof(url), "/v1/secret/metadata/%s", argv[optind]);
	r = client_call(CLIENT_JOB, "GET", url, NULL, &reply, err);
	if (r < 0)
		return r == -ERR_NOT_FOUND ? err_set(err, ERR_NOT_FOUND, "%s: there is no such secret", argv[optind]) : err_wrap(err, "%s", argv[optind]);
	versions = json_object_get(client_data(&reply), "versions");
	if (cli->json) {
		json_dumpf(versions, stdout, JSON_COMPACT);
		putchar('\n');
		return 0;
	}
	last = json_integer_value(json_object_get(client_data(&reply), "current_version"));
	for (json_int_t i = json_integer_value(json_object_get(client_data(&reply), "oldest_version")); i && i <= last; i++) {
		snprintf(number, sizeof(number), "%lld", i);
		v = json_object_get(versions, number);
		if (v)
			print_version(number, v);
	}
	return 0;
}

int cmd_rollback(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"to", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	char url[LIMIT_PATH_LEN + 64];
	unsigned long long to = 0;
	json_int_t made;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'j')
			cli->json = true;
		else if (opt != 't')
			return cli_usage(cli, err, "unknown option");
		else if ((r = cli_number(cli, optarg, INT64_MAX, "--to", &to, err)) < 0)
			return r;
	}
	if (argc - optind != 1 || !path_valid(argv[optind]) || to == 0)
		return cli_usage(cli, err, "name one secret, and the version that is to be the newest again: --to N");
	json_object_set_new(body, "version", json_integer((json_int_t)to));
	snprintf(url, sizeof(url), "/v1/cotter/rollback/%s", argv[optind]);
	r = client_call(CLIENT_JOB, "POST", url, body, &reply, err);
	if (r < 0)
		return r == -ERR_NOT_FOUND ? err_set(err, ERR_NOT_FOUND, "%s: there is no version %llu", argv[optind], to) : err_wrap(err, "%s", argv[optind]);
	made = json_integer_value(json_object_get(client_data(&reply), "version"));
	if (cli->json)
		printf("{\"version\":%lld}\n", made);
	else
		printf("%s: version %lld is what version %llu was\n", argv[optind], made, to);
	return 0;
}
