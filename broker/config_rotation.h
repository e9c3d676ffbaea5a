#pragma once
/* The part of the configuration that says how secrets are rotated, and how often. For config.c alone. */
#include "broker/yaml_schema.h"

extern const struct yaml_field config_rotation_fields[];
void *config_new_rotation(struct yaml_place at, const char *name, void *target, struct err *err);
