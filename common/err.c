#include "common/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int http_status;
	int exit_status;
} codes[ERR_N] = {
	[ERR_OK] = {"ok", 200, 0},
	[ERR_FAILED] = {"failed", 500, 1},
	[ERR_USAGE] = {"usage", 400, 2},
	[ERR_INPUT] = {"bad-input", 400, 1},
	[ERR_DENIED] = {"denied", 403, 3},
	[ERR_LOGIN] = {"login", 400, 3},
	[ERR_APPROVAL] = {"approval", 403, 3},
	[ERR_NOT_FOUND] = {"not-found", 404, 4},
	[ERR_HARDWARE] = {"hardware", 503, 5},
	[ERR_ABSENT] = {"absent", 503, 5},
	[ERR_PIN] = {"pin-needed", 503, 5},
	[ERR_NO_BROKER] = {"no-broker", 503, 6},
	[ERR_SEALED] = {"sealed", 503, 5},
	[ERR_CONFLICT] = {"conflict", 400, 1},
	[ERR_LIMIT] = {"limit", 413, 1},
	[ERR_BUSY] = {"busy", 429, 1},
	[ERR_MEDIA] = {"media", 415, 1},
	[ERR_AUDIT] = {"audit", 503, 1},
	[ERR_TAMPERED] = {"tampered", 500, 1},
	[ERR_NO_MATCH] = {"no-match", 400, 1},
	[ERR_AGE_HEADER] = {"header-failure", 400, 1},
	[ERR_AGE_HMAC] = {"hmac-failure", 400, 1},
	[ERR_AGE_PAYLOAD] = {"payload-failure", 400, 1},
	[ERR_AGE_ARMOR] = {"armor-failure", 400, 1},
	[ERR_NOT_MINE] = {"not-mine", 400, 1},
	[ERR_UNSUPPORTED] = {"unsupported", 405, 1},
};

static int code_index(int code)
{
	if (code < 0)
		code = -code;
	assert(code < ERR_N);
	return code;
}

const char *err_name(int code)
{
	return codes[code_index(code)].name;
}

int err_http_status(int code)
{
	return codes[code_index(code)].http_status;
}

int err_exit_status(int code)
{
	return codes[code_index(code)].exit_status;
}

void err_write(struct err *err, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return;
	err->code = (int)code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
}

void err_write_errno(struct err *err, int errno_value, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (!err)
		return;
	err->code = ERR_FAILED;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", strerror(errno_value));
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	va_list ap;
	size_t n;

	if (!err)
		return -ERR_FAILED;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", old);
	return err->code ? -err->code : -ERR_FAILED;
}
