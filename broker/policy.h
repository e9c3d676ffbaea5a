#pragma once
/* Which operations a named policy allows on a path. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_policy;

enum policy_op_bit { POLICY_GET = 1, POLICY_PUT = 2, POLICY_DELETE = 4, POLICY_LIST = 8 };

/* get, put, delete, list → its bit; 0 for any other word. */
uint32_t policy_op(const char *word, size_t len);
const char *policy_op_name(uint32_t op);

/* A secret's path where a component may be '+' (any one) and the last '*' (any rest). */
bool policy_pattern_valid(const char *pattern);
/* folder: path is a folder to be listed; a pattern for all below it speaks of the folder itself, too. */
bool policy_pattern_matches(const char *pattern, const char *path, bool folder);

/* Any rule that matches may allow; nothing denies but absence. path: for list, the folder without its last slash. */
bool policy_allows(const struct config_policy *policy, const char *path, uint32_t op);
