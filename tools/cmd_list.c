/* cotter list, cotter rm */
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

int cmd_list(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char folder[LIMIT_PATH_LEN + 2] = "", url[LIMIT_PATH_LEN + 64];
	const json_t *keys, *key;
	size_t i, n;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_usage(cli, err, "unknown option");
		cli->json = true;
	}
	if (argc - optind > 1)
		return cli_usage(cli, err, "one folder at a time");
	if (optind < argc)
		snprintf(folder, sizeof(folder), "%s", argv[optind]);
	n = strlen(folder);
	if (n && folder[n - 1] == '/')
		folder[n - 1] = '\0';
	if (*folder && !path_valid(folder))
		return cli_usage(cli, err, "'%.100s' is not a folder", folder);
	snprintf(url, sizeof(url), "/v1/secret/metadata/%s%s?list=true", folder, *folder ? "/" : "");
	r = client_call(CLIENT_JOB, "GET", url, NULL, &reply, err);
	if (r < 0)
		return err_wrap(err, "%s", *folder ? folder : "/");
	keys = json_object_get(client_data(&reply), "keys");
	if (cli->json) {
		json_dumpf(keys, stdout, JSON_COMPACT);
		putchar('\n');
		return 0;
	}
	json_array_foreach(keys, i, key)
		puts(json_string_value(key) ? json_string_value(key) : "?");
	return 0;
}

int cmd_rm(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"all", no_argument, NULL, 'a'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];
	bool all = false;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'a')
			return cli_usage(cli, err, "unknown option");
		all = true;
	}
	if (argc - optind != 1 || !path_valid(argv[optind]))
		return cli_usage(cli, err, "name one secret");
	/* Vault's delete says yes to what is not there; an operator wants to know. A job's token may have one use only */
	snprintf(url, sizeof(url), "/v1/secret/metadata/%s", argv[optind]);
	r = getenv("COTTER_TOKEN") ? 0 : client_call(CLIENT_JOB, "GET", url, NULL, &reply, err);
	client_reply_done(&reply);
	if (r == -ERR_NOT_FOUND)
		return err_set(err, ERR_NOT_FOUND, "%s: there is no such secret", argv[optind]);
	snprintf(url, sizeof(url), all ? "/v1/secret/metadata/%s" : "/v1/secret/data/%s", argv[optind]);
	r = client_call(CLIENT_JOB, "DELETE", url, NULL, &reply, err);
	return r < 0 ? err_wrap(err, "%s", argv[optind]) : 0;
}
