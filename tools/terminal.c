#include "tools/terminal.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define FOREGROUND_MS 250 /* how often one in the background looks whether it still is */

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};

struct outside {
	int master, inside, signals;
	pid_t child;
	bool has_keys; /* standard input is a terminal */
	struct termios before;
	bool raw;
	char keys[1024]; /* on their way to the command, which may not read them */
	size_t keys_at, keys_len;
};

/* Keys go through as they are: the pty makes of them what the command's settings say. */
static void set_raw(struct outside *o, bool raw)
{
	struct termios t = o->before;
	pid_t front = o->has_keys && raw ? tcgetpgrp(0) : -1;

	/* in the background the settings are the shell's, and changing them would stop this process */
	if (!o->has_keys || raw == o->raw || (front >= 0 && front != getpgrp()))
		return;
	if (raw)
		cfmakeraw(&t);
	tcsetattr(0, TCSADRAIN, &t);
	o->raw = raw;
}

static void copy_size(int to)
{
	struct winsize size;

	for (int fd = 0; fd < 3; fd++)
		if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
			ioctl(to, TIOCSWINSZ, &size);
			return;
		}
}

static void tell(int fd, int word, int number)
{
	struct terminal_message m = {word, number};

	send(fd, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void take_signal(struct outside *o)
{
	struct signalfd_siginfo s;

	if (read(o->signals, &s, sizeof(s)) != sizeof(s))
		return;
	switch (s.ssi_signo) {
	case SIGWINCH: copy_size(o->master); break;
	case SIGCHLD: break;
	case SIGCONT:
		set_raw(o, true);
		copy_size(o->master);
		tell(o->inside, TERMINAL_GO_ON, 0);
		break;
	default: tell(o->inside, TERMINAL_SIGNAL, (int)s.ssi_signo); break;
	}
}

/* The shell that started it gets its terminal back, and continues it later. */
static void stop_too(struct outside *o)
{
	set_raw(o, false);
	raise(SIGSTOP);
}

static void take_message(struct outside *o)
{
	struct terminal_message m;

	if (recv(o->inside, &m, sizeof(m), MSG_DONTWAIT) == sizeof(m) && m.word == TERMINAL_STOPPED)
		stop_too(o);
}

/* The master does not block: signals are taken while the command reads nothing. */
static void give_keys(struct outside *o)
{
	ssize_t n = write(o->master, o->keys + o->keys_at, o->keys_len - o->keys_at);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	o->keys_at = n < 0 ? o->keys_len : o->keys_at + (size_t)n;
	if (o->keys_at == o->keys_len)
		explicit_bzero(o->keys, sizeof(o->keys));
}

static void take_keys(struct outside *o, bool *ret_open)
{
	ssize_t n = read(0, o->keys, sizeof(o->keys));

	*ret_open = n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
	o->keys_at = 0;
	o->keys_len = n > 0 ? (size_t)n : 0;
	if (n > 0)
		give_keys(o);
}

static int carry(struct outside *o)
{
	bool keys = o->has_keys;
	int status = 0;

	set_raw(o, true);
	for (;;) {
		bool gives = o->keys_at < o->keys_len;
		struct pollfd p[4] = {{.fd = o->signals, .events = POLLIN},
				      {.fd = o->inside, .events = POLLIN},
				      {.fd = keys && o->raw && !gives ? 0 : -1, .events = POLLIN},
				      {.fd = gives ? o->master : -1, .events = POLLOUT}};

		if (poll(p, 4, keys && !o->raw ? FOREGROUND_MS : -1) < 0 && errno != EINTR)
			break;
		set_raw(o, true);
		if (p[3].revents)
			give_keys(o);
		if (p[2].revents)
			take_keys(o, &keys);
		if (p[1].revents & POLLIN)
			take_message(o);
		if (p[0].revents)
			take_signal(o);
		if (waitpid(o->child, &status, WNOHANG) == o->child)
			break;
	}
	set_raw(o, false);
	return status;
}

static int become_inside(size_t arena_size, struct terminal *t, struct err *err)
{
	/* without the outside there is no terminal any more */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setsid() < 0 || ioctl(t->slave, TIOCSCTTY, 0) < 0)
		return err_errno(err, errno, "the job's terminal");
	/* it is not in the foreground of it, and takes it back all the same */
	signal(SIGTTOU, SIG_IGN);
	return secret_arena_child(arena_size, err);
}

static int open_signals(sigset_t *ret_before, struct err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		sigaddset(&set, passed_on[i]);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGCONT);
	sigprocmask(SIG_BLOCK, &set, ret_before);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_errno(err, errno, "signalfd") : fd;
}

int terminal_split(size_t arena_size, struct terminal *ret, int *ret_status, struct err *err)
{
	struct outside o = {.has_keys = isatty(0) == 1};
	CLEANUP(cleanup_close) int master = -1;
	CLEANUP(cleanup_close) int slave = -1;
	CLEANUP(cleanup_close) int signals = -1;
	struct termios settings;
	sigset_t before;
	int pair[2];

	if (tcgetattr(o.has_keys  ? 0
		      : isatty(1) ? 1
				  : 2,
		      &settings) < 0 ||
	    openpty(&master, &slave, NULL, &settings, NULL) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "cannot make a terminal for the job");
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(slave, F_SETFD, FD_CLOEXEC);
	fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
	copy_size(master);
	o.before = settings;
	signals = open_signals(&before, err);
	if (signals < 0)
		return -ERR_FAILED;
	o.child = fork();
	if (o.child < 0)
		return err_errno(err, errno, "fork");
	if (o.child == 0) {
		close(pair[0]);
		sigprocmask(SIG_SETMASK, &before, NULL);
		*ret = (struct terminal){.master = steal_fd(&master), .slave = steal_fd(&slave), .outside = pair[1]};
		return become_inside(arena_size, ret, err);
	}
	close(pair[1]);
	close(steal_fd(&slave));
	o.master = master;
	o.inside = pair[0];
	o.signals = signals;
	*ret_status = carry(&o);
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(pair[0]);
	return 1;
}

int terminal_end_like(int status)
{
	const struct rlimit no_core = {0};
	sigset_t set;
	int n = WTERMSIG(status);

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &no_core);
	signal(n, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, n);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(n);
	return 128 + n;
}
