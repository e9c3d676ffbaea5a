#pragma once
/* Result codes and the story behind them. A function returns 0 or -ERR_*; the text for a human is in struct err. */
#include <stdbool.h>

enum err_code {
	ERR_OK = 0,
	ERR_FAILED,	  /* something outside went wrong: the text says what */
	ERR_USAGE,	  /* the caller's words */
	ERR_INPUT,	  /* bytes from outside that are not what they should be */
	ERR_DENIED,
	ERR_LOGIN,	  /* an identity that proves nothing; whoever asked may know why */
	ERR_APPROVAL,	  /* operators have not approved; whoever asked may know why */
	ERR_NOT_FOUND,
	ERR_HARDWARE,	  /* token or TPM broken, refusing */
	ERR_ABSENT,	  /* token or TPM not there now: it may come back */
	ERR_PIN,	  /* the provider waits for a PIN; nothing retries by itself */
	ERR_NO_BROKER,
	ERR_SEALED,	  /* the store's own keys are not open */
	ERR_CONFLICT,	  /* check-and-set, already exists */
	ERR_LIMIT,	  /* a named limit of limits.h */
	ERR_BUSY,
	ERR_MEDIA,	  /* a body of another kind than the request takes */
	ERR_AUDIT,	  /* the audit log cannot be written: no grant */
	ERR_TAMPERED,	  /* stored data is not what cotter wrote */
	ERR_NO_MATCH,	  /* age: no identity fits */
	ERR_AGE_HEADER,
	ERR_AGE_HMAC,
	ERR_AGE_PAYLOAD,
	ERR_AGE_ARMOR,
	ERR_NOT_MINE,	  /* a provider or parser does not know this kind: try the next */
	ERR_UNSUPPORTED,
	ERR_N
};

struct err {
	int code;
	char msg[512];
};

/* Sets code and text; is -code. err may be NULL. Never pass secrets or raw client bytes. The value stands in the header, so
 * that the compiler and the analyser know that a failure is not 0. */
#define err_set(err, code, ...) (err_write((err), (code), __VA_ARGS__), err_result(code))
void err_write(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Sets ERR_FAILED and ": strerror(errno_value)" behind the text; is -ERR_FAILED. */
#define err_errno(err, errno_value, ...) (err_write_errno((err), (errno_value), __VA_ARGS__), err_result(ERR_FAILED))
void err_write_errno(struct err *err, int errno_value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static inline int err_result(enum err_code code)
{
	return -(int)code;
}

/* Puts "prefix: " before what is there; returns -err->code, so that "return err_wrap(…)" passes a failure on. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The one table: what a code is called, its HTTP status, its exit status. */
const char *err_name(int code);
int err_http_status(int code);
int err_exit_status(int code);
