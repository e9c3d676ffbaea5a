/* cotter status, cotter unlock */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <string.h>

static void print_providers(const json_t *providers)
{
	const json_t *p;
	size_t i;

	json_array_foreach(providers, i, p) {
		const char *problem = json_string_value(json_object_get(p, "problem"));

		printf("provider  %-12s %s, %lld key%s, %lld operations, %lld restarts\n", json_string_value(json_object_get(p, "name")),
		       json_string_value(json_object_get(p, "state")), (long long)json_integer_value(json_object_get(p, "keys")),
		       json_integer_value(json_object_get(p, "keys")) == 1 ? "" : "s",
		       (long long)json_integer_value(json_object_get(p, "operations")),
		       (long long)json_integer_value(json_object_get(p, "restarts")));
		if (problem && *problem) {
			printf("          ");
			cli_print_safe(stdout, problem);
			putchar('\n');
		}
	}
}

static void print_issuers(const json_t *issuers)
{
	const json_t *issuer;
	size_t i;

	json_array_foreach(issuers, i, issuer) {
		long long age = json_integer_value(json_object_get(issuer, "age_days"));

		printf("issuer    %s: ", json_string_value(json_object_get(issuer, "name")));
		if (age < 0)
			puts("its key set CANNOT BE USED: cotterd's log says why");
		else
			printf("%lld keys, %lld days old%s\n", json_integer_value(json_object_get(issuer, "keys")), age,
			       json_is_true(json_object_get(issuer, "old")) ? ": TOO OLD, fetch the current set" : "");
	}
}

static void print_overdue(const json_t *d)
{
	json_int_t n = json_integer_value(json_object_get(d, "n_overdue"));
	const json_t *one;
	size_t i;

	if (n)
		printf("overdue   %lld secrets should have been rotated ('cotter rotate PATH')\n", n);
	json_array_foreach(json_object_get(d, "overdue"), i, one)
		printf("          %s, for %lld days\n", json_string_value(json_object_get(one, "path")), json_integer_value(json_object_get(one, "days")));
	if (n > (json_int_t)json_array_size(json_object_get(d, "overdue")))
		puts("          and others");
}

static void print_status(const json_t *d)
{
	const char *reason = json_string_value(json_object_get(d, "reason"));

	printf("broker    cotterd %s, up %lld s, %s\n", json_string_value(json_object_get(d, "version")),
	       (long long)json_integer_value(json_object_get(d, "uptime_s")),
	       json_is_true(json_object_get(d, "sealed")) ? "SEALED" : "unsealed");
	if (reason && *reason) {
		printf("          ");
		cli_print_safe(stdout, reason);
		putchar('\n');
	}
	print_providers(json_object_get(d, "providers"));
	printf("requests  %lld, %lld granted, %lld denied, %lld connections\n",
	       (long long)json_integer_value(json_object_get(d, "requests")),
	       (long long)json_integer_value(json_object_get(d, "granted")),
	       (long long)json_integer_value(json_object_get(d, "denied")),
	       (long long)json_integer_value(json_object_get(d, "connections")));
	printf("jobs      %lld, %lld ended; %lld tokens live\n", (long long)json_integer_value(json_object_get(d, "jobs")),
	       (long long)json_integer_value(json_object_get(d, "jobs_ended")), (long long)json_integer_value(json_object_get(d, "tokens")));
	print_issuers(json_object_get(d, "issuers"));
	print_overdue(d);
	printf("memory    %lld bytes of secrets in the arena (%s), %lld cached\n",
	       (long long)json_integer_value(json_object_get(d, "arena_used")), json_string_value(json_object_get(d, "arena")),
	       (long long)json_integer_value(json_object_get(d, "cached")));
	printf("audit     %lld records, root %.16s...%s\n", (long long)json_integer_value(json_object_get(d, "audit_size")),
	       json_string_value(json_object_get(d, "audit_root")),
	       json_is_true(json_object_get(d, "audit_failed")) ? " FAILED: nothing is granted" : "");
}

int cmd_status(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_usage(cli, err, "unknown option");
		cli->json = true;
	}
	r = client_call(CLIENT_OPERATOR, "GET", "/v1/cotter/status", NULL, &reply, err);
	if (r < 0)
		return r;
	if (cli->json) {
		json_dumpf(client_data(&reply), stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		print_status(client_data(&reply));
	}
	return json_is_true(json_object_get(client_data(&reply), "sealed")) ? err_set(err, ERR_SEALED, "the broker is sealed") : 0;
}

int cmd_unlock(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"again", no_argument, NULL, 'a'}, {0}};
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	CLEANUP(secret_clear) struct secret pin = {0};
	char prompt[128];
	bool again = false;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'a')
			return cli_usage(cli, err, "unknown option");
		again = true;
	}
	if (argc - optind != 1)
		return cli_usage(cli, err, "name the provider ('cotter status' lists them)");
	json_object_set_new(body, "provider", json_string(argv[optind]));
	if (!again) {
		snprintf(prompt, sizeof(prompt), "PIN of '%.64s': ", argv[optind]);
		r = isatty(0) ? cli_ask(prompt, &pin, err) : cli_read_secret("-", LIMIT_PIN_LEN + 2, &pin, err);
		if (r < 0)
			return r;
		cli_chomp(&pin);
		json_object_set_new(body, "pin", json_stringn((char *)pin.data, pin.len));
	}
	r = client_call(CLIENT_OPERATOR, "POST", "/v1/cotter/unlock", body, &reply, err);
	if (r == 0)
		printf("%s: unlocked\n", argv[optind]);
	return r;
}
