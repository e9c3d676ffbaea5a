#pragma once
/*
 * Who is at the other end of a socket, by the kernel's word alone: SO_PEERCRED and SO_PEERPIDFD, both of the moment the
 * peer connected, and PIDFD_GET_INFO for what it is now. /proc/<pid> is never asked: pids are used again.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PEER_OVERFLOW_ID 65534u

struct err;

struct peer {
	uid_t uid; /* when it connected */
	gid_t gid;
	pid_t pid;	     /* for the log only */
	int pidfd;	     /* -1: this kernel has none */
	bool watched;	     /* peers_look hears of its end */
	uint64_t pidfd_id;   /* inode of the pidfd: names the process until the next boot; 0: unknown */
	uint64_t cgroup;     /* cgroup-v2 id now; 0: none, or the root that everybody stands in */
	/* of a TCP connection, see peer_tcp.h */
	bool tcp;
	int diag_fd; /* not its own */
	struct sockaddr_in local, remote;
	uint32_t inode; /* of the other end's socket */
	bool operator_socket;
	const char *problem; /* why the kernel's word is not enough to grant anything; NULL: all is well. It stays. */
};

/* A process, by its pidfd. */
struct process {
	uint32_t pid, uid, gid;
	uint64_t cgroup; /* 0: none or the root */
};

/* ERR_DENIED: it is gone, half seen (a foreign namespace), or its real and effective ids differ. Never asks for the exit
 * state: of a process that was reaped the kernel would tell uid 0. */
int process_read(int pidfd, struct process *ret, struct err *err);
/* Inode of a pidfd; 0: unknown. */
uint64_t process_id(int pidfd);
/* It has ended, reaped or not. */
bool process_ended(int pidfd);

/* What this kernel tells of its peers; at start. ERR_UNSUPPORTED: no SO_PEERPIDFD or PIDFD_GET_INFO (Linux 6.13). */
int peer_supported(struct err *err);
/* Reads who connected. has_pidfd: peer_supported. On success the caller calls peer_done. */
int peer_init(int socket, bool has_pidfd, struct peer *ret);
/* Asks the kernel again: sets cgroup, and problem when the peer is gone (one that is watched: gone and reaped) or not who it was. */
void peer_refresh(struct peer *p);
/*
 * From now on epoll_fd, which is for this alone, tells when the process ends, and peer_refresh asks for its ids and its cgroup only: a call of
 * the kernel less for each request. Without a pidfd, or where epoll cannot take it, nothing changes. p stays where it is until peer_done,
 * whose close takes it out of epoll, as nobody else has that descriptor.
 */
void peer_watch(struct peer *p, int epoll_fd);
/* Sets the problem of all peers whose processes ended: before any peer of them is asked for, whenever epoll_fd is readable. */
void peers_look(int epoll_fd);
void peer_done(struct peer *p);
