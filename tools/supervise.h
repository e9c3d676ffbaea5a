#pragma once
/* Runs a job's command as its parent, with its output through the masker, as if nothing stood between: signals, stops, the
 * exit status and a terminal go through. */
#include "tools/delivery.h"
#include "tools/terminal.h"

struct err;
struct harden_saved;
struct mask_values;

struct supervise {
	char *const *argv, *const *environment;
	const struct harden_saved *saved;
	struct deliveries *deliveries;	 /* lent, as all here */
	struct mask_values *values;	 /* NULL: the command writes to where this process does */
	const char *mask_text;		 /* NULL: as mask_options.text */
	struct terminal terminal;	 /* master -1: the command has none of its own */
	int (*confine)(struct err *err); /* in the child, before the command */
	unsigned int refresh_ms;	 /* 0: values are not looked for again */
	int refresh_signal;
};

/* Does not return before the command has ended. *ret_status: as of wait(2); 1 when the command ended well, and what it wrote
 * could not be written on. */
int supervise_run(const struct supervise *s, int *ret_status, struct err *err);
