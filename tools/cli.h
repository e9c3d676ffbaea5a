#pragma once
/* What every command of cotter shares: its row in the table, options, printing. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct err;
struct secret;
struct config;

struct harden_saved;

/* How a command that ran another one ends this process: as the other one ended. */
struct cli_end {
	bool set;
	int status; /* as of wait(2) */
};

struct cli {
	const char *command;
	struct cli_end end;
	bool json;
	const struct harden_saved *saved; /* for programs that are run */
};

struct command {
	const char *name, *usage, *help;
	/* argv[0] is the command's name. 0 or -ERR_*; the text is printed by main, the code is the exit status. */
	int (*run)(struct cli *cli, int argc, char **argv, struct err *err);
	bool becomes_job; /* run: this process will be the job's command */
};

int cmd_init(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_key(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_seal(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_open(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_put(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_get(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_list(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_rm(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_token(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_mask(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_run(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_scan(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_job(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_login(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_policy(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_status(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_top(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_doctor(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_unlock(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_agent(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_credential(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_approve(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_rotate(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_export(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_import(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_history(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_rollback(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_reseal(struct cli *cli, int argc, char **argv, struct err *err);
int cmd_audit(struct cli *cli, int argc, char **argv, struct err *err);

/* ERR_USAGE that points to the command's --help. */
int cli_usage(const struct cli *cli, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The configuration file: --config, else $COTTER_CONFIG, else the default. */
const char *cli_config_path(const char *option);

/* All of standard input or of a file ("-" is standard input), into the arena. */
int cli_read_secret(const char *path, size_t max, struct secret *ret, struct err *err);
/* Asks on the terminal without echo. ERR_PIN when there is none. */
int cli_ask(const char *prompt, struct secret *ret, struct err *err);
/* JSON from here on lies in ordinary memory, before any was made: what is no secret may be more than the locked memory has. */
void cli_json_plain(void);
/* Removes one line end, as a file made with an editor or echo has. */
void cli_chomp(struct secret *s);
/* A decimal number from 0 to max and nothing behind it; ERR_USAGE names what. */
int cli_number(const struct cli *cli, const char *text, unsigned long long max, const char *what, unsigned long long *ret, struct err *err);
/* write(2) until all is out. */
int cli_write_all(int fd, const void *data, size_t len, struct err *err);
/* Tells on a terminal how far a long work has come; silent for its first second. */
struct cli_progress {
	const char *what;
	unsigned long long done;
	long long started_ms, shown_ms;
};
void cli_progress(struct cli_progress *p, size_t more);
void cli_progress_end(const struct cli_progress *p);

/* A file to be written whole or not at all: beside path, private, renamed at the end. What is no regular file (a pipe, a
 * device) is written as it is. */
struct cli_output {
	const char *path;
	char temporary[4200];
	int fd;
};
int cli_output_begin(const char *path, struct cli_output *o, struct err *err);
/* r < 0: what was written is removed. Passes r on, or its own failure. */
int cli_output_end(struct cli_output *o, int r, struct err *err);
/* Text for a terminal or a line: control bytes are shown as '?'. */
void cli_print_safe(FILE *f, const char *text);
