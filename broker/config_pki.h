#pragma once
/* The part of the configuration that says what certificates may be issued: pki, ssh. For config.c alone. */
#include "broker/yaml_schema.h"

struct config;

extern const struct yaml_field config_pki_fields[], config_ssh_fields[];
/* ERR_INPUT: a role without names, a lifetime that is too long. */
int config_check_pki(const struct config *c, struct err *err);
void config_pki_done(struct config *c);
