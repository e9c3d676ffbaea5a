#pragma once
/*
 * The header stanza "cotter/bind-v1": ties a sealed file to one path and version. Stock age ignores it, the header's
 * MAC covers it. Body, canonical: u16be length of path | path | u64be version (0: any) | SHA-256 of the metadata.
 */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct age_header;
struct err;
struct writer;

struct bind {
	char path[LIMIT_PATH_LEN + 1];
	uint64_t version;
	uint8_t metadata_hash[32];
};

/* metadata: the version's canonical metadata text, "type=json\n" or "type=raw\n". */
int bind_init(struct bind *b, const char *path, uint64_t version, const char *metadata, struct err *err);
void bind_write(const struct bind *b, struct writer *w);

/* At most one such stanza, and canonical; else ERR_AGE_HEADER. */
int bind_check(const struct age_header *header, struct err *err);
/* False when the file has none. Trust it only after the header's MAC was verified. */
bool bind_read(const struct age_header *header, struct bind *ret);
/* ERR_TAMPERED unless a present stanza names this path and version. */
int bind_enforce(const struct age_header *header, const char *path, uint64_t version, struct err *err);

/* Where a value waits that is not current yet: operators' alone, see cotter rotate. */
#define PATH_PENDING "rotation.pending/"

/* A secret's path: 1 to LIMIT_PATH_LEN bytes, components of [A-Za-z0-9._@+-], none empty, "." or "..". */
bool path_valid(const char *path);
