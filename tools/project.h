#pragma once
/* The file in which a project says what secrets its commands want, cotter.yaml: what the options of 'cotter run' say, under "run". */
struct deliveries;
struct err;

/* ERR_INPUT with file and line. */
int project_read(struct deliveries *d, const char *file, struct err *err);
