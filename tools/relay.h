#pragma once
/* A stream through the masker: from one descriptor to another, without delay. */
#include <stdbool.h>
#include <stddef.h>

struct err;
struct mask;

/* mask_options.write: context points to the descriptor. */
int relay_write(void *context, const void *data, size_t len, struct err *err);
/* Reads what is there and puts it into the masker. *ret_end: the stream has ended (and so has the masker's). */
int relay_step(struct mask *m, int in, bool *ret_end, struct err *err);
/* Until the end. */
int relay_all(struct mask *m, int in, struct err *err);
/* Warns on standard error of a secret that is not hidden, or is so short that it hides too much. */
void relay_tell_short(size_t len, const char *name, size_t number, bool added);
