#pragma once
/* Durations as Vault's clients write them: seconds, or with a unit: 90, 30s, 5m, 1h, 1d. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As Go writes it: 0s, 90s as 1m30s, 3h25m19s. */
#define DURATION_TEXT 40u
void duration_text(uint64_t s, char ret[DURATION_TEXT]);
/* The same read: units in falling order, each once, or a number of seconds. false: it is none, or more than max_s. */
bool duration_parse_go(const char *text, uint64_t max_s, uint64_t *ret_s);
/* Seconds; 0: not a duration, or 0, or more than max_s. */
uint64_t duration_parse(const char *text, size_t len, uint64_t max_s);
