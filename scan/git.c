/* The objects of a git repository, as git itself hands them out. The repository may be hostile: nothing that its
 * configuration names is run. */
#include "common/cleanup.h"
#include "common/err.h"
#include "scan/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#define LINE_MAX_BYTES 8192u

struct git {
	pid_t pid;
	int out, in; /* in -1: none */
	FILE *reader;
};

/* git -C repository args…; at most twelve. */
static int start(struct git *g, const char *repository, const char *const *args, bool wants_input, struct err *err)
{
	const char *argv[24] = {
		"git",		 "-C", repository, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c",
		"core.pager=cat"}; /* what else could be run, the arguments and the environment below forbid */
	int out[2], in[2] = {-1, -1};
	size_t n = 9;

	for (; *args && n < 23; args++)
		argv[n++] = *args;
	if (pipe2(out, O_CLOEXEC) < 0 || (wants_input && pipe2(in, O_CLOEXEC) < 0))
		return err_errno(err, errno, "pipe");
	g->pid = fork();
	if (g->pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(wants_input ? in[0] : null, 0);
		dup2(out[1], 1);
		signal(SIGPIPE, SIG_DFL);
		setenv("GIT_OPTIONAL_LOCKS", "0", 1);
		setenv("GIT_TERMINAL_PROMPT", "0", 1);
		/* an object that is missing is fetched by what the configuration names; older gits know the second alone */
		setenv("GIT_NO_LAZY_FETCH", "1", 1);
		setenv("GIT_ALLOW_PROTOCOL", "none", 1);
		/* one that was put in the place of another would hide that */
		setenv("GIT_NO_REPLACE_OBJECTS", "1", 1);
		execvp("git", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(out[1]);
	if (wants_input)
		close(in[0]);
	g->out = out[0];
	g->in = in[1];
	if (g->pid < 0)
		return err_errno(err, errno, "fork");
	g->reader = fdopen(g->out, "r");
	return g->reader ? 0 : err_set(err, ERR_FAILED, "out of memory");
}

static int finish(struct git *g, int r, struct err *err)
{
	int status = 0;

	if (g->reader)
		fclose(g->reader);
	if (g->in >= 0)
		close(g->in);
	if (g->pid > 0)
		while (waitpid(g->pid, &status, 0) < 0 && errno == EINTR)
			;
	if (r < 0)
		return r;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, ERR_FAILED, "git cannot be run: is it installed?");
	return status ? err_set(err, ERR_FAILED, "git failed (see above)") : 0;
}

/* "<id> <type> <size>\n", the object, "\n". 0: the end. */
static int read_object(struct git *g, struct scan_text *t, const char *place, bool messages, struct err *err)
{
	char line[LINE_MAX_BYTES], id[72], type[16], name[SCAN_NAME_MAX];
	unsigned long long size;

	if (!fgets(line, sizeof(line), g->reader))
		return 0;
	if (sscanf(line, "%71s %15s %llu", id, type, &size) != 3)
		return err_set(err, ERR_FAILED, "git says '%.60s'", line);
	if (place)
		snprintf(name, sizeof(name), "%s", place);
	else
		snprintf(name, sizeof(name), "%s:%s", type, id);
	scan_text_begin(t, name);
	while (size) {
		size_t room;
		uint8_t *to = scan_text_room(t, &room);
		size_t n = fread(to, 1, size < room ? (size_t)size : room, g->reader);

		if (!n)
			return err_set(err, ERR_FAILED, "git ended in the middle of an object");
		size -= n;
		/* names in trees are no texts */
		if (strcmp(type, "blob") == 0 || (messages && strcmp(type, "tree") != 0))
			scan_text_came(t, n);
	}
	scan_text_end(t);
	return fgetc(g->reader) == '\n' ? 1 : err_set(err, ERR_FAILED, "git ended in the middle of an object");
}

/* A commit and a path where an object stands, for people. */
static char *find_where(const char *repository, const char *place)
{
	char find[128], line[LINE_MAX_BYTES], commit[72] = "", *name = NULL;
	const char *const args[] = {
		"log",	       "--all",	      "--no-show-signature", "--no-textconv", "--no-ext-diff", "--max-count=1",
		"--format=%H", "--name-only", find,		     NULL};
	struct git g = {.in = -1};

	snprintf(find, sizeof(find), "--find-object=%s", place + 5);
	if (start(&g, repository, args, false, NULL) == 0) {
		while (fgets(line, sizeof(line), g.reader)) {
			line[strcspn(line, "\n")] = '\0';
			if (!commit[0])
				snprintf(commit, sizeof(commit), "%.12s", line);
			else if (line[0] && !name && asprintf(&name, "%s:%s", commit, line) < 0)
				name = NULL;
		}
	}
	finish(&g, 0, NULL);
	return name;
}

/* The findings of one object stand together; git is asked for it once. */
static void tell_where(struct scanner *s, const char *repository)
{
	CLEANUP(cleanup_free) char *place = NULL;
	CLEANUP(cleanup_free) char *name = NULL;

	for (size_t i = 0; i < s->n_findings; i++) {
		struct scan_finding *f = &s->findings[i];
		char *copy;

		if (strncmp(f->place, "blob:", 5) != 0)
			continue;
		if (!place || strcmp(place, f->place) != 0) {
			free(place);
			free(name);
			place = strdup(f->place);
			name = find_where(repository, f->place);
		}
		copy = name ? strdup(name) : NULL;
		if (copy) {
			free(f->place);
			f->place = copy;
		}
	}
}

int scan_git(struct scanner *s, const char *repository, struct err *err)
{
	static const char *const args[] = {"cat-file", "--batch-all-objects", "--unordered", "--batch", NULL};
	CLEANUP(scan_text_free) struct scan_text *t = scan_text_new(s);
	struct git g = {.in = -1};
	int r = t ? start(&g, repository, args, false, err) : err_set(err, ERR_FAILED, "out of memory");

	while (r == 0 || r == 1) {
		r = read_object(&g, t, NULL, true, err);
		if (r == 0)
			break;
		s->texts++;
	}
	r = finish(&g, r, err);
	if (r == 0)
		tell_where(s, repository);
	return r;
}

/* ":<mode> <mode> <id> <id> <status>": the second id, or NULL where that is no file or link of this repository. */
static const char *staged_id(char *record)
{
	char *words[5], *save = NULL;
	size_t n = 0;

	for (char *w = strtok_r(record, " ", &save); w && n < 5; w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	return n == 5 && strncmp(words[1], "16", 2) != 0 ? words[3] : NULL;
}

/* By their ids: a name could hold what --batch does not take for one. */
int scan_staged(struct scanner *s, const char *repository, struct err *err)
{
	static const char *const names[] = {"diff",	    "--cached",	   "--raw",	    "-z",	     "--no-abbrev",
					    "--no-renames", "--no-relative", "--diff-filter=AMT", "--no-textconv", "--no-ext-diff",
					    NULL};
	static const char *const batch[] = {"cat-file", "--batch", NULL};
	CLEANUP(scan_text_free) struct scan_text *t = scan_text_new(s);
	CLEANUP(cleanup_free) char *record = NULL;
	CLEANUP(cleanup_free) char *path = NULL;
	struct git list = {.in = -1}, objects = {.in = -1};
	size_t record_cap = 0, path_cap = 0;
	int r = t ? start(&list, repository, names, false, err) : err_set(err, ERR_FAILED, "out of memory");

	if (r == 0)
		r = start(&objects, repository, batch, true, err);
	while (r == 0 && getdelim(&record, &record_cap, '\0', list.reader) > 0 &&
	       getdelim(&path, &path_cap, '\0', list.reader) > 0) {
		const char *id = staged_id(record);

		if (!id)
			continue;
		if (dprintf(objects.in, "%s\n", id) < 0)
			r = err_errno(err, errno, "git");
		else
			r = read_object(&objects, t, path, false, err) < 0 ? -ERR_FAILED : 0;
		s->texts++;
	}
	r = finish(&list, r, err);
	return finish(&objects, r, err);
}
