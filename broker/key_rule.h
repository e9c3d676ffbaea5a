#pragma once
/*
 * What has to hold for a use of a key beside a policy that allows it: approvals and rates (the configuration's keys). Every request that
 * uses a private half (but the revocation list, which anybody gets and which is signed twice a day) passes key_rule_admit once it is read and before anything is done.
 */
#include "broker/config.h"

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct call;
struct job;

/* Whether a rule is about that key: about its name, or for pki/ROLE and ssh/ROLE about the CA's. */
bool key_rule_applies(const struct config *config, const struct config_key_rule *rule, const char *key);
/* Whether it is used only after approvals. */
bool key_rule_wants_approval(const struct config *config, const char *key);

/*
 * The call wants to use the key of its path n times; its detail says what for. go goes on, now or once the approvals are there; or the
 * call is ended: refused, over a rate, not approved in time, or its job is gone. Whatever go needs lies in the call's work.
 */
void key_rule_admit(struct call *call, uint32_t n, void (*go)(struct call *call));
/* The call is gone. */
void key_rule_cancel(struct broker *b, const struct call *call);
/* Somebody spoke, or the rules are others: those that wait go on, or end, where that decides. */
void key_rules_decide(struct broker *b);
/* Sets n_waiting of every approval. */
void key_rules_count_waiting(struct broker *b);
/* A job is freed: what it holds of ours, too. Its calls end in key_rules_tick. */
void key_rules_forget_job(struct broker *b, struct job *job);
/* Ends those that waited too long. At least every 500 ms. */
void key_rules_tick(struct broker *b);
/* Says of which rules there is no key (a name that was mistyped guards nothing), and which keys have an unguarded name beside one that
 * wants approvals. Once the store is open, and after a reload. */
void key_rules_check(struct broker *b);
