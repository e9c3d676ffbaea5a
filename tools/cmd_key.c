/* cotter key make|list: talks to the hardware itself; needs no broker. The other verbs are key_broker.c's. */
#include "broker/config.h"
#include "common/age_p256tag.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/enrol.h"
#include "tools/key_broker.h"

#include <getopt.h>
#include <jansson.h>
#include <string.h>

struct key_options {
	const char *config, *label, *pcrs;
	enum key_type type;
	bool sign;
};

static int parse(struct cli *cli, int argc, char **argv, struct key_options *o, struct err *err)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"label", required_argument, NULL, 'l'}, {"pcrs", required_argument, NULL, 'p'},
		{"sign", no_argument, NULL, 's'},	  {"type", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},	   {0}};
	int opt;

	*o = (struct key_options){.pcrs = "", .type = KEY_P256};
	while ((opt = getopt_long(argc, argv, "l:", options, NULL)) != -1) {
		switch (opt) {
		case 'c': o->config = optarg; break;
		case 'l': o->label = optarg; break;
		case 'p': o->pcrs = optarg; break;
		case 's': o->sign = true; break;
		case 't':
			o->type = key_type_find(optarg);
			if (o->type == KEY_NONE)
				return cli_usage(cli, err, "--type: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096 or ed25519");
			break;
		case 'j': cli->json = true; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	return 0;
}

static void cleanup_keyd(struct keyd *k)
{
	keyd_done(k);
}

/* Key files made now lie beside the configuration: the helper must be able to read them. */
static int with_directory(const struct config *config, const struct config_provider *p, struct config_provider *ret,
			  char dir[LIMIT_FILE_PATH_LEN], char **readable, struct err *err)
{
	char *slash;

	snprintf(dir, LIMIT_FILE_PATH_LEN, "%s", config->file);
	slash = strrchr(dir, '/');
	if (dir[0] != '/' || !slash)
		return err_set(err, ERR_USAGE, "give the configuration's absolute path");
	*slash = '\0';
	*ret = *p;
	for (size_t i = 0; i < p->n_readable && i < 16; i++)
		readable[i] = p->readable[i];
	readable[p->n_readable] = dir;
	ret->readable = readable;
	ret->n_readable = p->n_readable + 1;
	return 0;
}

static int make(struct cli *cli, const struct config *config, const struct config_provider *p, const struct key_options *o,
		struct err *err)
{
	CLEANUP(cleanup_keyd) struct keyd k = {.fd = -1};
	struct config_provider with_dir;
	struct enrolled key;
	char dir[LIMIT_FILE_PATH_LEN], *readable[20];
	int r = with_directory(config, p, &with_dir, dir, readable, err);

	if (r == 0)
		r = keyd_start(&with_dir, config->state_dir, &k, err);
	if (r == 0)
		r = enrol_key(&k, o->sign ? PROVIDER_KEY_SIGN : PROVIDER_KEY_SEAL, o->type, o->label, o->pcrs, dir, &key, err);
	if (r < 0)
		return r;
	if (cli->json) {
		json_t *j = json_pack("{s:s, s:s, s:s}", "key", key.key.ref, "recipient", key.recipient, "label", o->label);

		json_dumpf(j, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(j);
		return 0;
	}
	printf("made and probed: the hardware's result agrees with ours\n");
	if (!o->sign)
		printf("recipient: %s\n\nto use it, add under providers.%s.keys of %s\n  - {recipient: %s, key: \"%s\"}\nand to seal.recipients\n"
		       "  - %s\n", key.recipient, p->name, config->file, key.recipient, key.key.ref, key.recipient);
	else
		printf("key: %s\n", key.key.ref);
	return 0;
}

static void print_key(struct cli *cli, const struct config_provider *p, const struct provider_key *key, bool configured)
{
	char recipient[80] = "";
	const char *use = key->can_agree ? "seal" : key->can_sign ? "sign" : key->can_decrypt ? "open" : "?";
	const char *type = key_row((enum key_type)key->type)->name;

	if (key->can_agree && key->type == KEY_P256)
		age_p256tag_recipient_text(key->point, recipient);
	if (cli->json) {
		json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "provider", p->name, "key", key->ref, "label", key->label, "use", use, "type", type ? type : "?",
				      "recipient", recipient, "configured", configured);

		json_dumpf(j, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(j);
		return;
	}
	printf("%-10s %-5s %-10s %s%s\n", p->name, use, type ? type : "?", key->ref,
	       configured || !key->can_agree ? "" : "  (not in the configuration)");
	if (*recipient)
		printf("           %s\n", recipient);
}

static bool is_configured(const struct config_provider *p, const struct provider_key *key)
{
	for (size_t i = 0; i < p->n_keys; i++)
		if (key->type == KEY_P256 && memcmp(p->keys[i].point, key->point, sizeof(key->point)) == 0)
			return true;
	return false;
}

static int list(struct cli *cli, const struct config *config, const struct config_provider *p, struct err *err)
{
	CLEANUP(cleanup_keyd) struct keyd k = {.fd = -1};
	int r = keyd_start(p, config->state_dir, &k, err);

	if (r == 0)
		r = enrol_login(&k, err);
	/* key files are known to the configuration alone */
	for (size_t i = 0; r == 0 && i < p->n_keys; i++) {
		if (p->keys[i].ref[0] != '/')
			continue;
		keyd_prepare(&k, WIRE_FIND);
		snprintf(k.request->text, sizeof(k.request->text), "%s", p->keys[i].ref);
		r = keyd_call(&k, err);
		if (r == 0)
			print_key(cli, p, &k.reply->key, true);
	}
	for (uint32_t i = 0; r == 0 && i < LIMIT_KEYS; i++) {
		keyd_prepare(&k, WIRE_LIST);
		k.request->number = i;
		r = keyd_call(&k, err);
		if (r == 0)
			print_key(cli, p, &k.reply->key, is_configured(p, &k.reply->key));
		else if (r != -ERR_NOT_FOUND && r != -ERR_PIN && k.fd >= 0) {
			/* a foreign key that cotter cannot use is no reason to hide the others */
			fprintf(stderr, "cotter: %s: key %u is not shown: %s\n", p->name, i, err->msg);
			r = 0;
		}
	}
	return r == -ERR_NOT_FOUND ? 0 : r;
}

static void cleanup_config(struct config *c)
{
	config_done(c);
}

int cmd_key(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_config) struct config config = {0};
	const struct config_provider *p = NULL;
	struct key_options o;
	bool making = argc > 1 && strcmp(argv[1], "make") == 0;
	int r;

	if (argc > 1 && key_broker_knows(argv[1]))
		return key_broker(cli, argc - 1, argv + 1, err);
	if (argc < 2 || (!making && strcmp(argv[1], "list") != 0))
		return cli_usage(cli, err, "say make, list, add, rotate, show, certificate or remove");
	argc--;
	argv++;
	r = parse(cli, argc, argv, &o, err);
	if (r == 0)
		r = config_load(cli_config_path(o.config), &config, err);
	if (r < 0)
		return r;
	if (optind < argc) {
		p = config_provider(&config, argv[optind]);
		if (!p)
			return err_set(err, ERR_USAGE, "the configuration has no provider '%.64s'", argv[optind]);
	}
	if (making) {
		if (!o.sign && o.type != KEY_P256)
			return cli_usage(cli, err, "a key that seals is a P-256 key: --type is for --sign");
		if (!p || !o.label || strlen(o.label) > LIMIT_NAME_LEN || strchr(o.label, '/'))
			return cli_usage(cli, err, "name the provider and a --label");
		return make(cli, &config, p, &o, err);
	}
	for (size_t i = 0; r == 0 && i < config.n_providers; i++)
		if (!p || p == &config.providers[i])
			r = list(cli, &config, &config.providers[i], err);
	return r;
}
