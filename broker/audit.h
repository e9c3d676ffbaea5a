#pragma once
/*
 * The audit log: append-only, one line a record in a fixed field order (doc/formats.md), RFC 6962 leaves. The record is
 * written before the answer leaves; any write error stops grants. No field can hold a secret, a token or client bytes.
 */
#include "broker/config.h"
#include "broker/merkle.h"

#include <pthread.h>
#include <stdint.h>

struct err;

struct audit_event {
	const char *event;	/* get, put, …: a word of ours */
	uint32_t uid;
	const char *job;	/* its id, or "" */
	uint64_t cgroup, pidfd; /* the peer's cgroup id and its pidfd's inode; 0: none */
	const char *secret;	/* a valid path, or "" */
	uint64_t version;
	const uint8_t *token_id; /* 16 bytes or NULL; four are logged */
	const char *result;	/* granted, denied, failed */
	const char *why;	/* a sentence of ours, or "" */
	bool takes;		/* it takes something away: granted also by what room is kept for denials */
};

#define AUDIT_QUEUE 8192u /* bytes */

struct audit {
	int dir_fd, fd, event_fd; /* event_fd: readable when synced advanced */
	enum config_audit_sync sync;
	char log_id[33], boot_id[37];
	uint64_t index;		/* of the segment */
	uint64_t offset, allocated; /* bytes in it */
	struct merkle tree;	/* its size is the next sequence number */
	/* records that wait for audit_flush, and the tree without them */
	char queue[AUDIT_QUEUE];
	size_t queue_len;
	struct merkle written;
	bool lost;		/* a flush failed, and those who wait for its records do not know it yet */
	bool no_allocate;	/* the file system cannot: no room is kept for denials */
	uint64_t n_failed;	/* records that could not be written, of this life of the broker */
	bool broken;		/* poisoned by a failed write: only a restart, which verifies, clears it */
	/* shared with the thread that syncs */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	uint64_t want_synced, synced;
	bool stop, sync_failed, thread_runs;
};

/* Opens or makes dir/audit.log; a torn last line is cut off and said so in a record. With the current segment lost in a
 * rotation, goes on behind the newest that was rotated away. audit_start_sync follows, once the sandbox is shut. */
int audit_open(const char *dir, enum config_audit_sync sync, struct audit *a, struct err *err);
int audit_start_sync(struct audit *a, struct err *err);
void audit_close(struct audit *a);

/* Appends a record, behind those that are queued: the kernel has it. ret_seq (may be NULL): the answer may leave once
 * audit_released(a, seq). ERR_AUDIT: no grant, and no number. */
int audit_write(struct audit *a, const struct audit_event *e, uint64_t *ret_seq, struct err *err);
/* The same, and the record is written by the next audit_flush: for what can still be refused when that fails. */
int audit_queue(struct audit *a, const struct audit_event *e, uint64_t *ret_seq, struct err *err);
/* Writes what is queued. ERR_AUDIT, once: this or a write since the last call failed. Whoever then waits for a record that is not
 * audit_written is to be refused at once: later ones get the same numbers. */
int audit_flush(struct audit *a, struct err *err);
bool audit_written(const struct audit *a, uint64_t seq);
/* sync: write: that it is written. sync: disk: that it is on disk. */
bool audit_released(struct audit *a, uint64_t seq);
bool audit_failed(struct audit *a);
/* Clears event_fd after it was readable. */
void audit_acknowledge(struct audit *a);

struct audit_segment {
	char log_id[33]; /* "": there was no first line */
	uint64_t index;
	uint64_t end, torn; /* bytes of whole lines, and of an incomplete last one */
};

/* Reads a segment: calls each (may be NULL) for its records in order, follows the tree. ERR_TAMPERED names the record.
 * For start-up and for cotter audit. */
int audit_scan(int fd, struct merkle *tree, int (*each)(void *ctx, const char *line, size_t len), void *ctx,
	       struct audit_segment *ret, struct err *err);
