/* cotter approve: operators' word on which job may use which key. */
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <pwd.h>
#include <string.h>

static void print_users(const char *before, const json_t *uids)
{
	const json_t *uid;
	size_t i;

	json_array_foreach(uids, i, uid) {
		const struct passwd *p = getpwuid((uid_t)json_integer_value(uid));

		fputs(i ? ", " : before, stdout);
		if (p)
			cli_print_safe(stdout, p->pw_name);
		else
			printf("uid %lld", json_integer_value(uid));
	}
}

static void print_state(const json_t *a)
{
	json_int_t lacks = json_integer_value(json_object_get(a, "lacks")), n = json_integer_value(json_object_get(a, "waiting"));

	fputs(json_string_value(json_object_get(a, "state")), stdout);
	if (lacks) {
		printf(": %lld more of ", lacks);
		print_users("", json_object_get(a, "by"));
	}
	print_users("; approved by ", json_object_get(a, "approved"));
	print_users("; refused by ", json_object_get(a, "refused"));
	if (n)
		printf("; %lld request%s wait%s", n, n == 1 ? "" : "s", n == 1 ? "s" : "");
	putchar('\n');
}

static void print_approval(const json_t *a)
{
	const char *what = json_string_value(json_object_get(a, "what")), *asked = json_string_value(json_object_get(a, "asked"));

	printf("%s  %s  uid %lld  %s ", json_string_value(json_object_get(a, "job")), json_string_value(json_object_get(a, "key")),
	       json_integer_value(json_object_get(a, "uid")), json_string_value(json_object_get(a, "name")));
	cli_print_safe(stdout, json_string_value(json_object_get(a, "cgroup_path")));
	fputs("\n    ", stdout);
	print_state(a);
	if (asked && *asked)
		printf("    asked %s for %s\n", asked, what);
}

static int list(const struct cli *cli, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	const json_t *list, *a;
	size_t i;
	int r = client_call(CLIENT_OPERATOR, "GET", "/v1/cotter/approvals", NULL, &reply, err);

	if (r < 0)
		return r;
	list = json_object_get(client_data(&reply), "approvals");
	if (cli->json) {
		json_dumpf(list, stdout, JSON_COMPACT);
		putchar('\n');
		return 0;
	}
	json_array_foreach(list, i, a)
		print_approval(a);
	if (json_integer_value(json_object_get(client_data(&reply), "more")))
		printf("(%lld more)\n", json_integer_value(json_object_get(client_data(&reply), "more")));
	if (json_array_size(list) == 0)
		fputs("no job asked for a key that wants approvals\n", stderr);
	return 0;
}

static int speak(const struct cli *cli, const char *job, const char *key, bool refuse, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_pack("{s:s, s:s, s:b}", "job", job, "key", key, "refuse", refuse);
	int r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/approve", body, &reply, err);

	if (r == -ERR_NOT_FOUND)
		return err_set(err, ERR_NOT_FOUND, "there is no job %.32s, or it ended ('cotter approve' lists them)", job);
	if (r < 0)
		return r;
	if (cli->json) {
		json_dumpf(client_data(&reply), stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		print_approval(client_data(&reply));
	}
	return 0;
}

int cmd_approve(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"refuse", no_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'}, {0}};
	bool refuse = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'r': refuse = true; break;
		case 'j': cli->json = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (optind == argc && !refuse)
		return list(cli, err);
	if (optind != argc - 2)
		return cli_usage(cli, err, "say a job and a key, as 'cotter approve' lists them");
	if (!path_valid(argv[optind + 1]))
		return cli_usage(cli, err, "'%.80s' is not a key's name", argv[optind + 1]);
	return speak(cli, argv[optind], argv[optind + 1], refuse, err);
}
