#include "tools/age_plugin.h"

#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define COLUMNS 64u

/* Byte by byte: what is behind a message belongs to the next reader, and no stdio buffer keeps a key. */
static int read_line(struct secret *ret, struct err *err)
{
	char c;
	ssize_t n;
	int r = secret_new(ret, 128, err);

	while (r == 0) {
		n = read(0, &c, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != 1)
			return err_set(err, ERR_INPUT, "age ended the conversation");
		if (c == '\n')
			return secret_append(ret, "", 1, err);
		if (ret->len >= AGE_PLUGIN_LINE_MAX || c == '\0')
			return err_set(err, ERR_INPUT, "age sent a line that is too long");
		r = secret_append(ret, &c, 1, err);
	}
	return r;
}

static int read_body(struct secret *ret, struct err *err)
{
	uint8_t part[COLUMNS];
	size_t n, len;
	int r = secret_new(ret, 64, err);

	do {
		CLEANUP(secret_clear) struct secret line = {0};

		if (r == 0)
			r = read_line(&line, err);
		if (r < 0)
			return r;
		len = line.len - 1;
		if (len > COLUMNS || !b64_decode((char *)line.data, len, part, sizeof(part), &n) ||
		    ret->len + n > LIMIT_AGE_BODY)
			return err_set(err, ERR_INPUT, "age sent a malformed body");
		r = secret_append(ret, part, n, err);
		sodium_memzero(part, sizeof(part));
	} while (r == 0 && len == COLUMNS);
	return r;
}

static void split(struct age_plugin_message *m)
{
	char *p = (char *)m->line.data + 3, *save = NULL;
	char *second = strchr((char *)m->line2.data + 3, ' ');

	m->rest = second ? strchr(second + 1, ' ') : NULL;
	if (m->rest)
		m->rest++;
	for (p = strtok_r(p, " ", &save); p && m->n_args < sizeof(m->args) / sizeof(m->args[0]); p = strtok_r(NULL, " ", &save))
		m->args[m->n_args++] = p;
}

int age_plugin_read(struct age_plugin_message *m, struct err *err)
{
	int r;

	*m = (struct age_plugin_message){0};
	r = read_line(&m->line, err);
	if (r == 0 && (m->line.len < 5 || memcmp(m->line.data, "-> ", 3) != 0))
		r = err_set(err, ERR_INPUT, "age sent something that is not a stanza");
	if (r == 0)
		r = secret_copy(&m->line2, m->line.data, m->line.len, err);
	if (r == 0)
		r = read_body(&m->body, err);
	if (r < 0) {
		age_plugin_message_clear(m);
		return r;
	}
	split(m);
	return 0;
}

void age_plugin_message_clear(struct age_plugin_message *m)
{
	secret_clear(&m->line);
	secret_clear(&m->line2);
	secret_clear(&m->body);
	*m = (struct age_plugin_message){0};
}

int age_plugin_gather(int (*take)(void *ctx, struct age_plugin_message *m, struct err *err), void *ctx, struct err *err)
{
	struct age_plugin_message m;
	bool done = false;
	int r = 0;

	while (r == 0 && !done) {
		r = age_plugin_read(&m, err);
		if (r < 0)
			return r;
		if (m.n_args == 0)
			r = err_set(err, ERR_INPUT, "age sent a message without a command");
		else
			done = strcmp(m.args[0], "done") == 0;
		if (r == 0 && !done)
			r = take(ctx, &m, err);
		age_plugin_message_clear(&m);
	}
	return r;
}

int age_plugin_write(const char *head, const void *body, size_t body_len, struct err *err)
{
	const uint8_t *p = body;
	CLEANUP(cleanup_secret_free) char *line = secret_alloc(COLUMNS + 2);
	size_t n;
	int r;

	if (!line)
		return err_set(err, ERR_BUSY, "out of locked memory");
	r = cli_write_all(1, "-> ", 3, err);
	if (r == 0)
		r = cli_write_all(1, head, strlen(head), err);
	if (r == 0)
		r = cli_write_all(1, "\n", 1, err);
	do {
		n = body_len < COLUMNS / 4 * 3 ? body_len : COLUMNS / 4 * 3;
		b64_encode(p, n, line);
		strcat(line, "\n");
		if (r == 0)
			r = cli_write_all(1, line, strlen(line), err);
		p += n;
		body_len -= n;
	} while (r == 0 && n == COLUMNS / 4 * 3);
	return r;
}

int age_plugin_write_stanza(const char *prefix, const struct writer *stanza, struct err *err)
{
	int r = cli_write_all(1, "-> ", 3, err);

	if (r == 0)
		r = cli_write_all(1, prefix, strlen(prefix), err);
	return r < 0 ? r : cli_write_all(1, stanza->p + 2, stanza->len - 2, err);
}

int age_plugin_answer(struct err *err)
{
	struct age_plugin_message m;
	int r = age_plugin_read(&m, err);

	if (r == 0)
		age_plugin_message_clear(&m);
	return r;
}

const char *age_plugin_machine(int argc, char **argv)
{
	static const char option[] = "--age-plugin=";

	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], option, sizeof(option) - 1) == 0)
			return argv[i] + sizeof(option) - 1;
	return NULL;
}
