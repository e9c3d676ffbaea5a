#include "broker/config_text.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int config_read_text(const char *path, char **ret, size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(cleanup_free) char *text = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "cannot read the configuration %.300s", path);
	if (st.st_mode & S_IWOTH || (st.st_uid != 0 && st.st_uid != geteuid()))
		return err_set(err, ERR_INPUT, "%.300s: must belong to root or to cotter's user, and not be writable by others", path);
	text = malloc(LIMIT_CONFIG_LEN + 1);
	if (!text)
		return err_set(err, ERR_FAILED, "out of memory");
	while (len <= LIMIT_CONFIG_LEN && (n = read(fd, text + len, LIMIT_CONFIG_LEN + 1 - len)) != 0) {
		if (n < 0)
			return err_errno(err, errno, "cannot read the configuration %.300s", path);
		len += (size_t)n;
	}
	if (len > LIMIT_CONFIG_LEN)
		return err_set(err, ERR_LIMIT, "%.300s: longer than %u bytes", path, LIMIT_CONFIG_LEN);
	text[len] = '\0';
	*ret = steal_ptr(&text);
	*ret_len = len;
	return 0;
}
