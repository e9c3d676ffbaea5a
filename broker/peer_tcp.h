#pragma once
/*
 * Who is at the other end of a TCP connection within this machine: the kernel's word of that end's socket (sock_diag(7)), its uid and its
 * cgroup, both of the moment it was made. It does not tell a gid or a process.
 */
#include "broker/peer.h"

#include <netinet/in.h>

struct err;

/* A netlink socket to ask with. ERR_UNSUPPORTED: this kernel does not tell. */
int peer_tcp_open(int *ret, struct err *err);
/* The same contract as peer_init. */
int peer_tcp_init(int socket, int diag_fd, struct peer *ret);
/* Asks again: sets cgroup, and problem when the other end is gone or another socket. */
void peer_tcp_refresh(struct peer *p);
