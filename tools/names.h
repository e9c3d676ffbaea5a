#pragma once
/* Which secrets there are. */
#include <stddef.h>

struct err;

struct names {
	char **list; /* sorted */
	size_t n, cap;
};

/* All secrets below a folder ("": all), for operators. */
int names_find_secrets(const char *top, struct names *ret, struct err *err);
void names_done(struct names *names);
