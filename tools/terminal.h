#pragma once
/*
 * A job whose output is masked cannot write to the terminal itself: it gets one of its own (a pty), and this process,
 * outside of the job, carries keys and window sizes to it, and stops when it stops. The child of terminal_split goes on as
 * the job, with the pty as its controlling terminal, and shows the output itself.
 */
#include <stdbool.h>
#include <sys/types.h>

struct err;

struct terminal {
	int master;  /* what the job writes there comes out here */
	int slave;   /* for the command's descriptors; closed once it runs */
	int outside; /* a socket to the process that has the real terminal */
};

/* What is told over the socket, each a packet of two numbers. */
enum terminal_word {
	TERMINAL_STOPPED, /* to the outside: the command stopped, by this signal */
	TERMINAL_GO_ON,	  /* to the inside: the user wants it to continue */
	TERMINAL_SIGNAL,  /* to the inside: this signal came from outside */
};

struct terminal_message {
	int word, number;
};

/* Forks. In the child: 0, with *ret. In the parent it does not return before the child has ended: 1 and its wait status.
 * The child has an arena of its own (arena_size). < 0: nothing was forked. */
int terminal_split(size_t arena_size, struct terminal *ret, int *ret_status, struct err *err);
/* Ends this process as a process with that wait status ended: by its signal, or with its exit status returned. */
int terminal_end_like(int status);
