#pragma once
/* A small process, forked before the broker gives up execve, that starts helpers for it: the broker says which provider,
 * the launcher answers with the helper's socket and its pidfd. It knows the configuration and nothing else. */
#include "broker/config.h"

/* Forks; returns the broker's end of the socket. */
int launcher_start(const struct config *config, int *ret_fd, struct err *err);
/* Starts the helper of provider index. Blocking, but only for a fork. */
int launcher_spawn(int launcher_fd, uint32_t index, int *ret_socket, int *ret_pidfd, struct err *err);
