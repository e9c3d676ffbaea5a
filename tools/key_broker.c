#include "tools/key_broker.h"

#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/keys.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <sodium.h>
#include <string.h>

struct options {
	const char *provider, *ref, *type, *certificate;
	bool pem;
};

/* verb: "", "/rotate" or "/config". */
static int call_key(enum client_socket which, const char *method, const char *path, const char *verb, const json_t *body, struct client_reply *ret,
		    struct err *err)
{
	char url[LIMIT_PATH_LEN + 64];

	snprintf(url, sizeof(url), "/v1/transit/keys/%s%s", path, verb);
	return client_call(which, method, url, body, ret, err);
}

static int add_certificate(const char *path, const char *file, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	CLEANUP(secret_clear) struct secret text = {0};
	int r = cli_read_secret(file, 2 * LIMIT_CERTIFICATES, &text, err);

	if (r < 0)
		return r;
	if (json_object_set_new(body, "certificate_chain", json_stringn((char *)text.data, text.len)) < 0)
		return err_set(err, ERR_INPUT, "%.200s: not certificates in PEM", file);
	return call_key(CLIENT_OPERATOR, "POST", path, "/config", body, &reply, err);
}

/* By which its tools find it in a job. */
static void print_id(const char *pem)
{
	const char *body = pem ? strchr(pem, '\n') : NULL, *end;
	uint8_t spki[KEY_SPKI_MAX], id[KEY_ID_LEN];
	char hex[2 * KEY_ID_LEN + 1];
	size_t len;

	if (!body || sodium_base642bin(spki, sizeof(spki), body, strlen(body), "\n", &len, &end, sodium_base64_VARIANT_ORIGINAL) != 0)
		return;
	spki_id(spki, len, id);
	printf("  id %s", sodium_bin2hex(hex, sizeof(hex), id, sizeof(id)));
}

static void print_latest(const json_t *key, bool pem)
{
	char version[24];
	const json_t *latest, *rule;
	const char *chain;
	size_t i;

	snprintf(version, sizeof(version), "%lld", json_integer_value(json_object_get(key, "latest_version")));
	latest = json_object_get(json_object_get(key, "keys"), version);
	chain = json_string_value(json_object_get(latest, "certificate_chain"));
	if (pem) {
		fputs(json_string_value(json_object_get(latest, "public_key")), stdout);
		return;
	}
	printf("%s  version %s  %s  provider %s%s", json_string_value(json_object_get(key, "name")), version, json_string_value(json_object_get(key, "type")),
	       json_string_value(json_object_get(key, "cotter_provider")), chain && *chain ? "  with a certificate" : "");
	print_id(json_string_value(json_object_get(latest, "public_key")));
	json_array_foreach(json_object_get(key, "cotter_rules"), i, rule)
		printf("%s%s", i ? ", " : "  rules for ", json_string_value(rule));
	putchar('\n');
}

static int print_key(const struct cli *cli, const struct client_reply *reply, bool pem)
{
	if (cli->json) {
		json_dumpf(client_data(reply), stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		print_latest(client_data(reply), pem);
	}
	return 0;
}

static bool ends_in_verb(const char *path)
{
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;

	return strcmp(last, "rotate") == 0 || strcmp(last, "config") == 0;
}

static int add(struct cli *cli, const char *path, const struct options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	int r;

	/* by that path the broker would rotate or change the key whose name stands before it */
	if (ends_in_verb(path))
		return err_set(err, ERR_USAGE, "a key's name does not end in rotate or config: choose another");
	if (o->provider)
		json_object_set_new(body, "provider", json_string(o->provider));
	if (o->ref)
		json_object_set_new(body, "ref", json_string(o->ref));
	if (o->type)
		json_object_set_new(body, "type", json_string(o->type));
	r = call_key(CLIENT_OPERATOR, "GET", path, "", NULL, &reply, NULL);
	client_reply_done(&reply);
	if (r == 0)
		return err_set(err, ERR_CONFLICT, "there is a key %s already: 'cotter key rotate' makes its next version", path);
	r = call_key(CLIENT_OPERATOR, "POST", path, "", body, &reply, err);
	if (r == 0 && o->certificate)
		r = add_certificate(path, o->certificate, err);
	return r < 0 ? r : print_key(cli, &reply, o->pem);
}

static int rotate(struct cli *cli, const char *path, const struct options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	int r;

	if (o->ref)
		json_object_set_new(body, "ref", json_string(o->ref));
	r = call_key(CLIENT_OPERATOR, "POST", path, "/rotate", body, &reply, err);
	return r < 0 ? r : print_key(cli, &reply, o->pem);
}

static int show(struct cli *cli, const char *path, const struct options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	int r = call_key(CLIENT_JOB, "GET", path, "", NULL, &reply, err);

	return r < 0 ? r : print_key(cli, &reply, o->pem);
}

static int certificate(struct cli *cli, const char *path, const struct options *o, struct err *err)
{
	(void)cli;
	return o->certificate ? add_certificate(path, o->certificate, err) : cli_usage(cli, err, "name the file: --certificate FILE");
}

static int drop(struct cli *cli, const char *path, const struct options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	int r = call_key(CLIENT_OPERATOR, "GET", path, "", NULL, &reply, err);

	(void)cli;
	(void)o;
	client_reply_done(&reply);
	return r < 0 ? r : call_key(CLIENT_OPERATOR, "DELETE", path, "", NULL, &reply, err);
}

static const struct {
	const char *verb;
	int (*run)(struct cli *cli, const char *path, const struct options *o, struct err *err);
} verbs[] = {{"add", add}, {"rotate", rotate}, {"show", show}, {"certificate", certificate}, {"remove", drop}};

bool key_broker_knows(const char *verb)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].verb, verb) == 0)
			return true;
	return false;
}

static int parse(struct cli *cli, int argc, char **argv, struct options *o, struct err *err)
{
	static const struct option options[] = {
		{"provider", required_argument, NULL, 'p'}, {"ref", required_argument, NULL, 'r'},   {"type", required_argument, NULL, 't'},
		{"certificate", required_argument, NULL, 'c'}, {"pem", no_argument, NULL, 'P'}, {"json", no_argument, NULL, 'j'}, {0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p': o->provider = optarg; break;
		case 'r': o->ref = optarg; break;
		case 't': o->type = optarg; break;
		case 'c': o->certificate = optarg; break;
		case 'P': o->pem = true; break;
		case 'j': cli->json = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	return 0;
}

int key_broker(struct cli *cli, int argc, char **argv, struct err *err)
{
	struct options o = {0};
	int r = parse(cli, argc, argv, &o, err);

	if (r < 0)
		return r;
	if (optind != argc - 1 || !path_valid(argv[optind]))
		return cli_usage(cli, err, "name the key: a path such as release/codesign");
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].verb, argv[0]) == 0)
			return verbs[i].run(cli, argv[optind], &o, err);
	return cli_usage(cli, err, "unknown: key %.32s", argv[0]);
}
