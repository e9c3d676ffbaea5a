#pragma once
/* The stanza conversation between age and a plug-in (C2SP age-plugin.md), over standard input and output. */
#include "common/buf.h"
#include "common/secret.h"

#include <stddef.h>

struct err;

#define AGE_PLUGIN_LINE_MAX 8192u

struct age_plugin_message {
	struct secret line; /* "command arg arg", terminated: an identity may be in it */
	char *args[16];	    /* args[0] is the command; into line */
	size_t n_args;
	struct secret body; /* decoded */
	char *rest;	    /* what follows args[1], unsplit copy: NULL if nothing; into line2 */
	struct secret line2;
};

/* The next message; ERR_INPUT when the conversation is malformed or ends. */
int age_plugin_read(struct age_plugin_message *m, struct err *err);
void age_plugin_message_clear(struct age_plugin_message *m);

/* Phase one of both machines: every message up to "done" is given to take. */
int age_plugin_gather(int (*take)(void *ctx, struct age_plugin_message *m, struct err *err), void *ctx, struct err *err);

/* head is "command args"; the body is encoded. */
int age_plugin_write(const char *head, const void *body, size_t body_len, struct err *err);
/* Text that is a stanza already ("-> TYPE …"): its arrow is replaced by "-> prefix ". */
int age_plugin_write_stanza(const char *prefix, const struct writer *stanza, struct err *err);
/* Sends what was written and waits for age's answer (ok, fail, unsupported). */
int age_plugin_answer(struct err *err);

/* Which state machine age asked for: "recipient-v1" in --age-plugin=recipient-v1; NULL for anything else. */
const char *age_plugin_machine(int argc, char **argv);
