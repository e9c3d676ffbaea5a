#include "tools/kv.h"

#include "broker/api.h"
#include "common/b64.h"
#include "common/bind.h"
#include "common/err.h"
#include "common/limits.h"

#include <stdint.h>
#include <string.h>

int kv_parse_ref(const char *ref, char *ret_path, const char **ret_field, struct err *err)
{
	size_t n = strcspn(ref, "#");

	if (n > LIMIT_PATH_LEN)
		return err_set(err, ERR_USAGE, "the path is too long");
	memcpy(ret_path, ref, n);
	ret_path[n] = '\0';
	*ret_field = ref[n] ? ref + n + 1 : NULL;
	if (!path_valid(ret_path))
		return err_set(err, ERR_USAGE, "'%.100s' is not a secret's path", ret_path);
	return 0;
}

int kv_fetch(const char *path, unsigned long long version, struct client_reply *ret, json_t **ret_object, struct err *err)
{
	char url[LIMIT_PATH_LEN + 64];
	int r;

	snprintf(url, sizeof(url), version ? "/v1/secret/data/%s?version=%llu" : "/v1/secret/data/%s", path, version);
	r = client_call(CLIENT_JOB, "GET", url, NULL, ret, err);
	if (r < 0)
		return err_wrap(err, "%s", path);
	*ret_object = json_object_get(client_data(ret), "data");
	if (!json_is_object(*ret_object))
		return err_set(err, ERR_NOT_FOUND, "%s: this version is deleted", path);
	return 0;
}

/* What is no text: the broker shows it in base64, alone. */
static int raw_bytes(const json_t *object, struct secret *ret, struct err *err)
{
	const json_t *text = json_object_get(object, "value_base64");
	int r = secret_new(ret, json_string_length(text) + 1, err);

	if (r == 0 && !b64_decode_padded(json_string_value(text), json_string_length(text), NULL, ret->data, ret->cap, &ret->len))
		r = err_set(err, ERR_FAILED, "the broker's answer is not base64");
	return r;
}

int kv_field(const json_t *object, const char *field, const char *path, struct secret *ret, struct err *err)
{
	const json_t *value = json_object_get(object, field ? field : "value");

	if (!field && json_object_size(object) == 1 && json_is_string(json_object_get(object, "value_base64")))
		return raw_bytes(object, ret, err);
	if (!value && !field && json_object_size(object) == 1)
		value = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)object));
	if (!value && field)
		return err_set(err, ERR_NOT_FOUND, "%s has no field '%.64s'", path, field);
	if (!value)
		return err_set(err, ERR_USAGE, "%s has %zu fields: name one (%s#FIELD, or --json for all)", path,
			       json_object_size(object), path);
	if (json_is_string(value))
		return secret_copy(ret, json_string_value(value), json_string_length(value), err);
	return api_dump(value, SIZE_MAX, ret, err);
}

const char *kv_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}
