/* cotter run: a command that is a job, out of reach of its siblings, with secrets in its environment and in no other place. */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "broker/config.h"
#include "common/limits.h"
#include "tools/agent.h"
#include "tools/cli.h"
#include "tools/kv.h"
#include "tools/login.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>

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

static bool is_set(const char *entry, const struct env *envs, size_t n, bool keep_token)
{
	static const char token[] = "COTTER_TOKEN=";

	/* the token stays with cotter; the command gets what was asked for */
	if (!keep_token && strncmp(entry, token, sizeof(token) - 1) == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (strncmp(entry, envs[i].name, envs[i].name_len + 1) == 0)
			return true;
	return false;
}

/* Another agent's. */
static bool is_agents(const char *entry)
{
	return strncmp(entry, "P11_KIT_SERVER_ADDRESS=", 23) == 0 || strncmp(entry, "SSH_AUTH_SOCK=", 14) == 0;
}

struct run {
	struct env envs[ENV_MAX];
	size_t n_envs;
	struct login login;
	json_t *policies;
	const char *user;
	bool give_token, keys;
	char agent_dir[32];
	char pkcs11_address[128], ssh_address[128]; /* environment entries */
};

static int exec_with(const struct cli *cli, char **argv, struct run *o, struct err *err)
{
	CLEANUP(cleanup_free) char **environment = NULL;
	const struct env *envs = o->envs;
	size_t count = 0, out = 0, n = o->n_envs;

	while (environ[count])
		count++;
	environment = calloc(count + n + 3, sizeof(*environment));
	if (!environment)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; i < count; i++)
		if (!is_set(environ[i], envs, n, o->give_token) && !(o->keys && is_agents(environ[i])))
			environment[out++] = environ[i];
	for (size_t i = 0; i < n; i++)
		environment[out++] = (char *)envs[i].value.data;
	if (o->keys) {
		environment[out++] = o->pkcs11_address;
		environment[out++] = o->ssh_address;
	}
	harden_before_exec(cli->saved);
	execvpe(argv[0], argv, environment);
	return err_errno(err, errno, "%.200s", argv[0]);
}

static int parse(struct cli *cli, int argc, char **argv, struct run *o, struct err *err)
{
	static const struct option options[] = {
		{"env", required_argument, NULL, 'e'},	{"policy", required_argument, NULL, 'p'},   {"role", required_argument, NULL, 'r'},
		{"jwt-file", required_argument, NULL, 'f'}, {"ttl", required_argument, NULL, 't'},  {"name", required_argument, NULL, 'n'},
		{"user", required_argument, NULL, 'u'}, {"give-token", no_argument, NULL, 'g'}, {"keys", no_argument, NULL, 'k'}, {0}};
	int opt, r = 0;

	o->login.uses = o->login.uid = -1;
	while (r == 0 && (opt = getopt_long(argc, argv, "+e:", options, NULL)) != -1) {
		switch (opt) {
		case 'e':
			if (o->n_envs == ENV_MAX)
				return cli_usage(cli, err, "at most %d --env", ENV_MAX);
			r = parse_env(cli, optarg, &o->envs[o->n_envs++], err);
			break;
		case 'p':
			r = json_array_append_new(o->policies, json_string(optarg)) < 0 ? cli_usage(cli, err, "not a policy's name") : 0;
			break;
		case 'r': o->login.role = optarg; break;
		case 'f': o->login.jwt_file = optarg; break;
		case 't': o->login.ttl = optarg; break;
		case 'n': o->login.name = optarg; break;
		case 'u': o->user = optarg; break;
		case 'g': o->give_token = true; break;
		case 'k': o->keys = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (r < 0)
		return r;
	if (optind >= argc)
		return cli_usage(cli, err, "name a command behind --");
	if (json_array_size(o->policies) && o->login.role)
		return cli_usage(cli, err, "either --policy, an operator's word, or --role");
	if (o->login.jwt_file && !o->login.role)
		return cli_usage(cli, err, "--jwt-file goes with --role");
	o->login.policies = json_array_size(o->policies) ? o->policies : NULL;
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
	struct config config;
	bool required = false, kernel = l->isolated;

	/* the kernel lets root read what others may not, from any domain */
	l->isolated = kernel && uid != 0;
	if (l->isolated)
		return 0;
	if (config_load(cli_config_path(NULL), &config, NULL) == 0) {
		required = config.require_isolation;
		config_done(&config);
	}
	if (required)
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
		return err_set(err, ERR_FAILED, "the job has no keys (see above)");
	snprintf(o->pkcs11_address, sizeof(o->pkcs11_address), "P11_KIT_SERVER_ADDRESS=unix:path=%s/%s", dir, AGENT_PKCS11_SOCKET);
	snprintf(o->ssh_address, sizeof(o->ssh_address), "SSH_AUTH_SOCK=%s/%s", dir, AGENT_SSH_SOCKET);
	return 0;
}

static void cleanup_run(struct run **o)
{
	for (size_t i = 0; *o && i < (*o)->n_envs; i++)
		secret_clear(&(*o)->envs[i].value);
	if (*o)
		json_decref((*o)->policies);
	free(*o);
}

int cmd_run(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_run) struct run *o = calloc(1, sizeof(*o));
	struct job_launch launch = {0};
	struct passwd *pw = NULL;
	bool registers;
	int r;

	if (!o)
		return err_set(err, ERR_FAILED, "out of memory");
	o->policies = json_array();
	job_launch_look(&launch);
	r = parse(cli, argc, argv, o, err);
	if (r == 0 && o->user)
		r = find_user(o->user, &pw, err);
	if (r == 0)
		r = check_isolation(&launch, pw ? pw->pw_uid : geteuid(), err);
	registers = o->login.policies || o->login.role;
	if (r == 0 && o->keys)
		r = make_agent_dir(o, &launch, pw, err);
	if (r == 0 && registers)
		r = become_job(o, &launch, pw, err);
	for (size_t i = 0; r == 0 && i < o->n_envs; i++)
		r = fetch(&o->envs[i], err);
	/* a token that came from outside may be bound to the cgroup this process stands in */
	if (r == 0 && !registers && !o->give_token && !o->keys)
		r = job_launch_cgroup(&launch, err);
	if (r == 0 && !registers && pw)
		r = become(pw, err);
	/* it stands outside of the domain that is made next: the command does not reach it but by its sockets */
	if (r == 0 && o->keys)
		r = start_agent(o, err);
	if (r == 0)
		r = job_launch_isolate(err);
	if (r < 0 && o->agent_dir[0])
		agent_remove_dir(o->agent_dir);
	return r < 0 ? r : exec_with(cli, argv + optind, o, err);
}
