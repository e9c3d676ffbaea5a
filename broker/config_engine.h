#pragma once
/* The part of the configuration that names engines: programs that make credentials when they are asked for. For config.c alone. */
#include "broker/yaml_schema.h"

struct config;

extern const struct yaml_field config_engine_fields[];
void *config_new_engine(struct yaml_place at, const char *name, void *target, struct err *err);
/* ERR_INPUT: an engine or a role of too little. */
int config_check_engines(const struct config *c, struct err *err);
void config_engines_done(struct config *c);
