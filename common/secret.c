#include "common/secret.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Missing from Debian 12's headers (kernel 6.1). */
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

/*
 * A buddy allocator: blocks are MIN_BLOCK << order, aligned to their size. The book-keeping lives outside the arena,
 * one byte for each smallest block: 0 = inside a block, else order + 1, with USED set when handed out.
 */
#define MIN_SHIFT 6u
#define USED 0x80u
#define NONE UINT32_MAX
#define MAX_ORDERS 24u
#define BOOK_LEN(size) (((size) >> MIN_SHIFT) * (2 * sizeof(uint32_t) + 1))

static struct {
	uint8_t *base;
	size_t size, map_len, book_len, used;
	uint8_t *map;		   /* the whole mapping, guards included */
	uint8_t *tags;
	uint32_t *next, *prev;	   /* free lists, by smallest-block index */
	uint32_t free_head[MAX_ORDERS];
	unsigned int n_orders;
	const char *kind;
} arena;

static void list_push(unsigned int order, uint32_t i)
{
	arena.tags[i] = (uint8_t)(order + 1);
	arena.prev[i] = NONE;
	arena.next[i] = arena.free_head[order];
	if (arena.next[i] != NONE)
		arena.prev[arena.next[i]] = i;
	arena.free_head[order] = i;
}

static void list_remove(unsigned int order, uint32_t i)
{
	if (arena.prev[i] != NONE)
		arena.next[arena.prev[i]] = arena.next[i];
	else
		arena.free_head[order] = arena.next[i];
	if (arena.next[i] != NONE)
		arena.prev[arena.next[i]] = arena.prev[i];
}

static int lock_plain(uint8_t *at, size_t size, struct err *err)
{
	struct rlimit lim = {0};

	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return err_errno(err, errno, "cannot map the secret arena");
	if (mlock(at, size) < 0) {
		getrlimit(RLIMIT_MEMLOCK, &lim);
		return err_set(err, ERR_FAILED,
			       "cannot lock %zu KiB of memory for secrets (RLIMIT_MEMLOCK is %llu KiB): raise it with "
			       "'ulimit -l' or LimitMEMLOCK=",
			       size / 1024, (unsigned long long)lim.rlim_cur / 1024);
	}
	arena.kind = "mlock";
	return 0;
}

static bool lock_secretmem(uint8_t *at, size_t size)
{
	CLEANUP(cleanup_close) int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return false;
	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return false;
	arena.kind = "memfd_secret";
	return true;
}

static int bookkeeping_new(size_t size, struct err *err)
{
	size_t n = size >> MIN_SHIFT;
	/* pages that nobody writes to are never made; calloc touches them all once M_PERTURB is set */
	void *book = mmap(NULL, BOOK_LEN(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (book == MAP_FAILED)
		return err_set(err, ERR_FAILED, "out of memory");
	arena.next = book;
	arena.prev = arena.next + n;
	arena.tags = (uint8_t *)(arena.prev + n);
	arena.book_len = BOOK_LEN(size);
	for (unsigned int i = 0; i < MAX_ORDERS; i++)
		arena.free_head[i] = NONE;
	for (arena.n_orders = 1; ((size_t)1 << (MIN_SHIFT + arena.n_orders - 1)) < size;)
		arena.n_orders++;
	return 0;
}

int secret_arena_init(size_t size, struct err *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int r;

	assert(!arena.base && size >= 65536 && (size & (size - 1)) == 0);
	if (sodium_init() < 0)
		return err_set(err, ERR_FAILED, "libsodium does not start");
	r = bookkeeping_new(size, err);
	if (r < 0)
		return r;
	arena.map_len = size + 2 * page;
	arena.map = mmap(NULL, arena.map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena.map == MAP_FAILED) {
		arena.map = NULL;
		return err_errno(err, errno, "cannot map the secret arena");
	}
	if (!lock_secretmem(arena.map + page, size)) {
		r = lock_plain(arena.map + page, size, err);
		if (r < 0)
			return r;
	}
	/* a memfd_secret mapping is already absent from dumps; some kernels refuse the advice for it */
	madvise(arena.map + page, size, MADV_DONTDUMP);
	if (madvise(arena.map + page, size, MADV_DONTFORK) < 0)
		return err_errno(err, errno, "cannot keep the secret arena out of child processes");
	arena.base = arena.map + page;
	arena.size = size;
	list_push(arena.n_orders - 1, 0);
	return 0;
}

/* What was released is wiped already; to touch all pages would have the kernel make those that nobody used. */
static void wipe_used(void)
{
	size_t n = arena.size >> MIN_SHIFT;

	for (size_t i = 0; i < n;) {
		unsigned int order = (arena.tags[i] & ~USED) - 1u;

		if (arena.tags[i] & USED)
			sodium_memzero(arena.base + (i << MIN_SHIFT), (size_t)1 << (MIN_SHIFT + order));
		i += (size_t)1 << order;
	}
}

void secret_arena_done(void)
{
	if (arena.base)
		wipe_used();
	if (arena.map)
		munmap(arena.map, arena.map_len);
	if (arena.next)
		munmap(arena.next, arena.book_len);
	memset(&arena, 0, sizeof(arena));
}

int secret_arena_child(size_t size, struct err *err)
{
	/* the addresses are the parent's: nothing is there */
	if (arena.next)
		munmap(arena.next, arena.book_len);
	memset(&arena, 0, sizeof(arena));
	return secret_arena_init(size, err);
}

const char *secret_arena_kind(void)
{
	return arena.kind ? arena.kind : "none";
}

size_t secret_arena_used(void)
{
	return arena.used;
}

size_t secret_arena_size(void)
{
	return arena.size;
}

static unsigned int order_for(size_t size)
{
	unsigned int order = 0;

	while (((size_t)1 << (MIN_SHIFT + order)) < size)
		order++;
	return order;
}

void *secret_alloc(size_t size)
{
	unsigned int want, order;
	uint32_t i;

	if (!arena.base || size > arena.size)
		return NULL;
	want = order_for(size);
	for (order = want; order < arena.n_orders && arena.free_head[order] == NONE;)
		order++;
	if (order >= arena.n_orders)
		return NULL;
	i = arena.free_head[order];
	list_remove(order, i);
	while (order > want) {
		order--;
		list_push(order, i + (1u << order));
	}
	arena.tags[i] = (uint8_t)((order + 1) | USED);
	arena.used += (size_t)1 << (MIN_SHIFT + order);
	return arena.base + ((size_t)i << MIN_SHIFT);
}

static size_t block_size(const void *p)
{
	size_t offset = (size_t)((const uint8_t *)p - arena.base);

	assert(arena.base && (const uint8_t *)p >= arena.base && offset < arena.size);
	assert((offset & (((size_t)1 << MIN_SHIFT) - 1)) == 0 && (arena.tags[offset >> MIN_SHIFT] & USED));
	return (size_t)1 << (MIN_SHIFT + (arena.tags[offset >> MIN_SHIFT] & ~USED) - 1);
}

void secret_free(void *p)
{
	uint32_t i, buddy;
	unsigned int order;
	size_t size;

	if (!p)
		return;
	size = block_size(p);
	sodium_memzero(p, size);
	arena.used -= size;
	i = (uint32_t)(((size_t)((uint8_t *)p - arena.base)) >> MIN_SHIFT);
	order = order_for(size);
	arena.tags[i] = 0;
	while (order + 1 < arena.n_orders) {
		buddy = i ^ (1u << order);
		if (arena.tags[buddy] != order + 1)
			break;
		list_remove(order, buddy);
		arena.tags[buddy] = 0;
		i &= ~(1u << order);
		order++;
	}
	list_push(order, i);
}

void cleanup_secret_free(void *pp)
{
	secret_free(*(void **)pp);
}

int secret_new(struct secret *s, size_t cap, struct err *err)
{
	uint8_t *p = secret_alloc(cap ? cap : 1);

	if (!p)
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	*s = (struct secret){.data = p, .cap = block_size(p)};
	return 0;
}

int secret_copy(struct secret *s, const void *data, size_t len, struct err *err)
{
	int r = secret_new(s, len, err);

	if (r < 0)
		return r;
	if (len)
		memcpy(s->data, data, len);
	s->len = len;
	return 0;
}

int secret_append(struct secret *s, const void *data, size_t len, struct err *err)
{
	struct secret bigger;
	int r;

	if (len > s->cap - s->len) {
		r = secret_new(&bigger, s->len + len > 2 * s->cap ? s->len + len : 2 * s->cap, err);
		if (r < 0)
			return r;
		if (s->len)
			memcpy(bigger.data, s->data, s->len);
		bigger.len = s->len;
		secret_clear(s);
		*s = bigger;
	}
	if (len)
		memcpy(s->data + s->len, data, len);
	s->len += len;
	return 0;
}

void secret_clear(struct secret *s)
{
	if (s) {
		secret_free(s->data);
		*s = (struct secret){0};
	}
}
