/* cotter get */
#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/kv.h"

#include <getopt.h>
#include <stdint.h>

int cmd_get(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {
		{"field", required_argument, NULL, 'f'}, {"version", required_argument, NULL, 'V'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret value = {0};
	const char *field = NULL, *ref_field;
	char path[LIMIT_PATH_LEN + 1];
	unsigned long long version = 0;
	json_t *object = NULL;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "f:", options, NULL)) != -1) {
		if (opt == 'f')
			field = optarg;
		else if (opt == 'V')
			r = cli_number(cli, optarg, INT64_MAX, "--version", &version, err);
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	if (r < 0)
		return r;
	if (argc - optind != 1)
		return cli_usage(cli, err, "name one secret");
	r = kv_parse_ref(argv[optind], path, &ref_field, err);
	if (r == 0)
		r = kv_fetch(path, version, &reply, &object, err);
	if (r < 0)
		return r;
	if (cli->json)
		r = json_write(client_data(&reply), SIZE_MAX, &value, err);
	else
		r = json_field(object, field ? field : ref_field, path, &value, err);
	if (r == 0)
		r = cli_write_all(1, value.data, value.len, err);
	/* a terminal wants a line; a pipe gets the bytes alone */
	if (r == 0 && (cli->json || isatty(1)))
		r = cli_write_all(1, "\n", 1, err);
	return r;
}
