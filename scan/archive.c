/* What is in archives and compressed files, to a depth and an amount, through libarchive. */
#include "common/cleanup.h"
#include "scan/sources.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#define BLOCK 65536u

struct source {
	struct archive *parent; /* a member of it is what is read; NULL: fd */
	int fd;
	size_t ready; /* bytes of the buffer that were read before */
	char buffer[BLOCK];
};

struct budget {
	unsigned long long left;
	unsigned int depth;
};

bool archive_is(const uint8_t *begin, size_t len)
{
	static const struct {
		const char *bytes;
		size_t len, at;
	} magics[] = {{"PK\3\4", 4, 0},
		      {"\x1f\x8b", 2, 0},
		      {"BZh", 3, 0},
		      {"\xfd"
		       "7zXZ",
		       5, 0},
		      {"\x28\xb5\x2f\xfd", 4, 0},
		      {"7z\xbc\xaf\x27\x1c", 6, 0},
		      {"!<arch>\n", 8, 0},
		      {"ustar", 5, 257},
		      {"\xed\xab\xee\xdb", 4, 0},
		      {"070701", 6, 0}};

	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
		if (len >= magics[i].at + magics[i].len &&
		    memcmp(begin + magics[i].at, magics[i].bytes, magics[i].len) == 0)
			return true;
	return false;
}

static la_ssize_t read_source(struct archive *a, void *context, const void **ret)
{
	struct source *x = context;
	ssize_t n = (ssize_t)x->ready;

	(void)a;
	*ret = x->buffer;
	x->ready = 0;
	if (n == 0)
		n = x->parent ? archive_read_data(x->parent, x->buffer, BLOCK) : read(x->fd, x->buffer, BLOCK);
	return n < 0 ? -1 : n;
}

static struct archive *open_source(struct source *x)
{
	struct archive *a = archive_read_new();

	if (!a)
		return NULL;
	/* not all: of some kinds a program is run, by its name */
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_lzma(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_rpm(a);
	/* not all: a text that happens to read like an mtree is none */
	archive_read_support_format_tar(a);
	archive_read_support_format_zip(a);
	archive_read_support_format_7zip(a);
	archive_read_support_format_cpio(a);
	archive_read_support_format_ar(a);
	archive_read_support_format_raw(a); /* one file that is compressed alone */
	if (archive_read_open(a, x, NULL, read_source, NULL) == ARCHIVE_OK)
		return a;
	archive_read_free(a);
	return NULL;
}

static bool scan_members(struct scan_text *t, struct scanner *s, struct source *x, const char *place, struct budget *b);

static bool spend(struct scanner *s, const char *place, size_t n, struct budget *b)
{
	if (n <= b->left) {
		b->left -= n;
		return true;
	}
	scanner_left_out(s, place, "the archive is larger than 4 GiB unpacked");
	b->left = 0;
	return false;
}

/* A text that only begins like an archive is handed out as it is. */
static bool is_unpacked(struct archive *a)
{
	return archive_format(a) != ARCHIVE_FORMAT_RAW || archive_filter_count(a) > 1;
}

/* The first block of it, in x, says whether it is an archive itself; its name may say anything. A folder has nothing in it,
 * and where it has something, that counts as all else. */
static void scan_member(struct scan_text *t, struct scanner *s, struct source *x, bool is_file, const char *place,
			struct budget *b)
{
	la_ssize_t n = archive_read_data(x->parent, x->buffer, BLOCK);

	if (n > 0 && is_unpacked(x->parent) && archive_is((const uint8_t *)x->buffer, (size_t)n)) {
		if (b->depth == SCAN_ARCHIVE_DEPTH) {
			scanner_left_out(s, place, "archives in archives, too deep");
		} else {
			x->ready = (size_t)n;
			b->depth++;
			scan_members(t, s, x, place, b);
			b->depth--;
			return;
		}
	}
	scan_text_begin(t, place);
	for (; n > 0 && spend(s, place, (size_t)n, b); n = archive_read_data(x->parent, x->buffer, BLOCK))
		scan_text_put(t, x->buffer, (size_t)n);
	if (n < 0 && is_file)
		scanner_left_out(s, place, "it cannot be unpacked whole");
	scan_text_end(t);
}

/* Was it one, and whole? */
static bool scan_members(struct scan_text *t, struct scanner *s, struct source *x, const char *place, struct budget *b)
{
	struct archive *a = open_source(x);
	struct source *inner = calloc(1, sizeof(*inner));
	struct archive_entry *entry;
	int r = a && inner ? ARCHIVE_OK : ARCHIVE_FATAL;

	while (r == ARCHIVE_OK && b->left && (r = archive_read_next_header(a, &entry)) == ARCHIVE_OK) {
		char name[SCAN_NAME_MAX];
		const char *member = archive_entry_pathname(entry);

		snprintf(name, sizeof(name), "%s!%s", place, member ? member : "?");
		inner->parent = a;
		inner->ready = 0;
		scan_member(t, s, inner, archive_entry_filetype(entry) == AE_IFREG || archive_entry_filetype(entry) == 0, name,
			    b);
	}
	if (r != ARCHIVE_EOF && b->left)
		scanner_left_out(s, place, "the archive is broken, or none");
	free(inner);
	archive_read_free(a);
	return r == ARCHIVE_EOF;
}

bool archive_scan(struct scan_text *t, struct scanner *s, int fd, const char *place)
{
	struct source *x = calloc(1, sizeof(*x));
	struct budget b = {.left = SCAN_ARCHIVE_MAX};
	bool whole;

	if (!x) {
		scanner_left_out(s, place, "out of memory");
		return false;
	}
	x->fd = fd;
	whole = scan_members(t, s, x, place, &b);
	free(x);
	return whole;
}
