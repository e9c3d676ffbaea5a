#include "broker/keyd.h"

#include "broker/config.h"
#include "broker/spawn.h"
#include "common/age_p256tag.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"

#include "build-config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define HELPER_FD 3

const char *keyd_path(void)
{
	static char path[LIMIT_FILE_PATH_LEN];
	ssize_t n;
	char *slash;

	if (path[0])
		return path;
	n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	if (n > 0) {
		path[n] = '\0';
		slash = strrchr(path, '/');
		/* build/tools/cotter, build/broker/cotterd → build/broker/cotter-keyd */
		strcpy(slash, "/../broker/cotter-keyd");
		if (access(path, X_OK) == 0)
			return path;
	}
	snprintf(path, sizeof(path), "%s", COTTER_KEYD_PATH);
	return path;
}

static size_t add_args(char **argv, size_t n, const char *option, char *const *values, size_t n_values)
{
	for (size_t i = 0; i < n_values; i++) {
		argv[n++] = strdup(option);
		argv[n++] = strdup(values[i]);
	}
	return n;
}

/* The PIN file, the module and key files must stay readable inside the helper's sandbox. */
static size_t add_key_files(char **argv, size_t n, const struct config_provider *c)
{
	for (size_t i = 0; i < c->n_keys; i++) {
		if (c->keys[i].ref[0] == '/') {
			argv[n++] = strdup("-r");
			argv[n++] = strdup(c->keys[i].ref);
		}
	}
	return n;
}

static void percent_decode(char *text)
{
	char hex[3] = {0}, *out = text;

	for (; *text; text++) {
		if (*text == '%' && isxdigit((unsigned char)text[1]) && isxdigit((unsigned char)text[2])) {
			memcpy(hex, text + 1, 2);
			*out++ = (char)strtol(hex, NULL, 16);
			text += 2;
		} else {
			*out++ = *text;
		}
	}
	*out = '\0';
}

/* The path in a URI's attribute, for the helper's sandbox. */
static size_t add_uri_path(char **argv, size_t n, const char *uri, const char *attribute)
{
	const char *at = strstr(uri, attribute);
	size_t len;

	if (!at)
		return n;
	at += strlen(attribute);
	if (strncmp(at, "file:", 5) == 0)
		at += 5;
	len = strcspn(at, "&;");
	if (len == 0 || at[0] != '/')
		return n;
	argv[n++] = strdup("-r");
	argv[n] = strndup(at, len);
	if (argv[n])
		percent_decode(argv[n]);
	return n + 1;
}

static char **build_argv(const struct config_provider *c)
{
	size_t max = 16 + 2 * (c->n_environment + c->n_writable + c->n_readable + c->n_keys), n = 0;
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	char **argv = calloc(max, sizeof(*argv));
	char text[LIMIT_FILE_PATH_LEN];

	if (!argv)
		return NULL;
	argv[n++] = strdup(keyd_path());
	n = add_args(argv, n, "-e", c->environment, c->n_environment);
	n = add_args(argv, n, "-w", c->writable, c->n_writable);
	n = add_args(argv, n, "-r", c->readable, c->n_readable);
	n = add_key_files(argv, n, c);
	n = add_uri_path(argv, n, c->uri, "pin-source=");
	n = add_uri_path(argv, n, c->uri, "module-path=");
	if (credentials) {
		snprintf(text, sizeof(text), "CREDENTIALS_DIRECTORY=%s", credentials);
		argv[n++] = strdup("-e");
		argv[n++] = strdup(text);
		argv[n++] = strdup("-r");
		argv[n++] = strdup(credentials);
	}
	return argv;
}

static void free_argv(char ***argv)
{
	if (*argv)
		for (char **a = *argv; *a; a++)
			free(*a);
	free(*argv);
}

static _Noreturn void child(char **argv, int fd, pid_t parent)
{
	static char *const no_environment[] = {NULL};
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	/* its socket last: null may stand in that place */
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		_exit(1);
#ifndef COTTER_SANITIZE /* whose reports must be seen */
	if (dup2(null, 2) < 0)
		_exit(1);
#endif
	if (dup2(fd, HELPER_FD) < 0)
		_exit(1);
	if (fd == HELPER_FD)
		fcntl(fd, F_SETFD, 0);
	close_range(HELPER_FD + 1, ~0u, 0);
	execve(argv[0], argv, no_environment);
	_exit(127);
}

int keyd_spawn(const struct config_provider *config, int *ret_fd, pid_t *ret_pid, struct err *err)
{
	CLEANUP(free_argv) char **argv = build_argv(config);
	pid_t parent = getpid(), pid;
	int fd;

	if (!argv)
		return err_set(err, ERR_FAILED, "out of memory");
	if (access(argv[0], X_OK) < 0)
		return err_errno(err, errno, "the helper %.300s", argv[0]);
	pid = spawn_fork(SOCK_SEQPACKET, &fd, err);
	if (pid < 0)
		return pid;
	if (pid == 0)
		child(argv, fd, parent);
	*ret_fd = fd;
	*ret_pid = pid;
	return 0;
}

static void failed_pin_path(const char *state_dir, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/refused-pin.%s", state_dir, name);
}

void keyd_load_failed_pin(const char *state_dir, const char *name, char ret[128])
{
	char path[LIMIT_FILE_PATH_LEN + 128];
	CLEANUP(cleanup_close) int fd = -1;
	ssize_t n;

	ret[0] = '\0';
	if (!state_dir)
		return;
	failed_pin_path(state_dir, name, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? 0 : read(fd, ret, 127);
	ret[n > 0 ? n : 0] = '\0';
}

void keyd_store_failed_pin(const char *state_dir, const char *name, const char *hash)
{
	char path[LIMIT_FILE_PATH_LEN + 128], temporary[LIMIT_FILE_PATH_LEN + 136];
	CLEANUP(cleanup_close) int fd = -1;

	if (!state_dir)
		return;
	failed_pin_path(state_dir, name, path, sizeof(path));
	if (!hash[0]) {
		unlink(path);
		return;
	}
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, hash, strlen(hash)) != (ssize_t)strlen(hash) || fdatasync(fd) < 0 || rename(temporary, path) < 0)
		unlink(temporary); /* what was remembered before stays */
}

int keyd_start(const struct config_provider *config, const char *state_dir, struct keyd *k, struct err *err)
{
	char failed_pin[128];
	int r;

	*k = (struct keyd){.config = config, .state_dir = state_dir, .fd = -1};
	k->request = secret_alloc(sizeof(*k->request));
	k->reply = secret_alloc(sizeof(*k->reply));
	if (!k->request || !k->reply)
		r = err_set(err, ERR_BUSY, "the locked memory for secrets is full");
	else
		r = keyd_spawn(config, &k->fd, &k->pid, err);
	if (r == 0) {
		keyd_load_failed_pin(state_dir, config->name, failed_pin);
		keyd_prepare(k, WIRE_OPEN);
		snprintf(k->request->text, sizeof(k->request->text), "%s", config->uri);
		snprintf(k->request->text2, sizeof(k->request->text2), "%s", config->srk_name);
		k->request->data_len = (uint32_t)strlen(failed_pin);
		memcpy(k->request->data, failed_pin, k->request->data_len);
		r = keyd_call(k, err);
	}
	if (r < 0)
		keyd_done(k);
	return r;
}

void keyd_done(struct keyd *k)
{
	if (!k)
		return;
	if (k->fd > 0)
		close(k->fd);
	if (k->pid > 0) {
		/* it ends by itself when its socket closes; a module that hangs does not */
		for (int i = 0; i < 50 && waitpid(k->pid, NULL, WNOHANG) == 0; i++) {
			if (i == 49)
				kill(k->pid, SIGKILL);
			usleep(10000);
		}
	}
	secret_free(k->request);
	secret_free(k->reply);
	*k = (struct keyd){.fd = -1};
}

void keyd_prepare(struct keyd *k, enum wire_op op)
{
	uint32_t id = k->request->id + 1;

	sodium_memzero(k->request, sizeof(*k->request));
	k->request->magic = WIRE_MAGIC;
	k->request->id = id;
	k->request->op = op;
}

static int helper_died(struct keyd *k, struct err *err)
{
	int status = 0;

	if (waitpid(k->pid, &status, 0) == k->pid)
		k->pid = 0;
	close(k->fd);
	k->fd = -1;
	if (WIFSIGNALED(status))
		return err_set(err, ERR_HARDWARE, "the helper for '%s' died of signal %d: the vendor's module crashed", k->config->name,
			       WTERMSIG(status));
	return err_set(err, ERR_HARDWARE, "the helper for '%s' ended with status %d", k->config->name, WEXITSTATUS(status));
}

int keyd_call(struct keyd *k, struct err *err)
{
	struct pollfd p = {.fd = k->fd, .events = POLLIN};
	ssize_t n;
	int ready;

	if (k->fd < 0)
		return err_set(err, ERR_HARDWARE, "the helper for '%s' is not running", k->config->name);
	if (send(k->fd, k->request, wire_request_len(k->request), MSG_NOSIGNAL) < 0)
		return helper_died(k, err);
	/* making a key may take a smartcard long */
	ready = poll(&p, 1, k->request->op == WIRE_MAKE ? 6 * LIMIT_HARDWARE_TIMEOUT_MS : LIMIT_HARDWARE_TIMEOUT_MS);
	if (ready == 0)
		return err_set(err, ERR_HARDWARE, "'%s' does not answer (%d s)", k->config->name, LIMIT_HARDWARE_TIMEOUT_MS / 1000);
	n = recv(k->fd, k->reply, sizeof(*k->reply), 0);
	if (n <= 0)
		return helper_died(k, err);
	if (!wire_reply_valid(k->reply, (size_t)n, k->request->id))
		return err_set(err, ERR_HARDWARE, "the helper for '%s' talks nonsense", k->config->name);
	if (k->reply->result < 0)
		return err_set(err, (enum err_code)-k->reply->result, "%s", k->reply->message);
	return 0;
}

int keyd_login(struct keyd *k, const struct secret *pin, struct err *err)
{
	int r;

	keyd_prepare(k, WIRE_LOGIN);
	if (pin) {
		k->request->number = 1;
		k->request->data_len = (uint32_t)pin->len;
		memcpy(k->request->data, pin->data, pin->len);
	}
	r = keyd_call(k, err);
	sodium_memzero(k->request->data, sizeof(k->request->data));
	if (r == -ERR_PIN && k->reply->data_len && k->reply->data_len < 128) {
		k->reply->data[k->reply->data_len] = '\0';
		keyd_store_failed_pin(k->state_dir, k->config->name, (char *)k->reply->data);
	} else if (r == 0) {
		keyd_store_failed_pin(k->state_dir, k->config->name, "");
	}
	return r;
}

static int agree(void *ctx, const uint8_t peer[P256_POINT_LEN], uint8_t ret[P256_SECRET_LEN], struct err *err)
{
	struct keyd_key *key = ctx;
	struct keyd *k = key->keyd;
	int r = keyd_login(k, NULL, err);

	if (r < 0)
		return r;
	keyd_prepare(k, WIRE_AGREE);
	snprintf(k->request->text, sizeof(k->request->text), "%s", key->ref);
	k->request->data_len = P256_POINT_LEN;
	memcpy(k->request->data, peer, P256_POINT_LEN);
	r = keyd_call(k, err);
	if (r == 0 && k->reply->data_len != P256_SECRET_LEN)
		r = err_set(err, ERR_HARDWARE, "the helper for '%s' talks nonsense", k->config->name);
	if (r == 0)
		memcpy(ret, k->reply->data, P256_SECRET_LEN);
	sodium_memzero(k->reply, sizeof(*k->reply));
	return r;
}

void keyd_identity(struct keyd_key *key, const uint8_t point[P256_POINT_LEN], struct age_identity *ret)
{
	age_p256tag_identity(point, agree, key, ret);
}
