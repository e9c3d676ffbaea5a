#pragma once
/* age's ASCII armor (C2SP age.md, "ASCII armor"): strict PEM of 64 columns, padded canonical base64. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* True when the first bytes of a file look like armor (well or badly made), not like a binary age file. */
bool age_armor_detect(const uint8_t *head, size_t len);

/* A push decoder in constant memory: feed pieces of any size, then finish. */
struct age_armor {
	enum { ARMOR_BEFORE, ARMOR_BODY, ARMOR_LAST, ARMOR_AFTER } state;
	char line[80];
	size_t line_len, preamble;
	/* where decoded bytes go; a negative return ends decoding */
	int (*write)(void *ctx, const uint8_t *data, size_t len, struct err *err);
	void *ctx;
};

/* ERR_AGE_ARMOR ("armor failure: …") on any fault. */
int age_armor_feed(struct age_armor *a, const uint8_t *data, size_t len, struct err *err);
int age_armor_finish(struct age_armor *a, struct err *err);

/* Armors data as a whole: calls write with text. */
struct age_armor_writer {
	uint8_t pending[48];
	size_t pending_len;
	int (*write)(void *ctx, const uint8_t *data, size_t len, struct err *err);
	void *ctx;
};
int age_armor_write_begin(struct age_armor_writer *w, struct err *err);
int age_armor_write(struct age_armor_writer *w, const uint8_t *data, size_t len, struct err *err);
int age_armor_write_end(struct age_armor_writer *w, struct err *err);
