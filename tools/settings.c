#include "tools/settings.h"

#include "common/cleanup.h"
#include "tools/cli.h"

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

static const char *scalar(yaml_document_t *doc, const yaml_node_t *mapping, const char *key)
{
	const yaml_node_t *node = find(doc, mapping, key);

	return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static void take_path(const char *text, char ret[108])
{
	if (text && text[0] == '/' && strlen(text) < 108)
		memcpy(ret, text, strlen(text) + 1);
}

static void take(struct settings *ret, yaml_document_t *doc)
{
	const yaml_node_t *root = yaml_document_get_root_node(doc), *jobs = find(doc, root, "jobs");
	const char *text = scalar(doc, jobs, "require_isolation");

	take_path(scalar(doc, root, "socket"), ret->socket);
	take_path(scalar(doc, root, "operator_socket"), ret->operator_socket);
	/* whatever is no plain no */
	ret->require_isolation = text && strcmp(text, "false") != 0;
}

/* Beside the jobs' one, as cotterd puts it. */
void settings_operator_socket(const char *socket, char ret[108])
{
	const char *slash = strrchr(socket, '/');

	snprintf(ret, 108, "%s", socket);
	if (slash && (size_t)(slash - socket) + sizeof("/operator.sock") <= 108)
		memcpy(ret + (slash - socket), "/operator.sock", sizeof("/operator.sock"));
}

void settings_load(struct settings *ret)
{
	CLEANUP(cleanup_fclose) FILE *file = fopen(cli_config_path(NULL), "re");
	yaml_document_t doc;
	yaml_parser_t parser;

	*ret = (struct settings){0};
	if (file && yaml_parser_initialize(&parser)) {
		yaml_parser_set_input_file(&parser, file);
		if (yaml_parser_load(&parser, &doc)) {
			take(ret, &doc);
			yaml_document_delete(&doc);
		}
		yaml_parser_delete(&parser);
	}
	if (!ret->socket[0])
		snprintf(ret->socket, sizeof(ret->socket), "/run/cotter/cotter.sock");
	if (!ret->operator_socket[0])
		settings_operator_socket(ret->socket, ret->operator_socket);
}
