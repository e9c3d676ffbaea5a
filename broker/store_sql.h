#pragma once
/* SQLite, thinly, and the MACs of rows: for store*.c alone. */
#include "broker/store.h"

#include <sodium.h>
#include <stdbool.h>

/* The statement stays prepared for its next use. */
void store_finalize(sqlite3_stmt **st);
#define STMT __attribute__((cleanup(store_finalize))) sqlite3_stmt

int store_sql_err(struct store *s, struct err *err);
int store_exec(struct store *s, const char *sql, struct err *err);
/* sql: a string constant. fmt: t text, b blob of the length that follows, i int64. */
int store_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, const char *fmt, ...);
/* 1: a row, 0: none. */
int store_step(struct store *s, sqlite3_stmt *st, struct err *err);
uint64_t store_column_u64(sqlite3_stmt *st, int i);
/* false: not of that length. */
bool store_column_blob(sqlite3_stmt *st, int i, void *ret, size_t len);
void store_column_text(sqlite3_stmt *st, int i, char *ret, size_t size);

void store_mac_start(const struct store *s, crypto_generichash_state *st, const char *table);
void store_mac_text(crypto_generichash_state *st, const char *text);
void store_mac_u64(crypto_generichash_state *st, uint64_t v);
void store_mac_finish(crypto_generichash_state *st, uint8_t ret[STORE_MAC_LEN]);
/* ERR_TAMPERED */
int store_tampered(const char *what, struct err *err);

/* The tables of store_secret.c. */
extern const char store_secret_schema[], store_secret_alter[], store_option_schema[];
/* Of store_root.c. Whether the sum fits: ERR_TAMPERED. */
int store_verify_root(struct store *s, struct err *err);
/* Before anything is believed: did another program write? Then the sum must still fit. */
int store_root_check(struct store *s, struct err *err);
/* A secret's part of the sum: its name and its MAC. */
void store_root_summand(const struct store *s, const char *path, const uint8_t mac[STORE_MAC_LEN], uint8_t ret[STORE_MAC_LEN]);
/* Within the transaction that changes it. */
int store_root_write(struct store *s, const uint8_t root[STORE_MAC_LEN], struct err *err);
/* The tables of store_token.c. */
extern const char store_token_schema[], store_token_drop[];
/* Of store_key.c. */
extern const char store_key_schema[];
/* Of store_cert.c. */
extern const char store_cert_schema[];
/* Of store_approle.c, store_wrapped.c. */
extern const char store_approle_schema[], store_wrapped_schema[];
/* Of store_lease.c. */
extern const char store_lease_schema[];
/* Of store_approval.c, store_received.c. */
extern const char store_approval_schema[], store_received_schema[];
