/* JSON that is answered, and the bodies that are asked with. */
#include "broker/api.h"
#include "common/b64.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/pem.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int api_append(struct secret *s, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	/* as most of an answer is */
	if (!strchr(fmt, '%'))
		return secret_append(s, fmt, strlen(fmt), NULL);
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		return -ERR_LIMIT;
	return secret_append(s, text, (size_t)n, NULL);
}

int api_append_string(struct secret *s, const char *text)
{
	int r = secret_append(s, "\"", 1, NULL);

	for (; r == 0 && *text; text++) {
		if (*text == '"' || *text == '\\')
			r = api_append(s, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
			r = api_append(s, "\\u00%02x", (unsigned char)*text);
		else
			r = secret_append(s, text, 1, NULL);
	}
	return r < 0 ? r : secret_append(s, "\"", 1, NULL);
}

int api_append_base64(struct secret *s, const void *data, size_t len)
{
	size_t cap = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
	CLEANUP(secret_clear) struct secret text = {0};
	int r = secret_new(&text, cap, NULL);

	if (r < 0)
		return r;
	sodium_bin2base64((char *)text.data, cap, data, len, sodium_base64_VARIANT_ORIGINAL);
	return secret_append(s, text.data, cap - 1, NULL);
}

int api_append_pem(struct secret *s, const char *kind, const uint8_t *der, size_t len, const char *newline)
{
	CLEANUP(cleanup_free) char *text = malloc(PEM_LEN(len));
	struct writer w = writer_init(text, PEM_LEN(len));

	if (!text)
		return -ERR_FAILED;
	pem_put(&w, kind, der, len, newline);
	return w.failed ? -ERR_LIMIT : secret_append(s, text, w.len, NULL);
}

void api_time(uint64_t ms, char ret[40])
{
	static const char form[] = "0000-00-00T00:00:00.000Z";
	static const uint8_t at[] = {0, 5, 8, 11, 14, 17, 20}, digits[] = {4, 2, 2, 2, 2, 2, 3};
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	ret[0] = '\0';
	if (ms == 0 || !gmtime_r(&t, &tm) || tm.tm_year > 9999 - 1900)
		return;
	memcpy(ret, form, sizeof(form));
	const int parts[] = {tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ms % 1000)};
	for (size_t i = 0; i < sizeof(at); i++)
		for (int k = digits[i], n = parts[i]; k-- > 0; n /= 10)
			ret[at[i] + k] = (char)('0' + n % 10);
}

int api_error_body(const char *message, struct secret *ret)
{
	int r = secret_new(ret, 256, NULL);

	if (r == 0)
		r = api_append(ret, "{\"errors\":[");
	if (r == 0 && *message)
		r = api_append_string(ret, message);
	return r < 0 ? r : api_append(ret, "]}\n");
}

int api_envelope_twice(const char *data, size_t data_len, struct secret *ret)
{
	CLEANUP(secret_clear) struct secret once = {0};
	int r = api_envelope(data, data_len, NULL, 0, &once);

	if (r == 0)
		r = secret_new(ret, once.len + data_len + 1, NULL);
	/* the object without its last brace, then the envelope without its first */
	if (r == 0)
		r = secret_append(ret, data, data_len - 1, NULL);
	if (r == 0 && data_len > 2)
		r = secret_append(ret, ",", 1, NULL);
	return r < 0 ? r : secret_append(ret, once.data + 1, once.len - 1, NULL);
}

/* Names for answers, which are no secret: many from one call of the kernel. */
static void put_request_id(struct writer *w)
{
	static uint8_t pool[64][16];
	static size_t left;
	char hex[33];

	if (left == 0) {
		randombytes_buf(pool, sizeof(pool));
		left = sizeof(pool) / sizeof(pool[0]);
	}
	sodium_bin2hex(hex, sizeof(hex), pool[--left], sizeof(pool[0]));
	writer_bytes(w, hex, 8);
	for (size_t at = 8; at < 20; at += 4) {
		writer_str(w, "-");
		writer_bytes(w, hex + at, 4);
	}
	writer_str(w, "-");
	writer_bytes(w, hex + 20, 12);
}

static void put(struct writer *w, const char *json, size_t len)
{
	if (json)
		writer_bytes(w, json, len);
	else
		writer_str(w, "null");
}

#define ENVELOPE_LEN 512u /* without data, auth, lease and warning */

int api_answer(const struct api_answer *a, struct secret *ret)
{
	CLEANUP(secret_clear) struct secret warning = {0};
	const char *lease_id = a->lease_id ? a->lease_id : "";
	struct writer w;
	int r = 0;

	if (a->warning)
		r = api_append_string(&warning, a->warning);
	if (r == 0)
		r = secret_new(ret, a->data_len + a->auth_len + strlen(lease_id) + warning.len + ENVELOPE_LEN, NULL);
	if (r < 0)
		return r;
	w = writer_init(ret->data, ret->cap);
	writer_str(&w, "{\"request_id\":\"");
	put_request_id(&w);
	writer_str(&w, "\",\"lease_id\":\"");
	writer_str(&w, lease_id);
	writer_str(&w, a->renewable ? "\",\"renewable\":true,\"lease_duration\":" : "\",\"renewable\":false,\"lease_duration\":");
	writer_decimal(&w, a->lease_s);
	writer_str(&w, ",\"data\":");
	put(&w, a->data, a->data_len);
	writer_str(&w, ",\"wrap_info\":null,\"warnings\":");
	writer_str(&w, a->warning ? "[" : "");
	put(&w, (const char *)warning.data, warning.len);
	writer_str(&w, a->warning ? "],\"auth\":" : ",\"auth\":");
	put(&w, a->auth, a->auth_len);
	writer_str(&w, "}\n");
	ret->len = w.len;
	return w.failed ? -ERR_LIMIT : 0;
}

int api_envelope(const char *data, size_t data_len, const char *auth, size_t auth_len, struct secret *ret)
{
	const struct api_answer a = {.data = data, .data_len = data_len, .auth = auth, .auth_len = auth_len};

	return api_answer(&a, ret);
}

int api_body(const struct request *q, json_t **ret, struct err *err)
{
	if (q->body_len)
		return json_parse(q->body, q->body_len, ret, err);
	*ret = json_object();
	return *ret ? 0 : err_set(err, ERR_BUSY, "the locked memory for secrets is full: try again");
}
