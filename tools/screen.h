#pragma once
/*
 * A whole terminal (descriptors 0 and 1): the alternate screen, keys at once and unseen, no wrapped lines. What it was before comes back
 * at screen_end, which no signal gets around but SIGKILL: all that would end or stop the program come as events.
 */
#include <signal.h>
#include <stddef.h>
#include <termios.h>

struct err;

struct screen {
	int signal_fd; /* readable when a signal is there */
	struct termios before;
	sigset_t mask;
	unsigned int rows, cols;
};

enum screen_event {
	SCREEN_TIME,  /* nothing happened for so long */
	SCREEN_KEY,
	SCREEN_DRAW,  /* another size, or back from having been stopped */
	SCREEN_END,   /* a signal, or the terminal is gone */
};

int screen_begin(struct screen *s, struct err *err);
enum screen_event screen_wait(struct screen *s, int timeout_ms, char *ret_key);
/* In place of what was there: as many of the text's lines as the terminal has, which cuts them. */
int screen_draw(const struct screen *s, const char *text, struct err *err);
void screen_end(struct screen *s);
