#pragma once
/* The one configuration file, YAML, checked against a schema: an unknown key, a wrong type, a duplicate is an error with
 * file, line and what was expected. It also holds the policies. */
#include "common/age.h"
#include "common/limits.h"

#include <netinet/in.h>
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
	uint32_t parallel; /* operations that it is at: 1 to LIMIT_PARALLEL */
	char **environment, **writable, **readable;
	size_t n_environment, n_writable, n_readable;
	struct config_key *keys; /* sealing keys */
	size_t n_keys;
};

struct config_rule {
	char pattern[LIMIT_PATH_LEN + 1]; /* '+' is one component, a '*' at the end any rest, {{name}} what was proven */
	uint32_t begin;			  /* of policy_index, as is next: of the same bucket, counted from 1; 0: none */
	uint16_t next;
	uint32_t allow;			  /* enum policy_op_bit */
	size_t line;			  /* in the file */
};

#define CONFIG_RULE_BUCKETS 256u

struct config_policy {
	char name[LIMIT_NAME_LEN + 1];
	struct config_rule *rules;
	size_t n_rules;
	/* of policy_index: a rule, counted from 1; 0: none */
	uint16_t by_begin[CONFIG_RULE_BUCKETS];
	bool indexed;
};

/* A key set of a CI system, pinned in a file. */
struct config_issuer {
	char name[LIMIT_NAME_LEN + 1];
	char issuer[LIMIT_URI_LEN]; /* the iss claim, exactly */
	char jwks_file[LIMIT_FILE_PATH_LEN];
	uint64_t max_age_ms; /* an older file raises an alarm */
};

/* A claim of an ID token and the values that it may have. */
struct config_claim {
	char *name; /* or a JSON pointer, /a/b */
	char **values;
	size_t n_values;
};

/* A claim that becomes a name for {{name}}. */
struct config_mapping {
	char *claim, *name;
};

/* How somebody comes to a role. */
enum config_role_kind { CONFIG_ROLE_KERNEL, CONFIG_ROLE_JWT, CONFIG_ROLE_APPROLE, CONFIG_ROLE_TOKEN };

/* From a proven identity to policies. */
struct config_role {
	char name[LIMIT_NAME_LEN + 1];
	enum config_role_kind kind;
	/* kernel, and for an AppRole on top of it: every list that is there must hold */
	uint32_t *uids, *gids;
	size_t n_uids, n_gids;
	char **cgroups, **units; /* globs of paths; names */
	size_t n_cgroups, n_units;
	/* jwt */
	char issuer[LIMIT_NAME_LEN + 1];
	char subject[LIMIT_BOUND_LEN + 1];
	char **audiences;
	struct config_claim *claims;
	struct config_mapping *mappings;
	size_t n_audiences, n_claims, n_mappings;
	bool glob;	      /* in bound_subject and bound_claims */
	bool reuse_in_cgroup; /* the same ID token again, from the cgroup that used it first */
	uint64_t leeway_ms;
	/* approle */
	bool has_approle;
	char role_id[LIMIT_NAME_LEN + 1];
	uint64_t secret_id_ttl_ms; /* 0: for ever */
	int64_t secret_id_uses;	   /* -1: not limited */
	/* token: whoever may create with it gets, of these policies, what it asks for */
	bool has_token, orphan, renewable;
	/* what it gives */
	char **policies;
	size_t n_policies;
	char scope[LIMIT_PATH_LEN + 1]; /* may have {{name}} */
	uint64_t ttl_ms, max_ttl_ms; /* max: with renewals; 0: none */
	bool period;		     /* renewed for ttl again and again */
	int64_t uses; /* -1: not limited */
};

/* organisation, organisation/group, …: its policies hold for all scopes below. */
struct config_scope {
	char name[LIMIT_PATH_LEN + 1];
	char **policies;
	size_t n_policies;
};

enum config_usage { CONFIG_USAGE_SERVER = 1, CONFIG_USAGE_CLIENT = 2, CONFIG_USAGE_CODE = 4, CONFIG_USAGE_EMAIL = 8 };

/* What certificates somebody may have. */
struct config_cert_role {
	char name[LIMIT_NAME_LEN + 1];
	char **names; /* globs: DNS and common names; principals */
	size_t n_names;
	uint64_t ttl_ms, max_ttl_ms;
	/* X.509 */
	char **uris; /* globs */
	size_t n_uris;
	bool allow_ip;
	uint32_t usages; /* enum config_usage */
	char organization[LIMIT_NAME_LEN + 1];
	/* OpenSSH */
	bool host; /* else user */
	char **extensions;
	size_t n_extensions;
	char force_command[256], source_address[256];
};

/* A CA: the name of its key, which for X.509 has its certificate. */
struct config_ca {
	char key[LIMIT_PATH_LEN + 1]; /* "": there is none */
	char crl_url[256];
	struct config_cert_role *roles;
	size_t n_roles;
};
const struct config_cert_role *config_cert_role(const struct config_cert_role *roles, size_t n, const char *name);

/* At most n in that time, and as many at once; n 0: no limit. */
struct config_rate {
	uint32_t n;
	uint64_t per_ms;
};

/* What has to hold for the use of keys, beside a policy that allows it: of all rules that match a name. */
struct config_key_rule {
	char pattern[LIMIT_PATH_LEN + 1]; /* as in a policy, without {{name}} */
	uint32_t approvals;		  /* by so many, before a job's first use; 0: none */
	uint32_t *approvers;		  /* uids; none: any operator */
	size_t n_approvers;
	uint64_t wait_ms;		  /* for how long a use waits for them */
	struct config_rate rate, rate_per_job;
};

/* One more place for an engine or a way to log in. */
struct config_mount {
	char path[LIMIT_NAME_LEN + 1]; /* kv, auth/gitlab */
	char type[8];		       /* kv, jwt, approle */
	unsigned int version;	       /* of kv: 1 or 2; else 0 */
};

/* How the secrets that a pattern fits are rotated; the first that fits counts. */
struct config_rotation {
	char pattern[LIMIT_PATH_LEN + 1];
	char program[LIMIT_FILE_PATH_LEN]; /* "": none */
	uint64_t every_ms;		   /* 0: never overdue */
	uint64_t grace_ms;		   /* for how long the version before stays readable */
};

struct config_parameter {
	char *name, **values;
	size_t n_values;
};

struct config_engine_role {
	char name[LIMIT_NAME_LEN + 1];
	uint64_t ttl_ms, max_ttl_ms;
	struct config_parameter *parameters;
	size_t n_parameters;
};

/* A program that makes credentials, and the mount where they are asked for. */
struct config_engine {
	char name[LIMIT_NAME_LEN + 1];
	char program[LIMIT_FILE_PATH_LEN];
	char secret[LIMIT_PATH_LEN + 1]; /* what it is told, such as an administrator's password; "": nothing */
	char **readable, **writable;
	size_t n_readable, n_writable;
	struct config_engine_role *roles;
	size_t n_roles;
};

/* What a systemd unit gets as a credential. */
struct config_credential {
	char name[LIMIT_NAME_LEN + 1];
	char path[LIMIT_PATH_LEN + 1];
	char field[LIMIT_NAME_LEN + 1]; /* "": value, or the only one */
};

struct config_unit {
	char name[LIMIT_UNIT_LEN + 1];
	struct config_credential *credentials;
	size_t n_credentials;
};

enum config_audit_sync { CONFIG_AUDIT_WRITE, CONFIG_AUDIT_DISK };

/* Below the state directory: files of the keys that the broker had a TPM make. */
#define CONFIG_KEY_DIR "keys"

struct config {
	char file[LIMIT_FILE_PATH_LEN];
	char socket[108], operator_socket[108];
	struct sockaddr_in listen;	/* a loopback address; sin_family 0: none */
	bool require_request_header;	/* X-Vault-Request: true */
	char state_dir[LIMIT_FILE_PATH_LEN]; /* with CONFIG_KEY_DIR in it */
	uid_t *operators;
	size_t n_operators;
	struct config_provider *providers;
	size_t n_providers;
	struct age_recipient *recipients; /* the seal */
	char **recipient_texts;
	size_t n_recipients, n_recipient_texts;
	uint64_t cache_ms; /* 0: unseal each use */
	enum config_audit_sync audit_sync;
	bool require_cgroup;	/* callers in the root cgroup get nothing */
	bool require_isolation; /* only jobs that cotter run isolated */
	struct config_policy *policies; /* by name */
	size_t n_policies;
	struct config_issuer *issuers;
	size_t n_issuers;
	struct config_role *roles;
	size_t n_roles;
	struct config_scope *scopes;
	size_t n_scopes;
	struct config_ca pki, ssh;
	struct config_key_rule *key_rules;
	size_t n_key_rules;
	struct config_mount *mounts;
	size_t n_mounts;
	struct config_rotation *rotations;
	size_t n_rotations;
	struct config_engine *engines;
	size_t n_engines;
	struct config_unit *units; /* none: no socket for them */
	size_t n_units;
};

/* ERR_INPUT with "file:line: …". The caller calls config_done. */
int config_load(const char *path, struct config *ret, struct err *err);
void config_done(struct config *c);
/* Takes over from next what may change while the broker runs: policies, roles, issuers, scopes, keys, mounts, rotations, credentials, operators, jobs, unseal, http.require_request_header. next is
 * left with the old ones. ERR_INPUT, and nothing is taken, when it differs in anything else. */
int config_reload(struct config *c, struct config *next, struct err *err);

/* Names the recipients of the seal, whatever their order; not 0. */
uint64_t config_seal_id(const struct config *c);
bool config_has_id(const uint32_t *list, size_t n, uint32_t id);
const struct config_policy *config_policy(const struct config *c, const char *name);
const struct config_role *config_role(const struct config *c, const char *name);
/* The AppRole of that role_id. */
const struct config_role *config_approle(const struct config *c, const char *role_id);
const struct config_issuer *config_issuer(const struct config *c, const char *name);
const struct config_scope *config_scope(const struct config *c, const char *name);
const struct config_engine *config_engine(const struct config *c, const char *name);
/* NULL: it has none of that name; e may be NULL. */
const struct config_engine_role *config_engine_role(const struct config_engine *e, const char *name);
/* NULL: the path has none. */
const struct config_rotation *config_rotation(const struct config *c, const char *path);
/* NULL: the unit gets none of that name. */
const struct config_credential *config_credential(const struct config *c, const char *unit, const char *name);
/* By name; NULL when the configuration has none of it. */
const struct config_provider *config_provider(const struct config *c, const char *name);
