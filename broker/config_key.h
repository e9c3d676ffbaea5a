#pragma once
/* The part of the configuration that says what has to hold for a use of keys: rates, approvals. For config.c alone. */
#include "broker/yaml_schema.h"

struct config;

extern const struct yaml_field config_key_fields[];
void *config_new_key_rule(struct yaml_place at, const char *name, void *target, struct err *err);
/* ERR_INPUT: a rule of nothing, an approver who is no operator, more approvals than there are approvers. */
int config_check_keys(const struct config *c, struct err *err);
void config_keys_done(struct config *c);
