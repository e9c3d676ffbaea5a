/* The audit log's records: one by one, together, and on a disk that takes no more. RLIMIT_FSIZE is that disk. */
#include "broker/audit.h"
#include "tests/unit/unit.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char dir[32], path[48];
	struct audit log;
};

static const struct audit_event granted = {.event = "get", .job = "", .secret = "a/b", .result = "granted", .why = ""},
				denied = {.event = "get", .job = "", .secret = "a/b", .result = "denied", .why = ""};

static int set_up_with(void **state, enum config_audit_sync sync)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = {0};

	strcpy(f->dir, "/tmp/cotter-audit.XXXXXX");
	signal(SIGXFSZ, SIG_IGN);
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/audit.log", f->dir);
	assert_int_equal(audit_open(f->dir, sync, &f->log, &err), 0);
	*state = f;
	return 0;
}

static int set_up(void **state)
{
	return set_up_with(state, CONFIG_AUDIT_WRITE);
}

static int set_up_disk(void **state)
{
	return set_up_with(state, CONFIG_AUDIT_DISK);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	audit_close(&f->log);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

static off_t size_of(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	return st.st_size;
}

/* That many bytes fit into the log yet; -1: as many as one likes. */
static void room(const struct fixture *f, off_t n)
{
	struct rlimit files;

	getrlimit(RLIMIT_FSIZE, &files);
	files.rlim_cur = n < 0 ? files.rlim_max : (rlim_t)(size_of(f) + n);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &files), 0);
}

static int count(void *ctx, const char *line, size_t len)
{
	(void)line;
	(void)len;
	++*(size_t *)ctx;
	return 0;
}

/* The file holds n records, in order and whole, and the log's tree is theirs. */
static void holds(const struct fixture *f, size_t n)
{
	struct audit_segment segment;
	struct merkle tree;
	struct err err = {0};
	size_t seen = 0;

	assert_int_equal(lseek(f->log.fd, 0, SEEK_SET), 0);
	assert_int_equal(audit_scan(f->log.fd, &tree, count, &seen, &segment, &err), 0);
	assert_int_equal(seen, n);
	assert_int_equal(segment.torn, 0);
	assert_int_equal(f->log.written.size, n);
	assert_memory_equal(&tree, &f->log.written, sizeof(tree));
}

static void test_what_is_queued_is_written_together(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	uint64_t first, second, third;
	off_t before = size_of(f);

	assert_int_equal(audit_queue(&f->log, &granted, &first, &err), 0);
	assert_int_equal(audit_queue(&f->log, &granted, &second, &err), 0);
	assert_int_equal(size_of(f), before);
	assert_false(audit_written(&f->log, first) || audit_released(&f->log, first));
	assert_int_equal(audit_flush(&f->log, &err), 0);
	assert_true(audit_written(&f->log, second) && audit_released(&f->log, second));
	holds(f, 2);
	/* one that is written takes what is queued along, in its order */
	assert_int_equal(audit_queue(&f->log, &granted, &first, &err), 0);
	assert_int_equal(audit_write(&f->log, &denied, &third, &err), 0);
	assert_true(first == 3 && third == 4 && audit_written(&f->log, third));
	holds(f, 4);
	assert_int_equal(audit_flush(&f->log, &err), 0);
	holds(f, 4);
}

static void test_more_than_the_queue_holds(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	const size_t n = 3 * sizeof(f->log.queue) / 100;

	for (size_t i = 0; i < n; i++)
		assert_int_equal(audit_queue(&f->log, &granted, NULL, &err), 0);
	assert_int_equal(audit_flush(&f->log, &err), 0);
	holds(f, n);
}

/* All of them are lost together, and no later record is taken for theirs before those who wait were told. */
static void test_a_flush_that_fails(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	uint64_t before, first, second;

	assert_int_equal(audit_write(&f->log, &granted, &before, &err), 0);
	assert_int_equal(audit_queue(&f->log, &granted, &first, &err), 0);
	assert_int_equal(audit_queue(&f->log, &granted, &second, &err), 0);
	room(f, 200); /* one and a half */
	assert_int_equal(audit_flush(&f->log, &err), -ERR_AUDIT);
	assert_true(audit_written(&f->log, before));
	assert_false(audit_written(&f->log, first) || audit_written(&f->log, second));
	assert_int_equal(f->log.n_failed, 2);
	room(f, -1);
	holds(f, 1);
	/* they were told: the numbers are free again */
	assert_int_equal(audit_write(&f->log, &granted, &second, &err), 0);
	assert_int_equal(second, first);
	holds(f, 2);
}

static void test_a_write_that_fails_with_others_queued(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	uint64_t waits;

	assert_int_equal(audit_queue(&f->log, &granted, &waits, &err), 0);
	room(f, 0);
	assert_int_equal(audit_write(&f->log, &granted, NULL, &err), -ERR_AUDIT);
	room(f, -1);
	/* nothing more until whoever waits was told, not even a denial: it would have the same number */
	assert_int_equal(audit_write(&f->log, &denied, NULL, &err), -ERR_AUDIT);
	assert_int_equal(audit_queue(&f->log, &granted, NULL, &err), -ERR_AUDIT);
	assert_false(audit_written(&f->log, waits));
	assert_int_equal(audit_flush(&f->log, &err), -ERR_AUDIT);
	assert_int_equal(audit_flush(&f->log, &err), 0);
	assert_int_equal(audit_write(&f->log, &denied, NULL, &err), 0);
	holds(f, 1);
}

static void test_a_write_that_fails_alone(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	uint64_t seq = 7;

	room(f, 0);
	assert_int_equal(audit_write(&f->log, &granted, &seq, &err), -ERR_AUDIT);
	assert_int_equal(seq, 0);
	room(f, -1);
	assert_int_equal(audit_write(&f->log, &denied, NULL, &err), 0);
	assert_int_equal(audit_flush(&f->log, &err), 0);
	assert_int_equal(f->log.n_failed, 1);
	holds(f, 1);
}

/* As on a disk that had room for some records, but not for what is allocated ahead. */
static void test_denials_beyond_what_is_allocated(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	assert_int_equal(audit_write(&f->log, &denied, NULL, &err), 0);
	f->log.allocated = f->log.offset - 1;
	assert_int_equal(audit_write(&f->log, &granted, NULL, &err), 0);
	assert_true(f->log.allocated > f->log.offset);
	holds(f, 2);
}

static void wait_released(struct fixture *f, uint64_t seq)
{
	struct pollfd told = {.fd = f->log.event_fd, .events = POLLIN};

	while (!audit_released(&f->log, seq)) {
		assert_int_equal(poll(&told, 1, 30000), 1);
		audit_acknowledge(&f->log);
	}
}

/* Those of before may come again, or not: whoever is there gets to the disk. */
static void test_on_the_disk_with_and_without_company(void **state)
{
	static const unsigned int groups[] = {40, 1, 1, 20, 3, 1, 60, 60, 2, 1};
	struct fixture *f = *state;
	struct err err = {0};
	uint64_t seq = 0, all = 0;

	assert_int_equal(audit_start_sync(&f->log, &err), 0);
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		for (unsigned int k = 0; k < groups[i]; k++)
			assert_int_equal(audit_write(&f->log, &granted, &seq, &err), 0);
		all += groups[i];
		assert_int_equal(seq, all);
		/* the next of them while this one is on its way, too */
		if (i % 3 != 1)
			wait_released(f, seq);
	}
	wait_released(f, seq);
	holds(f, all);
}

UNIT_MAIN(cmocka_unit_test_setup_teardown(test_what_is_queued_is_written_together, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_more_than_the_queue_holds, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_a_flush_that_fails, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_a_write_that_fails_with_others_queued, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_a_write_that_fails_alone, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_denials_beyond_what_is_allocated, set_up, tear_down),
	  cmocka_unit_test_setup_teardown(test_on_the_disk_with_and_without_company, set_up_disk, tear_down))
