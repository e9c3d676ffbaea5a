#pragma once
/* The broker's parts, held together. */
#include "broker/audit.h"
#include "broker/cache.h"
#include "broker/config.h"
#include "broker/crl.h"
#include "broker/hardware.h"
#include "broker/job.h"
#include "broker/lease.h"
#include "broker/jwks.h"
#include "broker/metrics.h"
#include "broker/rate.h"
#include "broker/refusals.h"
#include "broker/store.h"
#include "broker/token.h"
#include "broker/unseal.h"

struct server;

/* Codes that were right once, of the broker's own life. */
struct totp_used {
	uint8_t ids[1024][16];
	size_t next;
};

struct broker {
	struct config config;
	struct audit audit;
	struct store store;
	struct tokens tokens;
	struct jobs jobs;
	struct jwks jwks;
	struct refusals refusals;
	struct secret hmac_key;	   /* of which transit's HMAC keys are derived; empty: sealed */
	struct cache cache;
	struct hardware hardware;
	struct unseals unseals;
	struct engines engines;
	struct leases leases;
	struct server *server;
	bool unsealed;		   /* the store's own keys are open */
	bool opening;		   /* the hardware is at it */
	uint64_t retry_open_ms;	   /* after a passing failure; 0: nothing to try */
	char sealed_reason[256];   /* for whoever asks meanwhile */
	uint8_t *store_key_file;   /* sealed, read at start */
	size_t store_key_file_len;
	struct crl crl;
	struct call *approval_waiting; /* see key_rule.h */
	struct totp_used totp_used;
	struct rate *rates;	   /* of keys */
	uint8_t job_uids[8192]; /* a bit for each uid that a job had in this life of the broker; uids that are equal modulo 65,536 share one */
	struct metrics metrics;
	uint64_t started_ms, n_requests, n_granted, n_denied;
};

/* The store's own key, sealed: state_dir/store-key.age, bound to this path. Payload: 32 random bytes. */
#define BROKER_STORE_KEY_FILE "store-key.age"
#define BROKER_STORE_KEY_PATH "cotter/store-key"
#define BROKER_STORE_KEY_LEN 32u

/* Opens all parts, sealed, and shuts the sandbox. notify: an sd_notify(3) address or "". broker_stop follows in any case. */
int broker_start(struct broker *b, int launcher_fd, struct server *server, const char *notify, struct err *err);
void broker_stop(struct broker *b, struct server *server);
/* Asks the hardware for the store's own keys if that is not done; its answer comes later. */
void broker_open_store(struct broker *b);
/* SIGHUP: the configuration file again; a broken one is refused whole, and the old one stays in force. */
void broker_reload(struct broker *b);
/* Records of refusals that were only counted, where one is due; all: at the end. */
void broker_record_refusals(struct broker *b, bool all);
/* What is due: another try at the store's keys. */
void broker_tick(struct broker *b, uint64_t now_ms);
bool broker_is_operator(const struct broker *b, uint32_t uid);
