#pragma once
/* Patterns with '*' in linear time and constant memory: no backtracking that a caller could make expensive. */
#include <stdbool.h>

/* '*' stands for any run of characters, '/' and ':' among them (Vault's bound_claims_type: glob). */
bool glob_match(const char *pattern, const char *text);
/* By component: '*' stays within one; a last component "**" stands for all below, at least one. */
bool glob_match_path(const char *pattern, const char *path);
