/*
 * SECRETS kernel|hyperscan|memcpy FILE: passes over the file in memory for 0.2 s, prints GB/s; status 2: not built with it.
 * SECRETS secrets -: prints those that are looked for, a line each. relay: what a filter does that changes nothing, read() and write().
 */
#include "bench/clock.h"

#include "common/err.h"
#include "common/secret.h"
#include "mask/mask.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_HYPERSCAN
#include <hs/hs.h>
#endif

#define SECRETS_MAX 4096

static char secrets[SECRETS_MAX][41];

static _Noreturn void die(const char *what, const struct err *err)
{
	fprintf(stderr, "%s: %s\n", what, err ? err->msg : "failed");
	exit(1);
}

/* 32 letters and digits each, always the same ones. */
static void make_secrets(size_t n)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < 32; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			secrets[i][k] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(x >> 20) % 62];
		}
}

static int discard(void *context, const void *data, size_t len, struct err *err)
{
	(void)data;
	(void)err;
	*(size_t *)context += len;
	return 0;
}

static void kernel(size_t n, const uint8_t *data, size_t len)
{
	static struct mask_values *values;
	struct mask *m = NULL;
	size_t shown = 0, room, part;
	struct err err = {0};
	bool added;

	if (!values) {
		if (secret_arena_init(8u << 20, &err) < 0 || mask_values_new(0, true, NULL, 0, &values, &err) < 0)
			die("mask", &err);
		for (size_t i = 0; i < n; i++)
			if (mask_values_add(values, secrets[i], 32, NULL, &added, &err) < 0)
				die("mask_values_add", &err);
		if (mask_values_ready(values, &err) < 0)
			die("mask_values_ready", &err);
	}
	if (mask_new(values, &(struct mask_options){.write = discard, .context = &shown}, &m, &err) < 0)
		die("mask_new", &err);
	for (size_t at = 0; at < len; at += part) {
		uint8_t *to = mask_room(m, &room);

		part = len - at < room ? len - at : room;
		memcpy(to, data + at, part);
		if (mask_put(m, part, &err) < 0)
			die("mask_put", &err);
	}
	if (mask_end(m, &err) < 0)
		die("mask_end", &err);
	mask_free(&m);
}

static void copy(size_t n, const uint8_t *data, size_t len)
{
	static uint8_t to[MASK_WINDOW];

	(void)n;
	for (size_t at = 0; at < len; at += sizeof(to)) {
		memcpy(to, data + at, len - at < sizeof(to) ? len - at : sizeof(to));
		__asm__ volatile("" : : "r"(to) : "memory");
	}
}

#ifdef HAVE_HYPERSCAN
static int found(unsigned int id, unsigned long long from, unsigned long long to, unsigned int flags, void *context)
{
	(void)id;
	(void)from;
	(void)to;
	(void)flags;
	++*(size_t *)context;
	return 0;
}

/* The plain values alone: none of their disguises. */
static void hyperscan(size_t n, const uint8_t *data, size_t len)
{
	static hs_database_t *database;
	static hs_scratch_t *scratch;
	static size_t matches;
	hs_stream_t *stream;

	if (!database) {
		static const char *patterns[SECRETS_MAX];
		static unsigned int flags[SECRETS_MAX], ids[SECRETS_MAX];
		hs_compile_error_t *error;

		for (unsigned int i = 0; i < n; i++) {
			patterns[i] = secrets[i];
			ids[i] = i;
		}
		if (hs_compile_multi(patterns, flags, ids, (unsigned int)n, HS_MODE_STREAM, NULL, &database, &error) != HS_SUCCESS ||
		    hs_alloc_scratch(database, &scratch) != HS_SUCCESS)
			die("hyperscan", NULL);
	}
	hs_open_stream(database, 0, &stream);
	for (size_t at = 0; at < len; at += MASK_WINDOW)
		hs_scan_stream(stream, (const char *)data + at, (unsigned int)(len - at < MASK_WINDOW ? len - at : MASK_WINDOW), 0, scratch, found, &matches);
	hs_close_stream(stream, scratch, found, &matches);
}
#endif

static const struct {
	const char *name;
	void (*pass)(size_t n, const uint8_t *data, size_t len);
} ways[] = {{"kernel", kernel},
	    {"memcpy", copy},
#ifdef HAVE_HYPERSCAN
	    {"hyperscan", hyperscan},
#endif
	    {0}};

static uint8_t *read_all(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !(data = malloc((size_t)st.st_size)))
		die(path, NULL);
	for (*ret_len = 0; (n = read(fd, data + *ret_len, (size_t)st.st_size - *ret_len)) > 0;)
		*ret_len += (size_t)n;
	close(fd);
	return data;
}

static int relay(void)
{
	static char buf[65536];
	ssize_t n;

	while ((n = read(0, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0, w; at < n; at += w)
			if ((w = write(1, buf + at, (size_t)(n - at))) < 0)
				return 1;
	return n < 0;
}

int main(int argc, char **argv)
{
	size_t n, len, passes = 0;
	double began, us;
	uint8_t *data;

	if (argc == 2 && strcmp(argv[1], "relay") == 0)
		return relay();
	if (argc != 4 || (n = strtoul(argv[1], NULL, 10)) > SECRETS_MAX)
		return 1;
	make_secrets(n);
	if (strcmp(argv[2], "secrets") == 0) {
		for (size_t i = 0; i < n; i++)
			puts(secrets[i]);
		return 0;
	}
	for (size_t i = 0; ways[i].name; i++) {
		if (strcmp(argv[2], ways[i].name) != 0)
			continue;
		data = read_all(argv[3], &len);
		ways[i].pass(n, data, len);
		began = clock_us();
		do {
			ways[i].pass(n, data, len);
			passes++;
			us = clock_us() - began;
		} while (us < 200e3);
		printf("%f\n", (double)len * (double)passes / us / 1e3);
		free(data);
		return 0;
	}
	return 2;
}
