#pragma once
/* The part of the configuration that says which systemd unit gets which credentials. For config.c alone. */
#include "broker/yaml_schema.h"

struct config;

extern const struct yaml_field config_unit_fields[];
void *config_new_unit(struct yaml_place at, const char *name, void *target, struct err *err);
void config_units_done(struct config *c);
