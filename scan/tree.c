/* Files of trees, by threads: one list of folders and files that are still to be looked at, from which each takes the next.
 */
#include "common/cleanup.h"
#include "common/err.h"
#include "scan/sources.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define THREADS_MAX 16u
#define BEGIN 512u

struct item {
	struct item *next;
	bool folder, named; /* named: by the caller, so that it has to be there */
	char path[];
};

struct walk {
	struct scanner *scanner;
	bool archives;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct item *first;
	unsigned int busy; /* threads that may still find something */
	bool failed;	   /* what the caller named cannot be read */
	char failure[SCAN_NAME_MAX + 64];
};

static void add(struct walk *w, const char *dir, const char *name, bool folder, bool named)
{
	size_t n = strlen(dir) + strlen(name) + 2;
	struct item *item = malloc(sizeof(*item) + n);

	if (!item) {
		scanner_left_out(w->scanner, dir, "out of memory");
		return;
	}
	/* what is below here is told without it */
	if (strcmp(dir, ".") == 0)
		dir = "";
	*item = (struct item){.folder = folder, .named = named};
	snprintf(item->path, n, "%s%s%s", dir, *dir && dir[strlen(dir) - 1] != '/' ? "/" : "", name);
	pthread_mutex_lock(&w->lock);
	item->next = w->first;
	w->first = item;
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
}

static struct item *take(struct walk *w, bool was_busy)
{
	struct item *item;

	pthread_mutex_lock(&w->lock);
	w->busy -= was_busy;
	while (!w->first && w->busy)
		pthread_cond_wait(&w->more, &w->lock);
	item = w->first;
	if (item) {
		w->first = item->next;
		w->busy++;
	} else {
		pthread_cond_broadcast(&w->more);
	}
	pthread_mutex_unlock(&w->lock);
	return item;
}

static void fail(struct walk *w, const struct item *item, const char *why)
{
	if (!item->named) {
		scanner_left_out(w->scanner, item->path, why);
		return;
	}
	pthread_mutex_lock(&w->lock);
	w->failed = true;
	snprintf(w->failure, sizeof(w->failure), "%.1000s: %.60s", item->path, why);
	pthread_mutex_unlock(&w->lock);
}

/* Objects of a repository are compressed: scan/git.c looks at those. Its configuration, logs and hooks are text, and what lies in
 * other folders of that name (Git LFS) may be. */
static bool holds_objects(int dir, const char *name)
{
	return strcmp(name, "objects") == 0 && faccessat(dir, "HEAD", F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
	       faccessat(dir, "refs", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void look_at_folder(struct walk *w, const struct item *item)
{
	DIR *d = opendir(item->path);
	const struct dirent *e;

	if (!d) {
		fail(w, item, strerror(errno));
		return;
	}
	while ((e = readdir(d))) {
		unsigned char type = e->d_type;
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || holds_objects(dirfd(d), e->d_name))
			continue;
		if (type == DT_UNKNOWN && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			type = S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_LNK;
		if (type == DT_DIR || type == DT_REG)
			add(w, item->path, e->d_name, type == DT_DIR, false);
	}
	closedir(d);
}

static void read_file(struct walk *w, struct scan_text *t, const struct item *item, int fd)
{
	bool first = true;

	scan_text_begin(t, item->path);
	for (;;) {
		size_t room;
		uint8_t *to = scan_text_room(t, &room);
		ssize_t n = read(fd, to, room);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(w, item, strerror(errno));
		if (n <= 0)
			break;
		if (first && w->archives && archive_is(to, (size_t)n) && lseek(fd, 0, SEEK_SET) == 0) {
			if (archive_scan(t, w->scanner, fd, item->path) || lseek(fd, 0, SEEK_SET) < 0)
				return;
			/* something that only begins like one: a text */
			scan_text_begin(t, item->path);
			first = false;
			continue;
		}
		first = false;
		scan_text_came(t, (size_t)n);
	}
	scan_text_end(t);
}

static void look_at(struct walk *w, struct scan_text *t, const struct item *item)
{
	CLEANUP(cleanup_close) int fd = -1;
	struct stat st;

	if (item->folder) {
		look_at_folder(w, item);
		return;
	}
	/* a pipe that stands there instead is not waited for, but what the caller names is read, whatever it is */
	fd = open(item->path, O_RDONLY | O_CLOEXEC | (item->named ? 0 : O_NONBLOCK | O_NOFOLLOW));
	if (fd < 0 || fstat(fd, &st) < 0) {
		fail(w, item, strerror(errno));
		return;
	}
	if (S_ISDIR(st.st_mode)) {
		look_at_folder(w, item);
		return;
	}
	if (!S_ISREG(st.st_mode) && !item->named)
		return;
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	read_file(w, t, item, fd);
	__atomic_add_fetch(&w->scanner->texts, 1, __ATOMIC_RELAXED);
}

static void *work(void *context)
{
	struct walk *w = context;
	CLEANUP(scan_text_free) struct scan_text *t = scan_text_new(w->scanner);
	struct item *item = NULL;

	while ((item = take(w, item != NULL))) {
		if (t)
			look_at(w, t, item);
		else
			fail(w, item, "out of memory");
		free(item);
	}
	return NULL;
}

int scan_trees(struct scanner *s, char *const *paths, size_t n, bool archives, unsigned int threads, struct err *err)
{
	struct walk w = {.scanner = s, .archives = archives};
	pthread_t ids[THREADS_MAX];
	unsigned int started = 0;

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.more, NULL);
	for (size_t i = n; i-- > 0;)
		add(&w, "", paths[i], false, true);
	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	while (started + 1 < threads && pthread_create(&ids[started], NULL, work, &w) == 0)
		started++;
	work(&w);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	pthread_mutex_destroy(&w.lock);
	pthread_cond_destroy(&w.more);
	return w.failed ? err_set(err, ERR_FAILED, "%.480s", w.failure) : 0;
}

int scan_stream(struct scanner *s, int fd, const char *place, struct err *err)
{
	CLEANUP(scan_text_free) struct scan_text *t = scan_text_new(s);
	ssize_t n = 0;

	if (!t)
		return err_set(err, ERR_FAILED, "out of memory");
	scan_text_begin(t, place);
	do {
		size_t room;
		uint8_t *to = scan_text_room(t, &room);

		n = read(fd, to, room);
		if (n > 0)
			scan_text_came(t, (size_t)n);
	} while (n > 0 || (n < 0 && errno == EINTR));
	scan_text_end(t);
	s->texts++;
	return n < 0 ? err_errno(err, errno, "%.200s", place) : 0;
}
