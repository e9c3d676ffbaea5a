/* cotter policy test|lint: what an identity would get, and what rules are surely not meant, from files alone. */
#include "broker/config.h"
#include "broker/identity_kernel.h"
#include "broker/json.h"
#include "broker/policy.h"
#include "broker/policy_lint.h"
#include "common/bind.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/secret.h"
#include "tools/cli.h"

#include <getopt.h>
#include <string.h>

struct question {
	const char *config_path, *role, *claims_file, *cgroup;
	char policies[LIMIT_TOKEN_POLICY_TEXT], meta[LIMIT_TOKEN_META_TEXT];
	uint32_t op;
	unsigned long long uid, gid;
	char *const *paths;
	size_t n_paths;
};

static int add_policy(struct cli *cli, const char *name, struct question *q, struct err *err)
{
	size_t n = strlen(q->policies);

	if ((size_t)snprintf(q->policies + n, sizeof(q->policies) - n, "%s%s", n ? "," : "", name) >= sizeof(q->policies) - n)
		return cli_usage(cli, err, "too many policies");
	return 0;
}

static int add_meta(struct cli *cli, const char *text, struct question *q, struct err *err)
{
	size_t n = strlen(q->meta);
	const char *equals = strchr(text, '=');

	if (!equals || !policy_variable_valid(text, (size_t)(equals - text)) || !path_valid(equals + 1) ||
	    (size_t)snprintf(q->meta + n, sizeof(q->meta) - n, "%s\n", text) >= sizeof(q->meta) - n)
		return cli_usage(cli, err, "--meta takes name=value, a value that is a path");
	return 0;
}

static int parse(struct cli *cli, int argc, char **argv, struct question *q, struct err *err)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"role", required_argument, NULL, 'r'}, {"claims", required_argument, NULL, 'C'},
		{"policy", required_argument, NULL, 'p'}, {"meta", required_argument, NULL, 'm'}, {"uid", required_argument, NULL, 'U'},
		{"gid", required_argument, NULL, 'G'},	  {"cgroup", required_argument, NULL, 'g'}, {"op", required_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'j'},	  {0}};
	int opt, r = 0;

	q->op = POLICY_GET;
	while (r == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'c': q->config_path = optarg; break;
		case 'r': q->role = optarg; break;
		case 'C': q->claims_file = optarg; break;
		case 'p': r = add_policy(cli, optarg, q, err); break;
		case 'm': r = add_meta(cli, optarg, q, err); break;
		case 'U': r = cli_number(cli, optarg, UINT32_MAX - 1, "--uid", &q->uid, err); break;
		case 'G': r = cli_number(cli, optarg, UINT32_MAX - 1, "--gid", &q->gid, err); break;
		case 'g':
			q->cgroup = optarg;
			if (optarg[0] != '/' || !optarg[1])
				r = cli_usage(cli, err, "--cgroup takes a path such as /system.slice/runner.service");
			break;
		case 'j': cli->json = true; break;
		case 'o':
			q->op = policy_op(optarg, strlen(optarg));
			if (!q->op || q->op == POLICY_PUT || q->op == POLICY_DENY)
				r = cli_usage(cli, err, "--op is one of read, create, update, delete, list, sign, decrypt");
			break;
		default: return cli_usage(cli, err, "unknown option");
		}
	}
	q->paths = argv + optind;
	q->n_paths = (size_t)(argc - optind);
	for (size_t i = 0; r == 0 && i < q->n_paths; i++)
		if (!path_valid(q->paths[i]))
			r = cli_usage(cli, err, "'%.100s' is not a path", q->paths[i]);
	return r;
}

static int read_claims(const char *file, json_t **ret, struct err *err)
{
	CLEANUP(secret_clear) struct secret text = {0};
	json_t *inner;
	int r = cli_read_secret(file, LIMIT_JWT_LEN, &text, err);

	if (r == 0)
		r = json_parse((const char *)text.data, text.len, ret, err);
	if (r < 0)
		return err_wrap(err, "%.200s", file);
	/* a decoded token, header and all, is fine, too */
	inner = json_object_get(*ret, "claims");
	if (json_is_object(inner)) {
		json_incref(inner);
		json_decref(*ret);
		*ret = inner;
	}
	return 0;
}

/* The role's policies and what is proven, as a login would give them. */
static int by_role(const struct config *config, struct question *q, struct err *err)
{
	const struct config_role *role = config_role(config, q->role);
	CLEANUP(json_cleanup) json_t *claims = NULL;
	struct identity id;
	int r;

	if (!role)
		return err_set(err, ERR_NOT_FOUND, "%s has no role '%.64s'", config->file, q->role);
	if (role->issuer[0] && !q->claims_file)
		return err_set(err, ERR_USAGE, "the role takes ID tokens: give one's claims with --claims FILE");
	if (role->issuer[0]) {
		r = read_claims(q->claims_file, &claims, err);
		if (r == 0)
			r = identity_jwt_claims(config, role, claims, 0, false, &id, err);
	} else {
		r = identity_kernel(config, q->role, (uint32_t)q->uid, (uint32_t)q->gid, q->cgroup, &id, err);
	}
	if (r < 0)
		return err_wrap(err, "role '%s'", q->role);
	q->policies[0] = '\0';
	for (size_t i = 0; i < role->n_policies; i++)
		snprintf(q->policies + strlen(q->policies), sizeof(q->policies) - strlen(q->policies), "%s%s", i ? "," : "", role->policies[i]);
	snprintf(q->meta, sizeof(q->meta), "%s", id.meta);
	return 0;
}

static void print_rules(const struct config_policy *p, const char *where)
{
	static const uint32_t bits[] = {POLICY_GET, POLICY_CREATE, POLICY_UPDATE, POLICY_DELETE, POLICY_LIST, POLICY_SIGN, POLICY_DECRYPT, POLICY_DENY};

	for (size_t i = 0; i < p->n_rules; i++) {
		printf("  %-32s", p->rules[i].pattern);
		for (size_t k = 0; k < sizeof(bits) / sizeof(bits[0]); k++)
			if (p->rules[i].allow & bits[k])
				printf(" %s", policy_op_name(bits[k]));
		printf("   (%s, %s, line %zu)\n", p->name, where, p->rules[i].line);
	}
}

/* Without paths: everything that it would have. */
static void print_all(const struct config *config, const struct question *q)
{
	char name[LIMIT_PATH_LEN + 1];
	const struct config_policy *p;
	const char *scope, *list = q->policies;
	size_t n, len = 0;

	for (const char *m = q->meta; *m; m += strcspn(m, "\n") + 1) {
		fputs("proven: ", stdout);
		fwrite(m, 1, strcspn(m, "\n") + 1, stdout);
	}
	for (;; list += n + 1) {
		n = strcspn(list, ",");
		snprintf(name, sizeof(name), "%.*s", (int)n, list);
		p = config_policy(config, name);
		if (p)
			print_rules(p, "own");
		if (!list[n])
			break;
	}
	scope = policy_variable(q->meta, "scope", 5, &len);
	for (size_t i = 1; scope && i <= len && i < sizeof(name); i++) {
		const struct config_scope *s;

		if (i < len && scope[i] != '/')
			continue;
		memcpy(name, scope, i);
		name[i] = '\0';
		s = config_scope(config, name);
		for (size_t k = 0; s && k < s->n_policies; k++)
			print_rules(config_policy(config, s->policies[k]), name);
	}
}

static int check_policies(const struct config *config, const char *list, struct err *err)
{
	char name[LIMIT_NAME_LEN + 1];
	size_t n;

	for (;; list += n + 1) {
		n = strcspn(list, ",");
		snprintf(name, sizeof(name), "%.*s", (int)n, list);
		if (!config_policy(config, name))
			return err_set(err, ERR_NOT_FOUND, "%s has no policy '%s'", config->file, name);
		if (!list[n])
			return 0;
	}
}

static int answer(struct cli *cli, const struct config *config, const struct question *q, struct err *err)
{
	size_t refused = 0;

	for (size_t i = 0; i < q->n_paths; i++) {
		const struct policy_question question = {.path = q->paths[i], .folder = q->op == POLICY_LIST, .op = q->op, .meta = q->meta};
		struct policy_answer a = policy_decide(config, q->policies, &question);
		bool allowed = a.verdict == POLICY_ALLOWS;

		refused += !allowed;
		if (cli->json)
			printf("{\"path\":\"%s\",\"op\":\"%s\",\"allowed\":%s,\"policy\":\"%s\",\"line\":%zu}\n", q->paths[i], policy_op_name(q->op),
			       allowed ? "true" : "false", a.policy ? a.policy->name : "", a.rule ? a.rule->line : 0);
		else if (a.rule)
			printf("%s %s %s: policy '%s', %s on line %zu\n", allowed ? "allowed" : "denied", policy_op_name(q->op), q->paths[i],
			       a.policy->name, a.rule->pattern, a.rule->line);
		else
			printf("denied %s %s: no policy speaks of it\n", policy_op_name(q->op), q->paths[i]);
	}
	if (q->n_paths == 0)
		print_all(config, q);
	return refused ? err_set(err, ERR_DENIED, "%zu of %zu denied", refused, q->n_paths) : 0;
}

static void print_warning(void *ctx, const char *role, const char *text)
{
	const struct cli *cli = ctx;

	printf(cli->json ? "{\"role\":\"%s\",\"warning\":\"%s\"}\n" : "role '%s': %s\n", role, text);
}

static int lint(struct cli *cli, const struct config *config, struct err *err)
{
	size_t n = policy_lint(config, print_warning, cli);

	if (n)
		return err_set(err, ERR_FAILED, "%zu warning%s", n, n == 1 ? "" : "s");
	if (!cli->json)
		printf("%zu role%s, nothing to warn of\n", config->n_roles, config->n_roles == 1 ? "" : "s");
	return 0;
}

int cmd_policy(struct cli *cli, int argc, char **argv, struct err *err)
{
	struct question q = {0};
	struct config config;
	bool test = argc > 1 && strcmp(argv[1], "test") == 0;
	int r;

	if (!test && !(argc > 1 && strcmp(argv[1], "lint") == 0))
		return cli_usage(cli, err, "say test or lint");
	r = parse(cli, argc - 1, argv + 1, &q, err);
	if (r == 0 && test && !q.role && !q.policies[0])
		r = cli_usage(cli, err, "say whom to test: --role, or --policy");
	if (r == 0)
		r = config_load(cli_config_path(q.config_path), &config, err);
	if (r < 0)
		return r;
	if (test && q.role)
		r = by_role(&config, &q, err);
	else if (test)
		r = check_policies(&config, q.policies, err);
	if (r == 0)
		r = test ? answer(cli, &config, &q, err) : lint(cli, &config, err);
	config_done(&config);
	return r;
}
