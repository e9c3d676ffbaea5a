#pragma once
/* Sealing and opening age files of any size in constant memory. Nothing leaves before the whole file was verified. */
#include "common/age.h"

#include <stdbool.h>

struct bind;

/* in → out, both descriptors; armor writes text. */
int age_file_seal(int in, int out, const struct age_recipient *recipients, size_t n_recipients, const struct bind *bind,
		  bool armor, struct err *err);

/* A sealed file ready to be opened: dearmored, and in something that can be read twice. */
struct age_file {
	int fd; /* owned */
	struct age_header header;
};

/* in may be a pipe; what cannot be rewound is kept, sealed as it is, in an unlinked temporary file. */
int age_file_load(int in, struct age_file *ret, struct err *err);
void age_file_done(struct age_file *f);

/* Verifies the whole payload, then writes it out. */
int age_file_open(const struct age_file *f, const struct secret *file_key, int out, struct err *err);
