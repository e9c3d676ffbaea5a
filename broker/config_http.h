#pragma once
/* The part of the configuration that is about requests as they come: TCP, the header of Vault's clients. For config.c alone. */
#include "broker/yaml_schema.h"

extern const struct yaml_field config_http_fields[];
