/* cotterd: the broker. */
#include "broker/broker.h"
#include "broker/launcher.h"
#include "broker/policy_lint.h"
#include "broker/server.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/log.h"

#include "build-config.h"

#include <getopt.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <string.h>

/* For the private keys of pki/issue: bytes of locked memory, a power of two. */
#define SECURE_HEAP 65536u

static const char usage[] =
	"usage: cotterd [--config FILE] [--check] [--debug]\n"
	"\n"
	"The broker: unseals secrets with hardware keys and hands them to jobs over a Unix socket.\n"
	"\n"
	"  --config FILE  configuration (default: $COTTER_CONFIG or " COTTER_CONFIG_DEFAULT ")\n"
	"  --check        check the configuration and end: 0 when it is right, with the warnings of 'cotter policy lint'\n"
	"  --debug        log more\n"
	"  --version, --help\n"
	"\n"
	"It stays in the foreground, ends on SIGTERM, and reads its policies and roles again on SIGHUP. 'cotter init' makes a first configuration. See cotterd(8).\n";

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

	snprintf(a->config, sizeof(a->config), "%s", env && *env ? env : COTTER_CONFIG_DEFAULT);
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

/* What libcrypto makes for pki/issue is in locked memory, too. */
static int lock_libcrypto(struct err *err)
{
#ifdef __SANITIZE_ADDRESS__
	(void)err; /* it does not look for pointers there, and would call all that they point to a leak */
	return 0;
#else
	return CRYPTO_secure_malloc_init(SECURE_HEAP, 32) == 1
		       ? 0
		       : err_set(err, ERR_FAILED, "%u more bytes of locked memory are needed: raise RLIMIT_MEMLOCK (LimitMEMLOCK=)", SECURE_HEAP);
#endif
}

static void print_warning(void *ctx, const char *role, const char *text)
{
	(void)ctx;
	log_warn("role '%s': %s", role, text);
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
	sigaddset(&signals, SIGHUP); /* reads the configuration again */
	sigprocmask(SIG_BLOCK, &signals, NULL);
	snprintf(credentials, sizeof(credentials), "%s", dir ? dir : "");
	r = harden_start(&harden, &err);
	if (r == 0 && credentials[0])
		setenv("CREDENTIALS_DIRECTORY", credentials, 1);
	if (r == 0)
		r = lock_libcrypto(&err);
	json_set_alloc_funcs(secret_alloc, secret_free);
	json_object_seed(0);
	if (r == 0)
		r = config_load(args.config, &broker.config, &err);
	if (r == 0 && args.check) {
		policy_lint(&broker.config, print_warning, NULL);
		printf("%s: all right: %zu provider%s, %zu recipient%s, %zu polic%s\n", args.config, broker.config.n_providers,
		       broker.config.n_providers == 1 ? "" : "s", broker.config.n_recipients,
		       broker.config.n_recipients == 1 ? "" : "s", broker.config.n_policies,
		       broker.config.n_policies == 1 ? "y" : "ies");
		return 0;
	}
	if (r == 0)
		r = launcher_start(&broker.config, &launcher_fd, &err);
	if (r == 0)
		r = broker_start(&broker, launcher_fd, &server, args.notify, &err);
	if (r == 0)
		r = server_run(&server, &err);
	if (r < 0)
		log_error("%s", err.msg);
	broker_stop(&broker, &server);
	secret_arena_done();
	return err_exit_status(r);
}
