/* cotter credential: THE table of helpers for other tools. */
#include "common/err.h"
#include "tools/cli.h"
#include "tools/credential.h"

#include <string.h>

static const struct kind {
	const char *name;
	const char *program; /* the name under which the tool looks for it; NULL: it is told a command */
	credential_helper *helper;
} kinds[] = {
	{"git", "git-credential-cotter", credential_git},
	{"docker", "docker-credential-cotter", credential_docker},
	{"cargo", "cargo-credential-cotter", credential_cargo},
	{"aws", NULL, credential_aws},
	{"kubectl", NULL, credential_kubectl},
	{"terraform", "terraform-credentials-cotter", credential_terraform},
	{"podman", NULL, credential_podman},
	{"pip", "keyring", credential_pip},
	{"npm", NULL, credential_npm},
};

static const struct kind *find(const char *argv0, const char *name)
{
	const char *slash = strrchr(argv0, '/'), *program = slash ? slash + 1 : argv0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if ((kinds[i].program && strcmp(kinds[i].program, program) == 0) || (name && strcmp(kinds[i].name, name) == 0))
			return &kinds[i];
	return NULL;
}

bool credential_is_program(const char *argv0)
{
	return find(argv0, NULL);
}

int cmd_credential(struct cli *cli, int argc, char **argv, struct err *err)
{
	const int behind = credential_is_program(argv[0]) ? 1 : 2;
	const struct kind *kind = find(argv[0], argv[1]);
	struct credential c = {0};
	char **words = argv + behind;
	int n = argc - behind, r;

	if (!kind)
		return cli_usage(cli, err, "name one kind of helper: git, docker, cargo, aws, kubectl, terraform, podman, pip or npm");
	c.prefix = kind->name;
	r = credential_options(&c, &n, &words, err);
	return r < 0 ? r : kind->helper(&c, n, words, err);
}
