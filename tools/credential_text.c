/* Helpers that print one line: keyring's command, which pip, uv and poetry call, and pnpm's token helper. */
#include "tools/credential.h"

#include "common/cleanup.h"
#include "common/err.h"

#include <string.h>

int credential_pip(const struct credential *c, int argc, char **argv, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	struct credential_place place;
	const char *password;
	json_t *object = NULL;
	int r;

	if (argc != 3 || strcmp(argv[0], "get") != 0)
		return err_set(err, ERR_UNSUPPORTED, "cotter knows keyring's 'get URL USER' alone");
	r = credential_place_parse(argv[1], &place, err);
	/* after the URL pip asks for the bare host, which says no more of how it is reached */
	if (r == 0 && !place.url)
		r = err_set(err, ERR_NOT_FOUND, "a host alone does not say that it is reached by https");
	if (r == 0)
		r = credential_fetch(c, &place, NULL, &reply, &object, err);
	if (r == 0)
		r = credential_check_user(object, argv[2], err);
	if (r == 0)
		r = credential_field(object, "password token value", &password, err);
	return r < 0 ? r : credential_print(err, password, "\n", (char *)NULL);
}

int credential_npm(const struct credential *c, int argc, char **argv, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	struct credential_place place;
	const char *token;
	json_t *object = NULL;
	int r = 0;

	if (argc != (c->path ? 0 : 1))
		return err_set(err, ERR_USAGE, "name the registry, or its secret with --path");
	if (argc)
		r = credential_place_parse(argv[0], &place, err);
	if (r == 0)
		r = credential_fetch(c, argc ? &place : NULL, NULL, &reply, &object, err);
	if (r == 0)
		r = credential_field(object, "token value", &token, err);
	/* it becomes a header's value as it is */
	return r < 0 ? r : credential_print(err, "Bearer ", token, "\n", (char *)NULL);
}
