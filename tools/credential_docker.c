/* docker's credential helpers, which podman, skopeo and buildah call, too: docker-credential-cotter. */
#include "tools/credential.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <string.h>

/* The word for it that clients compare with. */
#define MISSING "credentials not found in native keychain"

int docker_request_parse(const char *text, size_t len, struct credential_place *ret, struct err *err)
{
	char server[LIMIT_PATH_LEN + 1];
	size_t n = len;

	while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
		n--;
	if (n >= sizeof(server))
		return err_set(err, ERR_INPUT, "docker did not ask for a server's name");
	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return err_set(err, ERR_INPUT, "docker did not ask for a server's name");
	memcpy(server, text, n);
	server[n] = '\0';
	return credential_place_parse(server, ret, err);
}

/* An identity token, which goes to the registry's token server, has no user. */
static int print(const char *server, size_t server_len, const json_t *object, struct err *err)
{
	CLEANUP(client_json_free) json_t *j = NULL;
	bool identity = !json_object_get(object, "username");
	const char *username = "<token>", *secret;
	int r = identity ? 0 : credential_field(object, "username", &username, err);

	if (r == 0)
		r = credential_field(object, identity ? "token" : "password token value", &secret, err);
	if (r < 0)
		return r;
	j = json_pack("{s:s%, s:s, s:s}", "ServerURL", server, server_len, "Username", username, "Secret", secret);
	return credential_print_json(j, err);
}

static int get(const struct credential *c, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret input = {0};
	struct credential_place place;
	json_t *object = NULL;
	int r = cli_read_secret("-", LIMIT_HELPER_INPUT, &input, err);

	if (r == 0)
		r = docker_request_parse((const char *)input.data, input.len, &place, err);
	if (r == 0)
		r = credential_fetch(c, &place, NULL, &reply, &object, err);
	cli_chomp(&input);
	return r < 0 ? r : print((const char *)input.data, input.len, object, err);
}

static int list(const struct credential *c, struct err *err)
{
	(void)c;
	return credential_print(err, "{}\n", (char *)NULL);
}

static int refuse(const struct credential *c, struct err *err)
{
	(void)c;
	return err_set(err, ERR_UNSUPPORTED, "cotter hands out logins and keeps none: put the secret there with 'cotter put'");
}

int credential_docker(const struct credential *c, int argc, char **argv, struct err *err)
{
	static const struct {
		const char *verb;
		int (*run)(const struct credential *c, struct err *err);
	} verbs[] = {{"get", get}, {"list", list}, {"store", refuse}, {"erase", refuse}};
	int r = err_set(err, ERR_USAGE, "docker says what it wants in one word: get, list, store or erase");

	for (size_t i = 0; argc == 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].verb, argv[0]) == 0)
			r = verbs[i].run(c, err);
	/* the caller reads what is wrong on standard output, and wants 1 as the exit status */
	if (r == 0)
		return 0;
	credential_print(NULL, r == -ERR_NOT_FOUND ? MISSING : err->msg, "\n", (char *)NULL);
	err->code = ERR_FAILED;
	return -ERR_FAILED;
}
