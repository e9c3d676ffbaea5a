#pragma once
/*
 * The agent: one per job, it stands in the job's cgroup with the job's token, and serves what the token may use on two sockets, as a
 * PKCS#11 token and as an ssh-agent. It holds no key. Only processes of its own uid in its own cgroup are answered.
 */
#include "common/secret.h"

#include <stdbool.h>
#include <sys/types.h>

struct err;

struct agent_options {
	char dir[80];	   /* of the sockets; mode 0700 */
	int leader_pidfd;  /* -1: none; the agent ends with this process */
	const struct secret *token;
	bool confine;	   /* Landlock and seccomp, once all is open */
};

/* Loads the keys, makes the sockets, calls ready (once), serves until the leader ends or a signal comes, removes sockets and dir. */
int agent_run(const struct agent_options *o, void (*ready)(void *ctx), void *ctx, struct err *err);
