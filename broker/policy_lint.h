#pragma once
/* What is allowed by the schema and still surely a mistake: roles that let in more than was meant. */
#include <stddef.h>

struct config;

/* Calls each with the role and a sentence that says what to do. Returns the number of warnings. */
size_t policy_lint(const struct config *config, void (*each)(void *ctx, const char *role, const char *text), void *ctx);
