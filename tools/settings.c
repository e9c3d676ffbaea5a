#include "tools/settings.h"

#include "broker/config_text.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

static const yaml_node_t *find(yaml_document_t *doc, const yaml_node_t *mapping, const char *key)
{
	if (!mapping || mapping->type != YAML_MAPPING_NODE)
		return NULL;
	for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < mapping->data.mapping.pairs.top; p++) {
		const yaml_node_t *name = yaml_document_get_node(doc, p->key);

		if (name && name->type == YAML_SCALAR_NODE && strcmp((const char *)name->data.scalar.value, key) == 0)
			return yaml_document_get_node(doc, p->value);
	}
	return NULL;
}

/* NULL: not there, or no text. */
static const char *scalar(const yaml_node_t *node)
{
	const char *text = node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;

	return text && strlen(text) == node->data.scalar.length ? text : NULL;
}

static void take_path(const yaml_node_t *node, char ret[108])
{
	const char *text = scalar(node);

	if (text && text[0] == '/' && strlen(text) < 108)
		memcpy(ret, text, strlen(text) + 1);
}

static void take(struct settings *ret, yaml_document_t *doc)
{
	const yaml_node_t *root = yaml_document_get_root_node(doc), *jobs = find(doc, root, "jobs");
	const yaml_node_t *required = find(doc, jobs, "require_isolation");
	const char *text = scalar(required);

	take_path(find(doc, root, "socket"), ret->socket);
	take_path(find(doc, root, "operator_socket"), ret->operator_socket);
	/* whatever is there and is no plain no */
	ret->require_isolation = (jobs && jobs->type != YAML_MAPPING_NODE) || (required && !(text && strcmp(text, "false") == 0));
}

/* Beside the jobs' one, as cotterd puts it. */
void settings_operator_socket(const char *socket, char ret[108])
{
	const char *slash = strrchr(socket, '/');
	int dir = slash ? (int)(slash - socket) : 0;

	/* what does not fit is no path: never the jobs' socket in its place */
	if (!slash || snprintf(ret, 108, "%.*s/operator.sock", dir, socket) >= 108)
		ret[0] = '\0';
}

/* false: it is no YAML. */
static bool parse(const char *text, size_t len, struct settings *ret)
{
	yaml_document_t doc;
	yaml_parser_t parser;
	bool good = false;

	if (!yaml_parser_initialize(&parser))
		return false;
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	if (yaml_parser_load(&parser, &doc)) {
		take(ret, &doc);
		good = true;
		yaml_document_delete(&doc);
	}
	yaml_parser_delete(&parser);
	return good;
}

void settings_load(struct settings *ret)
{
	const char *path = cli_config_path(NULL);
	CLEANUP(cleanup_free) char *text = NULL;
	struct err err = {0};
	size_t len;
	int r = config_read_text(path, &text, &len, &err);

	*ret = (struct settings){0};
	if (r == 0 && !parse(text, len, ret))
		r = err_set(&err, ERR_INPUT, "%.300s: not YAML ('cotterd --check' says where)", path);
	/* where there is one that cannot be believed, what it demands is not known */
	if (r < 0 && r != -ERR_FAILED) {
		fprintf(stderr, "cotter: %s: it is passed over\n", err.msg);
		ret->require_isolation = true;
	}
	if (!ret->socket[0])
		snprintf(ret->socket, sizeof(ret->socket), "/run/cotter/cotter.sock");
	if (!ret->operator_socket[0])
		settings_operator_socket(ret->socket, ret->operator_socket);
}
