#include "broker/policy_lint.h"

#include "broker/config.h"

#include <stdbool.h>
#include <string.h>

static const struct config_claim *find(const struct config_role *r, const char *claim)
{
	for (size_t i = 0; i < r->n_claims; i++) {
		const char *name = r->claims[i].name;

		/* as a JSON pointer of one step */
		if (strcmp(name, claim) == 0 || (name[0] == '/' && strcmp(name + 1, claim) == 0))
			return &r->claims[i];
	}
	return NULL;
}

static bool binds(const struct config_role *r, const char *claim)
{
	return find(r, claim) != NULL;
}

static bool binds_any(const struct config_role *r, const char *const *claims)
{
	for (; *claims; claims++)
		if (binds(r, *claims))
			return true;
	return false;
}

/* Bound, and none of its values begins with what it must not be. */
static bool binds_without(const struct config_role *r, const char *claim, const char *bad)
{
	const struct config_claim *c = find(r, claim);

	for (size_t i = 0; c && i < c->n_values; i++)
		if (strncmp(c->values[i], bad, strlen(bad)) == 0 || (r->glob && c->values[i][0] == '*'))
			return false;
	return c != NULL;
}

/* Bound to true alone. */
static bool binds_true(const struct config_role *r, const char *claim)
{
	const struct config_claim *c = find(r, claim);

	for (size_t i = 0; c && i < c->n_values; i++)
		if (strcmp(c->values[i], "true") != 0)
			return false;
	return c != NULL;
}

/* The subjects that a role takes: bound_subject, or sub among its claims. NULL: no more. */
static const char *subject(const struct config_role *r, size_t i)
{
	const struct config_claim *c = find(r, "sub");

	if (r->subject[0])
		return i == 0 ? r->subject : NULL;
	return c && i < c->n_values ? c->values[i] : NULL;
}

static bool subject_begins(const struct config_role *r, const char *with)
{
	return subject(r, 0) && strncmp(subject(r, 0), with, strlen(with)) == 0;
}

static bool is_issuer(const struct config *c, const struct config_role *r, const char *part)
{
	const struct config_issuer *i = config_issuer(c, r->issuer);

	return i && strstr(i->issuer, part);
}

static bool is_github(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "token.actions.") || is_issuer(c, r, "/_services/token") || subject_begins(r, "repo:") || binds(r, "repository") ||
	       binds(r, "repository_id");
}

static bool is_forgejo(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "/api/actions");
}

static bool is_gitlab(const struct config *c, const struct config_role *r)
{
	static const char *const claims[] = {"project_id", "project_path", "namespace_id", "namespace_path", "job_project_id", NULL};

	return is_issuer(c, r, "gitlab") || subject_begins(r, "project_path:") || binds_any(r, claims);
}

static bool is_buildkite(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "agent.buildkite.com") || subject_begins(r, "organization:");
}

/* repo:OWNER@ID/NAME@ID:…, GitHub's subject with ids. An '@' further on is part of a branch or an environment. */
static bool has_ids(const char *sub)
{
	const char *end = strncmp(sub, "repo:", 5) == 0 ? strchr(sub + 5, ':') : NULL, *slash = end ? memchr(sub, '/', (size_t)(end - sub)) : NULL;

	return slash && memchr(sub, '@', (size_t)(slash - sub)) && memchr(slash, '@', (size_t)(end - slash));
}

/* ---- the rows: each looks at one role --------------------------------------------------------------------------- */

static bool names_only(const struct config *c, const struct config_role *r)
{
	static const char *const names[] = {"repository", "repository_owner", "project_path", "namespace_path", "organization_slug", "pipeline_slug",
					    "job_project_path", NULL};
	static const char *const ids[] = {"repository_id", "repository_owner_id", "project_id", "namespace_id", "organization_id", "pipeline_id",
					  "job_project_id", NULL};
	const char *sub = subject(r, 0);

	return !is_forgejo(c, r) && (binds_any(r, names) || sub) && !binds_any(r, ids) &&
	       (is_github(c, r) || is_gitlab(c, r) || is_buildkite(c, r)) && !(sub && has_ids(sub));
}

static bool forgejo_names(const struct config *c, const struct config_role *r)
{
	return is_forgejo(c, r) && !binds_true(r, "ref_protected");
}

/* An exact subject tells the event by itself. */
static bool exact_subjects(const struct config_role *r)
{
	size_t i = 0;

	for (const char *sub; (sub = subject(r, i)); i++)
		if ((r->glob && strchr(sub, '*')) || strstr(sub, ":pull_request"))
			return false;
	return i > 0;
}

static bool github_pull_requests(const struct config *c, const struct config_role *r)
{
	static const char *const places[] = {"environment", "job_workflow_ref", "workflow_ref", NULL};
	/* event_name: pull_request is one even where the place fits (pull_request_target) */
	bool place = (!binds(r, "event_name") || binds_without(r, "event_name", "pull_request")) &&
		     (binds_true(r, "ref_protected") || binds_without(r, "ref", "refs/pull") || binds_any(r, places));

	return (is_github(c, r) || is_forgejo(c, r)) && !exact_subjects(r) && !binds_without(r, "event_name", "pull_request") && !place;
}

static bool gitlab_merge_requests(const struct config *c, const struct config_role *r)
{
	return is_gitlab(c, r) && !binds_true(r, "ref_protected") && !binds_true(r, "environment_protected") &&
	       !binds_without(r, "pipeline_source", "merge_request_event");
}

static bool gitlab_fork(const struct config *c, const struct config_role *r)
{
	static const char *const names[] = {"project_id", "project_path", "namespace_id", "namespace_path", NULL};

	return is_gitlab(c, r) && binds_any(r, names) && !binds(r, "job_project_id") && !binds_true(r, "ref_protected");
}

static bool old_subject(const struct config *c, const struct config_role *r)
{
	return is_issuer(c, r, "token.actions.") && subject_begins(r, "repo:") && !has_ids(subject(r, 0));
}

static bool no_organisation(const struct config *c, const struct config_role *r)
{
	const char *sub = subject(r, 0);
	size_t n = sub && subject_begins(r, "organization:") ? strcspn(sub + 13, ":") : 0;

	/* organization:NAME:… names it, organization:*:… does not */
	return is_buildkite(c, r) && !binds(r, "organization_id") && !binds(r, "organization_slug") && (n == 0 || (r->glob && memchr(sub + 13, '*', n)));
}

static bool github_no_owner(const struct config *c, const struct config_role *r)
{
	static const char *const owners[] = {"repository_id", "repository_owner_id", "repository", "repository_owner", "enterprise_id", NULL};
	const struct config_issuer *i = config_issuer(c, r->issuer);

	/* an enterprise's own issuer is not shared */
	return i && strcmp(i->issuer, "https://token.actions.githubusercontent.com") == 0 && !subject(r, 0) && !binds_any(r, owners);
}

static bool star_value(const struct config *c, const struct config_role *r)
{
	(void)c;
	for (size_t i = 0; r->glob && i < r->n_claims; i++)
		for (size_t k = 0; k < r->claims[i].n_values; k++)
			if (strspn(r->claims[i].values[k], "*") == strlen(r->claims[i].values[k]))
				return true;
	return r->glob && (r->subject[0] == '*' || strncmp(r->subject, "repo:*", 6) == 0);
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

static bool ids_alone(const struct config *c, const struct config_role *r)
{
	(void)c;
	return r->kind == CONFIG_ROLE_KERNEL && !r->n_cgroups && !r->n_units;
}

static bool root_by_tcp(const struct config *c, const struct config_role *r)
{
	bool root = false;

	for (size_t i = 0; !root && i < r->n_uids; i++)
		root = r->uids[i] == 0;
	return root && c->listen.sin_family;
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
	{ids_alone, "goes by uid or gid alone: every process of that user gets in; bind a cgroup or a unit, too"},
	{root_by_tcp, "is for uid 0 while http.listen is set: by TCP a setuid program of any user is uid 0; leave the uid out, or http.listen"},
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
