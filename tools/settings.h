#pragma once
/* What clients take from the configuration: broker/config.c knows all of it, and all that it is made of. */
#include <stdbool.h>

struct settings {
	char socket[108], operator_socket[108];
	bool require_isolation;
};

/* The operators' socket that stands beside a jobs' one. */
void settings_operator_socket(const char *socket, char ret[108]);
/* Of cli_config_path. The defaults where it cannot be read, as where it is not for jobs to read. One that others may have written, or
 * that is no YAML, is told of and passed over; then isolation is required. */
void settings_load(struct settings *ret);
