#pragma once
/* Capability tokens: rows that say which live, caveats weighed against facts. No row, no access. */
#include "broker/token_seen.h"
#include "common/limits.h"
#include "common/macaroon.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct config_rule;
struct err;
struct job;
struct store;

#define TOKEN_ANY_UID UINT32_MAX
#define JOB_ID_LEN 8u

/* What the holder can neither see nor change. */
struct token_row {
	uint8_t id[16], parent[16];    /* parent: zeros for the first of its lineage */
	uint8_t job_id[JOB_ID_LEN];    /* zeros: of no job */
	uint32_t epoch, uid;	       /* TOKEN_ANY_UID: no uid bound */
	uint64_t cgroup;	       /* id; 0: no cgroup bound */
	uint64_t created_ms;	       /* wall clock */
	uint64_t deadline_ms;	       /* boot-time clock: a clock set back does not revive it */
	uint64_t max_deadline_ms;      /* up to where it can be renewed; 0: it cannot */
	uint64_t ttl_ms, renewed_ms;   /* what it was given at first; wall clock, 0: never */
	int64_t uses_left;	       /* -1: not limited */
	uint32_t wraps;		       /* enum token_wraps: what a wrapping token stands for */
	uint64_t wrap_ttl_ms;	       /* the token that is made when it is unwrapped lives for that long */
	int64_t wrap_uses;	       /* and has that many uses */
	const char *policies;	       /* names joined by commas */
	const char *meta;	       /* what was proven of its holder: "name=value\n" lines; role and scope are two of them. A name that
					* begins with '+' was said by its holder and proves nothing. */
	const char *path, *display;    /* of the request that made it: auth/token/create; for people: token-deploy */
	/* of the broker's own life */
	struct job *job;
	struct token_row *job_next;    /* of the same job */
	struct token_row *next;	       /* in its bucket */
	uint32_t n_children;
	bool doomed;
};

enum token_wraps { TOKEN_WRAPS_NOTHING, TOKEN_WRAPS_TOKEN, TOKEN_WRAPS_RESPONSE };

#define TOKEN_FOREVER_MS (UINT64_MAX / 4) /* as max_deadline_ms: renewed again and again */
#define TOKEN_BUCKETS 16384u
#define TOKEN_UIDS 1024u

struct tokens {
	struct token_row *buckets[TOKEN_BUCKETS];
	size_t n;
	struct secret key; /* 32 bytes that derive every epoch's key, then what this epoch's macaroons begin with; empty: sealed */
	struct token_seen seen;
	struct store *store;
	const struct config *config;
	char boot_id[37];
	uint32_t epoch;
	uint32_t by_uid[TOKEN_UIDS]; /* rows bound to a uid; uids that share a place share its limit */
};

/* What a request is, by the kernel's word and its own path. */
struct token_facts {
	uint32_t uid, gid;
	uint64_t cgroup;   /* 0: none, or the root */
	uint32_t op;	   /* one enum policy_op_bit; 0: only to be known (lookup-self) */
	const char *path;  /* NULL with op 0 */
	bool folder;	   /* path is a folder to be listed */
	const char *literal; /* see struct policy_question */
	bool unwrap;	   /* sys/wrapping: for wrapping tokens, and for them alone */
	uint64_t wall_ms, boot_ms;
};

void tokens_done(struct tokens *t);
/* Reads the rows of this boot from the store. Rows of jobs are good once job_adopt found their job. */
int tokens_load(struct tokens *t, struct store *store, const struct config *config, const uint8_t key[32], struct err *err);

struct token_request {
	const char *policies, *meta; /* copied */
	uint32_t uid;
	uint64_t cgroup;
	struct job *job; /* NULL: of none */
	const char *path, *display;  /* copied */
	uint64_t ttl_ms;	     /* cut to what its parent and its job have left, and to LIMIT_TOKEN_TTL_S */
	uint64_t max_ttl_ms;	     /* from now on, with renewals; 0: not renewable; TOKEN_FOREVER_MS */
	int64_t uses;
	enum token_wraps wraps;
	uint64_t wrap_ttl_ms;
	int64_t wrap_uses;
	struct token_row *parent; /* NULL: an operator or an identity asks */
	const uint8_t *unwrapped_from; /* 16 bytes: the wrapping token that it stood in; NULL: in none */
	bool by_operator;	  /* who may take the last places */
};
/* Whether there is a place for it. ERR_BUSY; ERR_LIMIT: its texts are too long for any. */
int token_room(const struct tokens *t, const struct token_request *q, struct err *err);
/* Makes a row and its token text (in the arena). */
int token_make(struct tokens *t, const struct token_request *q, struct secret *ret_text, struct token_row **ret_row, struct err *err);
/* For longer, from now on: cut as when it was made, and to its own maximum. increment_ms 0: what it was made with. ERR_INPUT: not renewable. */
int token_renew(struct tokens *t, struct token_row *row, uint64_t increment_ms, struct err *err);
/* Rows past their deadline go, in the store too. */
void tokens_expire(struct tokens *t, uint64_t boot_ms);

struct token_row *token_find(struct tokens *t, const uint8_t id[16]);
/* Every row that which says (ctx is its own) goes, here and in the store, with all that were made from it, as one write. Here
 * it goes in any case; a failure means that the store still has it, so that it would be back after a restart. */
int tokens_revoke(struct tokens *t, bool (*which)(void *ctx, const struct token_row *row), void *ctx, size_t *ret_n, struct err *err);
/* One row and all made from it. */
int token_revoke(struct tokens *t, struct token_row *row, size_t *ret_n, struct err *err);
/* That row; those made with it have no parent any more. Here both are so in any case, as with tokens_revoke. */
int token_revoke_alone(struct tokens *t, struct token_row *row, struct err *err);
/* A row whose store's row is gone already. */
void token_forget(struct tokens *t, const uint8_t id[16]);
/* The rows of a job, within the caller's transaction. */
int tokens_end_job(struct tokens *t, struct job *job, struct err *err);
/* All rows go and no token made so far has a key any more. */
int tokens_revoke_all(struct tokens *t, struct err *err);

/* Why a token was refused, for operators. */
struct token_verdict {
	const char *step;	      /* row, signature, peer, job, caveat, policy */
	const struct token_row *row;  /* NULL: there is none */
	size_t caveat;		      /* number of it, from 1 */
	const char *policy;	      /* that decided, either way; NULL: none */
	const struct config_rule *rule;
};

/*
 * The whole check of a presented token, in the order of doc/threat-model.md: row, HMAC chain, row against peer, caveats,
 * policy. ERR_DENIED; the text is for the audit log only. Nothing is counted yet. ret_verdict may be NULL.
 */
int token_check(struct tokens *t, struct macaroon *m, const struct token_facts *facts, struct token_row **ret_row,
		struct token_verdict *ret_verdict, struct err *err);
/* Its row, if the token is genuine: nothing is said of who shows it. ERR_DENIED. */
int token_identify(struct tokens *t, struct macaroon *m, struct token_row **ret_row, struct err *err);
/* Whether row is of, or was made with it and those made with it. */
bool token_descends(struct tokens *t, const struct token_row *row, const struct token_row *of);
/* The key that seals what a wrapping token stands for. */
void token_wrap_key(const struct tokens *t, const struct token_row *row, uint8_t ret[32]);
/* Whether a token that token_check verified would also do for these facts; nothing is counted. */
bool token_may(struct tokens *t, const struct macaroon *m, const struct token_facts *facts);
/* Row, peer, caveats and policy again for a token that token_check verified, and count one use: on disk before the answer leaves. ERR_DENIED when none is left. */
int token_use(struct tokens *t, const struct macaroon *m, const struct token_facts *facts, struct err *err);

uint64_t token_boot_ms(void);
uint64_t token_wall_ms(void);
