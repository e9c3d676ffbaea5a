#pragma once
/*
 * Secrets on their way into a job: what was asked for (options, a project's cotter.yaml), fetched in one request, and put
 * where the command finds it: its environment, files and descriptors in memory, standard input, rendered templates. Nothing
 * of it is ever written to a disk.
 */
#include "common/limits.h"
#include "common/secret.h"

#include <stdbool.h>
#include <sys/types.h>

struct err;
struct mask_values;

enum delivery_kind {
	DELIVERY_ENV,  /* a variable */
	DELIVERY_FILE, /* a variable with the path of a file */
	DELIVERY_FD,   /* a descriptor; its number is the name, or goes into a variable of that name */
	DELIVERY_STDIN,
	DELIVERY_TEMPLATE, /* a file with {{secret:PATH#FIELD}}; rendered, as DELIVERY_FILE, or to a path on a memory file
			      system */
	DELIVERY_KINDS
};

struct delivery {
	enum delivery_kind kind;
	char name[LIMIT_RUN_NAME + 1]; /* of the variable; "" for standard input, and where there is none */
	char source[LIMIT_PATH_LEN + LIMIT_NAME_LEN + 2]; /* PATH or PATH#FIELD; "" for a template */
	char file[LIMIT_FILE_PATH_LEN];			  /* the template */
	char target[LIMIT_FILE_PATH_LEN];		  /* where its text goes; "": to memory */
	bool made;					  /* the file at target is ours */
	struct secret text;				  /* of the template */
	int number;					  /* DELIVERY_FD: the descriptor that was asked for; -1: any */
	struct secret value;				  /* what is delivered, once fetched */
	int fd;						  /* of the memory file; -1: none */
	struct secret entry;				  /* NAME=…, with a NUL */
};

struct delivered { /* a secret as the broker gave it */
	char source[LIMIT_PATH_LEN + LIMIT_NAME_LEN + 2];
	struct secret value;
	bool changed; /* since the masker heard of it */
};

struct deliveries {
	struct delivery *list;
	size_t n;
	struct delivered *sources; /* each one once */
	size_t n_sources;
	char dir[64]; /* a memory file system of this job alone; "": files are descriptors */
	bool follows; /* values may change: memory files stay writable */
};

/* An option's argument: NAME=PATH[#FIELD], or FILE:NAME, FILE:/target for templates; PATH[#FIELD] for standard input.
 * ERR_USAGE. */
int delivery_add(struct deliveries *d, enum delivery_kind kind, const char *argument, struct err *err);
/* Before the job's user is taken on: as root, a memory file system that no other job sees. uid, gid: who will read it. */
int delivery_prepare(struct deliveries *d, uid_t uid, gid_t gid, struct err *err);
/* One request. Everything wrong with what came (a NUL byte for a variable, a field that is not there) is said now. */
int delivery_fetch(struct deliveries *d, struct err *err);
/* Makes the files and the variables' entries. */
int delivery_make(struct deliveries *d, struct err *err);
/* Asks again; what changed is made known to the masker (v NULL: there is none) and then written to where it was.
 * *ret_changed: anything. */
int delivery_refresh(struct deliveries *d, struct mask_values *v, bool *ret_changed, struct err *err);
/* Values that are new, for the masker. What is too short is told on standard error, and not hidden. */
int delivery_mask(struct deliveries *d, struct mask_values *v, struct err *err);
/* In the child: descriptors to their numbers, and open in the command. Async-signal-safe. Negative errno. */
int delivery_place(const struct deliveries *d);
void delivery_done(struct deliveries *d);
