#pragma once
/* Durations as Vault's clients write them: seconds, or with a unit: 90, 30s, 5m, 1h, 1d. */
#include <stddef.h>
#include <stdint.h>

/* Seconds; 0: not a duration, or 0, or more than max_s. */
uint64_t duration_parse(const char *text, size_t len, uint64_t max_s);
