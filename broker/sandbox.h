#pragma once
/* What a process gives up once it is running: Landlock (files, signals, abstract sockets) and seccomp. */
#include <stdbool.h>
#include <stddef.h>

struct err;

enum sandbox_access { SANDBOX_READ, SANDBOX_WRITE, SANDBOX_RMDIR /* directories in it may be removed, and nothing else */ };

struct sandbox_path {
	const char *path; /* absent ones are skipped */
	enum sandbox_access access;
};

/* Only these trees stay reachable, in a Landlock domain of its own. A kernel without Landlock: 0 and *ret_level 0, for
 * the caller to log; else the ABI. */
int sandbox_files(const struct sandbox_path *paths, size_t n, int *ret_level, struct err *err);

/* A domain that limits no file: its processes reach no process outside of it, by ptrace, /proc/PID/mem, pidfds or signals (Landlock
 * ABI 6, Linux 6.12). It binds who is in it, so each of two jobs needs its own. */
bool sandbox_can_scope(void);
int sandbox_scope(struct err *err);
/* Nothing can be typed into the terminal that this process shares with whoever started it: TIOCSTI, TIOCLINUX. */
int sandbox_no_typing(struct err *err);

/* The broker: nothing that starts programs, traces, or loads code; such a call kills it, any other unlisted fails. */
int sandbox_broker_syscalls(struct err *err);
/* The helper: vendors' code needs more, but never execve or ptrace. */
int sandbox_keyd_syscalls(struct err *err);
