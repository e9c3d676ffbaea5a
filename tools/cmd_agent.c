/* cotter agent: the job's keys on sockets of its own, for tools that speak PKCS#11 or ssh-agent. */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/agent.h"
#include "tools/agent_dir.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
	const char *dir;
	pid_t leader;
	bool foreground;
};

/* Told when it serves: prints what a shell evaluates, and lets go of the terminal and of whoever waits. */
struct starting {
	const char *dir;
	int parent; /* -1: it stays in the foreground */
	int null;   /* opened before the sandbox is closed */
};

static void ready(void *ctx)
{
	const struct starting *s = ctx;

	printf("P11_KIT_SERVER_ADDRESS=unix:path=%s/%s; export P11_KIT_SERVER_ADDRESS;\n", s->dir, AGENT_PKCS11_SOCKET);
	printf("SSH_AUTH_SOCK=%s/%s; export SSH_AUTH_SOCK;\n", s->dir, AGENT_SSH_SOCKET);
	fflush(stdout);
	if (s->parent < 0)
		return;
	for (int fd = 0; fd <= 2; fd++)
		dup2(s->null, fd);
	if (write(s->parent, "1", 1) < 0)
		return; /* it will wait for our end instead */
	close(s->parent);
}

static int make_dir(const struct options *o, char ret[80], struct err *err)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	struct stat st;

	if (o->dir) {
		if (strlen(o->dir) >= 80 || o->dir[0] != '/')
			return err_set(err, ERR_USAGE, "--dir is an absolute path of less than 80 bytes");
		snprintf(ret, 80, "%s", o->dir);
		if (mkdir(ret, 0700) == 0)
			return 0;
		if (errno != EEXIST || lstat(ret, &st) < 0)
			return err_errno(err, errno, "%s", ret);
		return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022)
			       ? 0
			       : err_set(err, ERR_USAGE, "%s is there, but not a directory of yours that nobody else can write to", ret);
	}
	if (!base || base[0] != '/' || strlen(base) > 50 || access(base, W_OK) < 0)
		base = "/tmp";
	snprintf(ret, 80, "%s/cotter-XXXXXX", base);
	return mkdtemp(ret) ? 0 : err_errno(err, errno, "%s", ret);
}

static int read_token(struct secret *ret, struct err *err)
{
	const char *env = getenv("COTTER_TOKEN");
	int r;

	if (env && *env)
		return secret_copy(ret, env, strlen(env), err);
	r = cli_read_secret("-", LIMIT_TOKEN_TEXT + 2, ret, err);
	if (r == 0)
		cli_chomp(ret);
	return r == 0 && ret->len == 0 ? err_set(err, ERR_USAGE, "set COTTER_TOKEN, or give the token on standard input") : r;
}

static int serve(const struct options *o, int parent, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	CLEANUP(cleanup_close) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct agent_options a = {.leader_pidfd = -1, .confine = true};
	struct starting s = {.dir = a.dir, .parent = parent, .null = null};
	int r = null < 0 ? err_errno(err, errno, "/dev/null") : read_token(&token, err);

	if (r == 0 && o->leader) {
		a.leader_pidfd = (int)syscall(SYS_pidfd_open, o->leader, 0);
		r = a.leader_pidfd < 0 ? err_errno(err, errno, "process %d", (int)o->leader) : 0;
	}
	if (r == 0)
		r = make_dir(o, a.dir, err);
	a.token = &token;
	if (r == 0)
		r = agent_run(&a, ready, &s, err);
	if (a.leader_pidfd >= 0)
		close(a.leader_pidfd);
	return r;
}

/* The child serves; whoever started us goes on when it says that it does, or hears why not. */
static int serve_behind(const struct options *o, struct err *err)
{
	CLEANUP(cleanup_close) int ours = -1;
	CLEANUP(cleanup_close) int theirs = -1;
	int pipe_fds[2], status = 0;
	char byte;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	ours = pipe_fds[0];
	theirs = pipe_fds[1];
	pid = fork();
	if (pid < 0)
		return err_errno(err, errno, "fork");
	if (pid == 0) {
		int r = secret_arena_child(LIMIT_ARENA_AGENT, err);

		setsid();
		return r < 0 ? r : serve(o, theirs, err);
	}
	close(steal_fd(&theirs));
	if (read(ours, &byte, 1) == 1)
		return 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* it said why */
	_exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

int cmd_agent(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'}, {"leader", required_argument, NULL, 'l'}, {"foreground", no_argument, NULL, 'f'}, {0}};
	struct options o = {0};
	unsigned long long n;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'd': o.dir = optarg; break;
		case 'l':
			if (cli_number(cli, optarg, INT32_MAX, "--leader", &n, err) < 0)
				return -ERR_USAGE;
			o.leader = (pid_t)n;
			break;
		case 'f': o.foreground = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (optind != argc)
		return cli_usage(cli, err, "'%.60s' is one word too many", argv[optind]);
	return o.foreground ? serve(&o, -1, err) : serve_behind(&o, err);
}
