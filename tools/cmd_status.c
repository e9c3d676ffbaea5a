/* cotter status, cotter unlock */
#include "common/cleanup.h"
#include "common/err.h"
#include "common/limits.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <string.h>

static long long number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void print_problem(const char *problem)
{
	if (!problem || !*problem)
		return;
	printf("          ");
	cli_print_safe(stdout, problem);
	putchar('\n');
}

static void print_providers(const json_t *providers)
{
	const json_t *p;
	size_t i;

	json_array_foreach(providers, i, p) {
		long long n = number(p, "measured"), keys = number(p, "keys");

		printf("provider  %-12s %s, %lld key%s, %lld operations, %lld failed, %lld waiting, %lld restarts", json_string_value(json_object_get(p, "name")),
		       json_string_value(json_object_get(p, "state")), keys, keys == 1 ? "" : "s", number(p, "operations"), number(p, "failures"),
		       number(p, "queued"), number(p, "restarts"));
		if (n)
			printf(", %.1f ms each", (double)number(p, "busy_us") / 1000 / (double)n);
		putchar('\n');
		print_problem(json_string_value(json_object_get(p, "problem")));
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
	printf("broker    cotterd %s, up %lld s, %s\n", json_string_value(json_object_get(d, "version")), number(d, "uptime_s"),
	       json_is_true(json_object_get(d, "sealed")) ? "SEALED" : "unsealed");
	print_problem(json_string_value(json_object_get(d, "reason")));
	print_providers(json_object_get(d, "providers"));
	printf("requests  %lld, %lld granted, %lld denied, %lld failed, %lld connections\n", number(d, "requests"), number(d, "granted"),
	       number(d, "denied"), number(d, "failed"), number(d, "connections"));
	printf("jobs      %lld, %lld ended; %lld tokens and %lld leases live\n", number(d, "jobs"), number(d, "jobs_ended"), number(d, "tokens"),
	       number(d, "leases"));
	printf("secrets   %lld in %lld KiB; read from the cache %lld times, opened %lld times; %lld signatures\n", number(d, "secrets"),
	       number(d, "store_bytes") / 1024, number(d, "hits"), number(d, "misses"), number(d, "signatures"));
	print_issuers(json_object_get(d, "issuers"));
	print_overdue(d);
	printf("memory    %lld of %lld bytes of the arena in use (%s), %lld secrets cached\n", number(d, "arena_used"), number(d, "arena_size"),
	       json_string_value(json_object_get(d, "arena")), number(d, "cached"));
	printf("audit     %lld records, root %.16s...%s\n", number(d, "audit_size"), json_string_value(json_object_get(d, "audit_root")),
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
