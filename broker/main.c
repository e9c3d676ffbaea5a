/* cotterd: the broker. */
#include "broker/broker.h"
#include "broker/launcher.h"
#include "broker/sandbox.h"
#include "broker/server.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/log.h"

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const char usage[] =
	"usage: cotterd [--config FILE] [--check] [--debug]\n"
	"\n"
	"The broker: unseals secrets with hardware keys and hands them to jobs over a Unix socket.\n"
	"\n"
	"  --config FILE  configuration (default: $COTTER_CONFIG or /" COTTER_CONFIG_DEFAULT ")\n"
	"  --check        check the configuration and end: 0 when it is right\n"
	"  --debug        log more\n"
	"  --version, --help\n"
	"\n"
	"It stays in the foreground and ends on SIGTERM. 'cotter init' makes a first configuration. See cotterd(8).\n";

bool broker_is_operator(const struct broker *b, uint32_t uid)
{
	for (size_t i = 0; i < b->config.n_operators; i++)
		if (b->config.operators[i] == uid)
			return true;
	return false;
}

static void set_sealed(struct broker *b, const char *reason)
{
	if (strcmp(b->sealed_reason, reason) != 0)
		log_warn("sealed: %s", reason);
	snprintf(b->sealed_reason, sizeof(b->sealed_reason), "%s", reason);
}

static void audit_own(struct broker *b, const char *event, const char *result, const char *why)
{
	struct audit_event e = {.event = event, .uid = geteuid(), .job = "", .secret = "", .result = result, .why = why};

	audit_write(&b->audit, &e, NULL, NULL);
}

/* From the store's one sealed key to the keys for its MACs and for tokens. */
static int use_store_key(struct broker *b, const struct secret *key, struct err *err)
{
	uint8_t sub[32];
	int r;

	if (key->len != BROKER_STORE_KEY_LEN)
		return err_set(err, ERR_TAMPERED, "%s does not hold a store key", BROKER_STORE_KEY_FILE);
	crypto_kdf_derive_from_key(sub, sizeof(sub), 1, "cot-row1", key->data);
	r = store_unlock(&b->store, sub, err);
	if (r == 0) {
		crypto_kdf_derive_from_key(sub, sizeof(sub), 2, "cot-tok1", key->data);
		r = tokens_load(&b->tokens, &b->store, sub, err);
	}
	sodium_memzero(sub, sizeof(sub));
	return r;
}

static void store_opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message)
{
	struct broker *b = ctx;
	struct err err = {0};

	(void)header;
	b->opening = false;
	if (result == 0) {
		result = use_store_key(b, plain, &err);
		message = err.msg;
	}
	if (result < 0) {
		set_sealed(b, message);
		if (result == -ERR_TAMPERED)
			audit_own(b, "store.tampered", "failed", message);
		return;
	}
	b->unsealed = true;
	audit_own(b, "unsealed", "granted", "");
	log_info("unsealed: answering on %s", b->config.socket);
}

void broker_open_store(struct broker *b)
{
	if (b->unsealed || b->opening || b->store.mac_key.len)
		return;
	b->opening = true;
	unseal_start(&b->unseals, BROKER_STORE_KEY_PATH, 1, b->store_key_file, b->store_key_file_len, false, store_opened, b);
}

static void provider_changed(void *ctx, const struct hardware_provider *p)
{
	struct broker *b = ctx;
	char reason[400];

	if (p->state == HARDWARE_READY) {
		broker_open_store(b);
	} else if (!b->unsealed && !b->opening && p->problem[0]) {
		snprintf(reason, sizeof(reason), "provider '%s': %s", p->config->name, p->problem);
		set_sealed(b, reason);
	}
}

static int read_store_key(struct broker *b, struct err *err)
{
	char path[LIMIT_FILE_PATH_LEN + 32];
	CLEANUP(cleanup_close) int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", b->config.state_dir, BROKER_STORE_KEY_FILE);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return err_set(err, ERR_FAILED, "%.300s is missing: 'cotter init' makes it", path);
	if (fd < 0)
		return err_errno(err, errno, "%.300s", path);
	b->store_key_file = malloc(LIMIT_AGE_HEADER);
	n = b->store_key_file ? read(fd, b->store_key_file, LIMIT_AGE_HEADER) : -1;
	if (n < 0)
		return err_errno(err, errno, "%.300s", path);
	b->store_key_file_len = (size_t)n;
	return 0;
}

static int check_state_dir(const char *dir, struct err *err)
{
	struct stat st;

	if (lstat(dir, &st) < 0)
		return err_errno(err, errno, "state directory %.300s ('cotter init' makes it)", dir);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(err, ERR_FAILED, "state directory %.300s must be a directory of cotterd's user with mode 0700", dir);
	return 0;
}

/* sd_notify(3)'s protocol, in the one message that is needed. The address was read before the environment was cleared. */
static void notify_ready(const char *address)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = strlen(address);
	CLEANUP(cleanup_close) int fd = -1;

	if (len == 0 || len >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, address, len);
	if (address[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&addr,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

static int sandbox(struct broker *b, struct err *err)
{
	char socket_dir[sizeof(b->config.socket)], operator_dir[sizeof(b->config.operator_socket)];
	const struct sandbox_path paths[] = {
		{b->config.state_dir, true}, {socket_dir, true}, {operator_dir, true}, {"/proc/sys/kernel/random/boot_id", false},
		{"/dev/urandom", false}, {"/etc/localtime", false},
	};
	int level, r;

	snprintf(socket_dir, sizeof(socket_dir), "%s", b->config.socket);
	*strrchr(socket_dir, '/') = '\0';
	snprintf(operator_dir, sizeof(operator_dir), "%s", b->config.operator_socket);
	*strrchr(operator_dir, '/') = '\0';
	r = sandbox_files(paths, sizeof(paths) / sizeof(paths[0]), &level, err);
	if (r < 0)
		return r;
	if (level == 0)
		log_warn("this kernel has no Landlock: cotterd's files are protected by their modes alone");
	else if (open("/etc/shadow", O_RDONLY | O_CLOEXEC) >= 0)
		return err_set(err, ERR_FAILED, "the sandbox does not hold: /etc/shadow can be opened");
	return sandbox_broker_syscalls(err);
}

static int start(struct broker *b, int launcher_fd, struct server *server, const char *notify, struct err *err)
{
	char store_path[LIMIT_FILE_PATH_LEN + 32];
	int r = check_state_dir(b->config.state_dir, err);

	snprintf(store_path, sizeof(store_path), "%s/store.db", b->config.state_dir);
	if (r == 0)
		r = read_store_key(b, err);
	if (r == 0)
		r = audit_open(b->config.state_dir, b->config.audit_sync, &b->audit, err);
	if (r == 0)
		r = store_open(store_path, &b->store, err);
	if (r == 0)
		r = cache_init(&b->cache, b->config.cache_ms, err);
	if (r == 0)
		r = server_init(server, b, err);
	if (r < 0)
		return r;
	b->server = server;
	b->started_ms = token_boot_ms();
	b->unseals.hardware = &b->hardware;
	b->hardware.changed = provider_changed;
	b->hardware.changed_ctx = b;
	set_sealed(b, "the hardware has not opened the store's own keys yet");
	r = hardware_init(&b->hardware, &b->config, launcher_fd, server->epoll_fd, err);
	if (r == 0)
		audit_own(b, "start", "granted", COTTER_VERSION);
	notify_ready(notify);
	return r < 0 ? r : sandbox(b, err);
}

static void stop(struct broker *b, struct server *server)
{
	if (b->server)
		server_done(server);
	unseals_done(&b->unseals);
	if (b->hardware.n_providers)
		hardware_stop(&b->hardware);
	if (b->server)
		audit_own(b, "stop", "granted", "");
	tokens_done(&b->tokens);
	cache_done(&b->cache);
	if (b->store.db)
		store_close(&b->store);
	if (b->audit.dir_fd > 0)
		audit_close(&b->audit);
	free(b->store_key_file);
	config_done(&b->config);
}

struct arguments {
	char config[LIMIT_FILE_PATH_LEN], notify[256];
	bool check;
};

static int parse_args(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
						{"debug", no_argument, NULL, 'd'},	  {"version", no_argument, NULL, 'V'},
						{"help", no_argument, NULL, 'h'},	  {0}};
	const char *env = getenv("COTTER_CONFIG"), *notify = getenv("NOTIFY_SOCKET");
	int opt;

	snprintf(a->config, sizeof(a->config), "%s", env && *env ? env : "/" COTTER_CONFIG_DEFAULT);
	snprintf(a->notify, sizeof(a->notify), "%s", notify ? notify : "");
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'c': snprintf(a->config, sizeof(a->config), "%s", optarg); break;
		case 'k': a->check = true; break;
		case 'd': log_set_level(LOG_LEVEL_DEBUG); break;
		case 'V': puts("cotterd " COTTER_VERSION); return 1;
		case 'h': fputs(usage, stdout); return 1;
		default: return -1;
		}
	}
	return optind == argc ? 0 : -1;
}

int main(int argc, char **argv)
{
	static const struct harden harden = {.keep_fd_below = 3, .clear_environment = 1, .arena_size = LIMIT_ARENA_BROKER};
	static struct broker broker;
	static struct server server;
	static struct arguments args;
	char credentials[LIMIT_FILE_PATH_LEN];
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	struct err err = {0};
	sigset_t signals;
	int r = parse_args(argc, argv, &args), launcher_fd = -1;

	if (r != 0) {
		if (r < 0)
			fputs(usage, stderr);
		return r < 0 ? 2 : 0;
	}
	/* before the first thread starts: none may take the signals that end us in order */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	snprintf(credentials, sizeof(credentials), "%s", dir ? dir : "");
	r = harden_start(&harden, &err);
	if (r == 0 && credentials[0])
		setenv("CREDENTIALS_DIRECTORY", credentials, 1);
	json_set_alloc_funcs(secret_alloc, secret_free);
	json_object_seed(0);
	if (r == 0)
		r = config_load(args.config, &broker.config, &err);
	if (r == 0 && args.check) {
		printf("%s: all right: %zu provider%s, %zu recipient%s, %zu polic%s\n", args.config, broker.config.n_providers,
		       broker.config.n_providers == 1 ? "" : "s", broker.config.n_recipients,
		       broker.config.n_recipients == 1 ? "" : "s", broker.config.n_policies,
		       broker.config.n_policies == 1 ? "y" : "ies");
		return 0;
	}
	if (r == 0)
		r = launcher_start(&broker.config, &launcher_fd, &err);
	if (r == 0)
		r = start(&broker, launcher_fd, &server, args.notify, &err);
	if (r == 0)
		r = server_run(&server, &err);
	if (r < 0)
		log_error("%s", err.msg);
	stop(&broker, &server);
	secret_arena_done();
	return err_exit_status(r);
}
