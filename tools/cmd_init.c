/* cotter init: a first set-up. Makes a sealing key in each provider, the configuration, and the store's own sealed key. */
#include "broker/broker.h"
#include "broker/cgroup.h"
#include "broker/peer.h"
#include "broker/providers.h"
#include "broker/yaml_schema.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/enrol.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#define LABEL "cotter-seal"

struct init {
	const char *dir, *state_dir, *socket, *pcrs, *unseal;
	char config_path[LIMIT_FILE_PATH_LEN + 32];
	struct config_provider providers[LIMIT_PROVIDERS];
	struct enrolled keys[LIMIT_PROVIDERS];
	size_t n_providers;
	const char *recovery[LIMIT_RECIPIENTS];
	size_t n_recovery;
	const char *operators[16];
	size_t n_operators;
	bool root_cgroup; /* this machine's processes stand in the root cgroup, as this one does */
};

/* NAME=REST, where NAME was given before by --provider. */
static struct config_provider *named(struct init *in, const char *arg, const char **ret_rest)
{
	size_t n = strcspn(arg, "=");

	*ret_rest = arg[n] ? arg + n + 1 : "";
	for (size_t i = 0; i < in->n_providers; i++)
		if (strlen(in->providers[i].name) == n && memcmp(in->providers[i].name, arg, n) == 0)
			return &in->providers[i];
	return NULL;
}

static int add_provider(struct cli *cli, struct init *in, const char *arg, struct err *err)
{
	size_t n = strcspn(arg, "=");
	struct config_provider *p = &in->providers[in->n_providers];

	if (in->n_providers == LIMIT_PROVIDERS)
		return cli_usage(cli, err, "at most %u providers", LIMIT_PROVIDERS);
	if (n == 0 || n > LIMIT_NAME_LEN || !arg[n])
		return cli_usage(cli, err, "--provider takes NAME=pkcs11:... or NAME=tpm:...");
	if (!providers_find(arg + n + 1) || strlen(arg + n + 1) >= sizeof(p->uri))
		return cli_usage(cli, err, "--provider takes NAME=pkcs11:... or NAME=tpm:...");
	snprintf(p->name, sizeof(p->name), "%.*s", (int)n, arg);
	if (!path_valid(p->name) || strchr(p->name, '/'))
		return cli_usage(cli, err, "a provider's name has letters, digits and ._@+-");
	snprintf(p->uri, sizeof(p->uri), "%s", arg + n + 1);
	in->n_providers++;
	return 0;
}

static int add_to(struct cli *cli, struct init *in, int opt, char *arg, struct err *err)
{
	const char *rest;
	struct config_provider *p = named(in, arg, &rest);
	char ***list;
	size_t *n;
	char **item;

	if (!p || !*rest)
		return cli_usage(cli, err, "expected NAME=..., with NAME given before by --provider");
	list = opt == 'e' ? &p->environment : opt == 'w' ? &p->writable : &p->readable;
	n = opt == 'e' ? &p->n_environment : opt == 'w' ? &p->n_writable : &p->n_readable;
	if (*n == 16)
		return cli_usage(cli, err, "at most 16 of a kind for one provider");
	item = yaml_append(list, n, sizeof(*item));
	if (!item || !(*item = strdup(rest)))
		return err_set(err, ERR_FAILED, "out of memory");
	return 0;
}

static int parse(struct cli *cli, int argc, char **argv, struct init *in, struct err *err)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},	       {"state-dir", required_argument, NULL, 's'},
		{"socket", required_argument, NULL, 'S'},      {"provider", required_argument, NULL, 'p'},
		{"environment", required_argument, NULL, 'e'}, {"writable", required_argument, NULL, 'w'},
		{"readable", required_argument, NULL, 'r'},    {"recovery", required_argument, NULL, 'R'},
		{"operator", required_argument, NULL, 'o'},    {"pcrs", required_argument, NULL, 'P'},
		{"unseal", required_argument, NULL, 'u'},      {0},
	};
	unsigned long long uid;
	int opt, r = 0;

	*in = (struct init){.dir = "/etc/cotter", .state_dir = "/var/lib/cotter", .socket = "/run/cotter/cotter.sock", .pcrs = "",
			    .unseal = "cache 5m"};
	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'd': in->dir = optarg; break;
		case 's': in->state_dir = optarg; break;
		case 'S': in->socket = optarg; break;
		case 'P': in->pcrs = optarg; break;
		case 'u': in->unseal = optarg; break;
		case 'p': r = add_provider(cli, in, optarg, err); break;
		case 'e':
		case 'w':
		case 'r': r = add_to(cli, in, opt, optarg, err); break;
		case 'R':
			if (in->n_recovery == LIMIT_RECIPIENTS - LIMIT_PROVIDERS)
				r = cli_usage(cli, err, "too many --recovery");
			else
				in->recovery[in->n_recovery++] = optarg;
			break;
		case 'o':
			r = cli_number(cli, optarg, UINT32_MAX - 1, "--operator", &uid, err);
			if (in->n_operators == 16)
				r = cli_usage(cli, err, "too many --operator");
			else
				in->operators[in->n_operators++] = optarg;
			break;
		default: r = cli_usage(cli, err, "unknown option"); break;
		}
	}
	if (r == 0 && (optind != argc || in->n_providers == 0))
		r = cli_usage(cli, err, "name at least one --provider");
	if (r == 0 && strcmp(in->unseal, "each-use") != 0 && strncmp(in->unseal, "cache ", 6) != 0)
		r = cli_usage(cli, err, "--unseal takes each-use or 'cache 5m'");
	if (r == 0 && (in->dir[0] != '/' || in->state_dir[0] != '/' || in->socket[0] != '/'))
		r = cli_usage(cli, err, "--dir, --state-dir and --socket take absolute paths");
	snprintf(in->config_path, sizeof(in->config_path), "%s/cotter.yaml", in->dir);
	return r;
}

static int make_dir(const char *path, mode_t mode, struct err *err)
{
	if (mkdir(path, mode) < 0)
		return errno == EEXIST ? 0 : err_errno(err, errno, "cannot make %.300s", path);
	return chmod(path, mode) < 0 ? err_errno(err, errno, "%.300s", path) : 0;
}

static int make_key(struct init *in, size_t i, struct err *err)
{
	struct config_provider p = in->providers[i];
	char *readable[20] = {NULL}, dir[LIMIT_FILE_PATH_LEN];
	struct keyd k = {.fd = -1};
	const char *pcrs = strncmp(p.uri, "tpm:", 4) == 0 ? in->pcrs : "";
	int r;

	snprintf(dir, sizeof(dir), "%s", in->dir);
	for (size_t n = 0; n < p.n_readable && n < 16; n++)
		readable[n] = p.readable[n];
	readable[p.n_readable++] = dir; /* the key file that is written now */
	p.readable = readable;
	printf("%s: making a P-256 sealing key in the hardware ...\n", p.name);
	fflush(stdout);
	r = keyd_start(&p, in->state_dir, &k, err);
	if (r == 0)
		r = enrol_key(&k, PROVIDER_KEY_SEAL, KEY_P256, LABEL, pcrs, in->dir, &in->keys[i], err);
	keyd_done(&k);
	if (r < 0)
		return err_wrap(err, "provider '%s'", p.name);
	printf("%s: made and probed; recipient %s\n", p.name, in->keys[i].recipient);
	return 0;
}

/* A YAML double-quoted scalar. */
static void put_quoted(FILE *f, const char *text)
{
	fputc('"', f);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', f);
		fputc(*text, f);
	}
	fputc('"', f);
}

static void put_list(FILE *f, const char *key, char *const *items, size_t n)
{
	if (n)
		fprintf(f, "    %s:\n", key);
	for (size_t i = 0; i < n; i++) {
		fprintf(f, "      - ");
		put_quoted(f, items[i]);
		fputc('\n', f);
	}
}

static void put_provider(FILE *f, const struct config_provider *p, const struct enrolled *key)
{
	fprintf(f, "  %s:\n    uri: ", p->name);
	put_quoted(f, p->uri);
	fputc('\n', f);
	if (key->srk_name[0])
		fprintf(f, "    srk_name: %s  # pinned: a TPM with another storage root key is refused\n", key->srk_name);
	put_list(f, "environment", p->environment, p->n_environment);
	put_list(f, "writable", p->writable, p->n_writable);
	put_list(f, "readable", p->readable, p->n_readable);
	fprintf(f, "    keys:\n      - recipient: %s\n        key: ", key->recipient);
	put_quoted(f, key->key.ref);
	fputc('\n', f);
}

static bool in_root_cgroup(void)
{
	char path[LIMIT_CGROUP_PATH];

	return peer_supported(NULL) < 0 || !cgroup_root() || cgroup_hint(0, path, NULL) < 0 || strcmp(path, "/") == 0;
}

/* To the name that config_new gives: it becomes the configuration when all else is done. */
static int write_config(const struct init *in, const char *temporary, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *f = NULL;

	f = fopen(temporary, "we");
	if (!f)
		return err_errno(err, errno, "%.300s", temporary);
	fprintf(f, "# cotter's configuration. 'cotterd --check' checks it; cotter.yaml(5) explains every key.\nsocket: ");
	put_quoted(f, in->socket);
	fprintf(f, "\nstate_dir: ");
	put_quoted(f, in->state_dir);
	fprintf(f, "\noperators:\n");
	for (size_t i = 0; i < in->n_operators; i++)
		fprintf(f, "  - %s\n", in->operators[i]);
	if (in->n_operators == 0)
		fprintf(f, "  - %u\n", geteuid());
	fprintf(f, "unseal: %s  # or each-use\naudit:\n  sync: write  # or disk\n\n# any one of these opens what is sealed\nseal:\n  recipients:\n",
		in->unseal);
	for (size_t i = 0; i < in->n_providers; i++)
		fprintf(f, "    - %s  # %s\n", in->keys[i].recipient, in->providers[i].name);
	for (size_t i = 0; i < in->n_recovery; i++)
		fprintf(f, "    - %s  # recovery, kept offline\n", in->recovery[i]);
	fprintf(f, "\nproviders:\n");
	for (size_t i = 0; i < in->n_providers; i++)
		put_provider(f, &in->providers[i], &in->keys[i]);
	/* without cgroups for services, as in a container, everybody would be refused */
	fprintf(f, "\n# callers in the root cgroup have no identity but their uid\njobs:\n  require_cgroup: %s\n", in->root_cgroup ? "false" : "true");
	fprintf(f, "\n# what a token may do: read, create, update, delete, list, sign, decrypt, deny. '+' is one component, a '*' at the end all below\npolicies:\n"
		   "  admin:\n    - path: \"*\"\n      allow: [get, put, delete, list]\n");
	if (fflush(f) != 0 || fchmod(fileno(f), 0644) < 0 || fsync(fileno(f)) < 0)
		return err_errno(err, errno, "%.300s", temporary);
	return 0;
}

static int write_store_key(const struct config *config, struct err *err)
{
	CLEANUP(secret_clear) struct secret key = {0};
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	CLEANUP(cleanup_close) int fd = -1;
	char path[LIMIT_FILE_PATH_LEN + 32];
	struct bind bind;
	size_t len = 0;
	int r = secret_new(&key, BROKER_STORE_KEY_LEN, err);

	if (r < 0)
		return r;
	key.len = BROKER_STORE_KEY_LEN;
	randombytes_buf(key.data, key.len);
	r = bind_init(&bind, BROKER_STORE_KEY_PATH, 1, "type=raw\n", err);
	if (r == 0)
		r = age_seal_memory(config->recipients, config->n_recipients, &bind, &key, &sealed, &len, err);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/%s", config->state_dir, BROKER_STORE_KEY_FILE);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, errno, "%.300s", path);
	r = cli_write_all(fd, sealed, len, err);
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(err, errno, "%.300s", path);
	return r;
}

static int check_first(const struct init *in, struct err *err)
{
	char key[LIMIT_FILE_PATH_LEN + 32];
	struct age_recipient recipient;

	snprintf(key, sizeof(key), "%s/%s", in->state_dir, BROKER_STORE_KEY_FILE);
	if (access(in->config_path, F_OK) == 0)
		return err_set(err, ERR_CONFLICT, "%.300s is there already: edit it, or choose another --dir", in->config_path);
	if (access(key, F_OK) == 0)
		return err_set(err, ERR_CONFLICT, "%.300s is there already: another set-up's store; choose another --state-dir", key);
	for (size_t i = 0; i < in->n_recovery; i++)
		if (age_recipient_parse(in->recovery[i], &recipient, err) < 0)
			return err_wrap(err, "--recovery");
	return 0;
}

static void free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

static void cleanup_init(struct init **in)
{
	for (size_t i = 0; *in && i < LIMIT_PROVIDERS; i++) {
		struct config_provider *p = &(*in)->providers[i];

		free_list(p->environment, p->n_environment);
		free_list(p->writable, p->n_writable);
		free_list(p->readable, p->n_readable);
	}
	free(*in);
}

/* What is wrong with the options shows before a key is made: the configuration as it will be, but for the keys. */
static int check_options(struct init *in, const char *temporary, struct err *err)
{
	static const char recipient[] = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h"; /* anybody's */
	struct config config;
	int r;

	for (size_t i = 0; i < in->n_providers; i++) {
		snprintf(in->keys[i].recipient, sizeof(in->keys[i].recipient), "%s", recipient);
		snprintf(in->keys[i].key.ref, sizeof(in->keys[i].key.ref), "to-be-made");
	}
	r = write_config(in, temporary, err);
	if (r == 0) {
		r = config_load(temporary, &config, err);
		config_done(&config);
	}
	unlink(temporary);
	memset(in->keys, 0, sizeof(in->keys));
	return r;
}

/* A set-up that failed can be tried again: files made by it go (a key in an HSM stays, unused). */
static void undo(const struct init *in, const char *temporary)
{
	unlink(temporary);
	for (size_t i = 0; i < in->n_providers; i++)
		if (in->keys[i].key.ref[0] == '/')
			unlink(in->keys[i].key.ref);
}

int cmd_init(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_init) struct init *in = calloc(1, sizeof(*in));
	struct config config = {0};
	char temporary[LIMIT_FILE_PATH_LEN + 40];
	int r;

	if (!in)
		return err_set(err, ERR_FAILED, "out of memory");
	r = parse(cli, argc, argv, in, err);
	if (r == 0)
		r = check_first(in, err);
	if (r == 0)
		in->root_cgroup = in_root_cgroup();
	if (r == 0)
		r = make_dir(in->dir, 0755, err);
	if (r == 0)
		r = make_dir(in->state_dir, 0700, err);
	snprintf(temporary, sizeof(temporary), "%s.new", in->config_path);
	if (r == 0)
		r = check_options(in, temporary, err);
	for (size_t i = 0; r == 0 && i < in->n_providers; i++)
		r = make_key(in, i, err);
	if (r == 0)
		r = write_config(in, temporary, err);
	if (r == 0)
		r = config_load(temporary, &config, err);
	if (r == 0)
		r = write_store_key(&config, err);
	config_done(&config);
	if (r == 0 && rename(temporary, in->config_path) < 0)
		r = err_errno(err, errno, "%.300s", in->config_path);
	if (r < 0) {
		undo(in, temporary);
		return r;
	}
	printf("wrote %s\n", in->config_path);
	if (in->root_cgroup)
		printf("\nThis machine's processes stand in the root cgroup, or its kernel does not tell: jobs.require_cgroup is false. Start jobs\n"
		       "with 'cotter run' where it may make cgroups; other callers are told apart by their uid alone.\n\n");
	if (in->n_recovery == 0)
		printf("\nWARNING: no recovery recipient. If the hardware is lost, so is every secret. Make a key offline with\n"
		       "'age-keygen', and add its age1... recipient to seal.recipients before the first secret is stored.\n\n");
	printf("next: cotterd --config %s &\n", in->config_path);
	return 0;
}
