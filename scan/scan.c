#include "scan/scan.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "mask/dense.h"
#include "scan/rules.h"

#include <sodium.h>
#include <string.h>

#define NAMES_MAX 65536u
#define SCAN_AHEAD 512u /* bytes behind what is found that decide whether it is: the same twice is told once */
#define BINARY_LOOK 8192u /* bytes at a text's begin: a NUL among them, and the rules are not asked */

int scanner_init(struct scanner *s, struct err *err)
{
	*s = (struct scanner){.forms.min = FORMS_MIN_DEFAULT};
	pthread_mutex_init(&s->lock, NULL);
	randombytes_buf(s->key, sizeof(s->key));
	randombytes_buf(s->fingerprints.key, sizeof(s->fingerprints.key));
	return rules_make(&s->leads, err);
}

int scanner_name(struct scanner *s, const char *name, uint32_t *ret, struct err *err)
{
	if (s->n_names == NAMES_MAX)
		return err_set(err, ERR_LIMIT, "at most %u secrets are looked for at once", NAMES_MAX);
	if ((s->n_names & (s->n_names - 1)) == 0) {
		void *names = reallocarray(s->names, s->n_names ? 2 * s->n_names : 1, sizeof(*s->names));

		if (!names)
			return err_set(err, ERR_FAILED, "out of memory");
		s->names = names;
	}
	snprintf(s->names[s->n_names], sizeof(*s->names), "%s", name);
	*ret = (uint32_t)s->n_names++;
	return 0;
}

int scanner_ready(struct scanner *s, struct err *err)
{
	int r = forms_build(&s->forms, err);

	s->exact = s->forms.plain.n > 0;
	s->prints = s->fingerprints.n > 0;
	return r == 0 && s->prints ? fingerprints_build(&s->fingerprints, err) : r;
}

void scanner_done(struct scanner *s)
{
	forms_done(&s->forms);
	fingerprints_done(&s->fingerprints);
	match_done(&s->leads);
	for (size_t i = 0; i < s->n_findings; i++)
		free(s->findings[i].place);
	free(s->findings);
	free(s->names);
	sodium_memzero(s->key, sizeof(s->key));
	pthread_mutex_destroy(&s->lock);
}

static int compare(const void *a, const void *b)
{
	const struct scan_finding *x = a, *y = b;
	const char *p = x->secret ? x->secret : x->rule->id, *q = y->secret ? y->secret : y->rule->id;
	int c = strcmp(x->place, y->place);

	if (c)
		return c;
	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	c = strcmp(p, q);
	return c ? c : (x->column > y->column) - (x->column < y->column);
}

void scanner_sort(struct scanner *s)
{
	size_t out = 0;

	if (s->n_findings)
		qsort(s->findings, s->n_findings, sizeof(*s->findings), compare);
	for (size_t i = 0; i < s->n_findings; i++) {
		struct scan_finding *f = &s->findings[i], *last = out ? &s->findings[out - 1] : NULL;

		if (last && strcmp(last->place, f->place) == 0 && last->line == f->line && last->secret == f->secret &&
		    last->rule == f->rule)
			free(f->place);
		else
			s->findings[out++] = *f;
	}
	s->n_findings = out;
}

void scanner_left_out(struct scanner *s, const char *place, const char *why)
{
	pthread_mutex_lock(&s->lock);
	if (s->left_out++ < 20)
		fprintf(stderr, "cotter: %.900s: left out: %s\n", place, why);
	pthread_mutex_unlock(&s->lock);
}

/* ---- one text
 * ---------------------------------------------------------------------------------------------------------------- */

struct scan_text {
	struct scanner *scanner;
	char place[SCAN_NAME_MAX];
	uint8_t window[SCAN_WINDOW + SCAN_OVERLAP];
	uint8_t dense_bytes[SCAN_WINDOW + SCAN_OVERLAP];
	struct dense_mark marks[DENSE_MARKS(SCAN_WINDOW + SCAN_OVERLAP)];
	struct dense dense;
	size_t len;
	size_t old;	/* of the window's begin, looked at before */
	size_t lines;	/* that ended before the window */
	size_t columns; /* of the line that the window begins in, before it */
	unsigned long long bytes;
	bool binary, first;
};

struct scan_text *scan_text_new(struct scanner *s)
{
	struct scan_text *t = malloc(sizeof(*t));

	if (t) {
		t->scanner = s;
		t->dense.bytes = t->dense_bytes;
		t->dense.marks = t->marks;
		t->bytes = 0;
		dense_init(&t->dense);
	}
	return t;
}

void scan_text_free(struct scan_text **t)
{
	if (*t) {
		pthread_mutex_lock(&(*t)->scanner->lock);
		(*t)->scanner->bytes += (*t)->bytes;
		pthread_mutex_unlock(&(*t)->scanner->lock);
	}
	free(*t);
	*t = NULL;
}

void scan_text_begin(struct scan_text *t, const char *place)
{
	snprintf(t->place, sizeof(t->place), "%s", place);
	t->len = t->old = t->lines = t->columns = 0;
	t->first = true;
	t->binary = false;
}

static void place_of(const struct scan_text *t, size_t at, size_t *ret_line, size_t *ret_column)
{
	const uint8_t *from = t->window, *end = t->window + at, *p;
	size_t line = t->lines + 1, column = t->columns;

	while ((p = memchr(from, '\n', (size_t)(end - from)))) {
		line++;
		column = 0;
		from = p + 1;
	}
	*ret_line = line;
	*ret_column = column + (size_t)(end - from) + 1;
}

static bool allowed(const struct scan_text *t, size_t at)
{
	const uint8_t *start = memrchr(t->window, '\n', at), *end = memchr(t->window + at, '\n', t->len - at);

	start = start ? start + 1 : t->window;
	end = end ? end : t->window + t->len;
	return memmem(start, (size_t)(end - start), SCAN_ALLOW, strlen(SCAN_ALLOW));
}

static void note(struct scan_text *t, size_t at, size_t len, const char *secret, const struct scan_rule *rule)
{
	struct scanner *s = t->scanner;
	struct scan_finding f = {.secret = secret, .rule = rule};

	/* what lies in the part that was looked at before was found then */
	if (at + len <= t->old)
		return;
	place_of(t, at, &f.line, &f.column);
	/* of a secret of the store the name: a baseline tells the key, and the mark would tell a secret that can be guessed */
	crypto_generichash(f.mark, sizeof(f.mark), secret ? (const uint8_t *)secret : t->window + at,
			   secret ? strlen(secret) : len, s->key, sizeof(s->key));
	if (rule)
		snprintf(f.shown, sizeof(f.shown), "%.10s...", rule->begin);
	pthread_mutex_lock(&s->lock);
	if (s->n_findings == s->cap && s->cap < SCAN_FINDINGS) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		void *more = reallocarray(s->findings, cap, sizeof(*s->findings));

		if (more) {
			s->findings = more;
			s->cap = cap;
		}
	}
	f.place = s->n_findings < s->cap ? strdup(t->place) : NULL;
	if (f.place)
		s->findings[s->n_findings++] = f;
	else
		s->left_out++;
	pthread_mutex_unlock(&s->lock);
}

static void found_plain(void *context, size_t at, const struct match_entry *e)
{
	struct scan_text *t = context;

	note(t, at, e->len, t->scanner->names[e->value], NULL);
}

static void note_dense(struct scan_text *t, size_t at, size_t len, uint32_t value)
{
	size_t start = dense_place(&t->dense, t->window, at), end = dense_place(&t->dense, t->window, at + len - 1) + 1;

	if (end - start <= SCAN_OVERLAP)
		note(t, start, end - start, t->scanner->names[value], NULL);
}

static void found_dense(void *context, size_t at, const struct match_entry *e)
{
	note_dense(context, at, e->len, e->value);
}

static void found_print(void *context, size_t at, const struct fingerprint *p)
{
	struct scan_text *t = context;

	if (p->dense)
		note_dense(t, at, p->len, p->value);
	else
		note(t, at, p->len, t->scanner->names[p->value], NULL);
}

static void found_lead(void *context, size_t at, const struct match_entry *e)
{
	struct scan_text *t = context;
	size_t len;

	/* of rules with one begin, each; they stand together in the table */
	for (size_t i = e->value; i < n_scan_rules && strcmp(scan_rules[i].begin, scan_rules[e->value].begin) == 0; i++)
		if (rule_holds(&scan_rules[i], t->window, t->len, at, &len) && !allowed(t, at))
			note(t, at, len, NULL, &scan_rules[i]);
}

static void look(struct scan_text *t, bool final)
{
	struct scanner *s = t->scanner;

	if (t->first)
		t->binary = memchr(t->window, 0, t->len < BINARY_LOOK ? t->len : BINARY_LOOK);
	t->first = false;
	if (s->exact || s->prints)
		dense_make(&t->dense, t->window, t->len, final);
	if (s->exact) {
		match_scan(&s->forms.plain, t->window, t->len, found_plain, t);
		match_scan(&s->forms.dense, t->dense_bytes, t->dense.len, found_dense, t);
	}
	if (s->prints) {
		fingerprints_scan(&s->fingerprints, false, t->window, t->len, found_print, t);
		fingerprints_scan(&s->fingerprints, true, t->dense_bytes, t->dense.len, found_print, t);
	}
	if (s->rules && !t->binary)
		match_scan(&s->leads, t->window, t->len, found_lead, t);
}

/* What began in the last part of the window may go on. */
static void slide(struct scan_text *t)
{
	size_t gone = t->len - SCAN_OVERLAP;
	const uint8_t *from = t->window, *p;

	for (; (p = memchr(from, '\n', (size_t)(t->window + gone - from))); from = p + 1) {
		t->lines++;
		t->columns = 0;
	}
	t->columns += (size_t)(t->window + gone - from);
	memmove(t->window, t->window + gone, SCAN_OVERLAP);
	t->len = SCAN_OVERLAP;
	t->old = SCAN_OVERLAP - SCAN_AHEAD;
}

uint8_t *scan_text_room(struct scan_text *t, size_t *ret_len)
{
	*ret_len = sizeof(t->window) - t->len;
	return t->window + t->len;
}

void scan_text_came(struct scan_text *t, size_t len)
{
	t->len += len;
	t->bytes += len;
	if (t->len < sizeof(t->window))
		return;
	look(t, false);
	slide(t);
}

void scan_text_put(struct scan_text *t, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	while (len) {
		size_t room, n;
		uint8_t *to = scan_text_room(t, &room);

		n = len < room ? len : room;
		memcpy(to, p, n);
		scan_text_came(t, n);
		p += n;
		len -= n;
	}
}

void scan_text_end(struct scan_text *t)
{
	if (t->len > t->old)
		look(t, true);
}
