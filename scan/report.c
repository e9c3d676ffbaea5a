#include "scan/report.h"

#include "common/err.h"
#include "scan/rules.h"

#include "build-config.h"

#include <jansson.h>
#include <string.h>

int report_format(const char *name)
{
	static const char *const names[] = {"text", "json", "sarif"};

	for (int i = 0; i < 3; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

static void print_safe(FILE *f, const char *text)
{
	for (; *text; text++)
		fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, f);
}

static void write_text(FILE *f, const struct scanner *s)
{
	for (size_t i = 0; i < s->n_findings; i++) {
		const struct scan_finding *x = &s->findings[i];

		print_safe(f, x->place);
		fprintf(f, ":%zu:%zu: ", x->line, x->column);
		if (x->secret) {
			fputs("the secret ", f);
			print_safe(f, x->secret);
			fputc('\n', f);
		} else {
			fprintf(f, "%s (%s, %s)\n", x->rule->what, x->rule->id, x->shown);
		}
	}
}

static void mark_text(const struct scan_finding *x, char ret[20])
{
	for (size_t i = 0; i < sizeof(x->mark); i++)
		snprintf(ret + 2 * i, 3, "%02x", x->mark[i]);
}

/* A path may hold bytes that are no text. */
static json_t *path_json(const char *path)
{
	json_t *j = json_string(path);
	char safe[SCAN_NAME_MAX];
	size_t n = 0;

	if (j)
		return j;
	for (; n < sizeof(safe) - 1 && path[n]; n++)
		safe[n] = (unsigned char)path[n] < 0x20 || (unsigned char)path[n] > 0x7e ? '?' : path[n];
	safe[n] = '\0';
	return json_string(safe);
}

static json_t *finding_json(const struct scan_finding *x)
{
	char mark[20];

	mark_text(x, mark);
	return json_pack("{s:o, s:I, s:I, s:s, s:s, s:s}", "path", path_json(x->place), "line", (json_int_t)x->line,
			 "column", (json_int_t)x->column, x->secret ? "secret" : "rule",
			 x->secret ? x->secret : x->rule->id, "what", x->secret ? "a secret of the store" : x->rule->what,
			 "mark", mark);
}

static json_t *list_json(const struct scanner *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_findings; i++)
		json_array_append_new(list, finding_json(&s->findings[i]));
	return json_pack("{s:o, s:I, s:I, s:I}", "findings", list, "texts", (json_int_t)s->texts, "bytes",
			 (json_int_t)s->bytes, "left_out", (json_int_t)s->left_out);
}

static const char *rule_id(const struct scan_finding *x)
{
	return x->secret ? "stored-secret" : x->rule->id;
}

static json_t *sarif_result(const struct scan_finding *x)
{
	char mark[20], text[SCAN_NAME_MAX + 64];

	mark_text(x, mark);
	snprintf(text, sizeof(text), x->secret ? "The secret %s stands here." : "This looks like %s.",
		 x->secret ? x->secret : x->rule->what);
	return json_pack("{s:s, s:s, s:{s:s}, s:[{s:{s:{s:o}, s:{s:I, s:I}}}], s:{s:s}}", "ruleId", rule_id(x), "level",
			 "error", "message", "text", text, "locations", "physicalLocation", "artifactLocation", "uri",
			 path_json(x->place), "region", "startLine", (json_int_t)x->line, "startColumn",
			 (json_int_t)x->column, "partialFingerprints", "cotter/v1", mark);
}

/* OASIS SARIF 2.1.0 */
static json_t *sarif(const struct scanner *s)
{
	json_t *rules = json_array(), *results = json_array();

	json_array_append_new(rules, json_pack("{s:s, s:{s:s}}", "id", "stored-secret", "shortDescription", "text",
					       "a secret of the store"));
	for (size_t i = 0; i < n_scan_rules; i++)
		json_array_append_new(rules, json_pack("{s:s, s:{s:s}}", "id", scan_rules[i].id, "shortDescription", "text",
						       scan_rules[i].what));
	for (size_t i = 0; i < s->n_findings; i++)
		json_array_append_new(results, sarif_result(&s->findings[i]));
	return json_pack("{s:s, s:s, s:[{s:{s:{s:s, s:s, s:o}}, s:o}]}", "version", "2.1.0", "$schema",
			 "https://json.schemastore.org/sarif-2.1.0.json", "runs", "tool", "driver", "name", "cotter",
			 "version", COTTER_VERSION, "rules", rules, "results", results);
}

int report_write(FILE *f, enum report_format format, const struct scanner *s, struct err *err)
{
	json_t *j = format == REPORT_TEXT ? NULL : format == REPORT_JSON ? list_json(s) : sarif(s);
	int r = 0;

	if (format == REPORT_TEXT)
		write_text(f, s);
	else if (!j || json_dumpf(j, f, JSON_INDENT(1)) < 0 || fputc('\n', f) == EOF)
		r = err_set(err, ERR_FAILED, "the report cannot be written");
	json_decref(j);
	return r;
}
