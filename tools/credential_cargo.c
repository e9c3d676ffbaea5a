/* cargo's credential providers: lines of JSON both ways, cargo-credential-cotter --cargo-plugin. */
#include "tools/credential.h"

#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

int cargo_request_parse(const char *line, size_t len, struct cargo_request *ret, struct err *err)
{
	const json_t *args;
	const char *kind, *url;
	int r;

	*ret = (struct cargo_request){.kind = CARGO_OTHER};
	r = json_parse(line, len, &ret->json, err);
	if (r < 0)
		return r;
	if (json_integer_value(json_object_get(ret->json, "v")) != 1)
		return err_set(err, ERR_UNSUPPORTED, "cargo speaks another version of its protocol");
	kind = json_string_value(json_object_get(ret->json, "kind"));
	url = json_string_value(client_at(ret->json, "registry.index-url"));
	args = json_object_get(ret->json, "args");
	if (!kind || !url || (args && !json_is_array(args)) || json_array_size(args) > LIMIT_HELPER_ARGS)
		return err_set(err, ERR_INPUT, "cargo's request does not say what is asked, or of which registry");
	for (size_t i = 0; i < json_array_size(args); i++) {
		const char *arg = json_string_value(json_array_get(args, i));

		if (!arg)
			return err_set(err, ERR_INPUT, "cargo's request has an argument that is no text");
		ret->args[ret->n_args++] = (char *)(uintptr_t)arg;
	}
	ret->url = url;
	ret->kind = strcmp(kind, "get") == 0 ? CARGO_GET : CARGO_OTHER;
	return 0;
}

static int get(const struct credential *defaults, struct cargo_request *q, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *answer = NULL;
	struct credential c = *defaults;
	struct credential_place place;
	char **args = q->args;
	const char *token;
	json_t *object = NULL;
	int r = credential_options(&c, &q->n_args, &args, err);

	if (r == 0 && q->n_args)
		r = err_set(err, ERR_USAGE, "credential-provider in cargo's configuration takes options alone");
	if (r == 0)
		r = credential_place_parse(q->url, &place, err);
	if (r == 0)
		r = credential_fetch(&c, &place, NULL, &reply, &object, err);
	if (r == 0)
		r = credential_field(object, "token password value", &token, err);
	if (r < 0)
		return r;
	/* one secret a registry, whatever is done there; kept by this one cargo until it ends */
	answer = json_pack("{s:{s:s, s:s, s:s, s:b}}", "Ok", "kind", "get", "token", token, "cache", "session", "operation_independent", 1);
	return credential_print_json(answer, err);
}

/* The answer says what went wrong, too: a status other than 0 would hide it. */
static int answer(const struct credential *c, const char *line, size_t len, struct err *err)
{
	CLEANUP(client_json_free) json_t *failure = NULL;
	struct cargo_request q;
	int r = cargo_request_parse(line, len, &q, err);

	if (r == 0)
		r = q.kind == CARGO_GET ? get(c, &q, err) : err_set(err, ERR_UNSUPPORTED, "cotter hands out tokens and keeps none");
	if (r == -ERR_UNSUPPORTED || r == -ERR_NOT_FOUND)
		failure = json_pack("{s:{s:s}}", "Err", "kind", r == -ERR_NOT_FOUND ? "not-found" : "operation-not-supported");
	else if (r < 0)
		failure = json_pack("{s:{s:s, s:s, s:[]}}", "Err", "kind", "other", "message", err->msg, "caused-by");
	json_decref(q.json);
	return r < 0 ? credential_print_json(failure, err) : 0;
}

int credential_cargo(const struct credential *c, int argc, char **argv, struct err *err)
{
	CLEANUP(secret_clear) struct secret input = {0};
	size_t line;
	uint8_t *newline;
	ssize_t n;
	int r;

	if (argc != 1 || strcmp(argv[0], "--cargo-plugin") != 0)
		return err_set(err, ERR_USAGE, "cargo calls this helper with --cargo-plugin");
	r = secret_new(&input, LIMIT_HELPER_INPUT, err);
	if (r == 0)
		r = credential_print(err, "{\"v\":[1]}\n", (char *)NULL);
	while (r == 0) {
		newline = memchr(input.data, '\n', input.len);
		if (newline) {
			line = (size_t)(newline - input.data) + 1;
			r = answer(c, (const char *)input.data, line, err);
			memmove(input.data, input.data + line, input.len - line);
			input.len -= line;
			continue;
		}
		if (input.len == input.cap)
			return err_set(err, ERR_LIMIT, "cargo's request is longer than %zu bytes", input.cap);
		n = read(0, input.data + input.len, input.cap - input.len);
		if (n < 0 && errno != EINTR)
			return err_errno(err, errno, "cargo's request");
		if (n == 0)
			return input.len ? err_set(err, ERR_INPUT, "cargo's request ends within a line") : 0;
		input.len += n > 0 ? (size_t)n : 0;
	}
	return r;
}
