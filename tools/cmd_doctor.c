/* cotter doctor: what is wrong, and what to do. Looks at everything, whatever fails. */
#include "broker/cgroup.h"
#include "broker/config.h"
#include "broker/peer.h"
#include "broker/sandbox.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"
#include "tools/cli.h"
#include "tools/client.h"
#include "tools/enrol.h"

#include <getopt.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/landlock.h>

struct doctor {
	struct cli *cli;
	json_t *findings;
	unsigned int problems;
	struct err worst; /* the exit status is the first problem's */
};

static void find(struct doctor *d, int code, const char *what, const char *text)
{
	json_array_append_new(d->findings, json_pack("{s:s, s:b, s:s}", "check", what, "ok", code == 0, "text", text));
	if (!d->cli->json) {
		printf("%-8s %-18s ", code == 0 ? "ok" : "PROBLEM", what);
		cli_print_safe(stdout, text);
		putchar('\n');
		fflush(stdout);
	}
	if (code == 0)
		return;
	d->problems++;
	if (!d->worst.code)
		d->worst.code = code < 0 ? -code : code;
}

static void check_system(struct doctor *d)
{
	struct rlimit lim = {0};
	char text[160];
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	getrlimit(RLIMIT_MEMLOCK, &lim);
	snprintf(text, sizeof(text), "secrets are locked by %s; RLIMIT_MEMLOCK is %lld KiB%s", secret_arena_kind(),
		 lim.rlim_cur == RLIM_INFINITY ? -1LL : (long long)lim.rlim_cur / 1024,
		 lim.rlim_cur < LIMIT_ARENA_BROKER ? ": cotterd needs 4 MiB (ulimit -l, LimitMEMLOCK=)" : "");
	find(d, lim.rlim_cur < LIMIT_ARENA_BROKER ? ERR_FAILED : 0, "memory", text);
	snprintf(text, sizeof(text), abi > 0 ? "Landlock ABI %ld" : "no Landlock in this kernel: no file sandbox", abi);
	find(d, 0, "kernel", text);
}

static void check_state(struct doctor *d, const struct config *config)
{
	char path[LIMIT_FILE_PATH_LEN + 32];
	struct stat st;

	if (stat(config->state_dir, &st) < 0) {
		find(d, ERR_FAILED, "state directory", "is missing, or not yours to see: 'cotter init' makes it; run doctor as its owner");
		return;
	}
	if (st.st_mode & 077)
		find(d, ERR_FAILED, "state directory", "others may enter it: chmod 700");
	snprintf(path, sizeof(path), "%s/store-key.age", config->state_dir);
	if (access(path, R_OK) == 0)
		find(d, 0, "store key", "is there, sealed");
	else
		find(d, ERR_FAILED, "store key", "store-key.age is missing or unreadable: restore the state directory from a backup");
}

static void check_keys(struct doctor *d, struct keyd *k, const struct config_provider *p)
{
	struct err err = {0};
	char what[LIMIT_NAME_LEN + 32], text[600];
	int r;

	for (size_t i = 0; i < p->n_keys; i++) {
		snprintf(what, sizeof(what), "%s key %zu", p->name, i + 1);
		keyd_prepare(k, WIRE_FIND);
		snprintf(k->request->text, sizeof(k->request->text), "%s", p->keys[i].ref);
		r = keyd_call(k, &err);
		if (r == 0 && memcmp(k->reply->key.point, p->keys[i].point, sizeof(k->reply->key.point)) != 0)
			r = err_set(&err, ERR_INPUT, "the key in the hardware is not the one of the recipient in the configuration");
		if (r == 0) {
			struct provider_key key = k->reply->key;

			r = enrol_probe(k, &key, &err);
		}
		snprintf(text, sizeof(text), "%s", r == 0 ? "an ECDH in the hardware agrees with ours" : err.msg);
		find(d, r, what, text);
	}
}

/* A token that gives the same bytes twice gives keys that others can guess. */
static void check_random(struct doctor *d, struct keyd *k, const struct config_provider *p)
{
	uint8_t first[32] = {0};
	char what[LIMIT_NAME_LEN + 32];
	struct err err = {0};
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++) {
		keyd_prepare(k, WIRE_RANDOM);
		k->request->number = sizeof(first);
		r = keyd_call(k, &err);
		if (r == 0 && (k->reply->data_len != sizeof(first) || memcmp(first, k->reply->data, sizeof(first)) == 0))
			r = err_set(&err, ERR_HARDWARE, "its random numbers repeat: do not use keys that were made in it");
		if (r == 0)
			memcpy(first, k->reply->data, sizeof(first));
	}
	snprintf(what, sizeof(what), "%s random", p->name);
	find(d, r, what, r == 0 ? "gives random numbers" : err.msg);
}

static void check_provider(struct doctor *d, const struct config *config, const struct config_provider *p)
{
	struct keyd k = {.fd = -1};
	struct err err = {0};
	int r = keyd_start(p, config->state_dir, &k, &err);

	if (r < 0) {
		find(d, r, p->name, err.msg);
		return;
	}
	/* the configured PIN only, once: doctor never costs a try that the broker would not take */
	r = keyd_login(&k, NULL, &err);
	if (r < 0) {
		find(d, r, p->name, err.msg);
	} else {
		keyd_prepare(&k, WIRE_STATUS);
		r = keyd_call(&k, &err);
		if (r == 0 && k.reply->status.state != PROVIDER_READY)
			r = err_set(&err, ERR_HARDWARE, "%s", k.reply->status.problem);
		find(d, r, p->name, r == 0 ? k.reply->status.description : err.msg);
		if (r == 0)
			check_random(d, &k, p);
		if (r == 0)
			check_keys(d, &k, p);
	}
	keyd_done(&k);
}

static void check_overdue(struct doctor *d, const json_t *data)
{
	const json_t *first = json_array_get(json_object_get(data, "overdue"), 0);
	json_int_t n = json_integer_value(json_object_get(data, "n_overdue"));
	char text[LIMIT_PATH_LEN + 120];

	if (n == 0)
		return;
	snprintf(text, sizeof(text), "%lld secrets should have been rotated, such as %.512s: 'cotter rotate' does it", n,
		 json_string_value(json_object_get(first, "path")));
	find(d, ERR_FAILED, "rotation", text);
}

static void check_issuers(struct doctor *d, const json_t *issuers)
{
	const json_t *issuer;
	char text[200];
	size_t i;

	json_array_foreach(issuers, i, issuer) {
		long long age = json_integer_value(json_object_get(issuer, "age_days"));
		const char *name = json_string_value(json_object_get(issuer, "name"));
		bool old = json_is_true(json_object_get(issuer, "old"));

		if (age < 0)
			snprintf(text, sizeof(text), "'%.64s': its key set cannot be used: cotterd's log says why", name ? name : "");
		else
			snprintf(text, sizeof(text), "'%.64s': %lld keys, %lld days old%s", name ? name : "",
				 json_integer_value(json_object_get(issuer, "keys")), age, old ? ": fetch the issuer's current set" : "");
		find(d, age < 0 || old ? ERR_FAILED : 0, "issuer", text);
	}
}

/* What the machine can do for jobs, and what the configuration makes of it. */
static void check_jobs(struct doctor *d, const struct config *config)
{
	struct err err = {0};

	if (peer_supported(&err) < 0)
		find(d, config->require_cgroup ? ERR_UNSUPPORTED : 0, "jobs", err.msg);
	else if (!config->require_cgroup)
		find(d, 0, "jobs", "callers in the root cgroup are served, told apart by uid alone (jobs.require_cgroup: false)");
	else
		find(d, cgroup_root() ? 0 : ERR_UNSUPPORTED, "jobs", cgroup_root() ? "bound to their cgroups" : "there is no cgroup-v2 tree");
	find(d, sandbox_can_scope() || !config->require_isolation ? 0 : ERR_UNSUPPORTED, "isolation",
	     sandbox_can_scope() ? "'cotter run' keeps jobs of one uid apart" : "this kernel cannot keep jobs of one uid apart (Linux 6.12)");
}

static void check_broker(struct doctor *d)
{
	struct client_reply reply = {0};
	struct err err = {0};
	const char *reason;
	int r = client_call(CLIENT_OPERATOR, "GET", "/v1/cotter/status", NULL, &reply, &err);

	reason = json_string_value(json_object_get(client_data(&reply), "reason"));
	if (r < 0)
		find(d, r, "broker", err.msg);
	else if (json_is_true(json_object_get(client_data(&reply), "sealed")))
		find(d, ERR_SEALED, "broker", reason ? reason : "sealed");
	else if (json_is_true(json_object_get(client_data(&reply), "audit_failed")))
		find(d, ERR_AUDIT, "broker", "the audit log failed: make room on its disk, then restart cotterd");
	else
		find(d, 0, "broker", "answers, unsealed");
	check_issuers(d, json_object_get(client_data(&reply), "issuers"));
	check_overdue(d, client_data(&reply));
	client_reply_done(&reply);
}

int cmd_doctor(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {0}};
	struct doctor d = {.cli = cli, .findings = json_array()};
	struct config config = {0};
	const char *path = NULL;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'c')
			path = optarg;
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	check_system(&d);
	r = config_load(cli_config_path(path), &config, err);
	find(&d, r, "configuration", r < 0 ? err->msg : config.file);
	if (r == 0) {
		check_state(&d, &config);
		check_jobs(&d, &config);
		for (size_t i = 0; i < config.n_providers; i++)
			check_provider(&d, &config, &config.providers[i]);
	}
	config_done(&config);
	check_broker(&d);
	if (cli->json) {
		json_dumpf(d.findings, stdout, JSON_COMPACT);
		putchar('\n');
	}
	json_decref(d.findings);
	if (d.problems == 0)
		return 0;
	return err_set(err, (enum err_code)d.worst.code, "%u problem%s found", d.problems, d.problems == 1 ? "" : "s");
}
