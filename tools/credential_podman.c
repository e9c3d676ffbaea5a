/*
 * podman's secret driver "shell". podman gives a secret an id and a value, and asks for the value by the id when a container starts.
 * The value is a reference here, cotter:PATH#FIELD, and all that is kept is one small file an id with the reference in it.
 */
#include "tools/credential.h"

#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/kv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char scheme[] = "cotter:";

struct reference {
	char text[LIMIT_PATH_LEN + LIMIT_NAME_LEN + sizeof(scheme) + 2];
	char path[LIMIT_PATH_LEN + 1];
	const char *field;
};

/* A value that was meant to be kept may stand there: nothing of it is told. */
static int parse(const void *data, size_t len, struct reference *ret, struct err *err)
{
	const size_t n = sizeof(scheme) - 1;

	if (len < n || len >= sizeof(ret->text) || memcmp(data, scheme, n) != 0 || memchr(data, 0, len))
		return err_set(err, ERR_INPUT, "a secret of this driver is a reference, cotter:PATH or cotter:PATH#FIELD: values are not kept");
	memcpy(ret->text, data, len);
	ret->text[len] = '\0';
	if (kv_parse_ref(ret->text + n, ret->path, &ret->field, NULL) < 0)
		return err_set(err, ERR_INPUT, "what stands behind cotter: is not PATH or PATH#FIELD");
	return 0;
}

static bool id_valid(const char *id)
{
	size_t n = 0;

	while (isalnum((unsigned char)id[n]))
		n++;
	return n > 0 && n <= LIMIT_HELPER_ID && !id[n];
}

static int secret_id(const char **ret, struct err *err)
{
	*ret = getenv("SECRET_ID");
	return *ret && id_valid(*ret) ? 0 : err_set(err, ERR_USAGE, "SECRET_ID is not what podman gives: letters and digits");
}

/* ---- where references are kept ---------------------------------------------------------------------------------- */

/* Makes what is missing of a path, for this user alone. */
static int make_dirs(char *path, struct err *err)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return err_errno(err, errno, "%.300s", path);
		*slash = '/';
	}
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : err_errno(err, errno, "%.300s", path);
}

static int open_state(const struct credential *c, int *ret, struct err *err)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	CLEANUP(cleanup_close) int fd = -1;
	char path[LIMIT_FILE_PATH_LEN];
	struct stat st;
	int n, r;

	if (c->state_dir)
		n = snprintf(path, sizeof(path), "%s", c->state_dir);
	else if (state && *state == '/')
		n = snprintf(path, sizeof(path), "%s/cotter/podman", state);
	else
		n = snprintf(path, sizeof(path), "%s/.local/state/cotter/podman", home ? home : "");
	if (n < 0 || (size_t)n >= sizeof(path) || *path != '/')
		return err_set(err, ERR_USAGE, "--state-dir takes an absolute path");
	r = make_dirs(path, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%.300s", path);
	/* whoever writes there chooses what a container gets */
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return err_set(err, ERR_FAILED, "%.300s must belong to this user and not be writable by others", path);
	*ret = steal_fd(&fd);
	return 0;
}

static int read_reference(int dir, const char *id, struct reference *ret, struct err *err)
{
	CLEANUP(cleanup_close) int fd = openat(dir, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char text[sizeof(ret->text)];
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "no reference of this id is kept here");
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n < 0)
		return err_errno(err, errno, "%s", id);
	return parse(text, (size_t)n, ret, err);
}

/* ---- what podman asks ------------------------------------------------------------------------------------------- */

static int list(int dir, struct err *err)
{
	int fd = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!d)
		return err_errno(err, errno, "the references cannot be listed");
	while ((entry = readdir(d)))
		if (id_valid(entry->d_name))
			puts(entry->d_name);
	closedir(d);
	return 0;
}

static int lookup(int dir, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret value = {0};
	struct reference ref;
	json_t *object = NULL;
	const char *id;
	int r = secret_id(&id, err);

	if (r == 0)
		r = read_reference(dir, id, &ref, err);
	if (r == 0)
		r = kv_fetch(ref.path, 0, &reply, &object, err);
	if (r == 0)
		r = json_field(object, ref.field, ref.path, &value, err);
	return r < 0 ? r : cli_write_all(1, value.data, value.len, err);
}

static int write_reference(int dir, const char *id, const char *text, struct err *err)
{
	CLEANUP(cleanup_close) int fd = openat(dir, id, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_errno(err, errno, "the reference cannot be kept");
	r = cli_write_all(fd, text, strlen(text), err);
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(err, errno, "the reference cannot be kept");
	if (r < 0)
		unlinkat(dir, id, 0);
	return r;
}

static int store(int dir, struct err *err)
{
	CLEANUP(secret_clear) struct secret input = {0};
	struct reference ref;
	const char *id;
	int r = secret_id(&id, err);

	if (r == 0)
		r = cli_read_secret("-", LIMIT_SECRET_LEN, &input, err);
	cli_chomp(&input);
	if (r == 0)
		r = parse(input.data, input.len, &ref, err);
	return r < 0 ? r : write_reference(dir, id, ref.text, err);
}

static int delete(int dir, struct err *err)
{
	const char *id;
	int r = secret_id(&id, err);

	if (r < 0)
		return r;
	if (unlinkat(dir, id, 0) < 0)
		return errno == ENOENT ? err_set(err, ERR_NOT_FOUND, "no reference of this id is kept here") : err_errno(err, errno, "%s", id);
	return 0;
}

int credential_podman(const struct credential *c, int argc, char **argv, struct err *err)
{
	static const struct {
		const char *verb;
		int (*run)(int dir, struct err *err);
	} verbs[] = {{"list", list}, {"lookup", lookup}, {"store", store}, {"delete", delete}};
	CLEANUP(cleanup_close) int dir = -1;
	int r;

	for (size_t i = 0; argc == 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].verb, argv[0]) != 0)
			continue;
		r = open_state(c, &dir, err);
		return r < 0 ? r : verbs[i].run(dir, err);
	}
	return err_set(err, ERR_USAGE, "podman says what it wants in one word: list, lookup, store or delete");
}
