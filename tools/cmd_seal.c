/* cotter seal: needs public recipients only; no broker, no hardware. */
#include "broker/config.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/age_file.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

struct seal_options {
	struct age_recipient recipients[LIMIT_RECIPIENTS];
	size_t n_recipients;
	const char *config, *output, *path;
	unsigned long long version;
	bool armor;
};

static int add_recipient(struct seal_options *o, const char *text, struct err *err)
{
	if (o->n_recipients == LIMIT_RECIPIENTS)
		return err_set(err, ERR_USAGE, "at most %u recipients", LIMIT_RECIPIENTS);
	return age_recipient_parse(text, &o->recipients[o->n_recipients++], err);
}

static int add_recipient_file(struct seal_options *o, const char *path, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *f = fopen(path, "re");
	char line[512];
	int r = 0;

	if (!f)
		return err_errno(err, errno, "recipient file %.200s", path);
	while (r == 0 && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] && line[0] != '#')
			r = add_recipient(o, line, err);
	}
	return r;
}

static int recipients_of_config(struct seal_options *o, struct err *err)
{
	struct config config;
	int r = config_load(cli_config_path(o->config), &config, err);

	if (r < 0)
		return err_wrap(err, "no -r given");
	memcpy(o->recipients, config.recipients, config.n_recipients * sizeof(*config.recipients));
	o->n_recipients = config.n_recipients;
	config_done(&config);
	return 0;
}

static int parse(struct cli *cli, int argc, char **argv, struct seal_options *o, struct err *err)
{
	static const struct option options[] = {
		{"recipient", required_argument, NULL, 'r'}, {"recipients-file", required_argument, NULL, 'R'},
		{"output", required_argument, NULL, 'o'},    {"armor", no_argument, NULL, 'a'},
		{"path", required_argument, NULL, 'p'},	     {"version", required_argument, NULL, 'V'},
		{"config", required_argument, NULL, 'c'},    {0},
	};
	int opt, r = 0;
	char *end;

	while (r == 0 && (opt = getopt_long(argc, argv, "r:R:o:ap:", options, NULL)) != -1) {
		switch (opt) {
		case 'r': r = add_recipient(o, optarg, err); break;
		case 'R': r = add_recipient_file(o, optarg, err); break;
		case 'o': o->output = optarg; break;
		case 'a': o->armor = true; break;
		case 'p': o->path = optarg; break;
		case 'c': o->config = optarg; break;
		case 'V':
			o->version = strtoull(optarg, &end, 10);
			if (*end || !o->version)
				r = cli_usage(cli, err, "--version takes a number from 1");
			break;
		default: r = cli_usage(cli, err, "unknown option"); break;
		}
	}
	return r;
}

int cmd_seal(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_free) struct seal_options *o = calloc(1, sizeof(*o));
	CLEANUP(cleanup_close) int in_fd = -1;
	struct cli_output out;
	struct bind bind;
	int r, in = 0;

	if (!o)
		return err_set(err, ERR_FAILED, "out of memory");
	r = parse(cli, argc, argv, o, err);
	if (r == 0 && argc - optind > 1)
		r = cli_usage(cli, err, "one file at a time");
	if (r == 0 && o->n_recipients == 0)
		r = recipients_of_config(o, err);
	if (r == 0 && o->version && !o->path)
		r = cli_usage(cli, err, "--version needs --path");
	if (r == 0 && o->path)
		r = bind_init(&bind, o->path, o->version, "type=raw\n", err);
	if (r < 0)
		return r;
	if (optind < argc && strcmp(argv[optind], "-") != 0) {
		in = in_fd = open(argv[optind], O_RDONLY | O_CLOEXEC);
		if (in < 0)
			return err_errno(err, errno, "%.300s", argv[optind]);
	}
	if (!o->output && !o->armor && isatty(1))
		return cli_usage(cli, err, "refusing to write binary to a terminal: use -a or -o FILE");
	if (!o->output)
		return age_file_seal(in, 1, o->recipients, o->n_recipients, o->path ? &bind : NULL, o->armor, err);
	r = cli_output_begin(o->output, &out, err);
	return r < 0 ? r : cli_output_end(&out, age_file_seal(in, out.fd, o->recipients, o->n_recipients, o->path ? &bind : NULL, o->armor, err), err);
}
