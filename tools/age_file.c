#include "tools/age_file.h"

#include "common/age_armor.h"
#include "common/age_stream.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#define SEALED_CHUNK (AGE_CHUNK_LEN + AGE_TAG_LEN)

/* Reads until cap or the end. */
static ssize_t read_full(int fd, uint8_t *buf, size_t cap, struct err *err)
{
	size_t len = 0;
	ssize_t n = 1;

	while (len < cap && n) {
		n = read(fd, buf + len, cap - len);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0)
			return err_errno(err, errno, "reading");
		else
			len += (size_t)n;
	}
	return (ssize_t)len;
}

struct sink {
	int fd;
	bool armored;
	struct age_armor_writer armor;
};

static int fd_write(void *ctx, const uint8_t *data, size_t len, struct err *err)
{
	return cli_write_all(*(int *)ctx, data, len, err);
}

static int sink_write(struct sink *s, const uint8_t *data, size_t len, struct err *err)
{
	return s->armored ? age_armor_write(&s->armor, data, len, err) : cli_write_all(s->fd, data, len, err);
}

/* Two buffers, one chunk ahead: the last chunk must be known as such when it is sealed. */
static int seal_payload(int in, struct sink *out, struct age_stream *stream, uint8_t *plain, uint8_t *sealed,
			struct err *err)
{
	struct cli_progress progress = {.what = "sealing"};
	size_t have, next;
	ssize_t n = read_full(in, plain, AGE_CHUNK_LEN, err);
	int r;

	if (n < 0)
		return (int)n;
	for (have = (size_t)n;; have = next) {
		uint8_t *ahead = plain + AGE_CHUNK_LEN;

		n = have < AGE_CHUNK_LEN ? 0 : read_full(in, ahead, AGE_CHUNK_LEN, err);
		if (n < 0)
			return (int)n;
		next = (size_t)n;
		age_stream_seal(stream, plain, have, next == 0, sealed);
		r = sink_write(out, sealed, have + AGE_TAG_LEN, err);
		cli_progress(&progress, have);
		if (r < 0 || next == 0) {
			cli_progress_end(&progress);
			return r;
		}
		memcpy(plain, ahead, next);
	}
}

int age_file_seal(int in, int out, const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
		  bool armor, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *sealed = malloc(LIMIT_AGE_HEADER + SEALED_CHUNK);
	CLEANUP(cleanup_secret_free) uint8_t *plain = secret_alloc((size_t)2 * AGE_CHUNK_LEN);
	CLEANUP(cleanup_secret_free) struct age_stream *stream = NULL;
	CLEANUP(secret_clear) struct secret key = {0};
	struct sink sink = {.fd = out, .armored = armor, .armor = {.write = fd_write, .ctx = &out}};
	struct writer header;
	int r;

	if (!sealed || !plain)
		return err_set(err, ERR_FAILED, "out of memory");
	header = writer_init(sealed, LIMIT_AGE_HEADER);
	r = age_wrap(recipients, n_recipients, bind, &header, &key, err);
	if (r < 0)
		return r;
	randombytes_buf(sealed + header.len, AGE_NONCE_LEN);
	stream = age_stream_new(key.data, sealed + header.len);
	if (!stream)
		return err_set(err, ERR_FAILED, "out of locked memory");
	if (armor)
		r = age_armor_write_begin(&sink.armor, err);
	if (r == 0)
		r = sink_write(&sink, sealed, header.len + AGE_NONCE_LEN, err);
	if (r == 0)
		r = seal_payload(in, &sink, stream, plain, sealed, err);
	if (r == 0 && armor)
		r = age_armor_write_end(&sink.armor, err);
	return r;
}

/* An unlinked file of our own. It only ever holds sealed bytes. */
static int temporary(struct err *err)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir && *dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? err_errno(err, errno, "cannot make a temporary file: set TMPDIR") : fd;
}

static int spool(int in, const uint8_t *head, size_t head_len, bool armored, int out, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *buf = malloc(65536);
	struct age_armor armor = {.write = fd_write, .ctx = &out};
	ssize_t n = (ssize_t)head_len;
	int r;

	if (!buf)
		return err_set(err, ERR_FAILED, "out of memory");
	memcpy(buf, head, head_len);
	do {
		r = armored ? age_armor_feed(&armor, buf, (size_t)n, err) : cli_write_all(out, buf, (size_t)n, err);
		if (r < 0)
			return r;
		n = read_full(in, buf, 65536, err);
	} while (n > 0);
	if (n < 0)
		return (int)n;
	return armored ? age_armor_finish(&armor, err) : 0;
}

int age_file_load(int in, struct age_file *ret, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *head = malloc(LIMIT_AGE_HEADER);
	CLEANUP(cleanup_close) int fd = -1;
	/* only a file that was opened for us, at its start, is read in place */
	bool seekable = in > 2 && lseek(in, 0, SEEK_CUR) == 0, armored;
	ssize_t n = head ? read_full(in, head, 4096, err) : -ERR_FAILED;
	int r;

	*ret = (struct age_file){.fd = -1};
	if (n < 0)
		return (int)n;
	armored = age_armor_detect(head, (size_t)n);
	if (armored || !seekable) {
		fd = temporary(err);
		r = fd < 0 ? fd : spool(in, head, (size_t)n, armored, fd, err);
	} else {
		fd = fcntl(in, F_DUPFD_CLOEXEC, 3);
		r = fd < 0 ? err_errno(err, errno, "reading") : 0;
	}
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(err, errno, "reading");
	n = read_full(fd, head, LIMIT_AGE_HEADER, err);
	r = n < 0 ? (int)n : age_header_parse(head, (size_t)n, &ret->header, err);
	if (r == 0)
		ret->fd = steal_fd(&fd);
	return r;
}

void age_file_done(struct age_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	age_header_clear(&f->header);
	f->fd = -1;
}

struct buffers {
	uint8_t *sealed; /* SEALED_CHUNK + 1: one byte ahead tells the last chunk */
	uint8_t *plain;  /* in the arena */
};

/* One pass over the payload; out < 0 only verifies. */
static int pass(const struct age_file *f, const struct secret *file_key, struct buffers b, int out, struct err *err)
{
	CLEANUP(cleanup_secret_free) struct age_stream *stream = NULL;
	struct cli_progress progress = {.what = out < 0 ? "verifying" : "writing"};
	uint8_t nonce[AGE_NONCE_LEN];
	size_t have, ahead;
	ssize_t n;
	int r;

	if (lseek(f->fd, (off_t)f->header.len, SEEK_SET) < 0)
		return err_errno(err, errno, "reading");
	n = read_full(f->fd, nonce, sizeof(nonce), err);
	if (n != (ssize_t)sizeof(nonce))
		return n < 0 ? (int)n : err_set(err, ERR_AGE_HEADER, "header failure: the payload's nonce is cut off");
	stream = age_stream_new(file_key->data, nonce);
	if (!stream)
		return err_set(err, ERR_FAILED, "out of locked memory");
	for (ahead = 0;;) {
		n = read_full(f->fd, b.sealed + ahead, SEALED_CHUNK + 1 - ahead, err);
		if (n < 0)
			return (int)n;
		have = (size_t)n + ahead;
		ahead = have > SEALED_CHUNK;
		r = age_stream_open(stream, b.sealed, have - ahead, !ahead, b.plain, err);
		if (r == 0 && out >= 0)
			r = cli_write_all(out, b.plain, have - ahead - AGE_TAG_LEN, err);
		cli_progress(&progress, have);
		if (r < 0 || !ahead) {
			cli_progress_end(&progress);
			return r;
		}
		b.sealed[0] = b.sealed[SEALED_CHUNK];
	}
}

int age_file_open(const struct age_file *f, const struct secret *file_key, int out, struct err *err)
{
	CLEANUP(cleanup_free) uint8_t *sealed = malloc(SEALED_CHUNK + 1);
	CLEANUP(cleanup_secret_free) uint8_t *plain = secret_alloc(AGE_CHUNK_LEN);
	struct buffers b = {sealed, plain};
	int r;

	if (!sealed || !plain)
		return err_set(err, ERR_FAILED, "out of memory");
	r = pass(f, file_key, b, -1, err);
	return r < 0 ? r : pass(f, file_key, b, out, err);
}
