#pragma once
/*
 * The store: sealed versions, their metadata, token rows. SQLite, one file; SQL lives here alone. Nothing in it is
 * plaintext. Every row carries a MAC under a key that is itself sealed to the hardware; a secret's MAC also covers its
 * versions' MACs, and one sum over all secrets' MACs notices a row put back or taken away.
 */
#include "broker/token.h"
#include "common/keys.h"
#include "common/limits.h"
#include "common/secret.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct job;

#define STORE_MAC_LEN 32u
#define STORE_META_LEN 32u

/* A version of a key that jobs use. */
struct store_key {
	char path[LIMIT_PATH_LEN + 1];
	uint64_t version;
	char provider[LIMIT_NAME_LEN + 1];
	char ref[LIMIT_URI_LEN]; /* how the provider names it */
	enum key_type type;
	uint32_t spki_len;
	uint8_t spki[KEY_SPKI_MAX];
	uint8_t *certificates; /* malloc'ed: DER, one behind the other, the key's own first; NULL: none */
	size_t certificates_len;
	uint64_t created_ms;
	uint64_t seen; /* key_changes when it was read */
};

/* What store_key_look told. */
struct store_key_seen {
	struct store_key key;
	uint64_t asked;		      /* version, 0: the latest */
	uint64_t generation, changes; /* as they were then */
};

struct store {
	sqlite3 *db;
	struct {
		const char *sql; /* by address: each is one string constant */
		sqlite3_stmt *st;
	} prepared[128];
	struct secret mac_key;	/* empty: sealed */
	uint8_t root[STORE_MAC_LEN]; /* sum of all secrets' MACs */
	int64_t data_version;	/* of SQLite: changes when another program wrote */
	uint64_t looked_ms;	/* boot-time clock: when that was looked at last, by store_generation */
	uint64_t generation;	/* moves with every change of secrets, ours or another hand's */
	bool rolled_back;	/* the sum does not fit: every read is refused */
	unsigned int depth;	/* of transactions within each other */
	bool doomed;		/* one of them was not committed */
	bool removing;		/* rows of jobs or tokens go in it */
	bool behind;		/* such rows could not go: store_catch_up */
	uint64_t key_changes;	/* of signing keys, in this life of the broker */
	struct store_key_seen keys_seen[16]; /* key.path "": none */
	size_t next_key_seen;
};

struct store_version {
	uint64_t version;
	uint64_t created_ms, deleted_ms; /* deleted_ms 0: not deleted; in the future: not yet */
	uint32_t uid;
	char job[2 * JOB_ID_LEN + 1]; /* that wrote it; "": none, or it is not known */
	uint64_t seal;		/* config_seal_id of what it is sealed to; 0: not known */
	bool destroyed, custom; /* custom: store_get tells whether its secret has custom metadata */
	char meta[STORE_META_LEN]; /* "type=json\n" or "type=raw\n": what the bind stanza's digest covers */
	uint8_t *sealed;	/* malloc'ed when asked for */
	size_t sealed_len;
};

/* What an operator or a client set for a secret; zeros: nothing. */
struct store_options {
	uint32_t max_versions;	  /* 0: LIMIT_VERSIONS */
	bool cas_required;	  /* each write says which version it replaces */
	uint64_t delete_after_ms; /* a version counts as deleted that long after it was written; 0: never */
	uint8_t custom_hash[32];  /* SHA-256 of the custom metadata; zeros: there is none */
};

struct store_secret {
	uint64_t current, oldest; /* current 0: there is no version yet */
	uint64_t created_ms, updated_ms;
	struct store_options options;
};

/* How many secrets it has, and bytes of its file. */
int store_measure(struct store *s, uint64_t *ret_secrets, uint64_t *ret_bytes, struct err *err);

int store_open(const char *path, struct store *s, struct err *err);
void store_close(struct store *s);
/* Takes the MAC key (32 bytes, copied) and verifies the sum. ERR_TAMPERED: s->rolled_back is set. */
int store_unlock(struct store *s, const uint8_t mac_key[32], struct err *err);

#define STORE_LOOK_MS 5u
/* As long as it stays the same, what store_get told stands. What another program writes is noticed within STORE_LOOK_MS.
 * ERR_SEALED, ERR_TAMPERED. */
int store_generation(struct store *s, uint64_t now_ms, uint64_t *ret, struct err *err);

bool store_deleted(const struct store_version *v, uint64_t now_ms);
/* version 0: the current one. ERR_NOT_FOUND, ERR_TAMPERED. ret->sealed is the caller's to free; NULL when destroyed. */
int store_get(struct store *s, const char *path, uint64_t version, struct store_version *ret, struct err *err);
int store_secret(struct store *s, const char *path, struct store_secret *ret, struct err *err);
/* Calls each for every kept version, oldest first, without sealed bytes. */
int store_versions(struct store *s, const char *path, int (*each)(void *ctx, const struct store_version *v), void *ctx,
		   struct err *err);
/* Whether a next version may be written, current + 1 of what is there (zeros: nothing). cas < 0: none, else the current version expected.
 * ERR_CONFLICT; ERR_INPUT where the secret demands a cas. */
int store_next(struct store *s, const char *path, int64_t cas, struct store_secret *ret, struct err *err);
/* Adds it. ERR_CONFLICT: it is not the next any more. */
int store_put(struct store *s, const char *path, const struct store_version *v, struct err *err);
/* The same where versions between may never have been here. ERR_CONFLICT: it is not newer than what is. */
int store_put_later(struct store *s, const char *path, const struct store_version *v, struct err *err);
enum store_change { STORE_DELETE, STORE_UNDELETE, STORE_DESTROY };
/* Does that to versions; those that are not there are passed over. What is destroyed has no bytes any more; what is deleted counts as that
 * from at_ms on. */
int store_change(struct store *s, const char *path, enum store_change change, const uint64_t *versions, size_t n, uint64_t at_ms,
		 uint64_t now_ms, struct err *err);
/* Puts other bytes in the place of v's, the very same version. ERR_CONFLICT: they are not v's any more. */
int store_reseal(struct store *s, const char *path, const struct store_version *v, const uint8_t *sealed, size_t len, uint64_t seal, struct err *err);
/* The first version behind (path, version) whose bytes are not known to be sealed to that seal. ret_left: with path "", how many there are. ERR_NOT_FOUND. */
int store_to_reseal(struct store *s, uint64_t seal, const char *path, uint64_t version, char ret_path[LIMIT_PATH_LEN + 1], uint64_t *ret_version,
		    uint64_t *ret_left, struct err *err);
/* Sets the options (fewer versions are kept from the next one on); custom: the custom metadata as JSON text, or NULL: as it was. A secret that is not there is made, without a version. */
int store_set_options(struct store *s, const char *path, const struct store_options *options, const char *custom, uint64_t now_ms, struct err *err);
/* The custom metadata as JSON text, malloc'ed; NULL: there is none. ERR_TAMPERED. */
int store_custom(struct store *s, const char *path, char **ret, struct err *err);
/* Removes the secret with all its versions. */
int store_purge(struct store *s, const char *path, struct err *err);
/* Calls each for every secret that has a version, with the time when its current one was written. */
int store_ages(struct store *s, int (*each)(void *ctx, const char *path, uint64_t created_ms), void *ctx, struct err *err);
/* Calls each with "name" or "folder/" below folder ("" is the root), sorted, each once. ERR_NOT_FOUND when empty. */
int store_list(struct store *s, const char *folder, int (*each)(void *ctx, const char *name), void *ctx, struct err *err);

/* Token rows. They carry the boot that they live in. */
int store_token_put(struct store *s, const char *boot_id, const struct token_row *row, struct err *err);
int store_token_delete(struct store *s, const uint8_t id[16], struct err *err);
/* Drops rows of other boots, then calls each. */
int store_tokens(struct store *s, const char *boot_id, int (*each)(void *ctx, const struct token_row *row), void *ctx,
		 struct err *err);
/* Uses of one caveat of one token. */
int store_use_get(struct store *s, const uint8_t id[16], const uint8_t chain[16], uint64_t *ret, struct err *err);
int store_use_put(struct store *s, const uint8_t id[16], const uint8_t chain[16], uint64_t used, struct err *err);
/* Jobs, the same way. */
int store_job_put(struct store *s, const char *boot_id, const struct job *job, struct err *err);
int store_job_delete(struct store *s, const uint8_t id[JOB_ID_LEN], struct err *err);
int store_jobs(struct store *s, const char *boot_id, int (*each)(void *ctx, const struct job *job), void *ctx, struct err *err);
/* The epoch of tokens: 1 in a new store. */
int store_epoch(struct store *s, uint32_t *ret, struct err *err);
/* Drops all token rows and sets the epoch, as one write. */
int store_tokens_clear(struct store *s, uint32_t epoch, struct err *err);

/* After a removal that could not be written (s->behind): removes the rows of jobs and tokens that which does not say live, so
 * that no restart brings them back. */
int store_catch_up(struct store *s, bool (*lives)(void *ctx, const uint8_t *id, size_t len), void *ctx, struct err *err);

/* An ID token that was used, by what is signed in it. */
struct store_seen {
	uint8_t hash[32];
	uint64_t expires_ms; /* wall clock */
	uint32_t uid;
	uint64_t cgroup;
	bool again; /* the role takes it again from the same uid and cgroup */
};
/* Remembers it. ERR_CONFLICT: it was used before, and not all of its uses allow another one there. */
int store_replay(struct store *s, const struct store_seen *seen, uint64_t now_ms, struct err *err);

/* A new version: it replaces none. */
int store_key_add(struct store *s, const struct store_key *k, struct err *err);
/* The same version with other certificates. */
int store_key_put(struct store *s, const struct store_key *k, struct err *err);
/* Whether that version is still there, and no other that took its name. ERR_NOT_FOUND. */
int store_key_still(struct store *s, const struct store_key *k, struct err *err);
/* version 0: the latest. ERR_NOT_FOUND, ERR_TAMPERED. store_key_done releases it. */
int store_key_get(struct store *s, const char *path, uint64_t version, struct store_key *ret, struct err *err);
void store_key_done(struct store_key *k);
/* The same without its certificates, and of memory while nothing changed (by another hand: see STORE_LOOK_MS): for who uses a key, not for who changes
 * one. Nothing is to be released. */
int store_key_look(struct store *s, const char *path, uint64_t version, uint64_t now_ms, struct store_key *ret, struct err *err);
/* Calls each for every version of one key, or with path "" of all keys, sorted. */
int store_keys(struct store *s, const char *path, int (*each)(void *ctx, const struct store_key *k), void *ctx, struct err *err);
/* Forgets a key with all its versions; the hardware keeps it. */
int store_key_delete(struct store *s, const char *path, struct err *err);

#define STORE_SERIAL_LEN 16u

/* An X.509 certificate that was issued. */
struct store_cert {
	uint8_t serial[STORE_SERIAL_LEN];
	char role[LIMIT_NAME_LEN + 1];
	char name[65];
	uint64_t expires_s, revoked_s; /* since 1970; revoked_s 0: it is not */
	uint8_t der[LIMIT_CERTIFICATE];
	size_t der_len; /* 0: the number is taken, the certificate was never made */
};
/* Takes the serial number, before anything is signed. Certificates that expired a day ago are forgotten, revoked ones
 * after a year: the clock may have been wrong. */
int store_cert_reserve(struct store *s, const struct store_cert *c, uint64_t now_s, struct err *err);
int store_cert_put(struct store *s, const struct store_cert *c, struct err *err);
/* ERR_NOT_FOUND, ERR_TAMPERED. */
int store_cert_get(struct store *s, const uint8_t serial[STORE_SERIAL_LEN], struct store_cert *ret, struct err *err);
/* Those that did not expire yet; revoked: only those that are. */
int store_certs(struct store *s, bool revoked, uint64_t now_s, int (*each)(void *ctx, const struct store_cert *c), void *ctx, struct err *err);
/* The next of a row of numbers that never repeats, from 1 on. */
int store_counter(struct store *s, const char *name, uint64_t *ret, struct err *err);

/* What an operator said of a job's use of a key. */
struct store_approval {
	uint8_t job[JOB_ID_LEN];
	char key[LIMIT_PATH_LEN + 1];
	uint32_t uid;
	bool refused;
	uint64_t at_ms; /* wall clock */
};
/* In place of what the same operator said before. */
int store_approval_put(struct store *s, const struct store_approval *a, struct err *err);
/* Of one job. */
int store_approvals_delete(struct store *s, const uint8_t job[JOB_ID_LEN], struct err *err);
/* Drops those of jobs that are no more, then calls each; what cotter did not write is passed over. */
int store_approvals(struct store *s, int (*each)(void *ctx, const struct store_approval *a), void *ctx, struct err *err);

/* A version of a secret that a job was given; the same again is no failure. path "": there were more than are kept. */
int store_received_put(struct store *s, const uint8_t job[JOB_ID_LEN], const char *path, uint64_t version, struct err *err);
int store_received_delete(struct store *s, const uint8_t job[JOB_ID_LEN], struct err *err);
/* Drops those of jobs that are no more, then calls each; what cotter did not write is passed over. */
int store_received(struct store *s, int (*each)(void *ctx, const uint8_t job[JOB_ID_LEN], const char *path, uint64_t version), void *ctx,
		   struct err *err);

/* A secret id of an AppRole. */
struct store_secret_id {
	uint8_t hash[32], accessor[16];
	char role[LIMIT_NAME_LEN + 1];
	uint64_t created_ms, expires_ms; /* wall clock; expires_ms 0: never */
	int64_t uses_left;		 /* -1: not limited */
};
void store_secret_id_hash(const struct store *s, const char *text, size_t len, uint8_t ret[32]);
/* New, or with other uses. ERR_LIMIT: there are too many. */
int store_secret_id_put(struct store *s, const struct store_secret_id *x, uint64_t now_ms, struct err *err);
/* ERR_NOT_FOUND: there is none for that role, or it expired; ERR_TAMPERED. */
int store_secret_id_get(struct store *s, const uint8_t hash[32], const char *role, uint64_t now_ms, struct store_secret_id *ret, struct err *err);
int store_secret_id_by_accessor(struct store *s, const uint8_t accessor[16], const char *role, uint64_t now_ms, struct store_secret_id *ret,
				struct err *err);
int store_secret_id_delete(struct store *s, const uint8_t hash[32], struct err *err);
/* Calls each for those of a role, oldest first. */
int store_secret_ids(struct store *s, const char *role, uint64_t now_ms, int (*each)(void *ctx, const struct store_secret_id *x), void *ctx,
		     struct err *err);

/* Whether there is room for one more that this uid asks for; TOKEN_ANY_UID: an operator. ERR_BUSY: there is not. */
int store_wrapped_room(struct store *s, uint32_t uid, struct err *err);
/* What a wrapping token stands for. */
int store_wrapped_put(struct store *s, const uint8_t id[16], uint32_t uid, const uint8_t *sealed, size_t len, struct err *err);
/* malloc'ed. ERR_NOT_FOUND. */
int store_wrapped_get(struct store *s, const uint8_t id[16], uint8_t **ret, size_t *ret_len, struct err *err);
int store_wrapped_delete(struct store *s, const uint8_t id[16], struct err *err);

struct lease;
int store_lease_put(struct store *s, const struct lease *l, struct err *err);
int store_lease_delete(struct store *s, const uint8_t id[16], struct err *err);
/* Calls each; what cotter did not write is passed over, and counted. */
int store_leases(struct store *s, int (*each)(void *ctx, const struct lease *l), void *ctx, size_t *ret_n_bad, struct err *err);

/* Several writes as one. They nest: the outermost end writes, and nothing when any inner one did not commit. */
int store_begin(struct store *s, struct err *err);
int store_end(struct store *s, bool commit, struct err *err);
/* For rows of jobs and tokens that go: when it cannot begin, they are left to store_catch_up, and no deletion waits again. */
int store_begin_removal(struct store *s, struct err *err);
