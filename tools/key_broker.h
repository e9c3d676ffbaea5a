#pragma once
/* cotter key add, rotate, show, certificate, remove: the keys that jobs use, by name, through the broker (operators). */
#include <stdbool.h>

struct cli;
struct err;

bool key_broker_knows(const char *verb);
/* argv[0] is the verb. */
int key_broker(struct cli *cli, int argc, char **argv, struct err *err);
