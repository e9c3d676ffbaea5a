/* cotter scan: secrets where they do not belong. */
#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "scan/baseline.h"
#include "scan/report.h"
#include "scan/sources.h"
#include "tools/cli.h"
#include "tools/client.h"
#include "tools/names.h"
#include "tools/values.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <sodium.h>
#include <string.h>

#define STATUS_FOUND (1 << 8)
#define STATUS_FAILED (7 << 8) /* so that a gate tells it from what was found */

struct scanning {
	const char *git, *staged, *job, *values_file, *index, *write_index, *baseline, *write_baseline, *output;
	bool by_job, no_store, no_rules, no_archives;
	int format;
	unsigned int threads;
	struct scanner scanner;
};

static const struct option options[] = {
	{"git", optional_argument, NULL, 'g'},	    {"staged", optional_argument, NULL, 's'},
	{"job", optional_argument, NULL, 'j'},	    {"values-file", required_argument, NULL, 'f'},
	{"index", required_argument, NULL, 'i'},    {"write-index", required_argument, NULL, 'w'},
	{"baseline", required_argument, NULL, 'b'}, {"write-baseline", required_argument, NULL, 'B'},
	{"no-store", no_argument, NULL, 'S'},	    {"no-rules", no_argument, NULL, 'R'},
	{"no-archives", no_argument, NULL, 'A'},    {"format", required_argument, NULL, 'F'},
	{"json", no_argument, NULL, 'J'},	    {"output", required_argument, NULL, 'o'},
	{"threads", required_argument, NULL, 't'},  {0}};

static int take_option(struct cli *cli, int opt, struct scanning *o, struct err *err)
{
	unsigned long long n;
	int r;

	switch (opt) {
	case 'g': o->git = optarg ? optarg : "."; return 0;
	case 's': o->staged = optarg ? optarg : "."; return 0;
	case 'j':
		o->by_job = true;
		o->job = optarg;
		return 0;
	case 'f': o->values_file = optarg; return 0;
	case 'i': o->index = optarg; return 0;
	case 'w': o->write_index = optarg; return 0;
	case 'b': o->baseline = optarg; return 0;
	case 'B': o->write_baseline = optarg; return 0;
	case 'S': o->no_store = true; return 0;
	case 'R': o->no_rules = true; return 0;
	case 'A': o->no_archives = true; return 0;
	case 'J': o->format = REPORT_JSON; return 0;
	case 'F':
		o->format = report_format(optarg);
		return o->format < 0 ? cli_usage(cli, err, "--format is text, json or sarif") : 0;
	case 'o': o->output = optarg; return 0;
	case 't':
		r = cli_number(cli, optarg, 64, "--threads", &n, err);
		o->threads = r == 0 && n ? (unsigned int)n : o->threads;
		return r;
	default: return cli_usage(cli, err, "unknown option");
	}
}

static int parse(struct cli *cli, int argc, char **argv, struct scanning *o, struct err *err)
{
	cpu_set_t cpus;
	int opt, r = 0;

	o->threads = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned int)CPU_COUNT(&cpus) : 1;
	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		r = take_option(cli, opt, o, err);
	if (r < 0)
		return r;
	if ((o->git != NULL) + (o->staged != NULL) + (optind < argc) > 1)
		return cli_usage(cli, err, "one of: paths, --git, --staged");
	if (o->by_job + o->no_store + (o->index != NULL) + (o->values_file != NULL) > 1)
		return cli_usage(cli, err, "one of: --job, --index, --values-file, --no-store");
	if (o->values_file && strcmp(o->values_file, "-") == 0 && optind < argc && strcmp(argv[optind], "-") == 0)
		return cli_usage(cli, err, "standard input is the values or the text, not both");
	if (o->no_store && o->no_rules)
		return cli_usage(cli, err, "with neither store nor rules there is nothing to look for");
	if (o->write_index &&
	    (o->by_job || o->no_store || o->index || o->values_file || o->git || o->staged || optind < argc))
		return cli_usage(cli, err, "--write-index goes alone");
	return 0;
}

/* ---- values
 * ------------------------------------------------------------------------------------------------------------------ */

static int add_value(struct scanner *s, const char *name, const void *value, size_t len, struct err *err)
{
	uint32_t number;
	bool added;
	int r = scanner_name(s, name, &number, err);

	return r == 0 ? forms_add(&s->forms, value, len, number, &added, err) : r;
}

static int add_item(void *context, size_t number, const char *name, const void *value, size_t len, struct err *err)
{
	char text[32];

	snprintf(text, sizeof(text), "value %zu", number);
	return add_value(context, name ? name : text, value, len, err);
}

static int add_object(struct scanner *s, const char *path, const json_t *object, struct err *err)
{
	CLEANUP(secret_clear) struct secret raw = {0};
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		if (r < 0 || !json_is_string(value))
			continue;
		if (strcmp(key, "value_base64") != 0) {
			r = add_value(s, path, json_string_value(value), json_string_length(value), err);
			continue;
		}
		r = secret_new(&raw, json_string_length(value) + 1, err);
		if (r == 0 && b64_decode_padded(json_string_value(value), json_string_length(value), NULL, raw.data,
						raw.cap, &raw.len))
			r = add_value(s, path, raw.data, raw.len, err);
	}
	return r;
}

/* What the job received, in the versions that it received, LIMIT_READ at once. */
static int read_received(struct scanner *s, const json_t *received, struct err *err)
{
	int r = 0;

	for (size_t at = 0; r == 0 && at < json_array_size(received); at += LIMIT_READ) {
		CLEANUP(client_reply_done) struct client_reply reply = {0};
		CLEANUP(client_json_free) json_t *body = json_object();
		json_t *list = json_array(), *item;
		size_t i;

		for (i = at; i < at + LIMIT_READ && i < json_array_size(received); i++)
			json_array_append(list, json_array_get(received, i));
		json_object_set_new(body, "secrets", list);
		r = client_call(CLIENT_JOB, "POST", "/v1/cotter/read", body, &reply, err);
		if (r < 0)
			return r;
		json_array_foreach(json_object_get(client_data(&reply), "secrets"), i, item) if (r == 0) r =
			add_object(s, json_string_value(json_object_get(item, "path")), json_object_get(item, "data"), err);
	}
	return r;
}

/* ---- fingerprints
 * ------------------------------------------------------------------------------------------------------------- */

static int add_fingerprints(struct scanner *s, const json_t *secrets, size_t *ret_without, struct err *err)
{
	size_t i;
	json_t *item;

	json_array_foreach(secrets, i, item)
	{
		const char *path = json_string_value(json_object_get(item, "path")),
			   *text = json_string_value(json_object_get(item, "fingerprints"));
		CLEANUP(cleanup_free) uint8_t *bytes = text ? malloc(strlen(text) + 1) : NULL;
		size_t len;
		uint32_t number;
		int r;

		if (!path || !bytes || !b64_decode_padded(text, strlen(text), NULL, bytes, strlen(text) + 1, &len))
			return err_set(err, ERR_INPUT, "fingerprint %zu is not well formed", i);
		*ret_without += len == 0;
		r = scanner_name(s, path, &number, err);
		if (r == 0)
			r = fingerprints_add(&s->fingerprints, bytes, len, number, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int ask_some(struct scanner *s, const char *key, char *const *names, size_t n, size_t *ret_without, json_t *all,
		    struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_pack("{s:s}", "key", key);
	json_t *list = json_array();
	int r;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{s:s}", "path", names[i]));
	json_object_set_new(body, "secrets", list);
	r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/fingerprints", body, &reply, err);
	if (r == 0)
		r = add_fingerprints(s, json_object_get(client_data(&reply), "secrets"), ret_without, err);
	if (r == 0 && all)
		json_array_extend(all, json_object_get(client_data(&reply), "secrets"));
	return r;
}

/* Of all secrets, LIMIT_READ at once, or as many of them as fit. all (NULL: not wanted) gets them for an index. */
static int ask_fingerprints(struct scanner *s, json_t *all, struct err *err)
{
	CLEANUP(names_done) struct names names = {0};
	char key[sodium_base64_ENCODED_LEN(FINGERPRINT_KEY, sodium_base64_VARIANT_ORIGINAL)];
	struct cli_progress progress = {.what = "secrets"};
	size_t without = 0, at_once = LIMIT_READ, n;
	int r = names_find_secrets("", &names, err);

	if (r == -ERR_NOT_FOUND)
		return 0; /* an empty store */
	sodium_bin2base64(key, sizeof(key), s->fingerprints.key, FINGERPRINT_KEY, sodium_base64_VARIANT_ORIGINAL);
	for (size_t at = 0; r == 0 && at < names.n; at += n) {
		n = names.n - at < at_once ? names.n - at : at_once;
		r = ask_some(s, key, names.list + at, n, &without, all, err);
		if ((r == -ERR_BUSY || r == -ERR_LIMIT) && n > 1) {
			at_once = n / 2;
			n = 0;
			r = 0;
		}
		cli_progress(&progress, n);
	}
	cli_progress_end(&progress);
	if (r == 0 && without)
		fprintf(stderr,
			"cotter: %zu secrets have less than %u bits and are not looked for (--job looks for those that a "
			"job received)\n",
			without, FINGERPRINT_BITS);
	return r;
}

static int write_index(struct scanner *s, const char *file, struct err *err)
{
	CLEANUP(client_json_free) json_t *all = json_array();
	char key[sodium_base64_ENCODED_LEN(FINGERPRINT_KEY, sodium_base64_VARIANT_ORIGINAL)];
	CLEANUP(client_json_free) json_t *index = NULL;
	struct cli_output out;
	int r = ask_fingerprints(s, all, err);

	if (r < 0)
		return r;
	sodium_bin2base64(key, sizeof(key), s->fingerprints.key, FINGERPRINT_KEY, sodium_base64_VARIANT_ORIGINAL);
	index = json_pack("{s:i, s:s, s:O}", "cotter_index", 1, "key", key, "secrets", all);
	r = cli_output_begin(file, &out, err);
	if (r == 0) {
		r = index && json_dumpfd(index, out.fd, JSON_COMPACT) == 0
			    ? 0
			    : err_set(err, ERR_FAILED, "%.200s cannot be written", file);
		r = cli_output_end(&out, r, err);
	}
	return r;
}

static int read_index(struct scanner *s, const char *file, struct err *err)
{
	CLEANUP(client_json_free) json_t *index = NULL;
	json_error_t error;
	const char *key;
	size_t len = 0, without = 0;

	index = json_load_file(file, 0, &error);
	if (!index)
		return err_set(err, ERR_INPUT, "%.200s: %.200s", file, error.text);
	key = json_string_value(json_object_get(index, "key"));
	if (json_integer_value(json_object_get(index, "cotter_index")) != 1 || !key ||
	    !b64_decode_padded(key, strlen(key), NULL, s->fingerprints.key, FINGERPRINT_KEY, &len) ||
	    len != FINGERPRINT_KEY)
		return err_set(err, ERR_INPUT, "%.200s is no index: make one with --write-index", file);
	return add_fingerprints(s, json_object_get(index, "secrets"), &without, err);
}

static int add_job(struct scanner *s, const char *id, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];
	int r;

	snprintf(url, sizeof(url), "/v1/cotter/jobs/%.64s", id ? id : "self");
	r = client_call(id ? CLIENT_OPERATOR : CLIENT_JOB, "GET", url, NULL, &reply, err);
	if (r < 0)
		return err_wrap(err, "the job");
	r = read_received(s, json_object_get(client_data(&reply), "received"), err);
	/* what is not remembered of it may be any of them */
	if (r == 0 && json_integer_value(json_object_get(client_data(&reply), "received_more")) > 0) {
		fputs("cotter: the job received more secrets than are remembered: all of the store are looked for\n",
		      stderr);
		r = ask_fingerprints(s, NULL, err);
	}
	return r;
}

/* ---- all of it
 * ------------------------------------------------------------------------------------------------------------------ */

static int prepare(struct scanning *o, struct err *err)
{
	struct scanner *s = &o->scanner;
	int r = scanner_init(s, err);

	s->rules = !o->no_rules;
	if (r == 0 && o->baseline)
		r = baseline_key(o->baseline, s, err);
	if (r < 0 || o->no_store)
		return r < 0 ? r : scanner_ready(s, err);
	if (o->by_job)
		r = add_job(s, o->job, err);
	else if (o->values_file)
		r = values_read(o->values_file, add_item, s, err);
	else if (o->index)
		r = read_index(s, o->index, err);
	else if (!o->write_index)
		r = ask_fingerprints(s, NULL, err);
	if (r == -ERR_NO_BROKER)
		return err_wrap(err, "what is in the store cannot be looked for (--no-store: by rules alone; --index: "
				     "without a broker)");
	return r == 0 ? scanner_ready(s, err) : r;
}

static int look(struct scanning *o, char **paths, size_t n, struct err *err)
{
	static char here[] = ".";
	char *all[] = {here};

	if (o->git)
		return scan_git(&o->scanner, o->git, err);
	if (o->staged)
		return scan_staged(&o->scanner, o->staged, err);
	if (n == 1 && strcmp(paths[0], "-") == 0)
		return scan_stream(&o->scanner, 0, "standard input", err);
	return scan_trees(&o->scanner, n ? paths : all, n ? n : 1, !o->no_archives, o->threads, err);
}

static int report(struct scanning *o, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *file = o->output ? fopen(o->output, "we") : NULL;
	const struct scanner *s = &o->scanner;
	size_t n;
	int r = 0;

	if (o->output && !file)
		return err_errno(err, errno, "%.200s", o->output);
	if (o->write_baseline) {
		r = baseline_write(o->write_baseline, s, &n, err);
		if (r == 0)
			fprintf(stderr, "cotter: %zu findings are in %.200s; they are not told again with --baseline\n", n,
				o->write_baseline);
	}
	if (r == 0)
		r = report_write(file ? file : stdout, (enum report_format)o->format, s, err);
	if (r == 0 && o->format == REPORT_TEXT)
		fprintf(stderr, "cotter: %zu found in %llu texts, %.1f MB%s\n", s->n_findings, s->texts,
			(double)s->bytes / 1e6, s->left_out ? "; some were left out (see above)" : "");
	return r;
}

/* What was found before something failed is told all the same. */
static int look_and_report(struct scanning *o, char **paths, size_t n, struct err *err)
{
	int looked = look(o, paths, n, err), r = 0;
	struct err second = {0};

	scanner_sort(&o->scanner);
	if (looked < 0 && (o->write_baseline || !o->scanner.n_findings))
		return looked;
	if (o->baseline)
		r = baseline_apply(o->baseline, &o->scanner, looked < 0 ? &second : err);
	if (r == 0)
		r = report(o, looked < 0 ? &second : err);
	return looked < 0 ? looked : r;
}

int cmd_scan(struct cli *cli, int argc, char **argv, struct err *err)
{
	struct scanning *o = calloc(1, sizeof(*o));
	int r = o ? parse(cli, argc, argv, o, err) : err_set(err, ERR_FAILED, "out of memory");

	if (r < 0) {
		free(o);
		return r;
	}
	o->format = cli->json ? REPORT_JSON : o->format;
	r = prepare(o, err);
	if (r == 0 && o->write_index) {
		r = write_index(&o->scanner, o->write_index, err);
	} else if (r == 0) {
		r = look_and_report(o, argv + optind, (size_t)(argc - optind), err);
		/* what was found counts more than that something could not be read */
		if (r == 0 && o->scanner.n_findings && !o->write_baseline)
			cli->end = (struct cli_end){true, STATUS_FOUND};
		else if (r == 0 && o->scanner.left_out)
			cli->end = (struct cli_end){true, STATUS_FAILED};
	}
	if (r < 0 && err_exit_status(r) == 1) {
		fprintf(stderr, "cotter: %s\n", err->msg);
		cli->end = (struct cli_end){true, STATUS_FAILED};
		r = 0;
	}
	scanner_done(&o->scanner);
	free(o);
	return r;
}
