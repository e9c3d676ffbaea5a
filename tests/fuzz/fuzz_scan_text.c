/* The scanner: a text, by rules and for a secret, in pieces; line and column of what is found stand in the text. */
#include "fuzz.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "scan/rules.h"
#include "scan/scan.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char secret[] = "s3cr3t-Value/with+chars";
	size_t used = fuzz_begin(), n_plain = 0;
	CLEANUP(scan_text_free) struct scan_text *t = NULL;
	struct scanner s;
	struct err err = {0};
	uint32_t number;
	bool added;

	CHECK(scanner_init(&s, &err) == 0 && scanner_name(&s, "secret", &number, &err) == 0);
	CHECK(forms_add(&s.forms, secret, strlen(secret), number, &added, &err) == 0 && added);
	s.rules = true;
	CHECK(scanner_ready(&s, &err) == 0);
	t = scan_text_new(&s);
	CHECK(t);
	scan_text_begin(t, "text");
	for (size_t at = 0, n; at < size; at += n) {
		n = 1 + data[at] % 64;
		n = n < size - at ? n : size - at;
		scan_text_put(t, data + at, n);
	}
	scan_text_end(t);
	scanner_sort(&s);
	for (size_t i = 0; i < s.n_findings; i++) {
		const struct scan_finding *f = &s.findings[i];
		const uint8_t *line = data, *end = data + size;

		CHECK(f->line >= 1 && f->column >= 1 && (f->secret || f->rule));
		for (size_t k = 1; k < f->line; k++) {
			line = memchr(line, '\n', (size_t)(end - line));
			CHECK(line);
			line++;
		}
		CHECK(f->column <= (size_t)(end - line));
		if (f->rule)
			CHECK(memcmp(line + f->column - 1, f->rule->begin, strlen(f->rule->begin)) == 0);
		n_plain += f->secret != NULL;
	}
	CHECK(n_plain || !memmem(data, size, secret, strlen(secret)));
	scan_text_free(&t);
	scanner_done(&s);
	fuzz_end(used);
	return 0;
}
