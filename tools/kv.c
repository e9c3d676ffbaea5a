#include "tools/kv.h"

#include "common/bind.h"
#include "common/err.h"
#include "common/limits.h"

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

const char *kv_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}
