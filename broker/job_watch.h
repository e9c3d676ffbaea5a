#pragma once
/* How the end of a job is noticed: its leader's pidfd, and the events of its cgroup. */
struct err;
struct job;
struct jobs;

/* From here on its end is noticed. ERR_DENIED: its cgroup is empty already. */
int job_watch(struct jobs *j, struct job *job, struct err *err);
/* Reads what the kernel told of cgroups, a buffer at a time; ends the jobs whose cgroup is empty, or was. To be called when it has
 * something to tell, and every 250 ms. */
void jobs_look(struct jobs *j);
