/* cotter run: a command that is a job, out of reach of its siblings, with secrets in its environment and in memory alone, and none in its
 * log. */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/limits.h"
#include "tools/agent_dir.h"
#include "tools/cli.h"
#include "broker/duration.h"
#include "mask/forms.h"
#include "mask/mask.h"
#include "tools/delivery.h"
#include "tools/login.h"
#include "tools/project.h"
#include "tools/settings.h"
#include "tools/supervise.h"
#include "tools/terminal.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>

struct run {
	struct deliveries deliveries;
	struct login login;
	json_t *policies;
	const char *user, *mask_text;
	bool give_token, keys, masks, pty;
	size_t mask_min;
	uint64_t refresh_ms;
	int refresh_signal;
	char agent_dir[32];
	char pkcs11_address[128], ssh_address[128]; /* environment entries */
};

/* Is the entry's variable one that this command is given anew, or not at all? */
static bool is_set(const char *entry, const struct run *o)
{
	static const char token[] = "COTTER_TOKEN=";

	/* the token stays with cotter; the command gets what was asked for */
	if (!o->give_token && strncmp(entry, token, sizeof(token) - 1) == 0)
		return true;
	for (size_t i = 0; i < o->deliveries.n; i++) {
		size_t n = strlen(o->deliveries.list[i].name);

		if (n && strncmp(entry, o->deliveries.list[i].name, n) == 0 && entry[n] == '=')
			return true;
	}
	return false;
}

/* Another agent's. */
static bool is_agents(const char *entry)
{
	return strncmp(entry, "P11_KIT_SERVER_ADDRESS=", 23) == 0 || strncmp(entry, "SSH_AUTH_SOCK=", 14) == 0;
}

static int make_environment(const struct run *o, char ***ret, struct err *err)
{
	size_t count = 0, out = 0;

	while (environ[count])
		count++;
	*ret = calloc(count + o->deliveries.n + 3, sizeof(**ret));
	if (!*ret)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; i < count; i++)
		if (!is_set(environ[i], o) && !(o->keys && is_agents(environ[i])))
			(*ret)[out++] = environ[i];
	for (size_t i = 0; i < o->deliveries.n; i++)
		if (o->deliveries.list[i].entry.len)
			(*ret)[out++] = (char *)o->deliveries.list[i].entry.data;
	if (o->keys) {
		(*ret)[out++] = (char *)(uintptr_t)o->pkcs11_address;
		(*ret)[out++] = (char *)(uintptr_t)o->ssh_address;
	}
	return 0;
}

/* HUP, SIGHUP or a number. */
static int parse_signal(struct cli *cli, const char *text, int *ret, struct err *err)
{
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	unsigned long long n;

	for (int i = 1; i < NSIG; i++) {
		const char *known = sigabbrev_np(i);

		if (known && strcasecmp(known, name) == 0) {
			*ret = i;
			return 0;
		}
	}
	*ret = cli_number(cli, text, NSIG - 1, "--refresh-signal", &n, err) == 0 && n ? (int)n : 0;
	return *ret ? 0 : cli_usage(cli, err, "--refresh-signal takes a signal's name, not '%.32s'", text);
}

static const struct option options[] = {
	{"env", required_argument, NULL, 'e'},	    {"file", required_argument, NULL, 'F'},	      {"fd", required_argument, NULL, 'd'},
	{"stdin", required_argument, NULL, 'i'},    {"template", required_argument, NULL, 'T'},	      {"project", optional_argument, NULL, 'P'},
	{"refresh", required_argument, NULL, 'R'},  {"refresh-signal", required_argument, NULL, 's'}, {"mask", required_argument, NULL, 'm'},
	{"mask-min", required_argument, NULL, 'M'}, {"no-mask", no_argument, NULL, 'N'},	      {"no-pty", no_argument, NULL, 'Y'},
	{"policy", required_argument, NULL, 'p'},   {"role", required_argument, NULL, 'r'},	      {"jwt-file", required_argument, NULL, 'f'},
	{"ttl", required_argument, NULL, 't'},	    {"name", required_argument, NULL, 'n'},	      {"user", required_argument, NULL, 'u'},
	{"give-token", no_argument, NULL, 'g'},	    {"keys", no_argument, NULL, 'k'},		      {0}};

/* What the command is given, and what becomes of its output. */
static int take_secret_option(struct cli *cli, int opt, struct run *o, struct err *err)
{
	unsigned long long n;
	int r;

	switch (opt) {
	case 'e': return delivery_add(&o->deliveries, DELIVERY_ENV, optarg, err);
	case 'F': return delivery_add(&o->deliveries, DELIVERY_FILE, optarg, err);
	case 'd': return delivery_add(&o->deliveries, DELIVERY_FD, optarg, err);
	case 'i': return delivery_add(&o->deliveries, DELIVERY_STDIN, optarg, err);
	case 'T': return delivery_add(&o->deliveries, DELIVERY_TEMPLATE, optarg, err);
	case 'P': return project_read(&o->deliveries, optarg ? optarg : "cotter.yaml", err);
	case 'R':
		o->refresh_ms = 1000 * duration_parse(optarg, strlen(optarg), LIMIT_REFRESH_S);
		return o->refresh_ms ? 0 : cli_usage(cli, err, "--refresh takes a time from 1s to a day, such as 5m");
	case 's': return parse_signal(cli, optarg, &o->refresh_signal, err);
	case 'm': o->mask_text = optarg; return 0;
	case 'M':
		r = cli_number(cli, optarg, LIMIT_SECRET_LEN, "--mask-min", &n, err);
		o->mask_min = r == 0 ? (size_t)n : 0;
		return r;
	case 'N': o->masks = false; return 0;
	case 'Y': o->pty = false; return 0;
	default: return cli_usage(cli, err, "unknown option");
	}
}

static int take_job_option(struct cli *cli, int opt, struct run *o, struct err *err)
{
	switch (opt) {
	case 'p': return json_array_append_new(o->policies, json_string(optarg)) < 0 ? cli_usage(cli, err, "not a policy's name") : 0;
	case 'r': o->login.role = optarg; return 0;
	case 'f': o->login.jwt_file = optarg; return 0;
	case 't': o->login.ttl = optarg; return 0;
	case 'n': o->login.name = optarg; return 0;
	case 'u': o->user = optarg; return 0;
	case 'g': o->give_token = true; return 0;
	case 'k': o->keys = true; return 0;
	default: return take_secret_option(cli, opt, o, err);
	}
}

static int parse(struct cli *cli, int argc, char **argv, struct run *o, struct err *err)
{
	int opt, r = 0;

	o->login.uses = o->login.uid = -1;
	o->masks = o->pty = true;
	o->mask_min = FORMS_MIN_DEFAULT;
	o->refresh_signal = SIGHUP;
	o->policies = json_array();
	optind = 0; /* it may be read a second time */
	while (r == 0 && (opt = getopt_long(argc, argv, "+e:", options, NULL)) != -1)
		r = take_job_option(cli, opt, o, err);
	if (r == -ERR_USAGE)
		return cli_usage(cli, err, "%.250s", err->msg);
	if (r < 0)
		return r;
	if (optind >= argc)
		return cli_usage(cli, err, "name a command behind --");
	if (json_array_size(o->policies) && o->login.role)
		return cli_usage(cli, err, "either --policy, an operator's word, or --role");
	if (o->login.jwt_file && !o->login.role)
		return cli_usage(cli, err, "--jwt-file goes with --role");
	if (o->refresh_ms && !o->deliveries.n)
		return cli_usage(cli, err, "--refresh goes with secrets");
	o->login.policies = json_array_size(o->policies) ? o->policies : NULL;
	o->deliveries.follows = o->refresh_ms != 0;
	/* without secrets there is nothing to hide */
	o->masks = o->masks && (o->deliveries.n || o->give_token);
	return 0;
}

static int find_user(const char *name, struct passwd **ret, struct err *err)
{
	errno = 0;
	*ret = getpwnam(name);
	if (!*ret)
		return err_set(err, ERR_USAGE, "there is no user '%.64s'%s%s", name, errno ? ": " : "", errno ? strerror(errno) : "");
	if (geteuid() != 0)
		return err_set(err, ERR_USAGE, "--user needs root");
	return 0;
}

static int become(const struct passwd *pw, struct err *err)
{
	if (initgroups(pw->pw_name, pw->pw_gid) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return err_errno(err, errno, "cannot become %.64s", pw->pw_name);
	if (setenv("HOME", pw->pw_dir, 1) < 0 || setenv("USER", pw->pw_name, 1) < 0 || setenv("LOGNAME", pw->pw_name, 1) < 0)
		return err_set(err, ERR_FAILED, "out of memory");
	return 0;
}

/* Says what the machine cannot do; refuses where the configuration demands it. */
static int check_isolation(struct job_launch *l, uid_t uid, struct err *err)
{
	struct settings settings;
	bool kernel = l->isolated;

	/* the kernel lets root read what others may not, from any domain */
	l->isolated = kernel && uid != 0;
	if (l->isolated)
		return 0;
	settings_load(&settings);
	if (settings.require_isolation)
		return err_set(err, ERR_UNSUPPORTED, kernel ? "a job that runs as root cannot be isolated, and jobs.require_isolation is true: use --user"
							    : "this kernel cannot isolate jobs of one uid (Landlock ABI 6, Linux 6.12), and "
							      "jobs.require_isolation is true");
	fputs(kernel ? "cotter: this job runs as root, so that other jobs of root can read its environment: --user is better\n"
		     : "cotter: this kernel cannot isolate jobs of one uid from each other (Landlock ABI 6, Linux 6.12)\n", stderr);
	return 0;
}

/* From here on this process is the job: cgroup, leader, token. The token is in this process's environment alone, which the command
 * gets only when it is to have it. */
static int become_job(struct run *o, struct job_launch *l, const struct passwd *pw, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	int r = job_launch_cgroup(l, err);

	if (r == 0 && !l->own_cgroup)
		fprintf(stderr, "cotter: no cgroup of its own could be made: the job ends with its leader alone\n");
	o->login.leader = getpid();
	o->login.launch = l;
	o->login.uid = o->login.policies && pw ? (long long)pw->pw_uid : -1;
	/* an operator speaks before it becomes the job's user, the job itself after that */
	if (r == 0 && pw && !o->login.policies)
		r = become(pw, err);
	if (r == 0)
		r = login_token(&o->login, &token, NULL, err);
	if (r == 0 && pw && o->login.policies)
		r = become(pw, err);
	if (r == 0)
		r = secret_append(&token, "", 1, err);
	if (r == 0 && setenv("COTTER_TOKEN", (char *)token.data, 1) < 0)
		r = err_set(err, ERR_FAILED, "out of memory");
	return r;
}

/* Before the job begins: what stays outside of it is to know what to remove. */
static int make_agent_dir(struct run *o, struct job_launch *l, const struct passwd *pw, struct err *err)
{
	snprintf(o->agent_dir, sizeof(o->agent_dir), "/tmp/cotter-XXXXXX");
	if (!mkdtemp(o->agent_dir))
		return err_errno(err, errno, "%s", o->agent_dir);
	l->agent_dir = o->agent_dir;
	return !pw || chown(o->agent_dir, pw->pw_uid, pw->pw_gid) == 0 ? 0 : err_errno(err, errno, "%s", o->agent_dir);
}

/* What makes us end as the agent did. */
static enum err_code code_of(int status)
{
	static const enum err_code codes[] = {ERR_DENIED, ERR_SEALED, ERR_NO_BROKER};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (WIFEXITED(status) && WEXITSTATUS(status) == err_exit_status(codes[i]))
			return codes[i];
	return ERR_FAILED;
}

/* cotter agent, in this job; the token goes to it by a pipe. It ends with this process, whatever that becomes. */
static int start_agent(struct run *o, struct err *err)
{
	char self[512], leader[16], *dir = o->agent_dir;
	const char *token = getenv("COTTER_TOKEN");
	CLEANUP(cleanup_close) int in = -1;
	CLEANUP(cleanup_close) int out = -1;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int fds[2], status = 0;
	pid_t pid;

	if (!token || !*token)
		return err_set(err, ERR_USAGE, "--keys needs a token: COTTER_TOKEN, --policy or --role");
	if (n < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, errno, "the agent cannot be started");
	in = fds[0];
	out = fds[1];
	self[n] = '\0';
	snprintf(leader, sizeof(leader), "%d", (int)getpid());
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(in, 0);
		dup2(null, 1);
		unsetenv("COTTER_TOKEN");
		execl(self, self, "agent", "--leader", leader, "--dir", dir, (char *)NULL);
		_exit(1);
	}
	if (pid < 0 || write(out, token, strlen(token)) < 0)
		return err_errno(err, errno, "the agent cannot be started");
	close(steal_fd(&out));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return err_set(err, code_of(status), "the job has no keys (see above)");
	snprintf(o->pkcs11_address, sizeof(o->pkcs11_address), "P11_KIT_SERVER_ADDRESS=unix:path=%s/%s", dir, AGENT_PKCS11_SOCKET);
	snprintf(o->ssh_address, sizeof(o->ssh_address), "SSH_AUTH_SOCK=%s/%s", dir, AGENT_SSH_SOCKET);
	return 0;
}

static void cleanup_run(struct run **o)
{
	if (*o) {
		delivery_done(&(*o)->deliveries);
		json_decref((*o)->policies);
	}
	free(*o);
	*o = NULL;
}

/* What else than the masker needs a parent: somebody has to remove files, or to look again. */
static bool wants_parent(const struct run *o)
{
	for (size_t i = 0; i < o->deliveries.n; i++)
		if (o->deliveries.list[i].target[0])
			return true;
	return o->refresh_ms != 0;
}

static int mask_token(struct mask_values *values, struct err *err)
{
	const char *token = getenv("COTTER_TOKEN");
	bool added;

	return token && *token ? mask_values_add(values, token, strlen(token), "token", &added, err) : 0;
}

static int supervise(struct cli *cli, char **argv, struct run *o, const struct terminal *t, struct err *err)
{
	CLEANUP(cleanup_free) char **environment = NULL;
	CLEANUP(mask_values_free) struct mask_values *values = NULL;
	struct supervise s = {.argv = argv, .saved = cli->saved, .deliveries = &o->deliveries, .mask_text = o->mask_text, .terminal = *t,
			      .confine = job_launch_isolate, .refresh_ms = (unsigned int)o->refresh_ms, .refresh_signal = o->refresh_signal};
	int status = 0, r = make_environment(o, &environment, err);

	s.environment = environment;
	if (r == 0 && o->masks)
		r = mask_values_new(o->mask_min, true, NULL, 0, &values, err);
	if (r == 0 && o->masks && o->give_token)
		r = mask_token(values, err);
	if (r == 0 && o->masks)
		r = delivery_mask(&o->deliveries, values, err);
	if (r < 0)
		return err_wrap(err, "what it prints cannot be masked (--no-mask shows it as it is)");
	s.values = values;
	if (r == 0)
		r = supervise_run(&s, &status, err);
	if (r == 0)
		cli->end = (struct cli_end){true, status};
	return r;
}

static int become_command(struct cli *cli, char **argv, struct run *o, struct err *err)
{
	CLEANUP(cleanup_free) char **environment = NULL;
	int r = job_launch_isolate(err);

	if (r == 0)
		r = make_environment(o, &environment, err);
	if (r == 0 && delivery_place(&o->deliveries) < 0)
		r = err_set(err, ERR_FAILED, "the command's descriptors cannot be put in place");
	if (r < 0)
		return r;
	harden_before_exec(cli->saved);
	execvpe(argv[0], argv, environment);
	return err_errno(err, errno, "%.200s", argv[0]);
}

/* The job: registered where it is to be, its secrets in place, and what it may not reach closed to it. */
static int prepare(struct run *o, struct job_launch *launch, struct err *err)
{
	struct passwd *pw = NULL;
	bool registers = o->login.policies || o->login.role;
	int r = o->user ? find_user(o->user, &pw, err) : 0;

	if (r == 0)
		r = check_isolation(launch, pw ? pw->pw_uid : geteuid(), err);
	if (r == 0 && o->keys)
		r = make_agent_dir(o, launch, pw, err);
	if (r == 0)
		r = delivery_prepare(&o->deliveries, pw ? pw->pw_uid : geteuid(), pw ? pw->pw_gid : getegid(), err);
	if (r == 0 && registers)
		r = become_job(o, launch, pw, err);
	if (r == 0)
		r = delivery_fetch(&o->deliveries, err);
	/* a token that came from outside may be bound to the cgroup this process stands in */
	if (r == 0 && !registers && !o->give_token && !o->keys && !o->refresh_ms)
		r = job_launch_cgroup(launch, err);
	else if (r == 0 && !registers)
		r = job_launch_files(launch, err);
	if (r == 0 && !registers && pw)
		r = become(pw, err);
	if (r == 0)
		r = delivery_make(&o->deliveries, err);
	/* it stands outside of the domain that is made next: the command does not reach it but by its sockets */
	return r == 0 && o->keys ? start_agent(o, err) : r;
}

int cmd_run(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_run) struct run *o = calloc(1, sizeof(*o));
	const char *files[LIMIT_RUN_DELIVERIES + 1] = {NULL};
	struct terminal terminal = {-1, -1, -1};
	struct job_launch launch = {.files = files};
	int r, status;

	if (!o)
		return err_set(err, ERR_FAILED, "out of memory");
	r = parse(cli, argc, argv, o, err);
	if (r == 0 && o->masks && o->pty && (isatty(1) || isatty(2))) {
		/* before anything stands in the arena, which the job's process does not inherit */
		cleanup_run(&o);
		r = terminal_split(LIMIT_ARENA_TOOL, &terminal, &status, err);
		if (r == 1)
			cli->end = (struct cli_end){true, status};
		if (r != 0)
			return r < 0 ? r : 0;
		o = calloc(1, sizeof(*o));
		r = o ? parse(cli, argc, argv, o, err) : err_set(err, ERR_FAILED, "out of memory");
	}
	if (r < 0)
		return r;
	for (size_t i = 0, n = 0; i < o->deliveries.n; i++)
		if (o->deliveries.list[i].target[0])
			files[n++] = o->deliveries.list[i].target;
	job_launch_look(&launch);
	r = prepare(o, &launch, err);
	if (r == 0)
		r = o->masks || wants_parent(o) ? supervise(cli, argv + optind, o, &terminal, err) : become_command(cli, argv + optind, o, err);
	if (r < 0 && o->agent_dir[0])
		agent_dir_remove(o->agent_dir, true, true);
	return r;
}
