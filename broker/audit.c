#include "broker/audit.h"

#include "broker/audit_sync.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

#define CURRENT "audit.log"
#define NEXT "audit.log.next"
#define HEADER_MAX 8192u

static uint64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static int read_header(const char *line, size_t len, struct merkle *tree, struct audit_segment *ret, struct err *err)
{
	char text[HEADER_MAX], *p;
	unsigned long long index, size;
	size_t n;

	if (len >= sizeof(text))
		return err_set(err, ERR_TAMPERED, "the audit segment's first line is malformed");
	memcpy(text, line, len);
	text[len] = '\0';
	if (sscanf(text, "cotter-audit-v1 log=%32[0-9a-f] index=%llu size=%llu frontier=", ret->log_id, &index, &size) != 3 ||
	    !(p = strstr(text, "frontier=")))
		return err_set(err, ERR_TAMPERED, "the audit segment's first line is malformed");
	p += 9;
	ret->index = index;
	if (size >> 63)
		return err_set(err, ERR_TAMPERED, "the audit segment's first line is malformed");
	*tree = (struct merkle){.size = size};
	for (unsigned int level = 0; level < MERKLE_LEVELS; level++) {
		if (!(size >> level & 1))
			continue;
		if (sodium_hex2bin(tree->node[level], 32, p, strlen(p) < 64 ? strlen(p) : 64, NULL, &n, NULL) != 0 || n != 32)
			return err_set(err, ERR_TAMPERED, "the audit segment's first line is malformed");
		p += 64;
	}
	return *p ? err_set(err, ERR_TAMPERED, "the audit segment's first line is malformed") : 0;
}

static int read_record(const char *line, size_t len, struct merkle *tree, struct err *err)
{
	char want[32];
	struct writer w = writer_init(want, sizeof(want));

	writer_str(&w, "seq=");
	writer_decimal(&w, tree->size);
	writer_str(&w, " ");
	if (len > LIMIT_AUDIT_RECORD || len < w.len || memcmp(line, want, w.len) != 0)
		return err_set(err, ERR_TAMPERED, "audit record %llu is missing or not as it was written",
			       (unsigned long long)tree->size);
	merkle_add(tree, line, len);
	return 0;
}

int audit_scan(int fd, struct merkle *tree, int (*each)(void *ctx, const char *line, size_t len), void *ctx,
	       struct audit_segment *ret, struct err *err)
{
	CLEANUP(cleanup_free) char *buf = malloc(65536);
	size_t have = 0, start;
	bool header = true;
	char *lf;
	ssize_t n;
	int r = 0;

	if (!buf)
		return err_set(err, ERR_FAILED, "out of memory");
	*ret = (struct audit_segment){0};
	while (r == 0 && (n = read(fd, buf + have, 65536 - have)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, errno, "reading the audit log");
		have += (size_t)n;
		for (start = 0; r == 0 && (lf = memchr(buf + start, '\n', have - start)); start = (size_t)(lf - buf) + 1) {
			size_t len = (size_t)(lf - buf) - start;

			r = header ? read_header(buf + start, len, tree, ret, err)
				   : read_record(buf + start, len, tree, err);
			if (r == 0 && !header && each)
				r = each(ctx, buf + start, len);
			header = false;
			ret->end += len + 1;
		}
		memmove(buf, buf + start, have - start);
		have -= start;
		if (have > HEADER_MAX)
			r = err_set(err, ERR_TAMPERED, "audit record %llu has no end", (unsigned long long)tree->size);
	}
	ret->torn = have;
	return r;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* Room ahead, so that denials can be logged when the disk is full. A file system that cannot: no room, no grants later. */
static void allocate_ahead(struct audit *a)
{
	/* records that are no grants may have gone beyond it */
	if (a->allocated >= a->offset + LIMIT_AUDIT_PREALLOC / 2)
		return;
	if (fallocate(a->fd, FALLOC_FL_KEEP_SIZE, (off_t)a->offset, LIMIT_AUDIT_PREALLOC) == 0)
		a->allocated = a->offset + LIMIT_AUDIT_PREALLOC;
	else if (errno == EOPNOTSUPP)
		a->no_allocate = true;
}

static int append(struct audit *a, const char *lines, size_t len, struct err *err)
{
	ssize_t n = pwrite(a->fd, lines, len, (off_t)a->offset);

	if (n == (ssize_t)len) {
		a->offset += len;
		return 0;
	}
	/* never leave half a line that a later one would be glued to */
	if (n > 0) {
		a->broken |= ftruncate(a->fd, (off_t)a->offset) < 0;
		a->allocated = a->offset;
	}
	return err_set(err, ERR_AUDIT, "the audit log cannot be written (%s): nothing is granted until it can",
		       n < 0 ? strerror(errno) : "disk full");
}

/* Writes the first line of segment a->index beside the log, durably; the caller renames it into place. */
static int write_next(struct audit *a, int *ret_fd, uint64_t *ret_len, struct err *err)
{
	char header[HEADER_MAX], hex[65];
	struct writer w = writer_init(header, sizeof(header));
	CLEANUP(cleanup_close) int fd = openat(a->dir_fd, NEXT, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	writer_printf(&w, "cotter-audit-v1 log=%s index=%llu size=%llu frontier=", a->log_id, (unsigned long long)a->index,
		      (unsigned long long)a->tree.size);
	for (unsigned int level = 0; level < MERKLE_LEVELS; level++)
		if (a->tree.size >> level & 1)
			writer_str(&w, sodium_bin2hex(hex, sizeof(hex), a->tree.node[level], 32));
	writer_str(&w, "\n");
	if (fd < 0 || w.failed || pwrite(fd, header, w.len, 0) != (ssize_t)w.len || fsync(fd) < 0)
		return err_set(err, ERR_AUDIT, "a new audit segment cannot be written: %s", strerror(errno));
	*ret_fd = steal_fd(&fd);
	*ret_len = w.len;
	return 0;
}

static int take_segment(struct audit *a, int fd, uint64_t len, struct err *err)
{
	if (renameat(a->dir_fd, NEXT, a->dir_fd, CURRENT) < 0 || fsync(a->dir_fd) < 0) {
		close(fd);
		return err_errno(err, errno, "the audit log cannot be made");
	}
	if (a->fd >= 0)
		close(a->fd);
	a->fd = fd;
	a->offset = a->allocated = len;
	allocate_ahead(a);
	return 0;
}

static void rotated_name(uint64_t index, char ret[64])
{
	snprintf(ret, 64, "audit.%06llu.log", (unsigned long long)index);
}

/* A crash between any two of these steps is mended by open_current. */
static int rotate(struct audit *a, struct err *err)
{
	char old[64];
	uint64_t len;
	int r = 0, fd;

	rotated_name(a->index, old);
	pthread_mutex_lock(&a->lock);
	a->index++;
	if (ftruncate(a->fd, (off_t)a->offset) < 0 || fdatasync(a->fd) < 0)
		r = err_errno(err, errno, "the audit log cannot be rotated");
	if (r == 0)
		r = write_next(a, &fd, &len, err);
	if (r == 0 && renameat2(a->dir_fd, CURRENT, a->dir_fd, old, RENAME_NOREPLACE) < 0) {
		close(fd);
		r = err_errno(err, errno, "the audit log cannot be rotated to %s", old);
	}
	if (r == 0)
		r = take_segment(a, fd, len, err);
	pthread_mutex_unlock(&a->lock);
	if (r < 0)
		a->broken = true;
	return r;
}

static void read_boot_id(char ret[37])
{
	CLEANUP(cleanup_close) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, 36);

	ret[n > 0 ? n : 0] = '\0';
}

/* The highest number of a segment that was rotated away, or -1. */
static int64_t newest_rotated(const struct audit *a)
{
	int fd = openat(a->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	unsigned long long index;
	int64_t newest = -1;
	struct dirent *e;
	char tail;

	while (dir && (e = readdir(dir)))
		if (sscanf(e->d_name, "audit.%llu.lo%c", &index, &tail) == 2 && tail == 'g' && (int64_t)index > newest)
			newest = (int64_t)index;
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return newest;
}

/* A new log, or the next segment of one whose rotation was cut off. */
static int begin_segment(struct audit *a, struct err *err)
{
	int64_t newest = newest_rotated(a);
	struct audit_segment segment;
	CLEANUP(cleanup_close) int old = -1;
	uint8_t id[16];
	char name[64];
	uint64_t len;
	int r, fd;

	if (newest >= 0) {
		rotated_name((uint64_t)newest, name);
		old = openat(a->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		r = old < 0 ? err_errno(err, errno, "audit segment %s", name) : audit_scan(old, &a->tree, NULL, NULL, &segment, err);
		if (r < 0)
			return r;
		memcpy(a->log_id, segment.log_id, sizeof(a->log_id));
		a->index = (uint64_t)newest + 1;
	} else {
		randombytes_buf(id, sizeof(id));
		sodium_bin2hex(a->log_id, sizeof(a->log_id), id, sizeof(id));
	}
	r = write_next(a, &fd, &len, err);
	return r < 0 ? r : take_segment(a, fd, len, err);
}

static int open_current(struct audit *a, uint64_t *ret_torn, struct err *err)
{
	struct audit_segment segment;
	struct stat st = {0};
	int r;

	*ret_torn = 0;
	a->fd = openat(a->dir_fd, CURRENT, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if ((a->fd < 0 && errno == ENOENT) || (a->fd >= 0 && fstat(a->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0))
		return begin_segment(a, err);
	if (a->fd < 0 || !S_ISREG(st.st_mode))
		return err_errno(err, errno, "the audit log cannot be opened");
	r = audit_scan(a->fd, &a->tree, NULL, NULL, &segment, err);
	if (r < 0)
		return r;
	if (segment.log_id[0] == '\0')
		return err_set(err, ERR_TAMPERED, "the audit log has lost its first line");
	memcpy(a->log_id, segment.log_id, sizeof(a->log_id));
	a->index = segment.index;
	a->offset = a->allocated = segment.end;
	*ret_torn = segment.torn;
	if (segment.torn && ftruncate(a->fd, (off_t)a->offset) < 0)
		return err_errno(err, errno, "the audit log's torn last line cannot be removed");
	allocate_ahead(a);
	return 0;
}

int audit_open(const char *dir, enum config_audit_sync sync, struct audit *a, struct err *err)
{
	struct audit_event torn_event = {.event = "audit.recovered", .result = "granted", .why = "a torn last line was cut off",
					 .uid = geteuid(), .job = "", .secret = ""};
	uint64_t torn = 0;
	int r;

	*a = (struct audit){.fd = -1, .dir_fd = -1, .event_fd = -1, .sync = sync};
	read_boot_id(a->boot_id);
	audit_sync_init(a);
	a->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (a->dir_fd < 0 || a->event_fd < 0)
		r = err_errno(err, errno, "audit directory %.300s", dir);
	else
		r = open_current(a, &torn, err);
	a->written = a->tree;
	a->want_synced = a->synced = a->tree.size;
	if (r == 0 && torn)
		r = audit_write(a, &torn_event, NULL, err);
	if (r < 0)
		audit_close(a);
	return r;
}

/* Printable ASCII without space, '"' and '\' goes as it is, all else as \xHH: one record stays one line of words. */
static void put_text(struct writer *w, const char *text, size_t max)
{
	if (!*text)
		writer_str(w, "-");
	for (size_t n = 0; *text && n < max; text++, n++) {
		if (*text > 0x20 && *text < 0x7f && *text != '\\')
			writer_bytes(w, text, 1);
		else if (*text == ' ')
			writer_str(w, "_");
		else
			writer_printf(w, "\\x%02x", (unsigned char)*text);
	}
}

static void put_id(struct writer *w, const char *name, uint64_t id)
{
	writer_str(w, name);
	if (id)
		writer_decimal(w, id);
	else
		writer_str(w, "-");
}

static void format(const struct audit *a, const struct audit_event *e, struct writer *w)
{
	char token[9] = "-";

	if (e->token_id)
		sodium_bin2hex(token, sizeof(token), e->token_id, 4);
	writer_str(w, "seq=");
	writer_decimal(w, a->tree.size);
	writer_str(w, " boot=");
	writer_bytes(w, a->boot_id, strnlen(a->boot_id, 8));
	writer_str(w, " wall=");
	writer_decimal(w, clock_ms(CLOCK_REALTIME));
	writer_str(w, " up=");
	writer_decimal(w, clock_ms(CLOCK_BOOTTIME));
	writer_str(w, " ev=");
	put_text(w, e->event, 32);
	writer_str(w, " job=");
	put_text(w, e->job, 64);
	put_id(w, " cgroup=", e->cgroup);
	writer_str(w, " uid=");
	writer_decimal(w, e->uid);
	put_id(w, " pidfd=", e->pidfd);
	writer_str(w, " secret=");
	put_text(w, e->secret, LIMIT_PATH_LEN);
	writer_str(w, " ver=");
	writer_decimal(w, e->version);
	writer_str(w, " tok=");
	writer_str(w, token);
	writer_str(w, " result=");
	put_text(w, e->result, 16);
	writer_str(w, " why=");
	/* what is left of the record's 1,024 bytes, every byte escaped at worst */
	put_text(w, e->why, (LIMIT_AUDIT_RECORD - 8 - w->len) / 4);
}

/* All that is queued, or nothing of it. */
static int write_queue(struct audit *a, struct err *err)
{
	int r = a->queue_len ? append(a, a->queue, a->queue_len, err) : 0;

	if (r < 0) {
		a->n_failed += a->tree.size - a->written.size;
		a->tree = a->written;
		a->lost = true;
	}
	a->queue_len = 0;
	if (r < 0 || a->written.size == a->tree.size)
		return r;
	a->written = a->tree;
	audit_sync_want(a);
	return 0;
}

/* Room in the queue for one more, and in the segment, and on the disk. */
static int make_room(struct audit *a, const struct audit_event *e, struct err *err)
{
	int r = 0;

	if (a->lost || audit_failed(a))
		return err_set(err, ERR_AUDIT, a->lost ? "the audit log could not be written a moment ago"
						       : "the audit log failed: nothing is granted; make room, then restart cotterd");
	if (sizeof(a->queue) - a->queue_len < LIMIT_AUDIT_RECORD + 8 || a->offset > LIMIT_AUDIT_SEGMENT)
		r = write_queue(a, err);
	if (r == 0 && a->offset > LIMIT_AUDIT_SEGMENT)
		r = rotate(a, err);
	if (r < 0)
		return r;
	allocate_ahead(a);
	/* on a full disk the room that is left is for denials */
	if (!a->no_allocate && strcmp(e->result, "granted") == 0 && !e->takes && a->offset + a->queue_len + LIMIT_AUDIT_RESERVE > a->allocated)
		return err_set(err, ERR_AUDIT, "the audit log's disk is full: nothing is granted until there is room");
	return 0;
}

int audit_queue(struct audit *a, const struct audit_event *e, uint64_t *ret_seq, struct err *err)
{
	struct writer w;
	int r = make_room(a, e, err);

	w = writer_init(a->queue + a->queue_len, LIMIT_AUDIT_RECORD + 8);
	if (r == 0) {
		format(a, e, &w);
		if (w.failed || w.len > LIMIT_AUDIT_RECORD)
			r = err_set(err, ERR_AUDIT, "an audit record is too long");
	}
	if (r < 0) {
		a->n_failed++;
		return r;
	}
	merkle_add(&a->tree, a->queue + a->queue_len, w.len);
	writer_str(&w, "\n");
	a->queue_len += w.len;
	if (ret_seq)
		*ret_seq = a->tree.size;
	return 0;
}

int audit_write(struct audit *a, const struct audit_event *e, uint64_t *ret_seq, struct err *err)
{
	const bool others_wait = a->queue_len || a->lost;
	int r = audit_queue(a, e, ret_seq, err);

	if (r == 0)
		r = write_queue(a, err);
	if (r < 0 && ret_seq)
		*ret_seq = 0;
	a->lost &= others_wait;
	return r;
}

int audit_flush(struct audit *a, struct err *err)
{
	int r = write_queue(a, err);

	if (r == 0 && a->lost)
		r = err_set(err, ERR_AUDIT, "the audit log could not be written a moment ago");
	a->lost = false;
	return r;
}

bool audit_written(const struct audit *a, uint64_t seq)
{
	return seq <= a->written.size;
}

void audit_close(struct audit *a)
{
	write_queue(a, NULL);
	audit_sync_stop(a);
	cleanup_close(&a->fd);
	cleanup_close(&a->dir_fd);
	cleanup_close(&a->event_fd);
	a->fd = a->dir_fd = a->event_fd = -1;
}
