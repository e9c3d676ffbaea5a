#pragma once
/* What can open a file: recovery keys from an identity file, a passphrase, or the hardware that a configuration names. */
#include "broker/config.h"
#include "broker/keyd.h"
#include "common/age.h"

struct identities {
	struct age_identity list[LIMIT_IDENTITIES];
	size_t n;
	struct config config;
	struct keyd keyds[LIMIT_PROVIDERS];
	struct keyd_key keys[LIMIT_IDENTITIES];
	size_t n_keys;
};

/* AGE-SECRET-KEY-1… lines, '#' comments; AGE-PLUGIN-COTTER-1… stands for the hardware of the configuration. */
int identities_add_file(struct identities *ids, const char *path, const char *config_path, struct err *err);
int identities_add_passphrase(struct identities *ids, const char *path, struct err *err);
/* Helpers are started when a key of theirs is needed. */
int identities_add_hardware(struct identities *ids, const char *config_path, struct err *err);
void identities_done(struct identities *ids);
