/* cotter open: with hardware, a recovery key or a passphrase; no broker. */
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/age_file.h"
#include "tools/cli.h"
#include "tools/identities.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

struct open_options {
	const char *config, *output, *path, *identity, *passphrase;
};

static int parse(struct cli *cli, int argc, char **argv, struct open_options *o, struct err *err)
{
	static const struct option options[] = {
		{"identity", required_argument, NULL, 'i'}, {"passphrase-file", required_argument, NULL, 'P'},
		{"output", required_argument, NULL, 'o'},   {"path", required_argument, NULL, 'p'},
		{"config", required_argument, NULL, 'c'},   {0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "i:o:p:", options, NULL)) != -1) {
		switch (opt) {
		case 'i': o->identity = optarg; break;
		case 'P': o->passphrase = optarg; break;
		case 'o': o->output = optarg; break;
		case 'p': o->path = optarg; break;
		case 'c': o->config = optarg; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (argc - optind > 1)
		return cli_usage(cli, err, "one file at a time");
	return 0;
}

static void cleanup_identities(struct identities **ids)
{
	if (*ids)
		identities_done(*ids);
	free(*ids);
}

static void cleanup_age_file(struct age_file *f)
{
	age_file_done(f);
}

static int add_identities(const struct open_options *o, struct identities *ids, struct err *err)
{
	const char *config = cli_config_path(o->config);
	int r = 0;

	if (o->identity)
		r = identities_add_file(ids, o->identity, config, err);
	if (r == 0 && o->passphrase)
		r = identities_add_passphrase(ids, o->passphrase, err);
	if (r == 0 && !o->identity && !o->passphrase)
		r = identities_add_hardware(ids, config, err);
	return r;
}

/* The version is not known outside the store: the path alone is compared here. */
static int check_path(const struct age_header *header, const char *path, struct err *err)
{
	struct bind bind;

	if (!bind_read(header, &bind))
		return err_set(err, ERR_TAMPERED, "the file is not bound to any path, but --path was given");
	return bind_enforce(header, path, bind.version, err);
}

static int write_output(const struct age_file *f, const struct secret *key, const char *output, struct err *err)
{
	struct cli_output o;
	int r;

	if (!output)
		return age_file_open(f, key, 1, err);
	r = cli_output_begin(output, &o, err);
	return r < 0 ? r : cli_output_end(&o, age_file_open(f, key, o.fd, err), err);
}

int cmd_open(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_identities) struct identities *ids = calloc(1, sizeof(*ids));
	CLEANUP(cleanup_age_file) struct age_file file = {.fd = -1};
	CLEANUP(secret_clear) struct secret key = {0};
	CLEANUP(cleanup_close) int in_fd = -1;
	struct open_options o = {0};
	int r, in = 0;

	if (!ids)
		return err_set(err, ERR_FAILED, "out of memory");
	r = parse(cli, argc, argv, &o, err);
	if (r < 0)
		return r;
	if (optind < argc && strcmp(argv[optind], "-") != 0) {
		in = in_fd = open(argv[optind], O_RDONLY | O_CLOEXEC);
		if (in < 0)
			return err_errno(err, errno, "%.300s", argv[optind]);
	}
	r = age_file_load(in, &file, err);
	if (r == 0)
		r = age_check_stanzas(&file.header, err);
	if (r == 0)
		r = add_identities(&o, ids, err);
	if (r == 0)
		r = age_unwrap(&file.header, ids->list, ids->n, &key, err);
	if (r == 0 && o.path)
		r = check_path(&file.header, o.path, err);
	if (r == 0)
		r = write_output(&file, &key, o.output, err);
	return r;
}
