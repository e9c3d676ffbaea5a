/* cotter mask: any log through the masker of cotter run. */
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "mask/forms.h"
#include "mask/leads.h"
#include "mask/mask.h"
#include "tools/cli.h"
#include "tools/kv.h"
#include "tools/relay.h"

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

/* A string, or an object: name, and value or base64. */
static int add_item(struct mask_values *v, const json_t *item, size_t i, struct err *err)
{
	const json_t *value = json_is_object(item) ? json_object_get(item, "value") : item;
	const char *name = json_string_value(json_object_get(item, "name")),
		   *base64 = json_string_value(json_object_get(item, "base64"));
	CLEANUP(secret_clear) struct secret bytes = {0};
	bool added = false;
	int r;

	if (json_is_string(value)) {
		r = secret_copy(&bytes, json_string_value(value), json_string_length(value), err);
	} else if (base64) {
		r = secret_new(&bytes, strlen(base64) + 1, err);
		if (r == 0 && !b64_decode_padded(base64, strlen(base64), NULL, bytes.data, bytes.cap, &bytes.len))
			r = err_set(err, ERR_INPUT, "item %zu: not base64", i);
	} else {
		r = err_set(err, ERR_INPUT, "item %zu: neither a string nor an object with value or base64", i);
	}
	if (r == 0)
		r = mask_values_add(v, bytes.data, bytes.len, name, &added, err);
	if (r < 0)
		return err_wrap(err, "item %zu", i);
	relay_tell_short(bytes.len, name, i, added);
	return 0;
}

static int add_file(struct mask_values *v, const char *path, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	CLEANUP(client_json_free) json_t *values = NULL;
	json_error_t error;
	size_t i;
	json_t *item;
	int r = cli_read_secret(path, LIMIT_MASK_FILE, &text, err);

	if (r < 0)
		return r;
	values = json_loadb((const char *)text.data, text.len, JSON_ALLOW_NUL, &error);
	if (!json_is_array(values))
		return err_set(err, ERR_INPUT, "%.200s: not a JSON array%s", path,
			       values ? "" : ", or larger than the locked memory");
	json_array_foreach(values, i, item) if (r == 0) r = add_item(v, item, i, err);
	return r < 0 ? err_wrap(err, "%.200s", path) : 0;
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
		r = kv_field(object, field, path, &value, err);
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
		r = add_file(values, o.values_file, err);
	for (size_t i = 0; r == 0 && i < o.n_secrets; i++)
		r = add_secret(values, o.secrets[i], err);
	if (r == 0)
		r = mask_values_ready(values, err);
	if (r == 0)
		r = mask_new(values, &o.options, &m, err);
	return r == 0 ? relay_all(m, 0, err) : r;
}
