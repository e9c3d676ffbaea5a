#pragma once
/* The start-up checklist that every program runs before anything else; fails closed, in this order. */
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

struct err;

/* What a job's command gets back before it is exec'ed. */
struct harden_saved {
	mode_t umask;
	struct rlimit core, files;
};

struct harden {
	int keep_fd_below;	/* descriptors from here on are closed: 3, or 4 for a helper with its socket; 0: none is, as
				   this process will become a job's command */
	int clear_environment;	/* daemons: nothing of the environment is kept */
	size_t arena_size;
	struct harden_saved *saved; /* NULL: nothing is given back */
};

/* fds 0-2 open · close_range · clearenv · umask 077 · not dumpable, no core · SIGPIPE and SIGXFSZ ignored ·
 * freed memory overwritten · arena locked · no_new_privs · no writable-and-executable memory. */
int harden_start(const struct harden *h, struct err *err);

/* Signals to their defaults, limits and umask as they were. */
void harden_before_exec(const struct harden_saved *saved);
