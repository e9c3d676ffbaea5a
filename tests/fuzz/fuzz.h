#pragma once
/* What the fuzz targets share. A target is LLVMFuzzerTestOneInput; libFuzzer's main or replay_main.c calls it. */
#include <stddef.h>
#include <stdint.h>

struct err;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert(): it must hold in every build type. */
#define CHECK(condition)                                                                                                   \
	do {                                                                                                               \
		if (!(condition))                                                                                          \
			fuzz_fail(#condition, __FILE__, __LINE__);                                                         \
	} while (0)

void fuzz_fail(const char *condition, const char *file, int line) __attribute__((noreturn));

/* Sets up the arena at the first input and gives the bytes in use in it; fuzz_end wants them to be the same again. */
size_t fuzz_begin(void);
void fuzz_end(size_t used_before);

/* The contract of every function that returns 0 or -ERR_*: the code is in the table and err tells the same with words. */
void fuzz_check_result(int r, const struct err *err);

/* A zero-terminated copy in a block of just that size, so that reading past it is seen. The caller frees it. */
char *fuzz_string(const uint8_t *data, size_t size);

/* A file that holds the input and nothing else; the same one for every input, to be read from its start. */
int fuzz_file(const uint8_t *data, size_t size);
