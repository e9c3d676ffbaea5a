#include "scan/baseline.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "scan/rules.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define HEAD "cotter-scan-baseline 1 "
#define MARK_BYTES 4u

static void line_of(const struct scan_finding *x, char ret[SCAN_NAME_MAX + 128])
{
	char mark[2 * MARK_BYTES + 1];
	int n;

	sodium_bin2hex(mark, sizeof(mark), x->mark, MARK_BYTES);
	n = snprintf(ret, SCAN_NAME_MAX + 128, "%s %s %.1000s", mark, x->rule->id, x->place);
	for (int i = 0; i < n; i++)
		if (ret[i] == '\n')
			ret[i] = '?';
}

static FILE *open_list(const char *file, struct scanner *s, bool take_key, struct err *err)
{
	FILE *f = fopen(file, "re");
	char line[256];
	size_t len = 0;

	if (!f) {
		err_errno(err, errno, "%.200s", file);
		return NULL;
	}
	if (!fgets(line, sizeof(line), f) || strncmp(line, HEAD, strlen(HEAD)) != 0 ||
	    (take_key && (sodium_hex2bin(s->key, sizeof(s->key), line + strlen(HEAD), strcspn(line + strlen(HEAD), "\n"),
					 NULL, &len, NULL) != 0 ||
			  len != sizeof(s->key)))) {
		err_set(err, ERR_INPUT, "%.200s is no baseline: make one with --write-baseline", file);
		fclose(f);
		return NULL;
	}
	return f;
}

int baseline_key(const char *file, struct scanner *s, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *f = open_list(file, s, true, err);

	return f ? 0 : -err->code;
}

int baseline_apply(const char *file, struct scanner *s, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *f = open_list(file, s, false, err);
	CLEANUP(cleanup_free) char *line = NULL;
	CLEANUP(cleanup_free) bool *known = calloc(s->n_findings + 1, sizeof(*known));
	size_t cap = 0, out = 0, bytes = 0;
	ssize_t n;

	if (!f || !known)
		return f ? err_set(err, ERR_FAILED, "out of memory") : -err->code;
	while ((n = getline(&line, &cap, f)) > 0) {
		char text[SCAN_NAME_MAX + 128];

		bytes += (size_t)n;
		if (bytes > BASELINE_MAX)
			return err_set(err, ERR_LIMIT, "%.200s has more than %u bytes", file, BASELINE_MAX);
		line[strcspn(line, "\n")] = '\0';
		for (size_t i = 0; i < s->n_findings; i++) {
			if (!s->findings[i].rule || known[i])
				continue;
			line_of(&s->findings[i], text);
			known[i] = strcmp(text, line) == 0;
		}
	}
	for (size_t i = 0; i < s->n_findings; i++) {
		if (known[i])
			free(s->findings[i].place);
		else
			s->findings[out++] = s->findings[i];
	}
	s->n_findings = out;
	return 0;
}

int baseline_write(const char *file, const struct scanner *s, size_t *ret_n, struct err *err)
{
	CLEANUP(cleanup_fclose) FILE *f = fopen(file, "we");
	char key[2 * sizeof(s->key) + 1], text[SCAN_NAME_MAX + 128];

	*ret_n = 0;
	if (!f)
		return err_errno(err, errno, "%.200s", file);
	sodium_bin2hex(key, sizeof(key), s->key, sizeof(s->key));
	fprintf(f, HEAD "%s\n", key);
	for (size_t i = 0; i < s->n_findings; i++) {
		if (!s->findings[i].rule)
			continue;
		line_of(&s->findings[i], text);
		fprintf(f, "%s\n", text);
		++*ret_n;
	}
	return fflush(f) == 0 ? 0 : err_errno(err, errno, "%.200s", file);
}
