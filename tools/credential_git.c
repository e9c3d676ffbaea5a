/* git's credential helpers: gitcredentials(7), git-credential(1). */
#include "tools/credential.h"

#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"

#include <stddef.h>
#include <string.h>

#define FIELD(member) {#member, offsetof(struct git_request, member), sizeof(((struct git_request *)0)->member)}

static int take_line(struct git_request *q, const char *line, size_t len, struct err *err)
{
	static const struct {
		const char *key;
		size_t offset, size;
	} rows[] = {FIELD(protocol), FIELD(host), FIELD(path), FIELD(username)};
	const char *equals = memchr(line, '=', len);
	size_t key_len, value_len;
	char *field;

	if (!equals || memchr(line, 0, len))
		return err_set(err, ERR_INPUT, "git's request has a line that is not key=value");
	key_len = (size_t)(equals - line);
	value_len = len - key_len - 1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strlen(rows[i].key) != key_len || memcmp(rows[i].key, line, key_len) != 0)
			continue;
		field = (char *)q + rows[i].offset;
		if (*field)
			return err_set(err, ERR_INPUT, "git's request has two lines for %s", rows[i].key);
		if (value_len >= rows[i].size)
			return err_set(err, ERR_LIMIT, "git's request has more than %zu bytes for %s", rows[i].size - 1, rows[i].key);
		memcpy(field, equals + 1, value_len);
		field[value_len] = '\0';
	}
	return 0;
}

int git_request_parse(const char *text, size_t len, struct git_request *ret, struct err *err)
{
	const char *end = text + len, *newline;
	struct git_request q = {0};
	int r = 0;

	for (; r == 0 && text < end && *text != '\n'; text = newline + 1) {
		newline = memchr(text, '\n', (size_t)(end - text));
		if (!newline)
			return err_set(err, ERR_INPUT, "git's request ends within a line");
		r = take_line(&q, text, (size_t)(newline - text), err);
	}
	if (r == 0)
		*ret = q;
	return r;
}

static int answer(const struct credential *c, const struct git_request *q, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[sizeof(q->protocol) + sizeof(q->host) + 4];
	const char *username = *q->username ? q->username : "git", *password;
	struct credential_place place;
	json_t *object = NULL;
	int r;

	snprintf(url, sizeof(url), "%s://%s", q->protocol, q->host);
	r = credential_place_parse(url, &place, err);
	if (r == 0)
		r = credential_fetch(c, &place, *q->path ? q->path : NULL, &reply, &object, err);
	if (r == 0)
		r = credential_check_user(object, q->username, err);
	if (r == 0 && json_object_get(object, "username"))
		r = credential_field(object, "username", &username, err);
	if (r == 0)
		r = credential_field(object, "password token value", &password, err);
	return r < 0 ? r : credential_print(err, "username=", username, "\npassword=", password, "\n", (char *)NULL);
}

int credential_git(const struct credential *c, int argc, char **argv, struct err *err)
{
	CLEANUP(secret_clear) struct secret input = {0};
	struct git_request q;
	int r;

	if (argc != 1)
		return err_set(err, ERR_USAGE, "git says what it wants in one word: get");
	/* git stores after each success, and erases after each refusal: neither is an error of this job's, and nothing is written */
	if (strcmp(argv[0], "get") != 0)
		return 0;
	r = cli_read_secret("-", LIMIT_HELPER_INPUT, &input, err);
	if (r == 0)
		r = git_request_parse((const char *)input.data, input.len, &q, err);
	return r < 0 ? r : answer(c, &q, err);
}
