#include "broker/json.h"

#include "common/err.h"
#include "common/limits.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdlib.h>

/* jansson recurses: the depth is checked before it sees the text. */
static bool depth_ok(const char *p, size_t len)
{
	unsigned int depth = 0;
	bool string = false;

	for (size_t i = 0; i < len; i++) {
		if (string) {
			if (p[i] == '\\')
				i++;
			else if (p[i] == '"')
				string = false;
		} else if (p[i] == '"') {
			string = true;
		} else if (p[i] == '{' || p[i] == '[') {
			if (++depth > LIMIT_JSON_DEPTH)
				return false;
		} else if ((p[i] == '}' || p[i] == ']') && depth) {
			depth--;
		}
	}
	return true;
}

/*
 * jansson 2.14 goes on after a failed allocation in its string buffer and then reads and writes past it. So it never sees one: the
 * first failure leaves the parser altogether, and what it had allocated is released here. jansson's allocator takes no context,
 * hence the one static variable; only the main thread parses, and never within another parse.
 */
struct guard {
	jmp_buf out;
	json_malloc_t take;
	json_free_t release;
	void **blocks; /* what the parse holds; the table has no secret in it */
	size_t n, cap;
};

static struct guard *guarding;

static void *guard_take(size_t size)
{
	struct guard *g = guarding;
	void **grown, *p;

	if (g->n == g->cap) {
		grown = realloc(g->blocks, (g->cap * 2 + 256) * sizeof(*grown));
		if (!grown)
			longjmp(g->out, 1);
		g->blocks = grown;
		g->cap = g->cap * 2 + 256;
	}
	p = g->take(size);
	if (!p)
		longjmp(g->out, 1);
	g->blocks[g->n++] = p;
	return p;
}

static void guard_release(void *p)
{
	struct guard *g = guarding;

	/* the parser frees what it took last */
	for (size_t i = g->n; p && i-- > 0;) {
		if (g->blocks[i] == p) {
			g->blocks[i] = g->blocks[--g->n];
			break;
		}
	}
	g->release(p);
}

/* NULL with *ret_full: the memory is full, and nothing of it is left. */
static json_t *load(const char *text, size_t len, json_error_t *e, bool *ret_full)
{
	struct guard *g = calloc(1, sizeof(*g));
	json_t *volatile j = NULL;
	volatile bool full = g == NULL;

	if (g) {
		json_get_alloc_funcs(&g->take, &g->release);
		guarding = g;
		json_set_alloc_funcs(guard_take, guard_release);
		if (setjmp(g->out) == 0) {
			j = json_loadb(text, len, JSON_REJECT_DUPLICATES, e);
		} else {
			full = true;
			for (size_t i = 0; i < g->n; i++)
				g->release(g->blocks[i]);
		}
		json_set_alloc_funcs(g->take, g->release);
		guarding = NULL;
		free(g->blocks);
		free(g);
	}
	*ret_full = full;
	return j;
}

int json_parse(const char *text, size_t len, json_t **ret, struct err *err)
{
	json_error_t e = {0};
	bool full = false;
	json_t *j;

	if (!depth_ok(text, len))
		return err_set(err, ERR_INPUT, "the JSON is nested more than %u deep", LIMIT_JSON_DEPTH);
	j = load(text, len, &e, &full);
	if (full)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	sodium_memzero(e.text, sizeof(e.text)); /* it quotes the text, which may hold a secret */
	if (!j)
		return err_set(err, ERR_INPUT, "the body is not JSON (line %d, column %d), or has a key twice", e.line, e.column);
	if (json_is_object(j)) {
		*ret = j;
		return 0;
	}
	json_decref(j);
	return err_set(err, ERR_INPUT, "the body is not a JSON object");
}

void json_cleanup(json_t **j)
{
	json_decref(*j);
}
