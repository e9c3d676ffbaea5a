/*
 * cotter-keyd: the helper process that alone talks to one key provider. Its socket is descriptor 3. One request is answered at a time, but for
 * signatures where the configuration says how many the hardware can make at once (parallel): as many threads each take the next. Started with an empty environment; what a vendor's module needs in it (SOFTHSM2_CONF=…) stands in
 * the configuration and comes as arguments "-e NAME=VALUE", paths it may write as "-w PATH", read as "-r PATH".
 */
#include "broker/providers.h"
#include "broker/sandbox.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "common/secret.h"
#include "common/wire.h"

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

#define SOCKET_FD 3
#define MAX_PATHS 192u /* the usual ones, sixteen of each kind from the configuration, a file a key */

struct thread {
	struct keyd *keyd;
	unsigned int number;
	struct wire_request *q;
	struct wire_reply *a;
	pthread_t id;
};

struct keyd {
	const struct provider_ops *ops;
	struct provider *provider;
	pthread_rwlock_t lock; /* read: signatures beside each other; write: all else */
	struct thread threads[LIMIT_PARALLEL]; /* the first is the process's own */
	unsigned int n_threads;
	_Atomic bool nonsense; /* a request was none */
	struct sandbox_path paths[MAX_PATHS];
	size_t n_paths;
};

static int sandbox(struct keyd *k, struct err *err)
{
	int level, r = sandbox_files(k->paths, k->n_paths, &level, err);

	return r < 0 ? r : sandbox_keyd_syscalls(err);
}

static void *serve(void *arg);

/* From here on, so that they are in the sandbox, too. */
static int start_threads(struct keyd *k, unsigned int n, struct err *err)
{
	for (; k->n_threads < n; k->n_threads++) {
		struct thread *t = &k->threads[k->n_threads];

		*t = (struct thread){.keyd = k, .number = k->n_threads, .q = secret_alloc(sizeof(*t->q)), .a = secret_alloc(sizeof(*t->a))};
		if (!t->q || !t->a || pthread_create(&t->id, NULL, serve, t) != 0)
			return err_set(err, ERR_FAILED, "the helper cannot start a thread");
	}
	return 0;
}

static int do_open(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	char failed_pin[LIMIT_WIRE_DATA + 1] = "";
	struct provider_config config = {.uri = q->text, .srk_name = q->text2, .failed_pin = failed_pin};
	int r;

	(void)a;
	if (k->provider)
		return err_set(err, ERR_USAGE, "the provider is open already");
	k->ops = providers_find(q->text);
	if (!k->ops)
		return err_set(err, ERR_INPUT, "unknown provider: a URI starts with pkcs11: or tpm:");
	memcpy(failed_pin, q->data, q->data_len);
	if (q->number > (k->ops->sign_beside ? LIMIT_PARALLEL : 1))
		return err_set(err, ERR_INPUT, "parallel: so many at once it cannot do");
	r = k->ops->open(&config, &k->provider, err);
	/* the module is loaded: from here on only its files */
	if (r == 0)
		r = sandbox(k, err);
	return r < 0 ? r : start_threads(k, q->number, err);
}

static int do_login(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	CLEANUP(secret_clear) struct secret pin = {0};
	int r = 0;

	(void)a;
	if (q->data_len > LIMIT_PIN_LEN)
		return err_set(err, ERR_INPUT, "the PIN is too long");
	if (q->data_len)
		r = secret_copy(&pin, q->data, q->data_len, err);
	if (r == 0)
		r = k->ops->login(k->provider, pin.len ? &pin : NULL, q->number == 1, err);
	return r;
}

static int do_status(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	(void)q;
	(void)err;
	k->ops->status(k->provider, &a->status);
	return 0;
}

static int do_list(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	if (q->number >= LIMIT_KEYS)
		return err_set(err, ERR_NOT_FOUND, "no more keys");
	return k->ops->list(k->provider, q->number, &a->key, err);
}

static int do_make(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	int r = k->ops->make(k->provider, q->number ? PROVIDER_KEY_SIGN : PROVIDER_KEY_SEAL, (enum key_type)q->type, q->text, q->text2, &a->key,
			     (char *)a->data, err);

	a->data_len = r < 0 ? 0 : (uint32_t)strnlen((char *)a->data, sizeof(a->data));
	return r;
}

static int do_find(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	return k->ops->find(k->provider, q->text, &a->key, err);
}

static int do_agree(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	if (q->data_len != P256_POINT_LEN || p256_check(q->data, err) < 0)
		return err_set(err, ERR_INPUT, "not a point on P-256");
	a->data_len = P256_SECRET_LEN;
	return k->ops->agree(k->provider, q->text, q->data, a->data, err);
}

static struct provider_sign what_to_sign(const struct wire_request *q)
{
	return (struct provider_sign){.scheme = (enum sign_scheme)q->number, .hash = (enum hash_type)q->hash, .salt_len = q->salt_len, .data = q->data, .len = q->data_len};
}

/* Never an unchecked pair of key and scheme: modules crash on some. */
static int check_sign(const struct wire_request *q, struct err *err)
{
	const struct provider_sign sign = what_to_sign(q);

	return q->number < SIGN_SCHEMES ? sign_check((enum key_type)q->type, sign.scheme, sign.hash, sign.salt_len, sign.len, err)
					: err_set(err, ERR_INPUT, "unknown scheme");
}

static int do_sign(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	const struct provider_sign sign = what_to_sign(q);
	size_t len = 0;
	int r = check_sign(q, err);

	if (r == 0)
		r = k->ops->sign(k->provider, q->text, &sign, a->data, &len, err);
	a->data_len = (uint32_t)len;
	return r;
}

static int do_random(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	if (q->number > sizeof(a->data))
		return err_set(err, ERR_INPUT, "too many random bytes at once");
	a->data_len = q->number;
	return k->ops->random(k->provider, a->data, q->number, err);
}

static int (*const handlers[WIRE_N])(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err) = {
	[WIRE_OPEN] = do_open,	 [WIRE_LOGIN] = do_login, [WIRE_STATUS] = do_status,
	[WIRE_LIST] = do_list,	 [WIRE_MAKE] = do_make,	  [WIRE_FIND] = do_find,
	[WIRE_AGREE] = do_agree, [WIRE_SIGN] = do_sign,	  [WIRE_RANDOM] = do_random,
};

static void answer(struct keyd *k, const struct wire_request *q, struct wire_reply *a)
{
	struct err err = {0};

	if (q->op != WIRE_OPEN && !k->provider)
		a->result = err_set(&err, ERR_USAGE, "the provider is not open");
	else
		a->result = handlers[q->op](k, q, a, &err);
	if (a->result < 0)
		a->data_len = 0;
	if (a->result == -ERR_PIN && k->provider) {
		/* whichever operation it was that had to log in again */
		snprintf((char *)a->data, 128, "%s", k->ops->failed_pin(k->provider));
		a->data_len = (uint32_t)strlen((char *)a->data);
	}
	snprintf(a->message, sizeof(a->message), "%.255s", err.msg);
}

/* A signature beside others, if it can be made so. */
static bool answer_beside(const struct thread *t)
{
	const struct keyd *k = t->keyd;
	const struct provider_sign sign = what_to_sign(t->q);
	size_t len = 0;

	if (t->q->op != WIRE_SIGN || !k->provider || !k->ops->sign_beside || check_sign(t->q, NULL) < 0 ||
	    !k->ops->sign_beside(k->provider, t->number, t->q->text, &sign, t->a->data, &len))
		return false;
	t->a->data_len = (uint32_t)len;
	return true;
}

/* False: there is an end to it. */
static bool serve_one(const struct thread *t)
{
	struct keyd *k = t->keyd;
	struct wire_request *q = t->q;
	struct wire_reply *a = t->a;
	ssize_t n = recv(SOCKET_FD, q, sizeof(*q), 0);
	bool beside;

	if (n < 0 && errno == EINTR)
		return true;
	if (n == 0)
		return false; /* whoever started us is gone */
	if (n < 0 || !wire_request_valid(q, (size_t)n)) {
		k->nonsense = true;
		return false;
	}
	*a = (struct wire_reply){.magic = WIRE_MAGIC, .id = q->id, .op = q->op};
	pthread_rwlock_rdlock(&k->lock);
	beside = answer_beside(t);
	pthread_rwlock_unlock(&k->lock);
	if (!beside) {
		pthread_rwlock_wrlock(&k->lock);
		answer(k, q, a);
		pthread_rwlock_unlock(&k->lock);
	}
	n = send(SOCKET_FD, a, wire_reply_len(a), MSG_NOSIGNAL);
	sodium_memzero(q, sizeof(*q));
	sodium_memzero(a, sizeof(*a));
	pthread_rwlock_rdlock(&k->lock);
	if (n >= 0 && k->provider && k->ops->ahead)
		k->ops->ahead(k->provider, t->number);
	pthread_rwlock_unlock(&k->lock);
	return n >= 0;
}

static void *serve(void *arg)
{
	const struct thread *t = arg;

	while (serve_one(t))
		;
	/* the others end, too; a module that hangs while it ends does not stay */
	alarm(LIMIT_HARDWARE_TIMEOUT_MS / 1000);
	shutdown(SOCKET_FD, SHUT_RDWR);
	return NULL;
}

/* What has to be done alone does not wait for ever for signatures that overtake each other. */
static void lock_init(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

static bool add_path(struct keyd *k, const char *path, enum sandbox_access access)
{
	if (k->n_paths == MAX_PATHS)
		return false;
	k->paths[k->n_paths++] = (struct sandbox_path){path, access};
	return true;
}

/* Where PKCS#11 modules, smartcard stacks and TPMs live on Debian. */
static void default_paths(struct keyd *k)
{
	static const struct sandbox_path usual[] = {
		{"/usr", SANDBOX_READ}, {"/lib", SANDBOX_READ}, {"/lib64", SANDBOX_READ}, {"/etc/ld.so.cache", SANDBOX_READ}, {"/etc/pkcs11", SANDBOX_READ},
		{"/etc/softhsm", SANDBOX_READ}, {"/etc/opensc", SANDBOX_READ}, {"/etc/ssl", SANDBOX_READ}, {"/etc/hosts", SANDBOX_READ},
		{"/etc/resolv.conf", SANDBOX_READ}, {"/etc/nsswitch.conf", SANDBOX_READ}, {"/etc/host.conf", SANDBOX_READ},
		{"/etc/gai.conf", SANDBOX_READ}, {"/proc", SANDBOX_READ}, {"/sys", SANDBOX_READ}, {"/run", SANDBOX_WRITE}, {"/dev", SANDBOX_WRITE},
		{"/var/lib/softhsm", SANDBOX_WRITE}, {"/var/lock", SANDBOX_WRITE},
	};

	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		add_path(k, usual[i].path, usual[i].access);
}

static int parse_args(struct keyd *k, int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "e:r:w:")) != -1) {
		if (opt == 'e' && putenv(optarg) == 0)
			continue;
		if ((opt == 'r' || opt == 'w') && add_path(k, optarg, opt == 'w' ? SANDBOX_WRITE : SANDBOX_READ))
			continue;
		return -1;
	}
	return 0;
}

/* Whoever started us died. Its socket closes, too, and we end in order: log out, flush the TPM. A module that hangs
 * does not keep us here. */
static void parent_died(int signal_number)
{
	(void)signal_number;
	alarm(LIMIT_HARDWARE_TIMEOUT_MS / 1000);
}

int main(int argc, char **argv)
{
	static const char usage[] = "cotter-keyd " COTTER_VERSION ": talks to one HSM, smartcard or TPM for cotterd and cotter,\n"
				    "which start it; it is of no use by hand. See cotter-keyd(8).\n";
	static const struct harden harden = {
		.keep_fd_below = SOCKET_FD + 1, .clear_environment = 1, .arena_size = LIMIT_ARENA_KEYD};
	static struct keyd k;
	struct thread *first = &k.threads[k.n_threads++];
	struct err err = {0};
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
		fputs(usage, argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	if (harden_start(&harden, &err) < 0)
		return 1;
	signal(SIGINT, SIG_IGN); /* a terminal's, meant for the command */
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, parent_died);
	setenv("P11_KIT_NO_USER_CONFIG", "1", 1);
	setenv("LC_ALL", "C", 1);
	default_paths(&k);
	if (parse_args(&k, argc, argv) < 0)
		return 2;
	lock_init(&k.lock);
	*first = (struct thread){.keyd = &k, .q = secret_alloc(sizeof(*first->q)), .a = secret_alloc(sizeof(*first->a))};
	if (!first->q || !first->a)
		return 1;
	serve(first);
	for (unsigned int i = 1; i < k.n_threads; i++)
		pthread_join(k.threads[i].id, NULL);
	for (unsigned int i = 0; i < k.n_threads; i++) {
		secret_free(k.threads[i].q);
		secret_free(k.threads[i].a);
	}
	if (k.provider)
		k.ops->close(k.provider);
	secret_arena_done();
	return k.nonsense;
}
