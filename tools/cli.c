#include "tools/cli.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/secret.h"

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>

int cli_usage(const struct cli *cli, struct err *err, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_USAGE, "%s (see 'cotter %s --help')", text, cli->command);
}

const char *cli_config_path(const char *option)
{
	const char *path = option ? option : getenv("COTTER_CONFIG");

	return path && *path ? path : COTTER_CONFIG_DEFAULT;
}

int cli_read_secret(const char *path, size_t max, struct secret *ret, struct err *err)
{
	CLEANUP(cleanup_close) int opened = -1;
	CLEANUP(secret_clear) struct secret s = {0};
	uint8_t *chunk;
	ssize_t n;
	int fd = 0, r;

	if (strcmp(path, "-") != 0) {
		fd = opened = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_errno(err, errno, "%.300s", path);
	}
	r = secret_new(&s, 4096, err);
	chunk = secret_alloc(4096);
	while (r == 0 && chunk && (n = read(fd, chunk, 4096)) != 0) {
		if (n < 0)
			r = err_errno(err, errno, "%.300s", path);
		else if (s.len + (size_t)n > max)
			r = err_set(err, ERR_LIMIT, "%.300s: longer than %zu bytes", path, max);
		else
			r = secret_append(&s, chunk, (size_t)n, err);
	}
	secret_free(chunk);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct secret){0};
	return 0;
}

int cli_ask(const char *prompt, struct secret *ret, struct err *err)
{
	CLEANUP(cleanup_close) int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios old, quiet;
	ssize_t n;
	int r;

	if (tty < 0 || tcgetattr(tty, &old) < 0)
		return err_set(err, ERR_PIN, "there is no terminal to ask on: give the PIN on standard input");
	r = secret_new(ret, LIMIT_PIN_LEN + 2, err);
	if (r < 0)
		return r;
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(tty, TCSAFLUSH, &quiet);
	r = cli_write_all(tty, prompt, strlen(prompt), err);
	n = read(tty, ret->data, LIMIT_PIN_LEN + 2);
	tcsetattr(tty, TCSAFLUSH, &old);
	if (r == 0)
		r = cli_write_all(tty, "\n", 1, err);
	if (n <= 0)
		return err_set(err, ERR_PIN, "nothing was entered");
	ret->len = (size_t)n;
	cli_chomp(ret);
	return r;
}

void cli_json_plain(void)
{
	json_set_alloc_funcs(malloc, free);
}

void cli_chomp(struct secret *s)
{
	if (s->len && s->data[s->len - 1] == '\n')
		s->len--;
	if (s->len && s->data[s->len - 1] == '\r')
		s->len--;
}

int cli_number(const struct cli *cli, const char *text, unsigned long long max, const char *what, unsigned long long *ret, struct err *err)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || n > max)
		return cli_usage(cli, err, "%s takes a number from 0 to %llu, not '%.32s'", what, max, text);
	*ret = n;
	return 0;
}

int cli_write_all(int fd, const void *data, size_t len, struct err *err)
{
	const char *p = data;
	ssize_t n;

	while (len) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, errno, "writing");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void cli_progress(struct cli_progress *p, size_t more)
{
	long long now = now_ms();

	p->done += more;
	if (p->started_ms == 0)
		p->started_ms = p->shown_ms = now;
	if (now - p->started_ms < 1000 || now - p->shown_ms < 250 || !isatty(2))
		return;
	p->shown_ms = now;
	fprintf(stderr, "\r%s: %llu MiB ", p->what, p->done >> 20);
}

void cli_progress_end(const struct cli_progress *p)
{
	if (p->shown_ms != p->started_ms)
		fputs("\r\033[K", stderr);
}

int cli_output_begin(const char *path, struct cli_output *o, struct err *err)
{
	struct stat st;

	*o = (struct cli_output){.path = path, .fd = -1};
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		o->fd = open(path, O_WRONLY | O_CLOEXEC);
	} else if (snprintf(o->temporary, sizeof(o->temporary), "%s.XXXXXX", path) < (int)sizeof(o->temporary)) {
		o->fd = mkostemp(o->temporary, O_CLOEXEC);
		if (o->fd < 0)
			o->temporary[0] = '\0';
	} else {
		errno = ENAMETOOLONG;
	}
	return o->fd < 0 ? err_errno(err, errno, "%.300s", path) : 0;
}

int cli_output_end(struct cli_output *o, int r, struct err *err)
{
	if (r == 0 && o->temporary[0] && (fsync(o->fd) < 0 || rename(o->temporary, o->path) < 0))
		r = err_errno(err, errno, "%.300s", o->path);
	if (r < 0 && o->temporary[0])
		unlink(o->temporary);
	close(o->fd);
	o->fd = -1;
	return r;
}

void cli_print_safe(FILE *f, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)text[0], next = (unsigned char)text[1];

		/* U+0080 to U+009F are control characters, too: U+009B begins a terminal's escape sequence */
		if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
			fputc('?', f);
			text++;
		} else {
			fputc(c < 0x20 || c == 0x7f ? '?' : c, f);
		}
	}
}
