#include "tools/values.h"

#include "common/b64.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/secret.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <string.h>

static int found_base64(size_t number, const char *name, const json_t *text, values_found *found, void *context,
			struct err *err)
{
	CLEANUP(secret_clear) struct secret bytes = {0};
	int r = secret_new(&bytes, json_string_length(text) + 1, err);

	if (r == 0 && !b64_decode_padded(json_string_value(text), json_string_length(text), NULL, bytes.data, bytes.cap,
					 &bytes.len))
		r = err_set(err, ERR_INPUT, "not base64");
	return r == 0 ? found(context, number, name, bytes.data, bytes.len, err) : r;
}

static int found_item(size_t number, const json_t *item, values_found *found, void *context, struct err *err)
{
	const json_t *value = json_is_object(item) ? json_object_get(item, "value") : item;
	const json_t *base64 = json_object_get(item, "base64");
	const char *name = json_string_value(json_object_get(item, "name"));
	int r;

	if (json_is_string(value))
		r = found(context, number, name, json_string_value(value), json_string_length(value), err);
	else if (!value && json_is_string(base64))
		r = found_base64(number, name, base64, found, context, err);
	else
		r = err_set(err, ERR_INPUT, "neither a string nor an object with value or base64");
	return r < 0 ? err_wrap(err, "item %zu", number) : 0;
}

int values_parse(const void *text, size_t len, values_found *found, void *context, struct err *err)
{
	CLEANUP(client_json_free) json_t *values = NULL;
	json_error_t error;
	size_t i;
	json_t *item;
	int r = 0;

	values = json_loadb(text, len, JSON_ALLOW_NUL, &error);
	if (!values && json_error_code(&error) == json_error_out_of_memory)
		return err_set(err, ERR_BUSY, "more than the locked memory for secrets holds");
	if (!values)
		return err_set(err, ERR_INPUT, "not JSON (line %d, column %d)", error.line, error.column);
	if (!json_is_array(values))
		return err_set(err, ERR_INPUT, "not a JSON array");
	json_array_foreach(values, i, item) if (r == 0) r = found_item(i, item, found, context, err);
	return r;
}

int values_read(const char *path, values_found *found, void *context, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	int r = cli_read_secret(path, LIMIT_MASK_FILE, &text, err);

	if (r < 0)
		return r;
	r = values_parse(text.data, text.len, found, context, err);
	return r < 0 ? err_wrap(err, "%.200s", path) : 0;
}
