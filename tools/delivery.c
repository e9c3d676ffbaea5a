#include "tools/delivery.h"

#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "mask/mask.h"
#include "tools/cli.h"
#include "tools/kv.h"
#include "tools/relay.h"
#include "tools/template.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sodium.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define FILES_DIR "/run/cotter-files" /* where the memory file system of a job is mounted, in its own mount namespace */
#define FD_BASE 64		      /* descriptors of memory files, above those that a command uses itself */

/* ---- what is asked for ------------------------------------------------------------------------------------------------
 */

static bool is_variable(const char *name)
{
	for (size_t i = 0; name[i]; i++)
		if (!((name[i] >= 'A' && name[i] <= 'Z') || (name[i] >= 'a' && name[i] <= 'z') || name[i] == '_' ||
		      (i && name[i] >= '0' && name[i] <= '9')))
			return false;
	return *name;
}

static int set_source(struct delivery *x, const char *text, struct err *err)
{
	char path[LIMIT_PATH_LEN + 1];
	const char *field;
	int r = kv_parse_ref(text, path, &field, err);

	if (r < 0)
		return r;
	if (strlen(text) >= sizeof(x->source) || (field && !*field))
		return err_set(err, ERR_USAGE, "'%.100s': the field's name is missing or too long", text);
	strcpy(x->source, text);
	return 0;
}

static int set_name(struct delivery *x, const char *name, size_t len, struct err *err)
{
	char *end;

	if (len > LIMIT_RUN_NAME)
		return err_set(err, ERR_USAGE, "'%.64s...': the name is too long", name);
	memcpy(x->name, name, len);
	x->name[len] = '\0';
	if (x->kind == DELIVERY_FD && x->name[0] >= '0' && x->name[0] <= '9') {
		x->number = (int)strtol(x->name, &end, 10);
		if (*end || len > 4 || x->number < 3 || x->number >= FD_BASE)
			return err_set(err, ERR_USAGE, "'%s': a descriptor is a number from 3 to %d", x->name, FD_BASE - 1);
		x->name[0] = '\0';
		return 0;
	}
	return is_variable(x->name) ? 0 : err_set(err, ERR_USAGE, "'%.64s' is not a variable's name", x->name);
}

static int set_template(struct delivery *x, const char *argument, struct err *err)
{
	const char *colon = strrchr(argument, ':');
	struct statfs fs;
	char dir[LIMIT_FILE_PATH_LEN];
	char *slash;

	if (!colon || colon == argument || (size_t)(colon - argument) >= sizeof(x->file) ||
	    strlen(colon + 1) >= sizeof(x->target))
		return err_set(err, ERR_USAGE, "--template takes FILE:NAME or FILE:/path/on/a/memory/file/system");
	memcpy(x->file, argument, (size_t)(colon - argument));
	if (!strchr(colon, '/'))
		return set_name(x, colon + 1, strlen(colon + 1), err);
	strcpy(x->target, colon + 1);
	snprintf(dir, sizeof(dir), "%s", x->target);
	slash = strrchr(dir, '/');
	*(slash == dir ? slash + 1 : slash) = '\0';
	if (statfs(dir, &fs) < 0)
		return err_errno(err, errno, "%.200s", dir);
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
		return err_set(err, ERR_USAGE,
			       "%.200s is on a disk: name a path below /dev/shm or /run, or a variable, which gets the "
			       "path of a memory file",
			       x->target);
	return 0;
}

/* Two of one name, and one that is passed on to the wrong place, are mistakes. */
static int check_unique(const struct deliveries *d, const struct delivery *x, struct err *err)
{
	for (size_t i = 0; i < d->n; i++) {
		if (x->name[0] && strcmp(d->list[i].name, x->name) == 0)
			return err_set(err, ERR_USAGE, "two secrets for one name: %s", x->name);
		if (x->kind == DELIVERY_STDIN && d->list[i].kind == DELIVERY_STDIN)
			return err_set(err, ERR_USAGE, "two secrets for standard input");
		if (x->number >= 0 && d->list[i].number == x->number)
			return err_set(err, ERR_USAGE, "two secrets for descriptor %d", x->number);
		if (x->target[0] && strcmp(d->list[i].target, x->target) == 0)
			return err_set(err, ERR_USAGE, "two templates for %.200s", x->target);
	}
	return 0;
}

int delivery_add(struct deliveries *d, enum delivery_kind kind, const char *argument, struct err *err)
{
	struct delivery *x;
	size_t n = strcspn(argument, "=");
	int r;

	if (!d->list)
		d->list = calloc(LIMIT_RUN_DELIVERIES, sizeof(*d->list));
	if (!d->list)
		return err_set(err, ERR_FAILED, "out of memory");
	if (d->n == LIMIT_RUN_DELIVERIES)
		return err_set(err, ERR_USAGE, "at most %u secrets for one command", LIMIT_RUN_DELIVERIES);
	x = &d->list[d->n];
	*x = (struct delivery){.kind = kind, .number = -1, .fd = -1};
	if (kind == DELIVERY_TEMPLATE) {
		r = set_template(x, argument, err);
	} else if (kind == DELIVERY_STDIN) {
		r = set_source(x, argument, err);
	} else if (!argument[n] || !n) {
		r = err_set(err, ERR_USAGE, "'%.64s': it has to be NAME=path or NAME=path#field", argument);
	} else {
		r = set_name(x, argument, n, err);
		if (r == 0)
			r = set_source(x, argument + n + 1, err);
	}
	if (r == 0)
		r = check_unique(d, x, err);
	if (r == 0)
		d->n++;
	return r;
}

/* ---- fetched -----------------------------------------------------------------------------------------------------------
 */

static struct delivered *find(const struct deliveries *d, const char *source)
{
	for (size_t i = 0; i < d->n_sources; i++)
		if (strcmp(d->sources[i].source, source) == 0)
			return &d->sources[i];
	return NULL;
}

static int add_source(void *context, const char *source, struct err *err)
{
	struct deliveries *d = context;
	struct delivery check = {0};
	int r;

	if (find(d, source))
		return 0;
	r = set_source(&check, source, err);
	if (r < 0)
		return r;
	if (d->n_sources == LIMIT_READ)
		return err_set(err, ERR_USAGE, "at most %u secrets for one command", LIMIT_READ);
	strcpy(d->sources[d->n_sources++].source, source);
	return 0;
}

/* Every source once; templates are read for what they name. */
static int collect(struct deliveries *d, struct err *err)
{
	int r = 0;

	d->sources = calloc(LIMIT_READ, sizeof(*d->sources));
	if (!d->sources)
		return err_set(err, ERR_FAILED, "out of memory");
	for (size_t i = 0; r == 0 && i < d->n; i++) {
		struct delivery *x = &d->list[i];

		if (x->kind != DELIVERY_TEMPLATE) {
			r = add_source(d, x->source, err);
			continue;
		}
		r = cli_read_secret(x->file, LIMIT_TEMPLATE, &x->text, err);
		if (r == 0)
			r = template_sources(&x->text, x->file, add_source, d, err);
	}
	return r;
}

static json_t *question(const struct deliveries *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->n_sources; i++) {
		char path[LIMIT_PATH_LEN + 1];
		const char *field;

		/* two fields of one secret are one read */
		kv_parse_ref(d->sources[i].source, path, &field, NULL);
		for (size_t k = 0; k < json_array_size(list) && path[0]; k++)
			if (strcmp(json_string_value(json_object_get(json_array_get(list, k), "path")), path) == 0)
				path[0] = '\0';
		if (path[0])
			json_array_append_new(list, json_pack("{s:s}", "path", path));
	}
	return json_pack("{s:o}", "secrets", list);
}

static const json_t *answer_for(const json_t *answer, const char *path)
{
	size_t i;
	json_t *item;

	json_array_foreach(answer, i, item)
	{
		const char *its = json_string_value(json_object_get(item, "path"));

		if (its && strcmp(its, path) == 0)
			return json_object_get(item, "data");
	}
	return NULL;
}

static bool same(const struct secret *a, const struct secret *b)
{
	return a->len == b->len && (!a->len || sodium_memcmp(a->data, b->data, a->len) == 0);
}

static int take_value(struct delivered *s, const json_t *object, const char *field, const char *path, struct err *err)
{
	CLEANUP(secret_clear) struct secret value = {0};
	int r = json_field(object, field, path, &value, err);

	if (r < 0 || (s->value.cap && same(&value, &s->value)))
		return r;
	secret_clear(&s->value);
	s->value = value;
	value = (struct secret){0};
	s->changed = true;
	return 0;
}

static int ask(struct deliveries *d, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = question(d);
	const json_t *answer;
	int r;

	if (!d->n_sources)
		return 0;
	if (!body)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full");
	r = client_call(CLIENT_JOB, "POST", "/v1/cotter/read", body, &reply, err);
	if (r < 0)
		return d->n_sources == 1 ? err_wrap(err, "%s", d->sources[0].source) : r;
	answer = json_object_get(client_data(&reply), "secrets");
	for (size_t i = 0; r == 0 && i < d->n_sources; i++) {
		char path[LIMIT_PATH_LEN + 1];
		const char *field;
		const json_t *object;

		kv_parse_ref(d->sources[i].source, path, &field, NULL);
		object = answer_for(answer, path);
		if (!json_is_object(object))
			return err_set(err, ERR_FAILED, "the broker's answer has no %s", path);
		r = take_value(&d->sources[i], object, field, path, err);
	}
	return r;
}

static int look_up(void *context, const char *source, const struct secret **ret, struct err *err)
{
	const struct delivered *s = find(context, source);

	if (!s)
		return err_set(err, ERR_FAILED, "%s was not fetched", source);
	*ret = &s->value;
	return 0;
}

static int fill(struct deliveries *d, struct delivery *x, struct err *err)
{
	const struct delivered *s;

	secret_clear(&x->value);
	if (x->kind == DELIVERY_TEMPLATE)
		return template_render(&x->text, look_up, d, &x->value, err);
	s = find(d, x->source);
	if (!s)
		return err_set(err, ERR_FAILED, "%s was not fetched", x->source);
	if (x->kind == DELIVERY_ENV && s->value.len && memchr(s->value.data, 0, s->value.len))
		return err_set(err, ERR_INPUT,
			       "%s holds a NUL byte: it cannot be an environment variable; --file %s=%s can carry it",
			       x->source, x->name, x->source);
	return secret_copy(&x->value, s->value.data, s->value.len, err);
}

int delivery_fetch(struct deliveries *d, struct err *err)
{
	int r = collect(d, err);

	if (r == 0)
		r = ask(d, err);
	for (size_t i = 0; r == 0 && i < d->n; i++)
		r = fill(d, &d->list[i], err);
	return r;
}

/* ---- put in place
 * --------------------------------------------------------------------------------------------------------- */

int delivery_prepare(struct deliveries *d, uid_t uid, gid_t gid, struct err *err)
{
	char options[96];
	bool wants = false;

	for (size_t i = 0; i < d->n; i++)
		wants |=
			d->list[i].kind == DELIVERY_FILE || (d->list[i].kind == DELIVERY_TEMPLATE && !d->list[i].target[0]);
	if (!wants || geteuid() != 0)
		return 0;
	if (mkdir(FILES_DIR, 0755) < 0 && errno != EEXIST)
		return err_errno(err, errno, FILES_DIR);
	/* a container may not mount: then it is a descriptor */
	if (unshare(CLONE_NEWNS) < 0)
		return 0;
	if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_errno(err, errno, "cannot keep mounts of this job from the others");
	snprintf(options, sizeof(options), "mode=0700,uid=%u,gid=%u,size=32m,nr_inodes=256,noswap", uid, gid);
	if (mount("cotter", FILES_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0) {
		*strstr(options, ",noswap") = '\0'; /* before Linux 6.4 */
		if (mount("cotter", FILES_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
			return err_errno(err, errno, "cannot make a memory file system for this job");
	}
	snprintf(d->dir, sizeof(d->dir), FILES_DIR);
	return 0;
}

static int write_whole(int fd, const struct secret *value, struct err *err)
{
	if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(err, errno, "a memory file");
	if (cli_write_all(fd, value->data, value->len, err) < 0)
		return -ERR_FAILED;
	return lseek(fd, 0, SEEK_SET) < 0 ? err_errno(err, errno, "a memory file") : 0;
}

/* Beside the old one, then in its place: who reads it meanwhile reads one or the other. */
static int write_file(const char *path, const struct secret *value, struct err *err)
{
	CLEANUP(cleanup_close) int fd = -1;
	char beside[LIMIT_FILE_PATH_LEN + 16];
	int r;

	snprintf(beside, sizeof(beside), "%s.%d", path, (int)getpid());
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
	if (fd < 0)
		return err_errno(err, errno, "%.200s", beside);
	r = cli_write_all(fd, value->data, value->len, err);
	if (r == 0 && rename(beside, path) < 0)
		r = err_errno(err, errno, "%.200s", path);
	if (r < 0)
		unlink(beside);
	return r;
}

static int memory_file(const struct deliveries *d, struct delivery *x, struct err *err)
{
	CLEANUP(cleanup_close) int fd = memfd_create(x->name[0] ? x->name : "cotter", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = fd < 0 ? err_errno(err, errno, "memfd_create") : write_whole(fd, &x->value, err);

	if (r == 0 && !d->follows && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		r = err_errno(err, errno, "cannot seal a memory file");
	if (r < 0)
		return r;
	/* out of the way of those that the command opens itself, and of the numbers that were asked for */
	x->fd = fcntl(fd, F_DUPFD_CLOEXEC, FD_BASE);
	return x->fd < 0 ? err_errno(err, errno, "a memory file") : 0;
}

/* NAME=value, as execve wants it: built in the arena, copied by the kernel alone. */
static int make_entry(struct delivery *x, const void *value, size_t len, struct err *err)
{
	int r;

	secret_clear(&x->entry);
	if (!x->name[0])
		return 0;
	r = secret_new(&x->entry, strlen(x->name) + len + 2, err);
	if (r == 0)
		r = secret_append(&x->entry, x->name, strlen(x->name), err);
	if (r == 0)
		r = secret_append(&x->entry, "=", 1, err);
	if (r == 0 && len)
		r = secret_append(&x->entry, value, len, err);
	return r == 0 ? secret_append(&x->entry, "", 1, err) : r;
}

static void file_path(const struct deliveries *d, const struct delivery *x, char ret[LIMIT_FILE_PATH_LEN])
{
	if (x->target[0])
		snprintf(ret, LIMIT_FILE_PATH_LEN, "%s", x->target);
	else if (d->dir[0])
		snprintf(ret, LIMIT_FILE_PATH_LEN, "%s/%s", d->dir, x->name);
	else
		ret[0] = '\0';
}

static int make_file(struct deliveries *d, struct delivery *x, struct err *err)
{
	char path[LIMIT_FILE_PATH_LEN];
	int r;

	file_path(d, x, path);
	if (path[0]) {
		r = write_file(path, &x->value, err);
		x->made = r == 0;
		return r == 0 ? make_entry(x, path, strlen(path), err) : r;
	}
	r = memory_file(d, x, err);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", x->fd);
	return r == 0 ? make_entry(x, path, strlen(path), err) : r;
}

static int make(struct deliveries *d, struct delivery *x, struct err *err)
{
	char number[16];
	int r;

	switch (x->kind) {
	case DELIVERY_ENV: return make_entry(x, x->value.data, x->value.len, err);
	case DELIVERY_FILE:
	case DELIVERY_TEMPLATE: return make_file(d, x, err);
	case DELIVERY_STDIN: return memory_file(d, x, err);
	case DELIVERY_FD:
		r = memory_file(d, x, err);
		snprintf(number, sizeof(number), "%d", x->fd);
		return r == 0 ? make_entry(x, number, strlen(number), err) : r;
	case DELIVERY_KINDS: break;
	}
	return -ERR_FAILED;
}

int delivery_make(struct deliveries *d, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < d->n; i++)
		r = make(d, &d->list[i], err);
	return r;
}

static int rewrite(struct deliveries *d, struct delivery *x, bool *ret_changed, struct err *err)
{
	CLEANUP(secret_clear) struct secret old = x->value;
	char path[LIMIT_FILE_PATH_LEN];
	int r;

	x->value = (struct secret){0};
	r = fill(d, x, err);
	if (r < 0 || same(&old, &x->value))
		return r;
	*ret_changed = true;
	if (x->fd >= 0)
		return x->kind == DELIVERY_STDIN ? 0 : write_whole(x->fd, &x->value, err);
	file_path(d, x, path);
	return x->kind != DELIVERY_ENV && path[0] ? write_file(path, &x->value, err) : 0;
}

int delivery_mask(struct deliveries *d, struct mask_values *v, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < d->n_sources; i++) {
		struct delivered *s = &d->sources[i];
		bool added;

		if (!s->changed)
			continue;
		r = mask_values_add(v, s->value.data, s->value.len, kv_name(s->source), &added, err);
		if (r == 0)
			relay_tell_short(s->value.len, s->source, i, added);
		s->changed = r < 0;
	}
	return r == 0 ? mask_values_ready(v, err) : r;
}

int delivery_refresh(struct deliveries *d, struct mask_values *v, bool *ret_changed, struct err *err)
{
	int r = ask(d, err);

	*ret_changed = false;
	if (r == 0 && v)
		r = delivery_mask(d, v, err);
	for (size_t i = 0; r == 0 && i < d->n; i++)
		r = rewrite(d, &d->list[i], ret_changed, err);
	return r;
}

int delivery_place(const struct deliveries *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->list[i].fd >= 0 && d->list[i].number < 0 && d->list[i].kind != DELIVERY_STDIN &&
		    fcntl(d->list[i].fd, F_SETFD, 0) < 0)
			return -errno;
	for (size_t i = 0; i < d->n; i++) {
		const struct delivery *x = &d->list[i];

		if (x->kind == DELIVERY_STDIN && dup2(x->fd, 0) < 0)
			return -errno;
		if (x->number >= 0 && dup2(x->fd, x->number) < 0)
			return -errno;
	}
	return 0;
}

void delivery_done(struct deliveries *d)
{
	for (size_t i = 0; d->list && i < d->n; i++) {
		struct delivery *x = &d->list[i];

		secret_clear(&x->text);
		secret_clear(&x->value);
		secret_clear(&x->entry);
		if (x->fd >= 0)
			close(x->fd);
		/* what stands there of others is theirs */
		if (x->target[0] && x->made)
			unlink(x->target);
	}
	for (size_t i = 0; i < d->n_sources; i++)
		secret_clear(&d->sources[i].value);
	free(d->list);
	free(d->sources);
	*d = (struct deliveries){0};
}
