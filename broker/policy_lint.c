#include "broker/policy_lint.h"

#include "broker/config.h"

#include <stdbool.h>
#include <string.h>

/* What a role binds, by the claims' names. */
static bool binds(const struct config_role *r, const char *claim)
{
	for (size_t i = 0; i < r->n_claims; i++)
		if (strcmp(r->claims[i].name, claim) == 0)
			return true;
	return false;
}

static bool binds_any(const struct config_role *r, const char *const *claims)
{
	for (; *claims; claims++)
		if (binds(r, *claims))
			return true;
	return false;
}

static bool is_issuer(const struct config *c, const struct config_role *r, const char *part)
{
	const struct config_issuer *i = config_issuer(c, r->issuer);

	return i && strstr(i->issuer, part);
}

static bool is_github(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "token.actions.") || is_issuer(c, r, "/_services/token") || strncmp(r->subject, "repo:", 5) == 0 ||
	       binds(r, "repository") || binds(r, "repository_id");
}

static bool is_forgejo(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "/api/actions");
}

static bool is_gitlab(const struct config *c, const struct config_role *r)
{
	static const char *const claims[] = {"project_id", "project_path", "namespace_id", "namespace_path", "job_project_id", NULL};

	return is_issuer(c, r, "gitlab") || strncmp(r->subject, "project_path:", 13) == 0 || binds_any(r, claims);
}

static bool is_buildkite(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "agent.buildkite.com") || strncmp(r->subject, "organization:", 13) == 0;
}

/* ---- the rows: each looks at one role --------------------------------------------------------------------------- */

static bool names_only(const struct config *c, const struct config_role *r)
{
	static const char *const names[] = {"repository", "repository_owner", "project_path", "namespace_path", "organization_slug", "pipeline_slug",
					    "job_project_path", NULL};
	static const char *const ids[] = {"repository_id", "repository_owner_id", "project_id", "namespace_id", "organization_id", "pipeline_id",
					  "job_project_id", NULL};

	return !is_forgejo(c, r) && (binds_any(r, names) || r->subject[0]) && !binds_any(r, ids) &&
	       (is_github(c, r) || is_gitlab(c, r) || is_buildkite(c, r)) && !strchr(r->subject, '@');
}

static bool forgejo_names(const struct config *c, const struct config_role *r)
{
	return is_forgejo(c, r) && !binds(r, "ref_protected");
}

static bool github_pull_requests(const struct config *c, const struct config_role *r)
{
	static const char *const limits[] = {"event_name", "ref", "ref_protected", "environment", "job_workflow_ref", "workflow_ref", NULL};
	bool by_subject = r->subject[0] && !(r->glob && strchr(r->subject, '*')) && !strstr(r->subject, ":pull_request");

	return (is_github(c, r) || is_forgejo(c, r)) && !by_subject && !binds_any(r, limits);
}

static bool gitlab_merge_requests(const struct config *c, const struct config_role *r)
{
	static const char *const limits[] = {"ref_protected", "pipeline_source", "environment_protected", NULL};

	return is_gitlab(c, r) && !binds_any(r, limits);
}

static bool gitlab_fork(const struct config *c, const struct config_role *r)
{
	static const char *const names[] = {"project_id", "project_path", "namespace_id", "namespace_path", NULL};

	/* ref_protected leaves no fork in, job_project_id tells where it runs */
	return is_gitlab(c, r) && binds_any(r, names) && !binds(r, "job_project_id") && !binds(r, "ref_protected");
}

static bool old_subject(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "token.actions.") && strncmp(r->subject, "repo:", 5) == 0 && !strchr(r->subject, '@');
}

static bool no_organisation(const struct config *c, const struct config_role *r)
{
	return is_buildkite(c, r) && !binds(r, "organization_id") && !binds(r, "organization_slug") && strncmp(r->subject, "organization:", 13) != 0;
}

static bool github_no_owner(const struct config *c, const struct config_role *r)
{
	static const char *const owners[] = {"repository_id", "repository_owner_id", "repository", "repository_owner", "enterprise_id", NULL};

	return is_issuer(c, r, "token.actions.") && !r->subject[0] && !binds_any(r, owners);
}

static bool star_value(const struct config *c, const struct config_role *r)
{
	(void)c;
	for (size_t i = 0; r->glob && i < r->n_claims; i++)
		for (size_t k = 0; k < r->claims[i].n_values; k++)
			if (strspn(r->claims[i].values[k], "*") == strlen(r->claims[i].values[k]))
				return true;
	return r->glob && (r->subject[0] == '*' || (strncmp(r->subject, "repo:", 5) == 0 && r->subject[5] == '*'));
}

static bool stars_without_glob(const struct config *c, const struct config_role *r)
{
	(void)c;
	for (size_t i = 0; !r->glob && i < r->n_claims; i++)
		for (size_t k = 0; k < r->claims[i].n_values; k++)
			if (strchr(r->claims[i].values[k], '*'))
				return true;
	return !r->glob && strchr(r->subject, '*');
}

static bool uid_alone(const struct config *c, const struct config_role *r)
{
	(void)c;
	return !r->issuer[0] && !r->n_cgroups && !r->n_units;
}

static const struct {
	bool (*applies)(const struct config *c, const struct config_role *r);
	const char *text;
} rows[] = {
	{names_only, "binds names only: whoever registers a name anew gets in; bind the id (repository_id, project_id, organization_id), too"},
	{forgejo_names, "Forgejo has no ids, so names are all there is: bind ref_protected at least"},
	{github_pull_requests, "matches pull requests: bind event_name, and ref or ref_protected"},
	{gitlab_merge_requests, "matches merge request pipelines: bind ref_protected (and pipeline_source)"},
	{gitlab_fork, "in a fork's merge request project_* names the fork or the target, by GitLab's version: bind job_project_id or ref_protected"},
	{old_subject, "binds the old sub: repositories made, renamed or moved after 2026-07-15 have repo:OWNER@ID/NAME@ID; bind repository_id instead"},
	{no_organisation, "forgets the organisation: all of Buildkite shares that issuer; bind organization_id"},
	{github_no_owner, "forgets the organisation: all of GitHub shares that issuer; bind repository_owner_id or repository_id"},
	{star_value, "a '*' alone matches anything: leave the claim out, or say what it must be"},
	{stars_without_glob, "has a '*' that stands for itself: bound_claims_type: glob is not set"},
	{uid_alone, "goes by uid alone: every process of that user gets in; bind a cgroup or a unit, too"},
};

size_t policy_lint(const struct config *config, void (*each)(void *ctx, const char *role, const char *text), void *ctx)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_roles; i++) {
		for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
			if (!rows[k].applies(config, &config->roles[i]))
				continue;
			each(ctx, config->roles[i].name, rows[k].text);
			n++;
		}
	}
	return n;
}
