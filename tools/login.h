#pragma once
/* Getting a token without having one: by role, or by a wrapping token; and registering a job. For login, job and run. */
#include "common/secret.h"
#include "tools/job_launch.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct err;

struct login {
	const char *role, *jwt_file; /* jwt_file NULL: by the kernel's word; "-": standard input */
	bool unwrap;		     /* a wrapping token, on standard input */
	json_t *policies;	     /* an operator's word instead; NULL: none */
	const char *ttl, *name;
	long long uses, uid;	     /* below 0: not said */
	pid_t leader;		     /* 0: none */
	const struct job_launch *launch; /* NULL: the leader was not started here */
};

/* Asks for the token. ret_data (may be NULL): the reply's "data", owned by the caller. */
int login_token(const struct login *l, struct secret *ret_token, json_t **ret_data, struct err *err);
