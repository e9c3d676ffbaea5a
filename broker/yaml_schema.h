#pragma once
/* Reads a YAML document into C structures by a table of fields, and complains with file and line. */
#include <stdbool.h>
#include <stddef.h>

struct err;

struct yaml_place {
	const char *file;
	size_t line;
};

enum yaml_kind {
	YAML_TEXT,		/* a string copied to offset, at most size - 1 bytes */
	YAML_PATH,		/* the same, absolute */
	YAML_CALL,		/* a string given to set */
	YAML_LIST,		/* a sequence of strings, each given to set */
	YAML_STRUCT,		/* a mapping with fields, into the same target */
	YAML_MAP,		/* name → mapping with fields, or, if there is set, one string for it; item makes the target */
	YAML_SEQUENCE,		/* sequence of mappings with fields; item makes the target, its name is "" */
	YAML_MAP_OF_SEQUENCES,	/* name → sequence of mappings: item for the name, sub_item for each */
	YAML_MAP_OF_LISTS,	/* name → one string or a sequence of them: item for the name, set for each */
	YAML_MAP_OF_MAPS,	/* name → a map as fields says, alone: item for the name */
};

struct yaml_field {
	const char *key; /* NULL ends the table */
	enum yaml_kind kind;
	bool required;
	size_t offset, size;
	const struct yaml_field *fields;
	int (*set)(struct yaml_place at, const char *text, void *target, struct err *err);
	/* NULL: err says why */
	void *(*item)(struct yaml_place at, const char *name, void *target, struct err *err);
	void *(*sub_item)(struct yaml_place at, const char *name, void *target, struct err *err);
};

/* ERR_INPUT, "file:line: message". */
int yaml_fail(struct yaml_place at, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Grows *(T **)array by one zeroed element and returns it; NULL without memory. Pointers into the array move. */
void *yaml_append(void *array, size_t *n, size_t size);

int yaml_schema_read(const char *file, const char *text, size_t len, const struct yaml_field *fields, void *target,
		     struct err *err);
