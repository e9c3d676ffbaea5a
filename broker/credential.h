#pragma once
/*
 * systemd asks for a credential: LoadCredential=NAME:/run/cotter/credentials.sock. It sends nothing; unit and name stand in the
 * abstract address of its end, which anybody can choose. So they are believed of a process of root alone that stands in the
 * cgroup of that very unit.
 */
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>

struct conn;
struct err;

#define CREDENTIAL_SOCKET "credentials.sock" /* beside the jobs' */

struct credential_name {
	char unit[LIMIT_UNIT_LEN + 1], name[LIMIT_NAME_LEN + 1];
};
/* From the bytes of a sun_path: a zero, hex digits, /unit/UNIT/NAME. ERR_DENIED, with no byte of it in the text. */
int credential_name_parse(const char *address, size_t len, struct credential_name *ret, struct err *err);
/* What systemd takes for the name of a unit. */
bool credential_unit_valid(const char *unit, size_t len);

/* Answers a connection. While the store is not open yet it does nothing: to be called again, at its deadline at the latest. */
void credential_begin(struct conn *c);
