#pragma once
/* The start-up checklist that every program runs before anything else; fails closed, in this order. */
#include <stddef.h>

struct err;

struct harden {
	int keep_fd_below;	/* descriptors from here on are closed: 3, or 4 for a helper with its socket; 0: none is, as
				   this process will become a job's command */
	int clear_environment;	/* daemons: nothing of the environment is kept */
	size_t arena_size;
};

/* fds 0-2 open · close_range · clearenv · umask 077 · not dumpable, no core · SIGPIPE and SIGXFSZ ignored ·
 * freed memory overwritten · arena locked · no_new_privs · no writable-and-executable memory. */
int harden_start(const struct harden *h, struct err *err);

/* What exec'ing a job's command needs back: signals to their defaults. */
void harden_before_exec(void);
