#include "broker/cgroup.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define CGROUP2_MAGIC 0x63677270

const char *cgroup_root(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	struct statfs fs;

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
		if (statfs(roots[i], &fs) == 0 && fs.f_type == CGROUP2_MAGIC)
			return roots[i];
	return NULL;
}

static int read_file(const char *path, char *ret, size_t size)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	if (n < 0)
		return -ERR_FAILED;
	ret[n] = '\0';
	return 0;
}

int cgroup_hint(pid_t pid, char ret[LIMIT_CGROUP_PATH], struct err *err)
{
	char name[64], text[4096], *line, *end;

	if (pid)
		snprintf(name, sizeof(name), "/proc/%d/cgroup", (int)pid);
	else
		snprintf(name, sizeof(name), "/proc/self/cgroup");
	if (read_file(name, text, sizeof(text)) < 0)
		return err_errno(err, errno, "%s", name);
	line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!line)
		return err_set(err, ERR_UNSUPPORTED, "there is no cgroup-v2 tree here");
	line += *line == '\n' ? 4 : 3;
	end = strchr(line, '\n');
	if (!end || (size_t)(end - line) >= LIMIT_CGROUP_PATH)
		return err_set(err, ERR_LIMIT, "the cgroup's path is longer than %u bytes", LIMIT_CGROUP_PATH - 1);
	*end = '\0';
	memcpy(ret, line, (size_t)(end - line) + 1);
	return 0;
}

/* Paths are shown to people: nothing that a terminal takes for a command. */
static bool printable(const char *text)
{
	while ((unsigned char)*text >= 0x20 && *text != 0x7f)
		text++;
	return *text == '\0';
}

bool cgroup_path_valid(const char *path)
{
	size_t n = strlen(path);

	return path[0] == '/' && n > 1 && n < LIMIT_CGROUP_PATH && path[n - 1] != '/' && !strstr(path, "//") &&
	       !strstr(path, "/../") && !strstr(path, "/./") && !(n >= 3 && strcmp(path + n - 3, "/..") == 0) && printable(path);
}

int cgroup_path(uint64_t id, const char *hint, pid_t pid, char ret[LIMIT_CGROUP_PATH], struct err *err)
{
	const char *root = cgroup_root();
	char path[LIMIT_CGROUP_PATH], full[LIMIT_CGROUP_PATH + 64];
	struct statfs fs;
	struct stat st;
	int r = 0;

	if (!root || id == 0)
		return err_set(err, ERR_DENIED, "the caller stands in no cgroup of its own");
	if (hint)
		snprintf(path, sizeof(path), "%s", hint);
	else
		r = cgroup_hint(pid, path, err);
	if (r < 0 || !cgroup_path_valid(path))
		return err_set(err, ERR_DENIED, "the path of the caller's cgroup is not known: give it as \"cgroup\", from /proc/self/cgroup");
	snprintf(full, sizeof(full), "%s%s", root, path);
	if (lstat(full, &st) < 0 || !S_ISDIR(st.st_mode) || (uint64_t)st.st_ino != id || statfs(full, &fs) < 0 || fs.f_type != CGROUP2_MAGIC)
		return err_set(err, ERR_DENIED, "the caller does not stand in the cgroup whose path it gave");
	snprintf(ret, LIMIT_CGROUP_PATH, "%s", path);
	return 0;
}

bool cgroup_unit(const char *path, char *ret, size_t size)
{
	static const char slice[] = ".slice";
	size_t n;

	while (*path == '/') {
		path++;
		n = strcspn(path, "/");
		if (n > sizeof(slice) - 1 && memcmp(path + n - (sizeof(slice) - 1), slice, sizeof(slice) - 1) == 0) {
			path += n;
			continue;
		}
		if (n == 0 || n >= size)
			return false;
		memcpy(ret, path, n);
		ret[n] = '\0';
		return true;
	}
	return false;
}

void cgroup_events(const char *path, struct cgroup_events *ret)
{
	const char *root = cgroup_root();
	char full[LIMIT_CGROUP_PATH + 64], text[256];

	*ret = (struct cgroup_events){.empty = true};
	if (!root)
		return;
	snprintf(full, sizeof(full), "%s%s/cgroup.events", root, path);
	if (read_file(full, text, sizeof(text)) < 0) {
		ret->unknown = errno != ENOENT && errno != ENODEV;
		ret->empty = !ret->unknown;
		return;
	}
	ret->empty = !strstr(text, "populated 1");
	ret->frozen = strstr(text, "frozen 1");
}

bool cgroup_empty(const char *path)
{
	struct cgroup_events e;

	cgroup_events(path, &e);
	return e.empty;
}
