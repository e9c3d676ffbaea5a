/* cotter token make|narrow|show. A token is read from standard input or $COTTER_TOKEN, never from the command line. */
#include "broker/caveat.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/macaroon.h"
#include "tools/cli.h"
#include "tools/client.h"

#include <getopt.h>
#include <sodium.h>
#include <string.h>

static int print_token(struct cli *cli, const struct secret *token, struct err *err)
{
	int r;

	if (!cli->json) {
		r = cli_write_all(1, token->data, token->len, err);
		return r < 0 ? r : cli_write_all(1, "\n", 1, err);
	}
	r = cli_write_all(1, "{\"token\":\"", 10, err);
	if (r == 0)
		r = cli_write_all(1, token->data, token->len, err);
	return r < 0 ? r : cli_write_all(1, "\"}\n", 3, err);
}

static int narrow_by(struct secret *token, char *const *caveats, size_t n, struct err *err)
{
	char sentence[LIMIT_CAVEAT_LEN + 64];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct secret narrower = {0};

		/* an unknown caveat would make a token that opens nothing: surely a typing error */
		if (!caveat_explain(caveats[i], strlen(caveats[i]), sentence, sizeof(sentence)))
			return err_set(err, ERR_USAGE, "'%.100s' is not a caveat: see 'cotter token --help'", caveats[i]);
		r = macaroon_narrow((char *)token->data, token->len, caveats[i], &narrower, err);
		if (r == 0) {
			secret_clear(token);
			*token = narrower;
		}
	}
	return r;
}

struct token_options {
	json_t *policies, *body;
	char *caveats[LIMIT_CAVEATS];
	size_t n_caveats;
};

static void cleanup_options(struct token_options *o)
{
	json_decref(o->policies);
	json_decref(o->body);
}

static int parse(struct cli *cli, int argc, char **argv, struct token_options *o, struct err *err)
{
	static const struct option options[] = {
		{"policy", required_argument, NULL, 'p'}, {"ttl", required_argument, NULL, 't'}, {"uses", required_argument, NULL, 'u'},
		{"uid", required_argument, NULL, 'U'},	  {"caveat", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {0}};
	unsigned long long n;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "p:c:", options, NULL)) != -1) {
		switch (opt) {
		case 'p': json_array_append_new(o->policies, json_string(optarg)); break;
		case 't': json_object_set_new(o->body, "ttl", json_string(optarg)); break;
		case 'u': 
			r = cli_number(cli, optarg, 1000000000, "--uses", &n, err);
			if (r == 0 && n == 0)
				r = cli_usage(cli, err, "a token of no uses would open nothing");
			if (r == 0)
				json_object_set_new(o->body, "num_uses", json_integer((json_int_t)n));
			break;
		case 'U': 
			r = cli_number(cli, optarg, UINT32_MAX - 1, "--uid", &n, err);
			if (r == 0)
				json_object_set_new(o->body, "cotter_uid", json_integer((json_int_t)n));
			break;
		case 'j': cli->json = true; break;
		case 'c':
			if (o->n_caveats == LIMIT_CAVEATS)
				return cli_usage(cli, err, "at most %u caveats", LIMIT_CAVEATS);
			o->caveats[o->n_caveats++] = optarg;
			break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	if (r < 0)
		return r;
	if (optind != argc)
		return cli_usage(cli, err, "a token is read from standard input or COTTER_TOKEN, never from the command line");
	return 0;
}

static int make(struct cli *cli, struct token_options *o, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(secret_clear) struct secret token = {0};
	const json_t *text;
	int r;

	if (json_array_size(o->policies) == 0)
		return cli_usage(cli, err, "name at least one --policy");
	json_object_set(o->body, "policies", o->policies);
	r = client_call(CLIENT_OPERATOR, "POST", "/v1/auth/token/create", o->body, &reply, err);
	if (r < 0)
		return r;
	text = client_at(reply.json, "auth.client_token");
	if (!json_is_string(text))
		return err_set(err, ERR_FAILED, "the broker gave no token");
	r = secret_copy(&token, json_string_value(text), json_string_length(text), err);
	if (r == 0)
		r = narrow_by(&token, o->caveats, o->n_caveats, err);
	return r < 0 ? r : print_token(cli, &token, err);
}

static int read_token(struct secret *ret, struct err *err)
{
	const char *env = getenv("COTTER_TOKEN");
	int r;

	if (env && *env && isatty(0))
		return secret_copy(ret, env, strlen(env), err);
	r = cli_read_secret("-", LIMIT_TOKEN_TEXT + 2, ret, err);
	if (r == 0)
		cli_chomp(ret);
	if (r == 0 && ret->len == 0 && env && *env) {
		secret_clear(ret);
		r = secret_copy(ret, env, strlen(env), err);
	}
	return r;
}

static int narrow(struct cli *cli, struct token_options *o, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	int r;

	if (o->n_caveats == 0)
		return cli_usage(cli, err, "name at least one --caveat");
	r = read_token(&token, err);
	if (r == 0)
		r = narrow_by(&token, o->caveats, o->n_caveats, err);
	return r < 0 ? r : print_token(cli, &token, err);
}

static void show_text(const struct macaroon *m, const char *id)
{
	char sentence[LIMIT_CAVEAT_LEN + 64], text[LIMIT_CAVEAT_LEN + 1];

	printf("token %s\n", id);
	if (m->n_caveats == 0)
		puts("  not narrowed: all that its policies allow, until its deadline");
	for (size_t i = 0; i < m->n_caveats; i++) {
		memcpy(text, m->caveats[i].p, m->caveats[i].len);
		text[m->caveats[i].len] = '\0';
		printf("  ");
		if (caveat_explain(text, m->caveats[i].len, sentence, sizeof(sentence))) {
			cli_print_safe(stdout, sentence);
		} else {
			cli_print_safe(stdout, text);
			printf("  (unknown: the broker will refuse this token)");
		}
		putchar('\n');
	}
	puts("  (its policies and deadline are known to the broker alone: auth/token/lookup-self tells)");
}

static int show(struct cli *cli, struct err *err)
{
	CLEANUP(secret_clear) struct secret token = {0};
	CLEANUP(cleanup_secret_free) struct macaroon *m = NULL;
	CLEANUP(client_json_free) json_t *out = NULL;
	json_t *caveats = json_array();
	char id[33];
	int r = read_token(&token, err);

	if (r == 0)
		r = macaroon_parse((char *)token.data, token.len, &m, err);
	if (r < 0) {
		json_decref(caveats);
		return r;
	}
	sodium_bin2hex(id, sizeof(id), m->id + 5, 16);
	for (size_t i = 0; i < m->n_caveats; i++)
		json_array_append_new(caveats, json_stringn((const char *)m->caveats[i].p, m->caveats[i].len));
	out = json_pack("{s:s, s:o}", "accessor", id, "caveats", caveats);
	if (cli->json) {
		json_dumpf(out, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		show_text(m, id);
	}
	return 0;
}

int cmd_token(struct cli *cli, int argc, char **argv, struct err *err)
{
	CLEANUP(cleanup_options) struct token_options o = {.policies = json_array(), .body = json_object()};
	int r;

	if (argc < 2)
		return cli_usage(cli, err, "say make, narrow or show");
	r = parse(cli, argc - 1, argv + 1, &o, err);
	if (r < 0)
		return r;
	if (strcmp(argv[1], "make") == 0)
		return make(cli, &o, err);
	if (strcmp(argv[1], "narrow") == 0)
		return narrow(cli, &o, err);
	if (strcmp(argv[1], "show") == 0)
		return show(cli, err);
	return cli_usage(cli, err, "unknown: token %.32s", argv[1]);
}
