#pragma once
/*
 * The only home of plaintext, PINs, file keys and tokens: one locked arena per process. memfd_secret(2) where the
 * kernel has it, else mmap + mlock; guard pages around it, not inherited by a fork, not in a core dump. Every block
 * is wiped when it is released. Not thread-safe: only a process's main thread touches secrets.
 * All of it works with RLIMIT_MEMLOCK = 8 MiB. There is no fallback to memory that is not locked.
 */
#include <stddef.h>
#include <stdint.h>

struct err;

/* size: a power of two, at least 64 KiB. Fails with ERR_FAILED and advice when memory cannot be locked. */
int secret_arena_init(size_t size, struct err *err);
void secret_arena_done(void);
/* In a forked child, which has none of its parent's: begins one of its own. */
int secret_arena_child(size_t size, struct err *err);
/* "memfd_secret" or "mlock"; bytes in use and in total, for status. */
const char *secret_arena_kind(void);
size_t secret_arena_used(void);
size_t secret_arena_size(void);

/* Zeroed memory in the arena, or NULL when it is full. secret_free wipes; NULL is fine. */
void *secret_alloc(size_t size);
void secret_free(void *p);
void cleanup_secret_free(void *pp);

struct secret {
	uint8_t *data;
	size_t len, cap;
};

/* An empty secret with room for cap bytes. ERR_BUSY when the arena is full. */
int secret_new(struct secret *s, size_t cap, struct err *err);
int secret_copy(struct secret *s, const void *data, size_t len, struct err *err);
/* Appends, growing inside the arena. */
int secret_append(struct secret *s, const void *data, size_t len, struct err *err);
/* Wipes, releases, and leaves {0}. */
void secret_clear(struct secret *s);
