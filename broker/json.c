#include "broker/json.h"

#include "common/err.h"
#include "common/limits.h"

#include <sodium.h>

/* jansson recurses: the depth is checked before it sees the text. */
static bool depth_ok(const char *p, size_t len)
{
	unsigned int depth = 0;
	bool string = false;

	for (size_t i = 0; i < len; i++) {
		if (string) {
			if (p[i] == '\\')
				i++;
			else if (p[i] == '"')
				string = false;
		} else if (p[i] == '"') {
			string = true;
		} else if (p[i] == '{' || p[i] == '[') {
			if (++depth > LIMIT_JSON_DEPTH)
				return false;
		} else if ((p[i] == '}' || p[i] == ']') && depth) {
			depth--;
		}
	}
	return true;
}

int json_parse(const char *text, size_t len, json_t **ret, struct err *err)
{
	json_error_t e = {0};
	json_t *j;

	if (!depth_ok(text, len))
		return err_set(err, ERR_INPUT, "the JSON is nested more than %u deep", LIMIT_JSON_DEPTH);
	j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!j && (e.line < 1 || json_error_code(&e) == json_error_out_of_memory))
		return err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
	sodium_memzero(e.text, sizeof(e.text)); /* it quotes the text, which may hold a secret */
	if (!j)
		return err_set(err, ERR_INPUT, "the body is not JSON (line %d, column %d), or has a key twice", e.line, e.column);
	if (json_is_object(j)) {
		*ret = j;
		return 0;
	}
	json_decref(j);
	return err_set(err, ERR_INPUT, "the body is not a JSON object");
}

void json_cleanup(json_t **j)
{
	json_decref(*j);
}
