/*
 * cotter-keyd: the helper process that alone talks to one key provider. Its socket is descriptor 3, one request is
 * answered at a time. Started with an empty environment; what a vendor's module needs in it (SOFTHSM2_CONF=…) stands in
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
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

#define SOCKET_FD 3
#define MAX_PATHS 192u /* the usual ones, sixteen of each kind from the configuration, a file a key */

struct keyd {
	const struct provider_ops *ops;
	struct provider *provider;
	struct sandbox_path paths[MAX_PATHS];
	size_t n_paths;
};

static int sandbox(struct keyd *k, struct err *err)
{
	int level, r = sandbox_files(k->paths, k->n_paths, &level, err);

	return r < 0 ? r : sandbox_keyd_syscalls(err);
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
	r = k->ops->open(&config, &k->provider, err);
	/* the module is loaded: from here on only its files */
	return r < 0 ? r : sandbox(k, err);
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

static int do_sign(struct keyd *k, const struct wire_request *q, struct wire_reply *a, struct err *err)
{
	const struct provider_sign sign = {.scheme = (enum sign_scheme)q->number, .hash = (enum hash_type)q->hash, .salt_len = q->salt_len,
					   .data = q->data, .len = q->data_len};
	size_t len = 0;
	/* never an unchecked pair of key and scheme: modules crash on some */
	int r = q->number < SIGN_SCHEMES ? sign_check((enum key_type)q->type, sign.scheme, sign.hash, sign.salt_len, sign.len, err)
					 : err_set(err, ERR_INPUT, "unknown scheme");

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

	*a = (struct wire_reply){.magic = WIRE_MAGIC, .id = q->id, .op = q->op};
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

static int serve(struct keyd *k)
{
	CLEANUP(cleanup_secret_free) struct wire_request *q = secret_alloc(sizeof(*q));
	CLEANUP(cleanup_secret_free) struct wire_reply *a = secret_alloc(sizeof(*a));
	ssize_t n;

	if (!q || !a)
		return 1;
	for (;;) {
		n = recv(SOCKET_FD, q, sizeof(*q), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			return 0; /* whoever started us is gone */
		if (n < 0 || !wire_request_valid(q, (size_t)n))
			return 1;
		answer(k, q, a);
		n = send(SOCKET_FD, a, wire_reply_len(a), MSG_NOSIGNAL);
		sodium_memzero(q, sizeof(*q));
		sodium_memzero(a, sizeof(*a));
		if (n < 0)
			return 0;
		if (k->provider && k->ops->ahead)
			k->ops->ahead(k->provider);
	}
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
	struct keyd k = {0};
	struct err err = {0};
	int type = 0, r;
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
	r = serve(&k);
	alarm(LIMIT_HARDWARE_TIMEOUT_MS / 1000); /* a module that hangs while it ends does not stay */
	if (k.provider)
		k.ops->close(k.provider);
	secret_arena_done();
	return r;
}
