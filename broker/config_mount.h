#pragma once
/* The part of the configuration that mounts engines and ways to log in under more names. For config.c alone. */
#include "broker/yaml_schema.h"

struct config;

extern const struct yaml_field config_mount_fields[];
void *config_new_mount(struct yaml_place at, const char *name, void *target, struct err *err);
/* ERR_INPUT: a mount of no type, or within another one. */
int config_check_mounts(const struct config *c, struct err *err);
