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
	ssize_t n = x->parent ? archive_read_data(x->parent, x->buffer, BLOCK) : read(x->fd, x->buffer, BLOCK);

	(void)a;
	*ret = x->buffer;
	return n < 0 ? -1 : n;
}

static struct archive *open_source(struct source *x)
{
	struct archive *a = archive_read_new();

	if (!a)
		return NULL;
	archive_read_support_filter_all(a);
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

static void scan_members(struct scan_text *t, struct scanner *s, struct source *x, const char *place, struct budget *b);

/* One that is no archive itself. */
static void scan_member(struct scan_text *t, struct scanner *s, struct archive *a, const char *place, struct budget *b)
{
	uint8_t buffer[BLOCK];
	la_ssize_t n;

	scan_text_begin(t, place);
	while ((n = archive_read_data(a, buffer, sizeof(buffer))) > 0) {
		if ((unsigned long long)n > b->left) {
			scanner_left_out(s, place, "the archive is larger than 4 GiB unpacked");
			b->left = 0;
			break;
		}
		b->left -= (unsigned long long)n;
		scan_text_put(t, buffer, (size_t)n);
	}
	if (n < 0)
		scanner_left_out(s, place, "it cannot be unpacked whole");
	scan_text_end(t);
}

static bool is_archive_name(const char *name)
{
	static const char *const ends[] = {".zip", ".jar", ".war", ".whl", ".tar", ".tgz",   ".gz", ".bz2",
					   ".xz",  ".zst", ".7z",  ".deb", ".rpm", ".nupkg", ".apk"};
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

static void scan_members(struct scan_text *t, struct scanner *s, struct source *x, const char *place, struct budget *b)
{
	struct archive *a = open_source(x);
	struct archive_entry *entry;
	int r = ARCHIVE_EOF;

	if (!a) {
		scanner_left_out(s, place, "it is no archive that can be read");
		return;
	}
	while (b->left && (r = archive_read_next_header(a, &entry)) == ARCHIVE_OK) {
		char name[SCAN_NAME_MAX];
		const char *member = archive_entry_pathname(entry);

		if (archive_entry_filetype(entry) != AE_IFREG && archive_entry_filetype(entry) != 0)
			continue;
		snprintf(name, sizeof(name), "%s!%s", place, member ? member : "?");
		if (b->depth < SCAN_ARCHIVE_DEPTH && member && is_archive_name(member)) {
			struct source *inner = calloc(1, sizeof(*inner));

			if (!inner)
				break;
			inner->parent = a;
			b->depth++;
			scan_members(t, s, inner, name, b);
			b->depth--;
			free(inner);
		} else {
			scan_member(t, s, a, name, b);
		}
	}
	if (r != ARCHIVE_EOF && b->left)
		scanner_left_out(s, place, "the archive is broken");
	archive_read_free(a);
}

void archive_scan(struct scan_text *t, struct scanner *s, int fd, const char *place)
{
	struct source *x = calloc(1, sizeof(*x));
	struct budget b = {.left = SCAN_ARCHIVE_MAX};

	if (!x) {
		scanner_left_out(s, place, "out of memory");
		return;
	}
	x->fd = fd;
	scan_members(t, s, x, place, &b);
	free(x);
}
