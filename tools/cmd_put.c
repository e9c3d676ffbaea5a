/* cotter put: a new version, from standard input, from a file, or sealed elsewhere. A value never stands in argv. */
#include "broker/json.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/age_file.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <string.h>

struct put_options {
	const char *field, *data, *sealed;
	long long cas;
	bool keep_newline;
};

static int parse(struct cli *cli, int argc, char **argv, struct put_options *o, struct err *err)
{
	static const struct option options[] = {
		{"field", required_argument, NULL, 'f'}, {"data", required_argument, NULL, 'd'}, {"sealed", required_argument, NULL, 's'},
		{"cas", required_argument, NULL, 'c'},	 {"keep-newline", no_argument, NULL, 'n'}, {"json", no_argument, NULL, 'j'}, {0}};
	int opt;
	char *end;

	*o = (struct put_options){.field = "value", .cas = -1};
	while ((opt = getopt_long(argc, argv, "f:", options, NULL)) != -1) {
		switch (opt) {
		case 'f': o->field = optarg; break;
		case 'd': o->data = optarg; break;
		case 's': o->sealed = optarg; break;
		case 'n': o->keep_newline = true; break;
		case 'j': cli->json = true; break;
		case 'c':
			o->cas = strtoll(optarg, &end, 10);
			if (*end || o->cas < 0)
				return cli_usage(cli, err, "--cas takes the version that is current now (0: none)");
			break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (argc - optind > 1)
		return cli_usage(cli, err, "a value is read from standard input, never from the command line");
	if (argc - optind != 1)
		return cli_usage(cli, err, "name one secret");
	if (!path_valid(argv[optind]))
		return cli_usage(cli, err, "'%.100s' is not a secret's path", argv[optind]);
	return 0;
}

static int plain_body(const struct put_options *o, json_t *body, struct err *err)
{
	CLEANUP(secret_clear) struct secret value = {0};
	json_t *data = NULL;
	int r = cli_read_secret(o->data ? o->data : "-", LIMIT_SECRET_LEN, &value, err);

	if (r < 0)
		return r;
	if (o->data) {
		if (json_parse((char *)value.data, value.len, &data, NULL) < 0)
			return err_set(err, ERR_INPUT, "%.200s is not a JSON object", o->data);
	} else {
		if (!o->keep_newline)
			cli_chomp(&value);
		data = json_pack("{s:o?}", o->field, json_stringn((char *)value.data, value.len));
		if (!data || !json_is_string(json_object_get(data, o->field)))
			return err_set(err, ERR_INPUT, "the value is not UTF-8 text: seal it with 'cotter seal' and use --sealed");
	}
	json_object_set_new(body, "data", data);
	return 0;
}

/* The dearmored file, as it is. */
static int sealed_body(const struct put_options *o, json_t *body, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(o->sealed, O_RDONLY | O_CLOEXEC);
	CLEANUP(cleanup_free) uint8_t *raw = malloc(LIMIT_SEALED_LEN + 1);
	CLEANUP(secret_clear) struct secret text = {0};
	struct age_file file = {.fd = -1};
	ssize_t n = 0, got = 1;
	size_t cap;
	int r;

	if (fd < 0)
		return err_errno(err, errno, "%.300s", o->sealed);
	r = raw ? age_file_load(fd, &file, err) : err_set(err, ERR_FAILED, "out of memory");
	if (r == 0 && lseek(file.fd, 0, SEEK_SET) < 0)
		r = err_errno(err, errno, "%.300s", o->sealed);
	while (r == 0 && got > 0 && n <= (ssize_t)LIMIT_SEALED_LEN) {
		got = read(file.fd, raw + n, LIMIT_SEALED_LEN + 1 - (size_t)n);
		n += got > 0 ? got : 0;
	}
	age_file_done(&file);
	if (r < 0)
		return r;
	if (n > (ssize_t)LIMIT_SEALED_LEN)
		return err_set(err, ERR_LIMIT, "%.200s is larger than %u bytes", o->sealed, LIMIT_SEALED_LEN);
	cap = sodium_base64_ENCODED_LEN((size_t)n, sodium_base64_VARIANT_ORIGINAL);
	r = secret_new(&text, cap, err);
	if (r < 0)
		return r;
	sodium_bin2base64((char *)text.data, cap, raw, (size_t)n, sodium_base64_VARIANT_ORIGINAL);
	json_object_set_new(body, "sealed", json_string((char *)text.data));
	return 0;
}

int cmd_put(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(client_json_free) json_t *body = json_object();
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	struct put_options o;
	char url[LIMIT_PATH_LEN + 64];
	int r = parse(cli, argc, argv, &o, err);

	if (r == 0)
		r = o.sealed ? sealed_body(&o, body, err) : plain_body(&o, body, err);
	if (r < 0)
		return r;
	if (o.cas >= 0)
		json_object_set_new(body, "options", json_pack("{s:I}", "cas", (json_int_t)o.cas));
	snprintf(url, sizeof(url), o.sealed ? "/v1/cotter/sealed/%s" : "/v1/secret/data/%s", argv[optind]);
	r = client_call(CLIENT_JOB, "POST", url, body, &reply, err);
	if (r < 0)
		return err_wrap(err, "%s", argv[optind]);
	if (cli->json) {
		json_dumpf(client_data(&reply), stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		printf("%s: version %lld\n", argv[optind], (long long)json_integer_value(client_at(client_data(&reply), "version")));
	}
	return 0;
}
