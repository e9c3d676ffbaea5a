#pragma once
/*
 * Helpers in the protocols of other tools: what they share. Whoever asks names a host, which is no more than a job's word: it
 * chooses among the secrets that the job may read, and what comes back is told for that host alone.
 */
#include "common/limits.h"
#include "tools/client.h"

#include <stdbool.h>

struct credential {
	const char *path;      /* of the secret; NULL: PREFIX/HOST */
	const char *host;      /* the only one that path is for */
	const char *prefix;
	const char *state_dir; /* podman: where references are kept */
};

/* Takes --path, --host, --prefix and --state-dir off the front of the words. */
int credential_options(struct credential *c, int *n, char ***words, struct err *err);

struct credential_place {
	char host[LIMIT_COMPONENT_LEN + 1]; /* in small letters; its port stands behind a '+', so that it is a component of a path */
	bool url;			    /* it came with a scheme: https, or http to this machine alone */
};
/* From https://host[:port][/...], sparse+https://..., or host[:port][/...]. ERR_INPUT, with no byte of it in the text. */
int credential_place_parse(const char *text, struct credential_place *ret, struct err *err);

/* The secret's object; below (may be NULL) goes behind the host. place NULL: it is asked for no host, and --path is needed. *ret is
 * cleared by the caller. */
int credential_fetch(const struct credential *c, const struct credential_place *place, const char *below, struct client_reply *ret,
		     json_t **ret_object, struct err *err);
/* The first of these fields (names between spaces) that the object has: a line of text, lent. ERR_NOT_FOUND: none. */
int credential_field(const json_t *object, const char *names, const char **ret, struct err *err);
/* ERR_NOT_FOUND where somebody else is asked for than the secret's "username", if it has one. */
int credential_check_user(const json_t *object, const char *username, struct err *err);

/* To standard output; what stands there is wiped at once. */
int credential_print(struct err *err, const char *text, ...) __attribute__((sentinel));
/* One line of JSON; j may be NULL: there was no memory for it. */
int credential_print_json(const json_t *j, struct err *err);

/* The helpers: the words behind the options. */
typedef int credential_helper(const struct credential *c, int argc, char **argv, struct err *err);
credential_helper credential_git, credential_docker, credential_cargo, credential_aws, credential_kubectl, credential_terraform, credential_podman,
	credential_pip, credential_npm;

/* Whether cotter was started under the name that some tool has for its helper. */
bool credential_is_program(const char *argv0);

/* ---- what tools ask with ---- */

struct git_request {
	char protocol[16], host[LIMIT_COMPONENT_LEN + 1], path[LIMIT_PATH_LEN + 1], username[LIMIT_COMPONENT_LEN + 1];
};
/* Lines of key=value up to an empty one; other keys are passed over. ERR_INPUT, ERR_LIMIT. */
int git_request_parse(const char *text, size_t len, struct git_request *ret, struct err *err);

/* A server's name, as docker says it: one line, or what there is. ERR_INPUT. */
int docker_request_parse(const char *text, size_t len, struct credential_place *ret, struct err *err);

enum cargo_kind { CARGO_GET, CARGO_OTHER };
struct cargo_request {
	enum cargo_kind kind;
	const char *url; /* of the index; lent by json */
	char *args[LIMIT_HELPER_ARGS];
	int n_args;
	json_t *json;
};
/* ERR_INPUT, ERR_UNSUPPORTED: another version of the protocol. The caller releases json in any case. */
int cargo_request_parse(const char *line, size_t len, struct cargo_request *ret, struct err *err);
