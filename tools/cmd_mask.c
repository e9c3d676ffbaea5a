/* cotter mask: any log through the masker of cotter run. */
#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "mask/forms.h"
#include "mask/leads.h"
#include "mask/mask.h"
#include "tools/cli.h"
#include "tools/kv.h"
#include "tools/relay.h"
#include "tools/values.h"

#include <getopt.h>
#include <string.h>

struct masking {
	const char *values_file;
	const char *secrets[LIMIT_MASK_SECRETS]; /* PATH or PATH#FIELD */
	size_t n_secrets;
	const char *prefixes[LEADS_PREFIXES];
	size_t n_prefixes;
	size_t min;
	bool leads;
	struct mask_options options;
};

static int parse(struct cli *cli, int argc, char **argv, struct masking *o, struct err *err)
{
	static const struct option options[] = {{"values-file", required_argument, NULL, 'f'},
						{"secret", required_argument, NULL, 's'},
						{"mask", required_argument, NULL, 'm'},
						{"min-length", required_argument, NULL, 'n'},
						{"token-prefix", required_argument, NULL, 't'},
						{"values-only", no_argument, NULL, 'v'},
						{0}};
	unsigned long long n;
	int opt, r = 0;

	o->leads = true;
	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f': o->values_file = optarg; break;
		case 's':
			if (o->n_secrets == LIMIT_MASK_SECRETS)
				return cli_usage(cli, err, "at most %u --secret", LIMIT_MASK_SECRETS);
			o->secrets[o->n_secrets++] = optarg;
			break;
		case 'm': o->options.text = optarg; break;
		case 'n':
			r = cli_number(cli, optarg, LIMIT_SECRET_LEN, "--min-length", &n, err);
			o->min = r == 0 ? (size_t)n : 0;
			break;
		case 't':
			if (o->n_prefixes == LEADS_PREFIXES || !*optarg || strlen(optarg) > LEADS_PREFIX_MAX)
				return cli_usage(cli, err, "at most %u --token-prefix of 1 to %u bytes", LEADS_PREFIXES,
						 LEADS_PREFIX_MAX);
			o->prefixes[o->n_prefixes++] = optarg;
			break;
		case 'v': o->leads = false; break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (r == 0 && optind != argc)
		return cli_usage(cli, err, "the log is read from standard input");
	return r;
}

static int add_value(void *context, size_t number, const char *name, const void *value, size_t len, struct err *err)
{
	struct mask_values *v = context;
	bool added = false;
	int r = mask_values_add(v, value, len, name, &added, err);

	if (r == 0)
		relay_tell_short(len, name, number, added);
	return r;
}

static int add_secret(struct mask_values *v, const char *ref, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret value = {0};
	char path[LIMIT_PATH_LEN + 1];
	const char *field;
	json_t *object = NULL;
	bool added = false;
	int r = kv_parse_ref(ref, path, &field, err);

	if (r == 0)
		r = kv_fetch(path, 0, &reply, &object, err);
	if (r == 0)
		r = json_field(object, field, path, &value, err);
	if (r == 0)
		r = mask_values_add(v, value.data, value.len, kv_name(path), &added, err);
	if (r == 0)
		relay_tell_short(value.len, path, 0, added);
	return r;
}

int cmd_mask(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(mask_values_free) struct mask_values *values = NULL;
	CLEANUP(mask_free) struct mask *m = NULL;
	struct masking o = {0};
	int out = 1;
	int r = parse(cli, argc, argv, &o, err);

	o.options.write = relay_write;
	o.options.context = &out;
	if (r == 0)
		r = mask_values_new(o.min, o.leads, o.prefixes, o.n_prefixes, &values, err);
	if (r == 0 && o.values_file)
		r = values_read(o.values_file, add_value, values, err);
	for (size_t i = 0; r == 0 && i < o.n_secrets; i++)
		r = add_secret(values, o.secrets[i], err);
	if (r == 0)
		r = mask_values_ready(values, err);
	if (r == 0)
		r = mask_new(values, &o.options, &m, err);
	return r == 0 ? relay_all(m, 0, err) : r;
}
