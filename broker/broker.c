#include "broker/broker.h"

#include "broker/cgroup.h"
#include "broker/key_rule.h"
#include "broker/received.h"
#include "broker/sandbox.h"
#include "broker/server.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

bool broker_is_operator(const struct broker *b, uint32_t uid)
{
	return config_has_id(b->config.operators, b->config.n_operators, uid);
}

static void set_sealed(struct broker *b, const char *reason)
{
	if (strcmp(b->sealed_reason, reason) != 0)
		log_warn("sealed: %s", reason);
	snprintf(b->sealed_reason, sizeof(b->sealed_reason), "%.255s", reason);
}

static void record(struct broker *b, const char *event, const char *result, const char *why)
{
	struct audit_event e = {.event = event, .uid = geteuid(), .job = "", .secret = "", .result = result, .why = why};

	audit_write(&b->audit, &e, NULL, NULL);
}

static void record_refusals(void *ctx, uint32_t uid, uint64_t cgroup, bool several, uint64_t n)
{
	struct broker *b = ctx;
	char why[64];
	struct audit_event e = {.event = "refused", .uid = several ? UINT32_MAX : uid, .cgroup = cgroup, .job = "", .secret = "",
				.result = "denied", .why = why};

	snprintf(why, sizeof(why), "repeated=%llu%s", (unsigned long long)n, several ? " by several users" : "");
	audit_write(&b->audit, &e, NULL, NULL);
}

void broker_record_refusals(struct broker *b, bool all)
{
	refusals_flush(&b->refusals, token_boot_ms(), all, record_refusals, b);
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
		crypto_kdf_derive_from_key(sub, sizeof(sub), 3, "cot-hmac", key->data);
		secret_clear(&b->hmac_key);
		r = secret_copy(&b->hmac_key, sub, sizeof(sub), err);
	}
	if (r == 0) {
		crypto_kdf_derive_from_key(sub, sizeof(sub), 2, "cot-tok1", key->data);
		r = tokens_load(&b->tokens, &b->store, &b->config, sub, err);
		if (r == 0)
			r = jobs_load(&b->jobs, err);
		if (r == 0)
			r = leases_load(b, err);
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
		jobs_drop(&b->jobs);
		tokens_done(&b->tokens);
		if (result == -ERR_TAMPERED) {
			record(b, "store.tampered", "failed", message);
			return;
		}
		secret_clear(&b->store.mac_key);
		b->retry_open_ms = token_boot_ms() + 2000;
		return;
	}
	b->unsealed = true;
	record(b, "unsealed", "granted", "");
	log_info("unsealed: answering on %s", b->config.socket);
	key_rules_check(b);
}

void broker_open_store(struct broker *b)
{
	if (b->unsealed || b->opening || b->store.mac_key.len)
		return;
	b->opening = true;
	unseal_start(&b->unseals, BROKER_STORE_KEY_PATH, 1, b->store_key_file, b->store_key_file_len, false, 0, store_opened, b);
}

void broker_reload(struct broker *b)
{
	struct config next;
	struct err err = {0};
	int r = config_load(b->config.file, &next, &err);

	if (r == 0) {
		r = config_reload(&b->config, &next, &err);
		config_done(&next);
	}
	if (r < 0) {
		log_error("the configuration stays as it was: %s", err.msg);
		record(b, "config.reload", "failed", "the file is not right: the log says why");
		return;
	}
	cache_set_ttl(&b->cache, b->config.cache_ms);
	log_info("the configuration was read again: %zu policies, %zu roles, %zu issuers", b->config.n_policies, b->config.n_roles,
		 b->config.n_issuers);
	record(b, "config.reload", "granted", "");
	key_rules_decide(b);
	key_rules_check(b);
}

void broker_tick(struct broker *b, uint64_t now_ms)
{
	bool ready = false;

	if (b->unsealed || b->retry_open_ms == 0 || now_ms < b->retry_open_ms)
		return;
	b->retry_open_ms = 0;
	for (size_t i = 0; i < b->hardware.n_providers; i++)
		ready |= b->hardware.providers[i].state == HARDWARE_READY;
	if (ready) /* else its becoming ready is the next try */
		broker_open_store(b);
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

/* For the files of keys that a TPM makes. */
static int make_key_dir(const char *state_dir, struct err *err)
{
	char dir[LIMIT_FILE_PATH_LEN + 8];

	snprintf(dir, sizeof(dir), "%s/" CONFIG_KEY_DIR, state_dir);
	return mkdir(dir, 0700) == 0 || errno == EEXIST ? 0 : err_errno(err, errno, "%.300s", dir);
}

/* sd_notify(3)'s protocol, in the one message that is needed: the socket is made before the sandbox is shut, the word
 * sent after. */
struct notify {
	int fd;
	struct sockaddr_un addr;
	socklen_t len;
};

static void notify_prepare(const char *address, struct notify *n)
{
	size_t len = strlen(address);

	*n = (struct notify){.fd = -1, .addr.sun_family = AF_UNIX};
	if (len == 0 || len >= sizeof(n->addr.sun_path))
		return;
	memcpy(n->addr.sun_path, address, len);
	if (address[0] == '@')
		n->addr.sun_path[0] = '\0';
	n->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static void notify_ready(struct notify *n)
{
	if (n->fd < 0)
		return;
	if (sendto(n->fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&n->addr, n->len) < 0)
		log_warn("the service manager cannot be told: %s", strerror(errno));
	close(n->fd);
}

static void folder_of(const char *file, char *ret, size_t size)
{
	char *slash;

	snprintf(ret, size, "%s", file);
	slash = strrchr(ret, '/');
	if (!slash)
		snprintf(ret, size, ".");
	else if (slash != ret)
		*slash = '\0';
	/* not all of /etc for one file in it */
	if (slash == ret || strcmp(ret, "/etc") == 0)
		snprintf(ret, size, "%s", file);
}

static int sandbox(struct broker *b, struct err *err)
{
	char socket_dir[sizeof(b->config.socket)], operator_dir[sizeof(b->config.operator_socket)];
	char config_dir[LIMIT_FILE_PATH_LEN];
	CLEANUP(cleanup_free) char(*jwks_dirs)[LIMIT_FILE_PATH_LEN] = NULL;
	const struct sandbox_path paths[] = {
		{b->config.state_dir, SANDBOX_WRITE}, {socket_dir, SANDBOX_WRITE}, {operator_dir, SANDBOX_WRITE}, {"/proc/sys/kernel/random/boot_id", SANDBOX_READ},
		{"/dev/urandom", SANDBOX_READ}, {"/etc/localtime", SANDBOX_READ},
		/* a reload reads the configuration and key sets again; they may be replaced, so their folders count */
		{config_dir, SANDBOX_READ}, {"/proc", SANDBOX_READ}, {cgroup_root() ? cgroup_root() : "", SANDBOX_READ},
	};
	struct sandbox_path all[sizeof(paths) / sizeof(paths[0]) + LIMIT_ISSUERS];
	size_t n = sizeof(paths) / sizeof(paths[0]);
	int level, r;

	snprintf(socket_dir, sizeof(socket_dir), "%s", b->config.socket);
	*strrchr(socket_dir, '/') = '\0';
	snprintf(operator_dir, sizeof(operator_dir), "%s", b->config.operator_socket);
	*strrchr(operator_dir, '/') = '\0';
	folder_of(b->config.file, config_dir, sizeof(config_dir));
	memcpy(all, paths, sizeof(paths));
	jwks_dirs = calloc(b->config.n_issuers + 1, LIMIT_FILE_PATH_LEN);
	if (!jwks_dirs)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; i < b->config.n_issuers; i++) {
		folder_of(b->config.issuers[i].jwks_file, jwks_dirs[i], LIMIT_FILE_PATH_LEN);
		all[n++] = (struct sandbox_path){jwks_dirs[i], SANDBOX_READ};
	}
	r = sandbox_files(all, n, &level, err);
	if (r < 0)
		return r;
	if (level == 0)
		log_warn("this kernel has no Landlock: cotterd's files are protected by their modes alone");
	else if (open("/etc/shadow", O_RDONLY | O_CLOEXEC) >= 0)
		return err_set(err, ERR_FAILED, "the sandbox does not hold: /etc/shadow can be opened");
	/* a thread keeps the files of the domain it was started in */
	r = audit_start_sync(&b->audit, err);
	if (r < 0)
		return r;
	return sandbox_broker_syscalls(err);
}

int broker_start(struct broker *b, int launcher_fd, struct server *server, const char *notify, struct err *err)
{
	char store_path[LIMIT_FILE_PATH_LEN + 32];
	struct notify told;
	int r = check_state_dir(b->config.state_dir, err);

	if (r == 0)
		r = make_key_dir(b->config.state_dir, err);
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
		r = jobs_init(&b->jobs, b, err);
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
		record(b, "start", "granted", COTTER_VERSION);
	engines_init(&b->engines, launcher_fd, server->epoll_fd);
	notify_prepare(notify, &told);
	if (r == 0)
		r = sandbox(b, err);
	if (r == 0)
		notify_ready(&told);
	return r;
}

void broker_stop(struct broker *b, struct server *server)
{
	if (b->server)
		server_done(server);
	crl_done(b);
	unseals_done(&b->unseals);
	engines_stop(&b->engines);
	leases_done(b);
	if (b->hardware.n_providers)
		hardware_stop(&b->hardware);
	if (b->server) {
		broker_record_refusals(b, true);
		received_write(&b->jobs);
		record(b, "stop", "granted", "");
	}
	jobs_done(&b->jobs);
	rates_done(&b->rates);
	jwks_done(&b->jwks);
	tokens_done(&b->tokens);
	secret_clear(&b->hmac_key);
	cache_done(&b->cache);
	if (b->store.db)
		store_close(&b->store);
	if (b->audit.dir_fd > 0)
		audit_close(&b->audit);
	free(b->store_key_file);
	config_done(&b->config);
}
