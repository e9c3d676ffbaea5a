#include "tools/supervise.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/harden.h"
#include "mask/mask.h"
#include "tools/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STACK (256u << 10)
#define LAST_WORDS_MS 100   /* what a terminal still holds of a command that has ended comes within that time */
#define LAST_READS 64	    /* and is not more than a pipe or a terminal holds (1 MiB) */
#define WRITE_AT_ONCE 4096u /* PIPE_BUF: what a pipe that is ready takes without waiting */

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP, SIGCONT, SIGWINCH};

struct stream {
	struct running *running;
	int in, out;  /* in -1: it has ended; out -1: nobody reads it any more */
	bool is_file; /* out takes everything at once */
	struct mask *mask;
};

struct running {
	const struct supervise *s;
	struct stream streams[2];
	int child_fds[3]; /* what the command gets as 0, 1, 2; -1: what is there */
	int signals;
	sigset_t before;
	pid_t child;
	bool ended;
	int status;
	long long refresh_at_ms;
	bool refresh_failed;
	bool lost; /* something that the command wrote */
};

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- signals ------------------------------------------------------------------------------------------------------------
 */

static void stopped(struct running *run, int by)
{
	struct terminal_message m = {TERMINAL_STOPPED, by};

	if (run->s->terminal.outside >= 0)
		send(run->s->terminal.outside, &m, sizeof(m), MSG_NOSIGNAL);
	else
		raise(SIGSTOP);
}

static void look_at_child(struct running *run)
{
	siginfo_t info = {0};

	while (!run->ended && waitid(P_PID, (id_t)run->child, &info, WEXITED | WSTOPPED | WNOHANG) == 0 && info.si_pid) {
		if (info.si_code == CLD_STOPPED)
			stopped(run, info.si_status);
		else
			run->ended = true;
		run->status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
		info.si_pid = 0;
	}
}

static void pass_on(struct running *run, int number)
{
	if (run->child && !run->ended)
		kill(run->child, number);
}

static void take_signal(struct running *run)
{
	struct signalfd_siginfo s;

	if (read(run->signals, &s, sizeof(s)) != sizeof(s))
		return;
	if (s.ssi_signo == SIGCHLD)
		look_at_child(run);
	/* what the terminal sends goes to the command as well, which stands in the same group */
	else if (s.ssi_code != SI_KERNEL || run->s->terminal.outside >= 0)
		pass_on(run, (int)s.ssi_signo);
}

static void take_message(struct running *run)
{
	struct terminal_message m;

	if (recv(run->s->terminal.outside, &m, sizeof(m), MSG_DONTWAIT) != sizeof(m))
		return;
	if (m.word == TERMINAL_SIGNAL)
		pass_on(run, m.number);
	else if (m.word == TERMINAL_GO_ON && run->child && !run->ended)
		kill(-run->child, SIGCONT);
}

/* ---- output
 * --------------------------------------------------------------------------------------------------------------- */

/* Whoever reads may be slow: signals are taken meanwhile. */
static int write_stream(void *context, const void *data, size_t len, struct err *err)
{
	struct stream *x = context;
	struct running *run = x->running;
	const char *p = data;

	while (len && x->out >= 0) {
		struct pollfd fds[3] = {{.fd = x->out, .events = POLLOUT},
					{.fd = run->signals, .events = POLLIN},
					{.fd = run->s->terminal.outside, .events = POLLIN}};
		ssize_t n;

		if (!x->is_file && poll(fds, 3, -1) < 0 && errno != EINTR)
			return err_errno(err, errno, "poll");
		if (fds[1].revents)
			take_signal(run);
		if (fds[2].revents)
			take_message(run);
		if (!x->is_file && !fds[0].revents)
			continue;
		n = write(x->out, p, x->is_file || len < WRITE_AT_ONCE ? len : WRITE_AT_ONCE);
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			/* as it would be for the command itself: its next write fails; and this one has, which it thinks done */
			if (errno != EPIPE) {
				fprintf(stderr, "cotter: what the command wrote is lost: %s\n", strerror(errno));
				run->lost = true;
			}
			x->out = -1;
			return 0;
		}
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool is_null(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int open_stream(struct running *run, size_t i, int in, int out, struct err *err)
{
	struct stream *x = &run->streams[i];
	struct mask_options o = {.text = run->s->mask_text, .write = write_stream, .context = x};
	struct stat st;

	*x = (struct stream){.running = run, .in = in, .out = out};
	x->is_file = fstat(out, &st) == 0 && S_ISREG(st.st_mode);
	return mask_new(run->s->values, &o, &x->mask, err);
}

/* Standard output and error: both to one stream where they are one file, so that their order stays. */
static int open_streams(struct running *run, struct err *err)
{
	const struct terminal *t = &run->s->terminal;
	int pair[2], r = 0;

	if (!run->s->values)
		return 0;
	if (t->master >= 0)
		r = open_stream(run, 0, t->master, isatty(1) ? 1 : 2, err);
	if (t->master >= 0 && isatty(0))
		run->child_fds[0] = t->slave;
	for (int fd = 1; r == 0 && fd <= 2; fd++) {
		if (t->master >= 0 && isatty(fd)) {
			run->child_fds[fd] = t->slave;
		} else if (is_null(fd)) {
			continue;
		} else if (fd == 2 && run->child_fds[1] >= 0 && run->child_fds[1] != t->slave && same_file(1, 2)) {
			run->child_fds[2] = run->child_fds[1];
		} else if (pipe2(pair, O_CLOEXEC) < 0) {
			return err_errno(err, errno, "pipe");
		} else {
			run->child_fds[fd] = pair[1];
			r = open_stream(run, run->streams[0].mask ? 1 : 0, pair[0], fd, err);
		}
	}
	return r;
}

static void close_childs(struct running *run)
{
	for (int fd = 1; fd <= 2; fd++) {
		int its = run->child_fds[fd];

		if (its >= 0 && its != run->s->terminal.slave && (fd == 1 || its != run->child_fds[1]))
			close(its);
	}
}

static int step(struct stream *x, struct err *err)
{
	bool end;
	int r = relay_step(x->mask, x->in, &end, err);

	if (end || x->out < 0)
		shut(&x->in);
	return r;
}

/* ---- the command
 * ------------------------------------------------------------------------------------------------------------ */

struct start {
	struct running *run;
	struct err err; /* of the child, which shares this memory until it is the command */
	int r;
};

static void restore_signals(const struct running *run)
{
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++) {
		struct sigaction a;

		/* what was ignored from the start stays that */
		if (sigaction(passed_on[i], NULL, &a) == 0 && a.sa_handler != SIG_IGN)
			signal(passed_on[i], SIG_DFL);
	}
	if (run->s->terminal.slave >= 0)
		signal(SIGTTOU, SIG_DFL);
	sigprocmask(SIG_SETMASK, &run->before, NULL);
}

static int become_command(struct start *start)
{
	const struct supervise *s = start->run->s;
	int r;

	/* without this process nobody hides what it prints */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (s->terminal.slave >= 0) {
		setpgid(0, 0);
		tcsetpgrp(s->terminal.slave, getpid());
	}
	for (int fd = 0; fd < 3; fd++)
		if (start->run->child_fds[fd] >= 0 && dup2(start->run->child_fds[fd], fd) < 0)
			return err_errno(&start->err, errno, "descriptor %d", fd);
	r = delivery_place(s->deliveries);
	if (r < 0)
		return err_errno(&start->err, -r, "the command's descriptors");
	r = s->confine(&start->err);
	if (r < 0)
		return r;
	harden_before_exec(s->saved);
	restore_signals(start->run);
	execvpe(s->argv[0], s->argv, s->environment);
	return err_errno(&start->err, errno, "%.200s", s->argv[0]);
}

static int child_main(void *context)
{
	struct start *start = context;

	start->r = become_command(start);
	_exit(127);
}

/* The variables lie in the arena, which no fork inherits: the child shares all memory until it becomes the command, and
 * this process waits until then. */
static int start_command(struct running *run, struct err *err)
{
	struct start start = {.run = run};
	uint8_t *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return err_errno(err, errno, "mmap");
	run->child = clone(child_main, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
	if (run->child < 0)
		err_errno(&start.err, errno, "clone");
	munmap(stack, STACK);
	if (run->child < 0 || start.r < 0) {
		if (run->child > 0)
			waitpid(run->child, NULL, 0);
		if (err)
			*err = start.err;
		return -start.err.code;
	}
	close_childs(run);
	return 0;
}

static int refresh(struct running *run)
{
	struct err err = {0};
	bool changed;
	int r = delivery_refresh(run->s->deliveries, run->s->values, &changed, &err);

	if (r < 0 && !run->refresh_failed)
		fprintf(stderr, "cotter: the secrets could not be looked up again: %s\n", err.msg);
	run->refresh_failed = r < 0;
	run->refresh_at_ms = now_ms() + run->s->refresh_ms;
	if (changed)
		pass_on(run, run->s->refresh_signal);
	return r;
}

static int wait_ms(const struct running *run)
{
	long long ms = run->s->refresh_ms ? run->refresh_at_ms - now_ms() : -1;

	if (run->s->refresh_ms && ms < 0)
		ms = 0;
	for (size_t i = 0; i < 2; i++)
		if (run->streams[i].in >= 0 && mask_waits(run->streams[i].mask) && (ms < 0 || ms > MASK_IDLE_MS))
			ms = MASK_IDLE_MS;
	return (int)ms;
}

static int round_of(struct running *run, struct err *err)
{
	struct pollfd p[4] = {{.fd = run->signals, .events = POLLIN}, {.fd = run->s->terminal.outside, .events = POLLIN}};
	int n, r = 0;

	for (size_t i = 0; i < 2; i++)
		p[2 + i] = (struct pollfd){.fd = run->streams[i].in, .events = POLLIN};
	n = poll(p, 4, wait_ms(run));
	if (n < 0)
		return errno == EINTR ? 0 : err_errno(err, errno, "poll");
	if (p[0].revents)
		take_signal(run);
	if (p[1].revents)
		take_message(run);
	for (size_t i = 0; r == 0 && i < 2; i++) {
		if (p[2 + i].revents)
			r = step(&run->streams[i], err);
		else if (n == 0 && run->streams[i].in >= 0 && mask_waits(run->streams[i].mask))
			r = mask_idle(run->streams[i].mask, err);
	}
	if (run->s->refresh_ms && now_ms() >= run->refresh_at_ms)
		refresh(run);
	return r;
}

/* What it wrote before it ended, and no more: others that it left behind may write for ever. */
static int last_words(struct running *run, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < 2; i++) {
		struct stream *x = &run->streams[i];
		struct pollfd p = {.fd = x->in, .events = POLLIN};
		int wait = x->in == run->s->terminal.master ? LAST_WORDS_MS : 0, reads = 0;

		while (r == 0 && x->in >= 0 && reads < LAST_READS && poll(&p, 1, wait) > 0) {
			r = step(x, err);
			reads++;
		}
		/* cut off in the middle of others' words, what is kept back may be the beginning of a secret */
		if (r == 0 && x->in >= 0 && reads < LAST_READS)
			r = mask_end(x->mask, err);
	}
	return r;
}

static int open_signals(struct running *run, struct err *err)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		sigaddset(&set, passed_on[i]);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &run->before);
	run->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return run->signals < 0 ? err_errno(err, errno, "signalfd") : 0;
}

int supervise_run(const struct supervise *s, int *ret_status, struct err *err)
{
	struct running run = {.s = s, .child_fds = {-1, -1, -1}, .signals = -1, .refresh_at_ms = now_ms() + s->refresh_ms};
	int r;

	for (size_t i = 0; i < 2; i++)
		run.streams[i].in = -1;
	r = open_signals(&run, err);
	if (r == 0)
		r = open_streams(&run, err);
	if (r == 0)
		r = start_command(&run, err);
	while (r == 0 && !run.ended)
		r = round_of(&run, err);
	/* the last one to have it open makes the pty's other side say its end */
	if (s->terminal.slave >= 0)
		close(s->terminal.slave);
	if (r == 0)
		r = last_words(&run, err);
	/* what cannot be masked is not shown, and its command does not go on unseen */
	if (r < 0 && run.child > 0 && !run.ended) {
		kill(run.child, SIGKILL);
		waitpid(run.child, NULL, 0);
	}
	for (size_t i = 0; i < 2; i++) {
		mask_free(&run.streams[i].mask);
		shut(&run.streams[i].in);
	}
	shut(&run.signals);
	*ret_status = run.lost && !run.status ? 1 << 8 : run.status;
	return r;
}
