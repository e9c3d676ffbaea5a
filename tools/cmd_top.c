/* cotter top */
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/screen.h"
#include "tools/top.h"

#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define DETAILS_MAX 200u /* jobs that are asked about one by one */

struct top {
	struct client client;
	unsigned long long asked;
	struct top_sample before, now;
	struct top_rates rates;
};

static void cleanup_top(struct top *t)
{
	client_close(&t->client);
	top_clear(&t->before);
	top_clear(&t->now);
}

/* A failure leaves the last sample to be shown. */
static int look(struct top *t, size_t n_details, struct err *err)
{
	struct top_sample next = {0};
	int r = top_take(&t->client, &t->asked, n_details, &next, err);

	if (r < 0)
		return r;
	top_clear(&t->before);
	t->before = t->now;
	t->now = next;
	top_rates(&t->before, &t->now, &t->rates);
	return 0;
}

/* ---- once ------------------------------------------------------------------------------------------------------- */

/* Two looks: a rate needs them. */
static int print_once(const struct cli *cli, struct top *t, int interval_ms, struct err *err)
{
	int r = look(t, 0, err);

	if (r == 0) {
		poll(NULL, 0, interval_ms);
		r = look(t, DETAILS_MAX, err);
	}
	if (r < 0)
		return r;
	if (cli->json)
		return top_print_json(stdout, &t->now, &t->rates, err);
	top_print(stdout, &t->now, &t->rates, 0);
	return 0;
}

/* ---- a screen --------------------------------------------------------------------------------------------------- */

static int draw(const struct top *t, const struct screen *screen, const struct err *problem, struct err *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return err_set(err, ERR_FAILED, "out of memory");
	if (problem->code) {
		cli_print_safe(f, problem->msg);
		fputs("\n\n", f);
	}
	if (t->now.status)
		top_print(f, &t->now, &t->rates, screen->rows - (problem->code ? 2 : 0));
	r = fclose(f) == 0 ? screen_draw(screen, text, err) : err_set(err, ERR_FAILED, "out of memory");
	free(text);
	return r;
}

static int run(struct top *t, struct screen *screen, int interval_ms, struct err *err)
{
	struct err problem;
	enum screen_event event;
	char key = 0;
	int r = 0;

	do {
		/* a broker that is away may come back: it is waited for, and said so */
		problem = (struct err){0};
		look(t, screen->rows / 2, &problem);
		do {
			r = draw(t, screen, &problem, err);
			event = screen_wait(screen, interval_ms, &key);
		} while (r == 0 && event == SCREEN_DRAW && !problem.code);
	} while (r == 0 && event != SCREEN_END && !(event == SCREEN_KEY && (key == 'q' || key == 'Q')));
	return r;
}

static int run_screen(struct top *t, int interval_ms, struct err *err)
{
	struct screen screen;
	int r = look(t, 0, err); /* who may not, or asks nobody, hears that on the terminal as it was */

	if (r == 0)
		r = screen_begin(&screen, err);
	if (r < 0)
		return r;
	/* whoever wants to leave does not wait for an answer */
	t->client.stop[0] = (struct pollfd){.fd = screen.signal_fd, .events = POLLIN};
	t->client.stop[1] = (struct pollfd){.fd = 0, .events = POLLIN};
	t->client.n_stop = 2;
	t->client.patience_ms = 5000;
	r = run(t, &screen, interval_ms, err);
	screen_end(&screen);
	return r;
}

int cmd_top(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {
		{"interval", required_argument, NULL, 'i'}, {"once", no_argument, NULL, 'o'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(cleanup_top) struct top top = {0};
	unsigned long long seconds = 2;
	bool once = false;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'i':
			r = cli_number(cli, optarg, 3600, "--interval", &seconds, err);
			if (r == 0 && seconds == 0)
				r = cli_usage(cli, err, "--interval is a number of seconds from 1");
			break;
		case 'o': once = true; break;
		case 'j': cli->json = true; break;
		default: r = cli_usage(cli, err, "unknown option");
		}
	}
	if (r == 0 && optind != argc)
		r = cli_usage(cli, err, "'%.60s' is one word too many", argv[optind]);
	if (r < 0)
		return r;
	cli_json_plain();
	client_open_operators(&top.client);
	if (once || cli->json || !isatty(0) || !isatty(1))
		return print_once(cli, &top, (int)seconds * 1000, err);
	return run_screen(&top, (int)seconds * 1000, err);
}
