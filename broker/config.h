#pragma once
/* The one configuration file, YAML, checked against a schema: an unknown key, a wrong type, a duplicate is an error with
 * file, line and what was expected. It also holds the policies. */
#include "common/age.h"
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

struct config_key {
	char recipient[LIMIT_URI_LEN]; /* age1tag1… */
	char ref[LIMIT_URI_LEN];       /* PKCS#11 URI, PEM file, handle:0x… */
	uint8_t point[P256_POINT_LEN];
};

struct config_provider {
	char name[LIMIT_NAME_LEN + 1];
	char uri[LIMIT_URI_LEN];
	char srk_name[72];
	char **environment, **writable, **readable;
	size_t n_environment, n_writable, n_readable;
	struct config_key *keys; /* sealing keys */
	size_t n_keys;
};

struct config_rule {
	char pattern[LIMIT_PATH_LEN + 1]; /* '+' is one component, a '*' at the end any rest */
	uint32_t allow;			  /* enum policy_op bits */
};

struct config_policy {
	char name[LIMIT_NAME_LEN + 1];
	struct config_rule *rules;
	size_t n_rules;
};

enum config_audit_sync { CONFIG_AUDIT_WRITE, CONFIG_AUDIT_DISK };

struct config {
	char file[LIMIT_FILE_PATH_LEN];
	char socket[108], operator_socket[108];
	char state_dir[LIMIT_FILE_PATH_LEN];
	uid_t *operators;
	size_t n_operators;
	struct config_provider *providers;
	size_t n_providers;
	struct age_recipient *recipients; /* the seal */
	char **recipient_texts;
	size_t n_recipients, n_recipient_texts;
	uint64_t cache_ms; /* 0: unseal each use */
	enum config_audit_sync audit_sync;
	struct config_policy *policies;
	size_t n_policies;
};

/* ERR_INPUT with "file:line: …". The caller calls config_done. */
int config_load(const char *path, struct config *ret, struct err *err);
void config_done(struct config *c);

const struct config_policy *config_policy(const struct config *c, const char *name);
/* By name; NULL when the configuration has none of it. */
const struct config_provider *config_provider(const struct config *c, const char *name);
