#include "broker/json.h"

#include "common/b64.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/secret.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

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

int json_write(const json_t *j, size_t max, struct secret *ret, struct err *err)
{
	size_t n = json_dumpb(j, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
	int r;

	if (n > max)
		return err_set(err, ERR_LIMIT, "a secret's JSON has at most %zu bytes", max);
	r = n ? secret_new(ret, n, err) : -ERR_BUSY;
	/* jansson needs memory for it, and says so by no bytes */
	if (r == 0)
		ret->len = json_dumpb(j, (char *)ret->data, n, JSON_COMPACT | JSON_ENCODE_ANY);
	return r < 0 || ret->len != n ? err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again") : 0;
}

/* What is no text: the broker shows it in base64, alone. */
static int raw_bytes(const json_t *object, struct secret *ret, struct err *err)
{
	const json_t *text = json_object_get(object, "value_base64");
	int r = secret_new(ret, json_string_length(text) + 1, err);

	if (r == 0 && !b64_decode_padded(json_string_value(text), json_string_length(text), NULL, ret->data, ret->cap, &ret->len))
		r = err_set(err, ERR_FAILED, "it is not base64");
	return r;
}

int json_field(const json_t *object, const char *field, const char *path, struct secret *ret, struct err *err)
{
	const json_t *value = json_object_get(object, field ? field : "value");

	if (!field && json_object_size(object) == 1 && json_is_string(json_object_get(object, "value_base64")))
		return raw_bytes(object, ret, err);
	if (!value && !field && json_object_size(object) == 1)
		value = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)object));
	if (!value && field)
		return err_set(err, ERR_NOT_FOUND, "%s has no field '%.64s'", path, field);
	if (!value)
		return err_set(err, ERR_USAGE, "%s has %zu fields: name one (%s#FIELD, or --json for all)", path,
			       json_object_size(object), path);
	if (json_is_string(value))
		return secret_copy(ret, json_string_value(value), json_string_length(value), err);
	return json_write(value, SIZE_MAX, ret, err);
}
