#pragma once
/* Turning this process into a job that its siblings of the same uid cannot reach: its own cgroup where it may, and always a Landlock
 * domain of its own. */
#include "common/limits.h"

#include <stdbool.h>

struct err;

struct job_launch {
	bool own_cgroup;
	char cgroup[LIMIT_CGROUP_PATH]; /* of this process, "/" first; "": no v2 tree */
	bool isolated;			/* the domain will hold: a kernel that has it, and not root */
	const char *const *files;	/* removed at the end, up to NULL; NULL: none */
	const char *agent_dir;		/* removed at the end, too: the agent dies with the cgroup. NULL: none */
};

/*
 * Makes a cgroup below the one this process stands in, without room for others below it, and enters it. A process that stays
 * outside kills what is left in it, and removes it, when this process (or the command that it becomes) has ended, however that was.
 * Where it may not (no right, no v2 tree) own_cgroup stays false; ERR_FAILED only for what goes wrong half way.
 */
int job_launch_cgroup(struct job_launch *l, struct err *err);
/* For a process that stays where it is: files alone are removed when it has ended. */
int job_launch_files(const struct job_launch *l, struct err *err);
/* The domain: no ptrace, no /proc/PID/mem, no signals out of it; and nothing typed into the terminal. Where the kernel lacks it: 0. */
int job_launch_isolate(struct err *err);
/* Fills isolated and cgroup without changing anything. */
void job_launch_look(struct job_launch *l);
