#include "fuzz.h"

#include "common/err.h"
#include "common/limits.h"
#include "common/secret.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void fuzz_fail(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
	abort();
}

size_t fuzz_begin(void)
{
	static bool started;
	struct err err = {0};

	if (!started) {
		if (secret_arena_init(LIMIT_ARENA_BROKER, &err) < 0) {
			fprintf(stderr, "%s\n", err.msg);
			exit(1);
		}
		json_set_alloc_funcs(secret_alloc, secret_free);
		started = true;
	}
	return secret_arena_used();
}

void fuzz_end(size_t used_before)
{
	CHECK(secret_arena_used() == used_before);
}

void fuzz_check_result(int r, const struct err *err)
{
	CHECK(r <= 0 && r > -ERR_N);
	if (r == 0)
		return;
	CHECK(err->code == -r);
	CHECK(err->msg[0] != '\0' && memchr(err->msg, 0, sizeof(err->msg)));
}

char *fuzz_string(const uint8_t *data, size_t size)
{
	char *s = malloc(size + 1);

	CHECK(s);
	if (size)
		memcpy(s, data, size);
	s[size] = '\0';
	return s;
}

int fuzz_file(const uint8_t *data, size_t size)
{
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("input", MFD_CLOEXEC);
		/* a memfd is born writable by all, which a configuration may not be */
		CHECK(fd >= 0 && fchmod(fd, 0600) == 0);
	}
	CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
	return fd;
}
