#pragma once
/* A child at the other end of a socket pair: what helpers and engines begin as. */
#include <sys/types.h>

struct err;

/* type: SOCK_SEQPACKET or SOCK_STREAM. 0 in the child, whose end is *ret_fd; the child's pid in its parent, whose end is *ret_fd; or -ERR_*. Both
 * ends are closed by an exec. */
pid_t spawn_fork(int type, int *ret_fd, struct err *err);
