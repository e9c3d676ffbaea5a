#include "tools/project.h"

#include "broker/yaml_schema.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/delivery.h"

#include <string.h>

struct project {
	struct deliveries *d;
	enum delivery_kind kind;
	char name[LIMIT_FILE_PATH_LEN];
};

static void *begin(struct project *p, enum delivery_kind kind, struct yaml_place at, const char *name, struct err *err)
{
	if (strlen(name) >= sizeof(p->name)) {
		yaml_fail(at, err, "the name is too long");
		return NULL;
	}
	p->kind = kind;
	strcpy(p->name, name);
	return p;
}

static void *begin_env(struct yaml_place at, const char *name, void *target, struct err *err)
{
	return begin(target, DELIVERY_ENV, at, name, err);
}

static void *begin_file(struct yaml_place at, const char *name, void *target, struct err *err)
{
	return begin(target, DELIVERY_FILE, at, name, err);
}

static void *begin_fd(struct yaml_place at, const char *name, void *target, struct err *err)
{
	return begin(target, DELIVERY_FD, at, name, err);
}

static void *begin_template(struct yaml_place at, const char *name, void *target, struct err *err)
{
	return begin(target, DELIVERY_TEMPLATE, at, name, err);
}

static int end_item(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct project *p = target;
	char argument[2 * LIMIT_FILE_PATH_LEN];

	if ((size_t)snprintf(argument, sizeof(argument), "%s%c%s", p->name, p->kind == DELIVERY_TEMPLATE ? ':' : '=',
			     text) >= sizeof(argument))
		return yaml_fail(at, err, "it is too long");
	return delivery_add(p->d, p->kind, argument, err) < 0 ? yaml_fail(at, err, "%.300s", err->msg) : 0;
}

static int set_stdin(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct project *p = target;

	return delivery_add(p->d, DELIVERY_STDIN, text, err) < 0 ? yaml_fail(at, err, "%.300s", err->msg) : 0;
}

static const struct yaml_field run_fields[] = {
	{"env", YAML_MAP_OF_LISTS, .item = begin_env, .set = end_item},
	{"files", YAML_MAP_OF_LISTS, .item = begin_file, .set = end_item},
	{"fds", YAML_MAP_OF_LISTS, .item = begin_fd, .set = end_item},
	{"templates", YAML_MAP_OF_LISTS, .item = begin_template, .set = end_item},
	{"stdin", YAML_CALL, .set = set_stdin},
	{0},
};

static const struct yaml_field project_fields[] = {{"run", YAML_STRUCT, true, .fields = run_fields}, {0}};

int project_read(struct deliveries *d, const char *file, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	struct project p = {.d = d};
	int r = cli_read_secret(file, LIMIT_PROJECT, &text, err);

	return r < 0 ? r : yaml_schema_read(file, (const char *)text.data, text.len, project_fields, &p, err);
}
