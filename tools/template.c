#include "tools/template.h"

#include "common/err.h"
#include "common/limits.h"

#include <string.h>

#define OPEN "{{secret:"
#define CLOSE "}}"
#define SOURCE_MAX (LIMIT_PATH_LEN + LIMIT_NAME_LEN + 2u)

struct place {
	const uint8_t *start, *end; /* of the braces */
	char source[SOURCE_MAX];
};

/* 1: a place; 0: there is none any more. */
static int next(const struct secret *text, const uint8_t *from, struct place *ret, struct err *err)
{
	const uint8_t *end = text->data + text->len, *close;
	size_t n;

	ret->start = from < end ? memmem(from, (size_t)(end - from), OPEN, strlen(OPEN)) : NULL;
	if (!ret->start)
		return 0;
	from = ret->start + strlen(OPEN);
	close = memmem(from, (size_t)(end - from), CLOSE, strlen(CLOSE));
	if (!close || memchr(from, '\n', (size_t)(close - from)))
		return err_set(err, ERR_INPUT, OPEN " without " CLOSE " in its line");
	n = (size_t)(close - from);
	if (n >= sizeof(ret->source))
		return err_set(err, ERR_INPUT, "what stands between " OPEN " and " CLOSE " is too long");
	memcpy(ret->source, from, n);
	ret->source[n] = '\0';
	ret->end = close + strlen(CLOSE);
	return 1;
}

static size_t line_of(const struct secret *text, const uint8_t *at)
{
	size_t line = 1;

	for (const uint8_t *p = text->data; p < at; p++)
		line += *p == '\n';
	return line;
}

int template_sources(const struct secret *text, const char *name,
		     int (*found)(void *context, const char *source, struct err *err), void *context, struct err *err)
{
	struct place p = {.end = text->data};
	int r;

	while ((r = next(text, p.end, &p, err)) == 1) {
		r = found(context, p.source, err);
		if (r < 0)
			break;
	}
	return r < 0 ? err_wrap(err, "%.200s:%zu", name, line_of(text, p.start)) : 0;
}

int template_render(const struct secret *text,
		    int (*look_up)(void *context, const char *source, const struct secret **ret, struct err *err),
		    void *context, struct secret *ret, struct err *err)
{
	const uint8_t *at = text->data, *end = text->data + text->len;
	const struct secret *value;
	struct place p;
	int r;

	while ((r = next(text, at, &p, err)) == 1) {
		r = look_up(context, p.source, &value, err);
		if (r == 0)
			r = secret_append(ret, at, (size_t)(p.start - at), err);
		if (r == 0)
			r = secret_append(ret, value->data, value->len, err);
		if (r < 0)
			return r;
		at = p.end;
	}
	return r == 0 ? secret_append(ret, at, (size_t)(end - at), err) : r;
}
