#include "broker/yaml_schema.h"

#include "common/err.h"
#include "common/limits.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct walk {
	const char *file;
	yaml_document_t *doc;
	unsigned int depth;
	size_t items;
};

int yaml_fail(struct yaml_place at, struct err *err, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_INPUT, "%.100s:%zu: %s", at.file, at.line, text);
}

void *yaml_append(void *array, size_t *n, size_t size)
{
	void **base = array;
	char *grown = reallocarray(*base, *n + 1, size);

	if (!grown)
		return NULL;
	*base = grown;
	memset(grown + *n * size, 0, size);
	return grown + (*n)++ * size;
}

static struct yaml_place place(const struct walk *w, const yaml_node_t *node)
{
	return (struct yaml_place){w->file, node->start_mark.line + 1};
}

static const char *kind_name(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE ? "a single value" : node->type == YAML_SEQUENCE_NODE ? "a list" : "a mapping";
}

static int scalar(struct walk *w, const yaml_node_t *node, const char *key, const char **ret, struct err *err)
{
	if (node->type != YAML_SCALAR_NODE)
		return yaml_fail(place(w, node), err, "%s: expected a single value, found %s", key, kind_name(node));
	if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
		return yaml_fail(place(w, node), err, "%s: a NUL byte", key);
	*ret = (const char *)node->data.scalar.value;
	return 0;
}

static int expect(struct walk *w, const yaml_node_t *node, yaml_node_type_t type, const char *key, struct err *err)
{
	const char *what = type == YAML_SEQUENCE_NODE ? "a list" : "a mapping";
	ptrdiff_t n = node->type == YAML_SEQUENCE_NODE  ? node->data.sequence.items.top - node->data.sequence.items.start
		      : node->type == YAML_MAPPING_NODE ? node->data.mapping.pairs.top - node->data.mapping.pairs.start
							: 0;

	if (node->type != type)
		return yaml_fail(place(w, node), err, "%s: expected %s, found %s", key, what, kind_name(node));
	/* aliases make a short file long: what is read is counted, not the bytes */
	w->items += (size_t)n;
	if (n > (ptrdiff_t)LIMIT_CONFIG_ITEMS || w->items > 64 * LIMIT_CONFIG_ITEMS)
		return yaml_fail(place(w, node), err, "%s: more than %u entries", key, LIMIT_CONFIG_ITEMS);
	return 0;
}

static int read_mapping(struct walk *w, const yaml_node_t *node, const struct yaml_field *fields, void *target,
			const char *name, struct err *err);

static int read_short(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, void *target, struct err *err)
{
	const char *text = "";
	int r = scalar(w, node, f->key, &text, err);

	return r < 0 ? r : f->set(place(w, node), text, target, err);
}

static int read_list(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, void *target, struct err *err)
{
	const char *text = "";
	int r;

	if (f->kind == YAML_MAP_OF_LISTS && node->type == YAML_SCALAR_NODE)
		return read_short(w, node, f, target, err);
	r = expect(w, node, YAML_SEQUENCE_NODE, f->key, err);

	if (r < 0)
		return r;
	for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
		yaml_node_t *item = yaml_document_get_node(w->doc, *i);

		r = scalar(w, item, f->key, &text, err);
		if (r == 0)
			r = f->set(place(w, item), text, target, err);
		if (r < 0)
			return r;
	}
	return 0;
}

typedef void *make_item(struct yaml_place at, const char *name, void *target, struct err *err);

static int read_sequence(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, make_item *make, void *target,
			 const char *name, struct err *err)
{
	int r = expect(w, node, YAML_SEQUENCE_NODE, name, err);

	if (r < 0)
		return r;
	for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
		yaml_node_t *item = yaml_document_get_node(w->doc, *i);
		void *sub = make(place(w, item), "", target, err);

		r = sub ? read_mapping(w, item, f->fields, sub, name, err) : -ERR_INPUT;
		if (r < 0)
			return r;
	}
	return 0;
}

/* A mapping may not have one key twice: YAML parsers differ in which they take. */
static int check_duplicates(struct walk *w, const yaml_node_t *node, struct err *err)
{
	yaml_node_pair_t *start = node->data.mapping.pairs.start;
	const char *a = "", *b;
	int r;

	for (yaml_node_pair_t *p = start; p < node->data.mapping.pairs.top; p++) {
		yaml_node_t *key = yaml_document_get_node(w->doc, p->key);

		r = scalar(w, key, "a key", &a, err);
		if (r < 0)
			return r;
		for (yaml_node_pair_t *q = start; q < p; q++) {
			b = (const char *)yaml_document_get_node(w->doc, q->key)->data.scalar.value;
			if (strcmp(a, b) == 0)
				return yaml_fail(place(w, key), err, "'%.60s' stands here twice (first on line %zu)", a,
						 yaml_document_get_node(w->doc, q->key)->start_mark.line + 1);
		}
	}
	return 0;
}

static int read_map(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, void *target, struct err *err)
{
	int r = expect(w, node, YAML_MAPPING_NODE, f->key, err);

	if (r == 0)
		r = check_duplicates(w, node, err);
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; r == 0 && p < node->data.mapping.pairs.top; p++) {
		yaml_node_t *key = yaml_document_get_node(w->doc, p->key), *value = yaml_document_get_node(w->doc, p->value);
		const char *name = (const char *)key->data.scalar.value;
		void *item = f->item(place(w, key), name, target, err);

		if (!item)
			r = -ERR_INPUT;
		else if (f->kind == YAML_MAP && f->set && value->type == YAML_SCALAR_NODE)
			r = read_short(w, value, f, item, err);
		else if (f->kind == YAML_MAP_OF_MAPS)
			r = read_map(w, value, f->fields, item, err);
		else if (f->kind == YAML_MAP)
			r = read_mapping(w, value, f->fields, item, name, err);
		else if (f->kind == YAML_MAP_OF_LISTS)
			r = read_list(w, value, f, item, err);
		else
			r = read_sequence(w, value, f, f->sub_item, item, name, err);
	}
	return r;
}

static int read_text(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, void *target, struct err *err)
{
	const char *text = "";
	int r = scalar(w, node, f->key, &text, err);

	if (r < 0)
		return r;
	if (f->kind == YAML_CALL)
		return f->set(place(w, node), text, target, err);
	if (f->kind == YAML_PATH && text[0] != '/')
		return yaml_fail(place(w, node), err, "%s: expected an absolute path, found '%.100s'", f->key, text);
	if (text[0] == '\0')
		return yaml_fail(place(w, node), err, "%s: is empty", f->key);
	if (strlen(text) >= f->size)
		return yaml_fail(place(w, node), err, "%s: longer than %zu bytes", f->key, f->size - 1);
	memcpy((char *)target + f->offset, text, strlen(text) + 1);
	return 0;
}

static int read_field(struct walk *w, const yaml_node_t *node, const struct yaml_field *f, void *target, struct err *err)
{
	switch (f->kind) {
	case YAML_TEXT:
	case YAML_PATH:
	case YAML_CALL:
		return read_text(w, node, f, target, err);
	case YAML_LIST:
		return read_list(w, node, f, target, err);
	case YAML_STRUCT:
		return read_mapping(w, node, f->fields, target, f->key, err);
	case YAML_SEQUENCE:
		return read_sequence(w, node, f, f->item, target, f->key, err);
	case YAML_MAP:
	case YAML_MAP_OF_SEQUENCES:
	case YAML_MAP_OF_LISTS:
	case YAML_MAP_OF_MAPS:
		return read_map(w, node, f, target, err);
	}
	return 0;
}

static int unknown_key(struct walk *w, const yaml_node_t *key, const struct yaml_field *fields, struct err *err)
{
	char known[256] = "";
	size_t n = 0;

	for (; fields->key && n < sizeof(known) - 1; fields++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", n ? ", " : "", fields->key);
	return yaml_fail(place(w, key), err, "unknown key '%.60s': expected one of %s", (const char *)key->data.scalar.value, known);
}

static int read_mapping(struct walk *w, const yaml_node_t *node, const struct yaml_field *fields, void *target,
			const char *name, struct err *err)
{
	const struct yaml_field *f;
	uint64_t seen = 0;
	int r = expect(w, node, YAML_MAPPING_NODE, name, err);

	if (r == 0 && ++w->depth > LIMIT_CONFIG_DEPTH)
		r = yaml_fail(place(w, node), err, "too deeply nested");
	if (r == 0)
		r = check_duplicates(w, node, err);
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; r == 0 && p < node->data.mapping.pairs.top; p++) {
		yaml_node_t *key = yaml_document_get_node(w->doc, p->key);

		for (f = fields; f->key && strcmp(f->key, (const char *)key->data.scalar.value) != 0;)
			f++;
		if (!f->key)
			return unknown_key(w, key, fields, err);
		seen |= 1ull << (unsigned int)(f - fields);
		r = read_field(w, yaml_document_get_node(w->doc, p->value), f, target, err);
	}
	for (f = fields; r == 0 && f->key; f++)
		if (f->required && !(seen & 1ull << (unsigned int)(f - fields)))
			r = yaml_fail(place(w, node), err, "%s%s'%s' is missing", name, *name ? ": " : "", f->key);
	w->depth--;
	return r;
}

/* What follows "---" would be ignored without a word. */
static int no_second_document(yaml_parser_t *parser, struct yaml_place at, struct err *err)
{
	yaml_document_t doc;
	bool more;

	if (!yaml_parser_load(parser, &doc)) {
		at.line = parser->problem_mark.line + 1;
		return yaml_fail(at, err, "not YAML: %s", parser->problem ? parser->problem : "out of memory");
	}
	more = yaml_document_get_root_node(&doc) != NULL;
	if (more)
		at.line = yaml_document_get_root_node(&doc)->start_mark.line + 1;
	yaml_document_delete(&doc);
	return more ? yaml_fail(at, err, "a second document: one file, one configuration") : 0;
}

int yaml_schema_read(const char *file, const char *text, size_t len, const struct yaml_field *fields, void *target,
		     struct err *err)
{
	struct yaml_place at = {file, 0};
	struct walk w = {.file = file};
	yaml_parser_t parser;
	yaml_document_t doc;
	int r;

	if (!yaml_parser_initialize(&parser))
		return err_set(err, ERR_FAILED, "out of memory");
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	if (!yaml_parser_load(&parser, &doc)) {
		at.line = parser.problem_mark.line + 1;
		r = yaml_fail(at, err, "not YAML: %s", parser.problem ? parser.problem : "out of memory");
		yaml_parser_delete(&parser);
		return r;
	}
	w.doc = &doc;
	at.line = 1;
	if (yaml_document_get_root_node(&doc))
		r = read_mapping(&w, yaml_document_get_root_node(&doc), fields, target, "", err);
	else
		r = yaml_fail(at, err, "the file is empty");
	yaml_document_delete(&doc);
	if (r == 0)
		r = no_second_document(&parser, at, err);
	yaml_parser_delete(&parser);
	return r;
}
