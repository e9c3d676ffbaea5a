#pragma once
/* Where texts come from. Each hands every text to a struct scan_text; what cannot be read is told, counted, and passed
 * over. */
#include "scan/scan.h"

#include <stdbool.h>

struct err;

/* Files below the paths, each once, by threads; links are not followed, .git is left out. archives: what is in them, too.
 */
int scan_trees(struct scanner *s, char *const *paths, size_t n, bool archives, unsigned int threads, struct err *err);
/* Every object of a repository once: files of all commits, and messages. */
int scan_git(struct scanner *s, const char *repository, struct err *err);
/* What is staged to be committed. */
int scan_staged(struct scanner *s, const char *repository, struct err *err);
/* A descriptor until its end. */
int scan_stream(struct scanner *s, int fd, const char *place, struct err *err);

#define SCAN_ARCHIVE_DEPTH 3u
#define SCAN_ARCHIVE_MAX (4ull << 30) /* bytes that one file may become */

/* Whether a file's begin looks like an archive's or a compressed file's. */
bool archive_is(const uint8_t *begin, size_t len);
/* The members of it; t is the thread's. */
/* False: it is none, or broken; what could be read of it was looked at. */
bool archive_scan(struct scan_text *t, struct scanner *s, int fd, const char *place);
