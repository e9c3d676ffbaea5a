#pragma once
/* The part of the configuration that maps identities to policies: issuers, roles, scopes. For config.c alone. */
#include "broker/yaml_schema.h"

#include <stdint.h>

struct config;

extern const struct yaml_field config_issuer_fields[], config_role_fields[], config_scope_fields[];
void *config_new_issuer(struct yaml_place at, const char *name, void *target, struct err *err);
void *config_new_role(struct yaml_place at, const char *name, void *target, struct err *err);
void *config_new_scope(struct yaml_place at, const char *name, void *target, struct err *err);
/* What stands in two places must fit. ERR_INPUT. */
int config_check_roles(const struct config *c, struct err *err);
void config_roles_done(struct config *c);

/* Of config.c. */
int config_duration(struct yaml_place at, const char *text, uint64_t *ret_ms, struct err *err);
int config_id(struct yaml_place at, const char *text, size_t max, uint32_t **list, size_t *n, struct err *err);
int config_string(struct yaml_place at, const char *text, size_t max, char ***list, size_t *n, struct err *err);
int config_bool(struct yaml_place at, const char *text, bool *ret, struct err *err);
/* From 1 to max. */
int config_count(struct yaml_place at, const char *text, uint32_t max, uint32_t *ret, struct err *err);
int config_name(struct yaml_place at, const char *name, struct err *err);
void config_free_strings(char **list, size_t n);
