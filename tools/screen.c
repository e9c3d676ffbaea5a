#include "tools/screen.h"

#include "common/err.h"
#include "tools/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* alternate screen, no cursor, no wrapping; and back */
static const char enter_text[] = "\033[?1049h\033[?25l\033[?7l", leave_text[] = "\033[?7h\033[?25h\033[?1049l";

static void measure(struct screen *s)
{
	struct winsize size = {0};

	ioctl(1, TIOCGWINSZ, &size);
	s->rows = size.ws_row ? size.ws_row : 24;
	s->cols = size.ws_col ? size.ws_col : 80;
}

static int enter(struct screen *s, struct err *err)
{
	struct termios keys = s->before;

	keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	keys.c_cc[VMIN] = 0;
	keys.c_cc[VTIME] = 0;
	if (tcsetattr(0, TCSAFLUSH, &keys) < 0)
		return err_errno(err, errno, "the terminal");
	measure(s);
	return cli_write_all(1, enter_text, sizeof(enter_text) - 1, err);
}

static void leave(const struct screen *s)
{
	cli_write_all(1, leave_text, sizeof(leave_text) - 1, NULL);
	tcsetattr(0, TCSAFLUSH, &s->before);
}

int screen_begin(struct screen *s, struct err *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
	sigset_t set;
	int r;

	*s = (struct screen){.signal_fd = -1};
	if (tcgetattr(0, &s->before) < 0)
		return err_errno(err, errno, "the terminal");
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, &s->mask);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = s->signal_fd < 0 ? err_errno(err, errno, "signalfd") : enter(s, err);
	if (r < 0)
		screen_end(s);
	return r;
}

void screen_end(struct screen *s)
{
	leave(s);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	s->signal_fd = -1;
	sigprocmask(SIG_SETMASK, &s->mask, NULL);
}

/* The shell has the terminal meanwhile. */
static enum screen_event stop(struct screen *s)
{
	leave(s);
	raise(SIGSTOP);
	return enter(s, NULL) < 0 ? SCREEN_END : SCREEN_DRAW;
}

static enum screen_event take_signal(struct screen *s)
{
	struct signalfd_siginfo info;

	if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
		return SCREEN_TIME;
	if (info.ssi_signo == SIGTSTP)
		return stop(s);
	if (info.ssi_signo != SIGWINCH)
		return SCREEN_END;
	measure(s);
	return SCREEN_DRAW;
}

enum screen_event screen_wait(struct screen *s, int timeout_ms, char *ret_key)
{
	struct pollfd fds[] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	int n = poll(fds, 2, timeout_ms);

	if (n < 0)
		return errno == EINTR ? SCREEN_TIME : SCREEN_END;
	if (fds[0].revents)
		return take_signal(s);
	if (fds[1].revents)
		return read(0, ret_key, 1) == 1 ? SCREEN_KEY : SCREEN_END;
	return SCREEN_TIME;
}

int screen_draw(const struct screen *s, const char *text, struct err *err)
{
	char *out = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&out, &len);
	int r;

	if (!f)
		return err_set(err, ERR_FAILED, "out of memory");
	fputs("\033[H", f);
	for (unsigned int row = 0; row < s->rows && *text; row++) {
		size_t n = strcspn(text, "\n");

		fprintf(f, "%s%.*s\033[K", row ? "\r\n" : "", (int)n, text);
		text += n + (text[n] == '\n');
	}
	fputs("\033[J", f);
	r = fclose(f) == 0 ? cli_write_all(1, out, len, err) : err_set(err, ERR_FAILED, "out of memory");
	free(out);
	return r;
}
