/* cotter reseal: all that is kept, for the recipients that the configuration has now. */
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct progress {
	unsigned long long all, done, failed; /* all: as the first answer said */
	time_t told;
	bool terminal;
};

/* A line each second, in place on a terminal. */
static void tell(struct progress *p, unsigned long long left)
{
	time_t now = time(NULL);

	if (now == p->told)
		return;
	p->told = now;
	fprintf(stderr, "%s%llu sealed anew, %llu left%s", p->terminal ? "\r" : "", p->done, left, p->terminal ? "   " : "\n");
}

/* One version. *more: there may be others behind it. */
static int step(json_t *body, struct progress *p, bool *more, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	const json_t *data;
	const char *path, *problem;
	int r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/reseal", body, &reply, err);

	if (r < 0)
		return r;
	data = client_data(&reply);
	path = json_string_value(json_object_get(data, "path"));
	problem = json_string_value(json_object_get(data, "problem"));
	if (!path || !problem)
		return err_set(err, ERR_FAILED, "the broker's answer is not what it should be");
	*more = *path != '\0';
	if (!*more && *problem)
		return err_set(err, ERR_FAILED, "the store's own key: %.300s", problem);
	if (!*more)
		return 0;
	if (*problem) {
		p->failed++;
		fprintf(stderr, "%s%s version %lld stays as it was: ", p->terminal ? "\r" : "", path, json_integer_value(json_object_get(data, "version")));
		cli_print_safe(stderr, problem);
		fputc('\n', stderr);
	} else {
		p->done++;
	}
	if (p->all == 0)
		p->all = (unsigned long long)json_integer_value(json_object_get(data, "left")) + 1;
	tell(p, p->all - p->done - p->failed);
	json_object_set_new(body, "after", json_string(path));
	json_object_set(body, "after_version", json_object_get(data, "version"));
	return 0;
}

int cmd_reseal(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_json_free) json_t *body = json_object();
	struct progress p = {.terminal = isatty(2), .told = time(NULL)};
	bool more = true;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_usage(cli, err, "unknown option");
		cli->json = true;
	}
	if (argc != optind)
		return cli_usage(cli, err, "it takes no names: everything is sealed anew");
	/* the store's own key first: without it the others are worth nothing */
	json_object_set_new(body, "store_key", json_true());
	r = step(body, &p, &more, err);
	json_object_del(body, "store_key");
	for (more = true; r == 0 && more;)
		r = step(body, &p, &more, err);
	if (p.terminal && p.told)
		fputc('\r', stderr);
	if (r < 0)
		return err_wrap(err, "%llu versions were sealed anew; call it again to go on", p.done);
	if (cli->json)
		printf("{\"resealed\":%llu,\"failed\":%llu}\n", p.done, p.failed);
	else
		printf("the store's key and %llu version%s sealed anew\n", p.done, p.done == 1 ? " was" : "s were");
	return p.failed ? err_set(err, ERR_FAILED, "%llu versions could not be opened, and stay as they were", p.failed) : 0;
}
