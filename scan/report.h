#pragma once
/* What was found, for people and for programs. No value is told. */
#include "scan/scan.h"

struct err;

enum report_format { REPORT_TEXT, REPORT_JSON, REPORT_SARIF };

/* "text", "json", "sarif"; -1. */
int report_format(const char *name);
int report_write(FILE *f, enum report_format format, const struct scanner *s, struct err *err);
