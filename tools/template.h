#pragma once
/* Text with {{secret:PATH#FIELD}} in it: all other braces stay what they are. */
#include "common/secret.h"

struct err;

/* Calls found for each source that the text names. name: of the text, for what is wrong with it, which is said with its
 * line. */
int template_sources(const struct secret *text, const char *name,
		     int (*found)(void *context, const char *source, struct err *err), void *context, struct err *err);
int template_render(const struct secret *text,
		    int (*look_up)(void *context, const char *source, const struct secret **ret, struct err *err),
		    void *context, struct secret *ret, struct err *err);
