/* cotter run: a command with secrets in its environment, and in no other place. */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/kv.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#define ENV_MAX 64

struct env {
	const char *name; /* terminated by '=' in argv */
	size_t name_len;
	char path[LIMIT_PATH_LEN + 1];
	const char *field;
	struct secret value;
};

static int parse_env(struct cli *cli, const char *arg, struct env *e, struct err *err)
{
	e->name = arg;
	e->name_len = strcspn(arg, "=");
	for (size_t i = 0; i < e->name_len; i++)
		if (!((arg[i] >= 'A' && arg[i] <= 'Z') || (arg[i] >= 'a' && arg[i] <= 'z') || arg[i] == '_' ||
		      (i && arg[i] >= '0' && arg[i] <= '9')))
			e->name_len = 0;
	if (!e->name_len || !arg[e->name_len])
		return cli_usage(cli, err, "--env takes NAME=path or NAME=path#field");
	return kv_parse_ref(arg + e->name_len + 1, e->path, &e->field, err);
}

static int fetch(struct env *e, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret value = {0};
	json_t *object;
	int r = kv_fetch(e->path, 0, &reply, &object, err);

	if (r == 0)
		r = kv_field(object, e->field, e->path, &value, err);
	if (r == 0 && memchr(value.data, 0, value.len))
		r = err_set(err, ERR_INPUT, "%s holds a NUL byte: it cannot be an environment variable", e->path);
	/* NAME=value, as execve wants it: built in the arena, copied by the kernel alone */
	if (r == 0)
		r = secret_new(&e->value, e->name_len + value.len + 2, err);
	if (r < 0)
		return r;
	memcpy(e->value.data, e->name, e->name_len + 1);
	memcpy(e->value.data + e->name_len + 1, value.data, value.len);
	return 0;
}

static bool is_set(const char *entry, const struct env *envs, size_t n)
{
	static const char token[] = "COTTER_TOKEN=";

	/* the token stays with cotter; the command gets what was asked for */
	if (strncmp(entry, token, sizeof(token) - 1) == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (strncmp(entry, envs[i].name, envs[i].name_len + 1) == 0)
			return true;
	return false;
}

static int exec_with(const struct cli *cli, char **argv, struct env *envs, size_t n, struct err *err)
{
	CLEANUP(cleanup_free) char **environment = NULL;
	size_t count = 0, out = 0;

	while (environ[count])
		count++;
	environment = calloc(count + n + 1, sizeof(*environment));
	if (!environment)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; i < count; i++)
		if (!is_set(environ[i], envs, n))
			environment[out++] = environ[i];
	for (size_t i = 0; i < n; i++)
		environment[out++] = (char *)envs[i].value.data;
	harden_before_exec(cli->saved);
	execvpe(argv[0], argv, environment);
	return err_errno(err, errno, "%.200s", argv[0]);
}

int cmd_run(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"env", required_argument, NULL, 'e'}, {0}};
	CLEANUP(cleanup_free) struct env *envs = calloc(ENV_MAX, sizeof(*envs));
	size_t n = 0;
	int opt, r = 0;

	if (!envs)
		return err_set(err, ERR_FAILED, "out of memory");
	while (r == 0 && (opt = getopt_long(argc, argv, "+e:", options, NULL)) != -1) {
		if (opt != 'e')
			return cli_usage(cli, err, "unknown option");
		if (n == ENV_MAX)
			return cli_usage(cli, err, "at most %d --env", ENV_MAX);
		r = parse_env(cli, optarg, &envs[n++], err);
	}
	if (r == 0 && optind >= argc)
		r = cli_usage(cli, err, "name a command behind --");
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fetch(&envs[i], err);
	if (r == 0)
		r = exec_with(cli, argv + optind, envs, n, err);
	for (size_t i = 0; i < n; i++)
		secret_clear(&envs[i].value);
	return r;
}
