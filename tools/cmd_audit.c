/* cotter audit: reads the log itself; needs no broker. */
#include "broker/audit.h"
#include "broker/config.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <string.h>

struct tail {
	char **lines; /* a ring */
	size_t cap, n;
	bool json;
};

static int keep(void *ctx, const char *line, size_t len)
{
	struct tail *t = ctx;
	char **slot = &t->lines[t->n++ % t->cap];

	free(*slot);
	*slot = strndup(line, len);
	return *slot ? 0 : -ERR_FAILED;
}

/* "key=value key=value" → {"key":"value",…}; a record's bytes need no escape but the backslash. */
static void print_json(const char *line)
{
	bool in_key = true;

	fputs("{\"", stdout);
	for (; *line; line++) {
		if (*line == '=' && in_key)
			fputs("\":\"", stdout);
		else if (*line == ' ')
			fputs("\",\"", stdout);
		else if (*line == '\\' || *line == '"')
			printf("\\%c", *line);
		else
			putchar(*line);
		in_key = *line == ' ' || (in_key && *line != '=');
	}
	puts("\"}");
}

static void print_tail(const struct tail *t)
{
	size_t first = t->n > t->cap ? t->n - t->cap : 0;

	for (size_t i = first; i < t->n; i++) {
		if (t->json)
			print_json(t->lines[i % t->cap]);
		else
			puts(t->lines[i % t->cap]);
	}
}

static int find_log(const char *option, char *ret, size_t size, struct err *err)
{
	struct config config;
	int r;

	if (option) {
		snprintf(ret, size, "%s", option);
		return 0;
	}
	r = config_load(cli_config_path(NULL), &config, err);
	if (r == 0)
		snprintf(ret, size, "%s/audit.log", config.state_dir);
	config_done(&config);
	return r;
}

int cmd_audit(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {
		{"last", required_argument, NULL, 'n'}, {"file", required_argument, NULL, 'f'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(cleanup_close) int fd = -1;
	struct tail tail = {.cap = 20};
	struct merkle tree = {0};
	struct audit_segment segment;
	char path[LIMIT_FILE_PATH_LEN + 16], hex[65];
	const char *file = NULL;
	uint8_t root[32];
	unsigned long long last = 20;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "n:", options, NULL)) != -1) {
		if (opt == 'n')
			r = cli_number(cli, optarg, 1000000, "--last", &last, err);
		else if (opt == 'f')
			file = optarg;
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	if (r < 0)
		return r;
	if (optind != argc || last == 0)
		return cli_usage(cli, err, "--last takes a number from 1 to 1000000");
	tail.cap = last;
	r = find_log(file, path, sizeof(path), err);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "%.300s", path);
	tail.json = cli->json;
	tail.lines = calloc(tail.cap, sizeof(*tail.lines));
	if (!tail.lines)
		return err_set(err, ERR_FAILED, "out of memory");
	r = audit_scan(fd, &tree, keep, &tail, &segment, err);
	print_tail(&tail);
	merkle_root(&tree, root);
	sodium_bin2hex(hex, sizeof(hex), root, sizeof(root));
	if (r == 0 && !cli->json)
		printf("%llu records, numbered without a gap; root %s%s\n", (unsigned long long)tree.size, hex,
		       segment.torn ? "; a line is being written" : "");
	for (size_t i = 0; i < tail.cap; i++)
		free(tail.lines[i]);
	free(tail.lines);
	return r;
}
