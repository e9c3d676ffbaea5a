#pragma once
/* What the handlers of KV version 2 share. */
#include "broker/api.h"

/* The secret's custom metadata, or null. */
int kv_append_custom(struct secret *s, const struct call *call);
/* Opens a version (0: the current one) of the call's secret. then gets its JSON object, or NULL where that was deleted or destroyed; where
 * nothing can be opened, the call ends. */
void kv_open(struct call *call, uint64_t version, void (*then)(struct call *call, const struct secret *object));
/* Ends the call with {name: object, "metadata": …}; with null and status 404 where object is NULL. */
void kv_reply(struct call *call, const char *name, const struct secret *object);
/* The call is to write the next version, if cas is right: its number, and what the secret's options say of it. */
int kv_next(struct call *call, int64_t cas, struct err *err);
/* Seals an object as the call's version, the one that kv_next said, and stores it; ends the call. */
void kv_store_object(struct call *call, const struct secret *object);
/* The same for what kv_open opened, of the kind that it was of: raw bytes stay that. */
void kv_store_same(struct call *call, const struct secret *object);
/* call->sealed, of "sealed" in a body. ERR_INPUT. */
int kv_take_sealed(struct call *call, const json_t *sealed, struct err *err);
/* For unseal_start of call->sealed: stores it as the call's version; ends the call. */
void kv_sealed_opened(void *ctx, int result, const struct secret *plain, const struct age_header *header, const char *message);
/* Whether a PATCH is a JSON merge patch, the only kind there is. ERR_MEDIA. */
int kv_check_patch(const struct request *q, struct err *err);
/* options.cas of a body; -1: none. ERR_INPUT. */
int kv_read_cas(const json_t *options, int64_t *ret, struct err *err);
