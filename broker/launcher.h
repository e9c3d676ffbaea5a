#pragma once
/* A small process, forked before the broker gives up execve and signals, that starts and kills helpers for it: the broker
 * says which provider. It knows the configuration and nothing else. */
#include "broker/config.h"

/* Forks; returns the broker's end of the socket. */
int launcher_start(const struct config *config, int *ret_fd, struct err *err);
/* Runs the program of engine index, in the same way; ret_socket is its standard input and output. */
int launcher_run_engine(int launcher_fd, uint32_t index, uint32_t number, int *ret_socket, struct err *err);
/* Kills the one of that number, if it runs still. */
void launcher_kill_engine(int launcher_fd, uint32_t number);
/* Starts the helper of provider index; ret_socket is the near end. number: another one each time, so that a late answer is
 * not taken for this one. Blocking, but only for a fork. */
int launcher_spawn(int launcher_fd, uint32_t index, uint32_t number, int *ret_socket, struct err *err);
/* Kills the helper that was started last for provider index: the broker's own sandbox does not let it send signals. */
void launcher_kill(int launcher_fd, uint32_t index);
