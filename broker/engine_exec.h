#pragma once
/* In the launcher: an engine's program as a process of its own, confined. */
#include <sys/types.h>

struct config_engine;
struct err;

/* ret_fd: the near end of its standard input and output. It leads a process group, dies with the launcher, has PATH alone for an environment, no
 * core, and (Landlock) no file but the system's programs, the network's configuration and what the engine names. */
int engine_spawn(const struct config_engine *e, int *ret_fd, pid_t *ret_pid, struct err *err);
