/* Runs a fuzz target on files that are already there: the corpus as a unit test, or one finding under a debugger. */
#include "fuzz.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static size_t n_inputs;

static int replay_file(const char *path)
{
	CLEANUP(cleanup_fclose) FILE *f = fopen(path, "re");
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	struct stat st;

	if (!f || fstat(fileno(f), &st) < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	/* a block of just that size, as libFuzzer hands it over */
	data = malloc((size_t)st.st_size ? (size_t)st.st_size : 1);
	if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		fprintf(stderr, "%s: cannot be read\n", path);
		return 1;
	}
	fprintf(stderr, "%s\n", path); /* before it runs: a crash names its input */
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	n_inputs++;
	return 0;
}

static int replay_directory(const char *path)
{
	struct dirent **entries;
	char name[4096];
	int r = 0, n = scandir(path, &entries, NULL, alphasort);

	if (n < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			r |= replay_file(name);
		free(entries[i]);
	}
	free(entries);
	return r;
}

int main(int argc, char **argv)
{
	struct stat st;
	int r = 0;

	for (int i = 1; i < argc; i++)
		r |= stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode) ? replay_directory(argv[i]) : replay_file(argv[i]);
	printf("%zu inputs\n", n_inputs);
	return r || n_inputs == 0; /* a corpus that got lost is no success */
}
