#include "tools/credential.h"

#include "broker/json.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/kv.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

int credential_options(struct credential *c, int *n, char ***words, struct err *err)
{
	const struct {
		const char *name;
		const char **value;
	} rows[] = {{"--path", &c->path}, {"--host", &c->host}, {"--prefix", &c->prefix}, {"--state-dir", &c->state_dir}};
	size_t row, len;
	int taken;

	while (*n && strncmp(**words, "--", 2) == 0) {
		len = strcspn(**words, "=");
		for (row = 0; row < sizeof(rows) / sizeof(rows[0]); row++)
			if (strlen(rows[row].name) == len && strncmp(**words, rows[row].name, len) == 0)
				break;
		if (row == sizeof(rows) / sizeof(rows[0]))
			return 0; /* the protocol's own, or what the helper refuses */
		taken = (**words)[len] ? 1 : 2;
		if (*n < taken)
			return err_set(err, ERR_USAGE, "%s takes a value", rows[row].name);
		*rows[row].value = taken == 1 ? **words + len + 1 : (*words)[1];
		*n -= taken;
		*words += taken;
	}
	return 0;
}

/* ---- hosts ------------------------------------------------------------------------------------------------------ */

/* Labels of letters, digits, '-' and '_' between single dots. */
static bool host_valid(const char *host, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (host[i] == '.' ? i == 0 || i + 1 == len || host[i + 1] == '.' : !isalnum((unsigned char)host[i]) && host[i] != '-' && host[i] != '_')
			return false;
	return len > 0;
}

static bool port_valid(const char *port, size_t len)
{
	return len >= 1 && len <= 5 && strspn(port, "0123456789") >= len;
}

static bool is_this_machine(const char *host, size_t len)
{
	static const char *const names[] = {"localhost", "127.0.0.1"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (len == strlen(names[i]) && strncasecmp(host, names[i], len) == 0)
			return true;
	return false;
}

enum scheme { SCHEME_UNKNOWN, SCHEME_HTTP, SCHEME_HTTPS };

static enum scheme scheme_of(const char *text, size_t len)
{
	static const struct {
		const char *name;
		enum scheme scheme;
	} rows[] = {{"https", SCHEME_HTTPS}, {"http", SCHEME_HTTP}, {"sparse+https", SCHEME_HTTPS}, {"sparse+http", SCHEME_HTTP},
		    {"registry+https", SCHEME_HTTPS}, {"registry+http", SCHEME_HTTP}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (len == strlen(rows[i].name) && strncasecmp(text, rows[i].name, len) == 0)
			return rows[i].scheme;
	return SCHEME_UNKNOWN;
}

int credential_place_parse(const char *text, struct credential_place *ret, struct err *err)
{
	const char *end = strstr(text, "://"), *host = end ? end + 3 : text;
	enum scheme scheme = end ? scheme_of(text, (size_t)(end - text)) : SCHEME_HTTPS;
	size_t len = strcspn(host, "/?#"), name_len = strcspn(host, ":/?#");

	if (scheme == SCHEME_UNKNOWN)
		return err_set(err, ERR_INPUT, "what is asked for is not reached by https");
	if (len > LIMIT_COMPONENT_LEN || !host_valid(host, name_len) || (name_len < len && !port_valid(host + name_len + 1, len - name_len - 1)))
		return err_set(err, ERR_INPUT, "what is asked for is not a host: letters, digits, '.', '-' and '_', and a port");
	if (scheme == SCHEME_HTTP && !is_this_machine(host, name_len))
		return err_set(err, ERR_INPUT, "a secret goes to another machine by https alone");
	*ret = (struct credential_place){.url = end};
	for (size_t i = 0; i < len; i++)
		ret->host[i] = i == name_len ? '+' : (char)tolower((unsigned char)host[i]);
	return 0;
}

/* ---- the secret ------------------------------------------------------------------------------------------------- */

/* A path that somebody chose is for the one host that he said, whatever the tool is made to ask for. */
static int check_host(const struct credential *c, const struct credential_place *place, struct err *err)
{
	struct credential_place only;
	int r;

	if (!c->host)
		return err_set(err, ERR_USAGE, "--path needs --host here: the one host that may get the secret");
	r = credential_place_parse(c->host, &only, err);
	if (r < 0)
		return err_wrap(err, "--host");
	return strcmp(only.host, place->host) == 0 ? 0 : err_set(err, ERR_NOT_FOUND, "--host names another host");
}

int credential_fetch(const struct credential *c, const struct credential_place *place, const char *below, struct client_reply *ret,
		     json_t **ret_object, struct err *err)
{
	char path[LIMIT_PATH_LEN + 1];
	int n, r;

	if (!c->path && !place)
		return err_set(err, ERR_USAGE, "--path is missing: which secret? (see 'cotter credential --help')");
	if (c->path && place && (r = check_host(c, place, err)) < 0)
		return r;
	if (c->path)
		n = snprintf(path, sizeof(path), "%s", c->path);
	else
		n = snprintf(path, sizeof(path), "%s/%s%s%s", c->prefix, place->host, below ? "/" : "", below ? below : "");
	if (n < 0 || (size_t)n >= sizeof(path) || !path_valid(path))
		return err_set(err, ERR_INPUT, "there is no secret's path for what is asked");
	return kv_fetch(path, 0, ret, ret_object, err);
}

static bool is_line(const char *text)
{
	while ((unsigned char)*text >= 0x20 && *text != 0x7f)
		text++;
	return *text == '\0';
}

int credential_field(const json_t *object, const char *names, const char **ret, struct err *err)
{
	char name[LIMIT_NAME_LEN + 1];
	const json_t *value = NULL;
	const char *at = names;
	size_t n;

	for (; !value && *at; at += n + (at[n] == ' ')) {
		n = strcspn(at, " ");
		snprintf(name, sizeof(name), "%.*s", (int)n, at);
		value = json_object_get(object, name);
	}
	if (!value)
		return err_set(err, ERR_NOT_FOUND, "the secret has none of the fields that this tool wants: %s", names);
	if (!json_is_string(value) || json_string_length(value) != strlen(json_string_value(value)) || !is_line(json_string_value(value)))
		return err_set(err, ERR_INPUT, "the secret's field '%s' is not a line of text", name);
	*ret = json_string_value(value);
	return 0;
}

int credential_check_user(const json_t *object, const char *username, struct err *err)
{
	const char *of_secret = json_string_value(json_object_get(object, "username"));

	if (username && *username && of_secret && strcmp(of_secret, username) != 0)
		return err_set(err, ERR_NOT_FOUND, "the secret is of another user");
	return 0;
}

/* ---- the answer ------------------------------------------------------------------------------------------------- */

int credential_print(struct err *err, const char *text, ...)
{
	CLEANUP(secret_clear) struct secret out = {0};
	int r = secret_new(&out, 4096, err);
	va_list ap;

	va_start(ap, text);
	for (; r == 0 && text; text = va_arg(ap, const char *))
		r = secret_append(&out, text, strlen(text), err);
	va_end(ap);
	return r < 0 ? r : cli_write_all(1, out.data, out.len, err);
}

int credential_print_json(const json_t *j, struct err *err)
{
	CLEANUP(secret_clear) struct secret out = {0};
	int r = j ? json_write(j, SIZE_MAX, &out, err) : err_set(err, ERR_BUSY, "the locked memory for secrets is full");

	if (r == 0)
		r = secret_append(&out, "\n", 1, err);
	return r < 0 ? r : cli_write_all(1, out.data, out.len, err);
}
