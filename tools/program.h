#pragma once
/* A program of the operator's: text in, text out, an end of its time. */
struct err;
struct harden_saved;
struct secret;

struct program {
	const char *path;  /* absolute */
	const char *verb, *argument;
	const struct harden_saved *saved;
	unsigned int timeout_ms;
};

/* in goes to its standard input; what it prints becomes *ret (in the arena, at most LIMIT_PROGRAM_OUTPUT), or goes nowhere where ret is NULL. Of
 * the environment it has PATH alone; its standard error is the caller's. ERR_FAILED: its exit status was not 0, or its time was over: then it is
 * killed with all of its process group. */
int program_run(const struct program *p, const struct secret *in, struct secret *ret, struct err *err);
