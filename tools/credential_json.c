/* Helpers that print one JSON object: AWS's credential_process, kubectl's exec plug-ins, Terraform's credentials helpers. */
#include "tools/credential.h"

#include "broker/json.h"
#include "common/cleanup.h"
#include "common/err.h"

#include <stdlib.h>
#include <string.h>

/* What of the secret's fields becomes what of the answer's. */
struct name {
	const char *field, *name;
};

/* Those that are there, whatever lines they have. */
static int copy(const json_t *object, const struct name *names, size_t n, json_t *ret, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		json_t *value = json_object_get(object, names[i].field);

		if (!value)
			continue;
		if (!json_is_string(value))
			return err_set(err, ERR_INPUT, "the secret's field '%s' is not text", names[i].field);
		if (json_object_set(ret, names[i].name, value) < 0)
			return err_set(err, ERR_BUSY, "the locked memory for secrets is full");
	}
	return 0;
}

int credential_aws(const struct credential *c, int argc, char **argv, struct err *err)
{
	static const struct name names[] = {{"access_key_id", "AccessKeyId"}, {"secret_access_key", "SecretAccessKey"}, {"session_token", "SessionToken"},
					    {"expiration", "Expiration"}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *answer = json_pack("{s:i}", "Version", 1);
	json_t *object = NULL;
	int r;

	(void)argv;
	if (argc != 0)
		return err_set(err, ERR_USAGE, "credential_process takes 'cotter credential aws --path PATH' and no more");
	r = credential_fetch(c, NULL, NULL, &reply, &object, err);
	if (r == 0)
		r = copy(object, names, sizeof(names) / sizeof(names[0]), answer, err);
	if (r == 0 && (!json_object_get(answer, "AccessKeyId") || !json_object_get(answer, "SecretAccessKey")))
		r = err_set(err, ERR_NOT_FOUND, "the secret has no fields access_key_id and secret_access_key");
	return r < 0 ? r : credential_print_json(answer, err);
}

/* In the version that kubectl asked with; it refuses any other. */
static int exec_version(const char **ret, struct err *err)
{
	static const char *const known[] = {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"};
	CLEANUP(json_cleanup) json_t *info = NULL;
	const char *text = getenv("KUBERNETES_EXEC_INFO"), *asked;
	int r;

	*ret = known[0];
	if (!text || !*text)
		return 0;
	r = strlen(text) > LIMIT_HELPER_INPUT ? err_set(err, ERR_LIMIT, "it is longer than %u bytes", LIMIT_HELPER_INPUT)
					      : json_parse(text, strlen(text), &info, err);
	if (r < 0)
		return err_wrap(err, "KUBERNETES_EXEC_INFO");
	asked = json_string_value(json_object_get(info, "apiVersion"));
	for (size_t i = 0; asked && i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i], asked) == 0) {
			*ret = known[i];
			return 0;
		}
	return err_set(err, ERR_UNSUPPORTED, "kubectl asks in another version than %s and v1beta1", known[0]);
}

int credential_kubectl(const struct credential *c, int argc, char **argv, struct err *err)
{
	static const struct name names[] = {{"token", "token"}, {"client_certificate", "clientCertificateData"}, {"client_key", "clientKeyData"},
					    {"expiration", "expirationTimestamp"}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *status = json_object();
	CLEANUP(client_json_free) json_t *answer = NULL;
	const char *version;
	json_t *object = NULL;
	int r;

	(void)argv;
	if (argc != 0)
		return err_set(err, ERR_USAGE, "kubectl takes the arguments [credential, kubectl, --path, PATH] and no more");
	r = exec_version(&version, err);
	if (r == 0)
		r = credential_fetch(c, NULL, NULL, &reply, &object, err);
	if (r == 0)
		r = copy(object, names, sizeof(names) / sizeof(names[0]), status, err);
	if (r == 0 && !json_object_get(status, "token") && !(json_object_get(status, "clientCertificateData") && json_object_get(status, "clientKeyData")))
		r = err_set(err, ERR_NOT_FOUND, "the secret has no field token, and not both client_certificate and client_key");
	if (r < 0)
		return r;
	answer = json_pack("{s:s, s:s, s:O}", "apiVersion", version, "kind", "ExecCredential", "status", status);
	return credential_print_json(answer, err);
}

int credential_terraform(const struct credential *c, int argc, char **argv, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *answer = NULL;
	struct credential_place place;
	const char *token;
	json_t *object = NULL;
	int r;

	if (argc != 2)
		return err_set(err, ERR_USAGE, "terraform says what it wants in two words: get HOST");
	if (strcmp(argv[0], "get") != 0)
		return err_set(err, ERR_UNSUPPORTED, "cotter hands out tokens and keeps none: put the secret there with 'cotter put'");
	r = credential_place_parse(argv[1], &place, err);
	if (r == 0)
		r = credential_fetch(c, &place, NULL, &reply, &object, err);
	if (r == 0)
		r = credential_field(object, "token value", &token, err);
	if (r == -ERR_NOT_FOUND)
		return credential_print(err, "{}\n", (char *)NULL); /* "none": it asks without */
	if (r == 0)
		answer = json_pack("{s:s}", "token", token);
	return r < 0 ? r : credential_print_json(answer, err);
}
