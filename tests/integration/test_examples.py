"""The roles of doc/examples against sample claims of every CI system, and each warning of 'cotter policy lint'."""
import copy
import json
import os
import re
import unittest

from harness import COTTERD, ROOT, Case, run

ROLES = os.path.join(ROOT, "doc", "examples", "roles")
AUDIENCE = "https://cotter.example"
GITHUB = "https://token.actions.githubusercontent.com"
DROP = object()  # as a value: the claim is not there

with open(os.path.join(ROOT, "tests", "data", "jwt-samples.json")) as samples_file:
    SAMPLES = json.load(samples_file)["samples"]


def sample(ci, variant=None, **changes):
    """The claims of a CI's sample, of its first one or of a variant, as a job would have them that asks for our audience."""
    mine = [s for s in SAMPLES if s["ci"] == ci]
    claims = copy.deepcopy(mine[0]["claims"])
    if variant:
        claims.update(next(s for s in mine if s["variant"].startswith(variant)).get("claims_delta", {}))
    claims["aud"] = AUDIENCE
    claims.update(changes)
    return {k: v for k, v in claims.items() if v is not DROP}


def sections(text):
    """Top-level keys of a YAML text without comments between them -> their indented lines."""
    out, key = {}, None
    for line in text.splitlines():
        if re.match(r"[a-z_]+:", line):
            key = line.split(":")[0]
            out[key] = ""
            assert line == key + ":", line
        elif line.strip() and not line.startswith("#"):
            out[key] += line + "\n"
    return out


class ExampleCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b = cls.broker(hsm=cls.softhsm(), start=False)
        with open(cls.b.config) as f:
            cls.base = f.read()
        assert re.findall(r"^[a-z_]+:", cls.base, re.M)[-1] == "policies:", "the policies are no longer the last key"

    def file(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def config(self, text, name="merged.yaml"):
        """The generated configuration with these sections behind it; policies go below those that are there."""
        parts = sections(text)
        merged = self.base + parts.pop("policies", "")
        return self.file(name, merged + "".join(f"{k}:\n{v}" for k, v in parts.items()))

    def ask(self, config, role, claims, *args):
        path = self.file("claims.json", claims if isinstance(claims, str) else json.dumps(claims))
        return self.b.cli("policy", "test", "--config", config, "--role", role, "--claims", path, *args)

    def assert_in(self, config, role, claims, *args):
        p = self.ask(config, role, claims, *args)
        self.assertEqual((p.returncode, p.stderr), (0, b""), p.stdout)
        return p.stdout.decode()

    def assert_out(self, config, role, claims, why, *args):
        p = self.ask(config, role, claims, *args)
        self.assertEqual((p.returncode, p.stdout), (3, b""), p.stderr)
        self.assertIn(why, p.stderr.decode())

    def warnings(self, config):
        """[(role, text)] of lint, whose exit status must say the same."""
        p = self.b.cli("policy", "lint", "--config", config)
        out = p.stdout.decode()
        if p.returncode == 0:
            self.assertRegex(out, r"^\d+ roles?, nothing to warn of\n$")
            return []
        self.assertEqual(p.returncode, 1, p.stderr)
        found = re.findall(r"^role '([^']*)': (.*)$", out, re.M)
        self.assertEqual(len(found), len(out.splitlines()), out)
        self.assertIn(f"{len(found)} warning{'' if len(found) == 1 else 's'}", p.stderr.decode())
        return found


def missing(claim):
    return f'claim "{claim}" is missing'


def differs(claim):
    return f'claim "{claim}" does not match any associated bound claim values'


AUD = "the audience claim does not match any bound audience"
SUB = "the sub claim does not match the bound subject"
ISS = "it is of another issuer"


class Examples(ExampleCase):
    def example(self, ci):
        with open(os.path.join(ROLES, ci + ".yaml")) as f:
            return self.config(f.read(), ci + ".yaml")

    def check(self, ci, role, rows):
        """rows: (claims, None or why not)"""
        config = self.example(ci)
        for claims, why in rows:
            with self.subTest(ci=ci, why=why, claims=claims):
                if why is None:
                    self.assert_in(config, role, claims)
                else:
                    self.assert_out(config, role, claims, why)

    def test_every_example_loads_and_has_no_warning(self):
        names = sorted(os.listdir(ROLES))
        self.assertEqual(names, ["buildkite.yaml", "forgejo.yaml", "github-actions.yaml", "gitlab-ci.yaml", "jenkins.yaml"])
        for name in names:
            with self.subTest(name), open(os.path.join(ROLES, name)) as f:
                text = f.read()
                parts = sections(text)
                self.assertLessEqual({"issuers", "policies", "roles"}, set(parts))
                self.assertEqual(self.warnings(self.config(text)), [])

    def test_all_examples_in_one_file(self):
        together = {}
        for name in sorted(os.listdir(ROLES)):
            with open(os.path.join(ROLES, name)) as f:
                for key, lines in sections(f.read()).items():
                    together[key] = together.get(key, "") + lines
        config = self.config("".join(f"{k}:\n{v}" for k, v in together.items()))
        self.assertEqual(self.warnings(config), [])
        # a token of one CI system opens no role of another
        roles = {"octo-repo-main": "github-actions", "my-project": "gitlab", "release-pipeline": "buildkite", "my-job-main": "jenkins",
                 "testing-master": "forgejo"}
        for role, ci in roles.items():
            for other in set(roles.values()) - {ci}:
                self.assert_out(config, role, sample(other), ISS)

    def test_no_sample_gets_in_with_the_audience_it_came_with(self):
        """They were made for other services."""
        for ci, name, role in (("github-actions", "github-actions", "octo-repo-main"), ("gitlab", "gitlab-ci", "my-project"),
                               ("buildkite", "buildkite", "release-pipeline"), ("jenkins", "jenkins", "my-job-main"),
                               ("forgejo", "forgejo", "testing-master")):
            config = self.example(name)
            for s in (s for s in SAMPLES if s["ci"] == ci):
                with self.subTest(ci=ci, variant=s["variant"]):
                    claims = sample(ci, s["variant"], aud=next(x for x in SAMPLES if x["ci"] == ci)["claims"]["aud"])
                    self.assert_out(config, role, claims, ISS if s["variant"] == "GHES issuer" else AUD)

    def test_github(self):
        ci = "github-actions"
        immutable = sample(ci, "immutable")
        self.assertIn("@", immutable["sub"])
        self.check(ci, "octo-repo-main", [
            (sample(ci), None),
            (immutable, None),
            (sample(ci, event_name="workflow_dispatch"), None),
            (sample(ci, "custom properties"), None),
            # an environment changes sub alone
            (sample(ci, "environment with a colon"), None),
            # a renamed repository keeps its id, whoever takes the name has another
            (sample(ci, repository="octo-org/new-name", sub="repo:octo-org@123456/new-name@456789:ref:refs/heads/main"), None),
            (sample(ci, repository_id="456790"), differs("repository_id")),
            (sample(ci, repository_owner_id="123457"), differs("repository_owner_id")),
            (sample(ci, repository="evil/octo-repo", repository_owner="evil", repository_owner_id="666", repository_id="667",
                    sub="repo:evil/octo-repo:ref:refs/heads/main"), differs("repository_id")),
            (sample(ci, "pull_request"), differs("event_name")),
            (sample(ci, "pull_request", ref_protected="false"), differs("event_name")),
            # runs for a fork, and names the base branch
            (sample(ci, event_name="pull_request_target", head_ref="feature", base_ref="main"), differs("event_name")),
            (sample(ci, event_name="workflow_run"), differs("event_name")),
            (sample(ci, ref="refs/heads/feature", ref_protected="false", sub="repo:octo-org/octo-repo:ref:refs/heads/feature"), differs("ref")),
            (sample(ci, ref="refs/tags/main", ref_type="tag"), differs("ref")),
            (sample(ci, ref_protected="false"), differs("ref_protected")),
            (sample(ci, "GHES issuer"), ISS),
            (sample(ci, iss=GITHUB + "/octocat-inc"), ISS),
            (sample(ci, iss=GITHUB + "/"), ISS),
            (sample(ci, iss=DROP), ISS),
        ])
        for claim in ("repository_id", "repository_owner_id", "event_name", "ref", "ref_protected"):
            self.check(ci, "octo-repo-main", [(sample(ci, **{claim: DROP}), missing(claim))])

    def test_github_paths(self):
        config = self.example("github-actions")
        self.assert_in(config, "octo-repo-main", sample("github-actions"), "octo-org/octo-repo/npm-token")
        p = self.ask(config, "octo-repo-main", sample("github-actions"), "octo-org/octo-repo/npm-token", "octo-org/other/npm-token")
        self.assertEqual(p.returncode, 3)
        self.assertRegex(p.stdout.decode(), r"^allowed get octo-org/octo-repo/npm-token: .*\ndenied get octo-org/other/npm-token: no policy")
        p = self.ask(config, "octo-repo-main", sample("github-actions"), "--op", "update", "octo-org/octo-repo/npm-token")
        self.assertEqual(p.returncode, 3)
        # a refused role is asked for no path
        self.assert_out(config, "octo-repo-main", sample("github-actions", "pull_request"), differs("event_name"), "octo-org/octo-repo/npm-token")

    def test_gitlab(self):
        ci = "gitlab"
        main = {"ref": "main", "ref_path": "refs/heads/main", "ref_protected": "true",
                "sub": "project_path:my-group/my-project:ref_type:branch:ref:main"}
        self.check("gitlab-ci", "my-project", [
            (sample(ci), differs("ref_protected")),
            (sample(ci, **main), None),
            (sample(ci, "extra claims", **main), None),
            (sample(ci, "extra claims"), differs("ref_protected")),
            (sample(ci, **main, pipeline_source="web"), None),
            (sample(ci, **main, project_path="my-group/new-name"), None),
            # from 18.2.2 on the fork is named, before that the target; and once with all else as on main
            (sample(ci, "merge request pipeline from a fork"), differs("project_id")),
            (sample(ci, "merge request pipeline from a fork", ref_protected="true", pipeline_source="push"), differs("project_id")),
            (sample(ci, "merge request pipeline from a fork", project_id="20", namespace_id="72"), differs("pipeline_source")),
            (sample(ci, **main, pipeline_source="merge_request_event"), differs("pipeline_source")),
            (sample(ci, **{**main, "ref_protected": "false"}), differs("ref_protected")),
            (sample(ci, **main, ref_type="tag"), differs("ref_type")),
            (sample(ci, **main, project_id="21"), differs("project_id")),
            (sample(ci, **main, namespace_id="73"), differs("namespace_id")),
            (sample(ci, **main, iss="https://gitlab.com"), ISS),
            (sample(ci, **{**main, "ref_protected": DROP}), missing("ref_protected")),
            (sample(ci, **main, pipeline_source=DROP), missing("pipeline_source")),
        ])

    def test_gitlab_scope(self):
        """The scope's own policies and those of the group above it."""
        config = self.example("gitlab-ci")
        claims = sample("gitlab", ref="main", ref_protected="true")
        out = self.assert_in(config, "my-project", claims)
        self.assertIn("proven: scope=my-group/my-project\n", out)
        self.assert_in(config, "my-project", claims, "my-group/my-project/token", "my-group/shared/registry")
        self.assertEqual(self.ask(config, "my-project", claims, "my-group/other-project/token").returncode, 3)
        # the path in the token does not choose the scope
        claims["project_path"] = "my-group/other-project"
        self.assertEqual(self.ask(config, "my-project", claims, "my-group/other-project/token").returncode, 3)

    def test_buildkite(self):
        ci = "buildkite"
        self.check(ci, "release-pipeline", [
            (sample(ci), missing("organization_id")),
            (sample(ci, build_branch="main"), missing("organization_id")),
            (sample(ci, "immutable"), differs("build_branch")),
            (sample(ci, "immutable", build_branch="main"), None),
            # --subject-claim changes sub alone
            (sample(ci, "immutable", build_branch="main", sub="00000000-0000-4000-8000-000000000002"), None),
            (sample(ci, "immutable", build_branch="main", pipeline_slug="new-name"), None),
            # a fork's main, prefixed
            (sample(ci, "immutable", build_branch="somebody:main"), differs("build_branch")),
            (sample(ci, "immutable", build_branch="refs/heads/main"), differs("build_branch")),
            (sample(ci, "immutable", build_branch="main", pipeline_id=DROP), missing("pipeline_id")),
            (sample(ci, "immutable", build_branch="main", pipeline_id="00000000-0000-4000-8000-000000000003"), differs("pipeline_id")),
            # another organisation of the same issuer, with the same names
            (sample(ci, "immutable", build_branch="main", organization_id="00000000-0000-4000-8000-000000000009"), differs("organization_id")),
            (sample(ci, "immutable", build_branch=None), differs("build_branch")),
        ])

    def test_jenkins(self):
        ci = "jenkins"
        job = "https://jenkins.acme.com/job/my-job/"
        main = {"sub": job + "job/main/", "branch": "main", "primary": True}
        self.check(ci, "my-job-main", [
            (sample(ci), SUB),
            (sample(ci, **main), None),
            (sample(ci, **{**main, "primary": "true"}), None),
            (sample(ci, **{**main, "primary": False}), differs("primary")),
            (sample(ci, **{**main, "primary": "True"}), differs("primary")),
            # without the templates
            (sample(ci, sub=main["sub"]), missing("branch")),
            (sample(ci, **{**main, "primary": DROP}), missing("primary")),
            # a template whose variable is not there is left as it is
            (sample(ci, **{**main, "branch": "${BRANCH_NAME}"}), differs("branch")),
            (sample(ci, sub=job + "job/PR-7/", branch="PR-7", primary=False), SUB),
            (sample(ci, **{**main, "sub": job + "job/PR-7/"}), SUB),
            (sample(ci, sub=job + "job/feature%252Fx/", branch="feature/x", primary=False), SUB),
            (sample(ci, **{**main, "sub": "https://jenkins.acme.com/job/other-job/job/main/"}), SUB),
            (sample(ci, **{**main, "sub": job + "job/main"}), SUB),
            # outside of builds
            (sample(ci, **{**main, "sub": "https://jenkins.acme.com/"}), SUB),
            (sample(ci, **main, iss="https://jenkins.acme.com/job/folder/oidc"), ISS),
            (sample(ci, **{**main, "aud": DROP}), AUD),
        ])

    def test_forgejo(self):
        ci = "forgejo"
        self.check(ci, "testing-master", [
            (sample(ci), differs("ref_protected")),
            (sample(ci, ref_protected="true"), None),
            (sample(ci, ref_protected="true", event_name="workflow_dispatch"), None),
            (sample(ci, ref_protected="true", event_name="pull_request", ref="refs/pull/3/head"), differs("event_name")),
            (sample(ci, ref_protected="true", event_name="pull_request_target"), differs("event_name")),
            (sample(ci, ref="refs/heads/feature"), differs("ref")),
            (sample(ci, ref="refs/heads/feature", ref_protected="true"), differs("ref")),
            (sample(ci, ref="refs/tags/master", ref_type="tag", ref_protected="true"), differs("ref")),
            (sample(ci, ref_protected="true", repository="user1/other"), differs("repository")),
            (sample(ci, ref_protected="true", repository="user2/testing", repository_owner="user2"), differs("repository")),
            (sample(ci, ref_protected="true", iss="https://codeberg.org/api/actions"), ISS),
        ])


class Matching(ExampleCase):
    """How a claim is compared, whatever the CI."""

    def role(self, bound, kind="string", extra=""):
        return self.config(f"issuers:\n  i:\n    issuer: https://i.example\n    jwks_file: /etc/cotter/jwks/i.json\n"
                           f"roles:\n  r:\n    policies: [release]\n    jwt:\n      issuer: i\n      bound_audiences: [one, two]\n"
                           f"      bound_claims_type: {kind}\n{extra}      bound_claims:\n" +
                           "".join(f"        {k}: {v}\n" for k, v in bound.items()))

    def both(self, config, good, bad, claim):
        for value in good:
            with self.subTest(good=value):
                self.assert_in(config, "r", {"iss": "https://i.example", "aud": "one", claim: value})
        for value in bad:
            with self.subTest(bad=value):
                self.assert_out(config, "r", {"iss": "https://i.example", "aud": "one", claim: value}, differs(claim))

    def test_numbers_and_strings(self):
        for written in ("1", '"1"'):
            self.both(self.role({"runner_id": written}), [1, "1", [1], ["0", "1"]],
                      [2, "2", 10, "", "01", "1 ", 1.0, 1.5, True, None, {}, [], {"1": 1}], "runner_id")
        self.both(self.role({"id": "[9223372036854775807, -5]"}), [9223372036854775807, "9223372036854775807", -5, "-5"],
                  [9223372036854775806, 5], "id")

    def test_booleans_and_strings(self):
        for written in ("true", '"true"'):
            self.both(self.role({"ref_protected": written}), [True, "true"], [False, "false", 1, "1", "True", None], "ref_protected")

    def test_null_and_objects_never_match(self):
        for kind in ("string", "glob"):
            values = ["null", "None", "{}", "0"] + (["*"] if kind == "glob" else [])
            config = self.role({"step_key": json.dumps(values)}, kind)
            self.both(config, ["null", "0"], [None, {}, {"a": "null"}, [None], [{"a": "null"}], [[]], [["null"]], []], "step_key")
        # the samples' own
        for ci, claim, extra in (("buildkite", "step_key", None), ("gitlab", "user_identities", None),
                                 ("gitlab", "job_policy_ref_uri", "extra claims"), ("gitlab", "job_policy_ref_sha", "extra claims")):
            config = self.role({claim: '"*"'}, "glob")
            self.assert_out(config, "r", sample(ci, extra, iss="https://i.example", aud="one"), differs(claim))

    def test_lists_match_by_any_of_them(self):
        config = self.role({"groups_direct": "[mygroup/mysubgroup, other]"})
        self.assert_in(config, "r", sample("gitlab", "extra claims", iss="https://i.example", aud="one"))
        self.both(config, [["x", "other"], "other"], [["x"], [], "mygroup", ["mygroup"]], "groups_direct")

    def test_audience(self):
        config = self.role({"a": "b"})
        for aud in ("one", "two", ["one"], ["x", "two"], ["x", None, {}, "one"]):
            with self.subTest(aud=aud):
                self.assert_in(config, "r", {"iss": "https://i.example", "aud": aud, "a": "b"})
        for aud in ("x", "", "one two", ["x"], [], None, {}, {"one": "one"}, [["one"]], "ONE", "one "):
            with self.subTest(aud=aud):
                self.assert_out(config, "r", {"iss": "https://i.example", "aud": aud, "a": "b"}, AUD)
        self.assert_out(config, "r", {"iss": "https://i.example", "a": "b"}, AUD)
        # an audience is never a glob
        config = self.config("issuers:\n  i:\n    issuer: https://i.example\n    jwks_file: /j\nroles:\n  r:\n    policies: [release]\n    jwt:\n"
                             "      issuer: i\n      bound_audiences: [\"*\"]\n      bound_claims_type: glob\n      bound_claims:\n        a: b\n")
        self.assert_out(config, "r", {"iss": "https://i.example", "aud": "one", "a": "b"}, AUD)

    def test_glob_and_string(self):
        self.both(self.role({"ref": '"refs/heads/release-*"'}, "glob"), ["refs/heads/release-1", "refs/heads/release-", "refs/heads/release-1/x"],
                  ["refs/heads/main", "xrefs/heads/release-1", "refs/heads/release"], "ref")
        self.both(self.role({"ref": '"refs/heads/release-*"'}), ["refs/heads/release-*"], ["refs/heads/release-1"], "ref")
        # the old form of GitHub's sub never fits the new one
        config = self.role({"a": "b"}, "glob", '      bound_subject: "repo:octo-org/*"\n')
        mine = {"iss": "https://i.example", "aud": "one", "a": "b"}
        self.assert_in(config, "r", sample("github-actions", **mine))
        self.assert_out(config, "r", sample("github-actions", "immutable", **mine), SUB)
        # and a colon in a name is %3A
        config = self.role({"a": "b"}, extra='      bound_subject: "repo:octo-org/octo-repo:environment:Production:V1"\n')
        self.assert_out(config, "r", sample("github-actions", "environment", **mine), SUB)
        config = self.role({"environment": '"Production:V1"'}, extra='      bound_subject: "repo:octo-org/octo-repo:environment:Production%3AV1"\n')
        self.assert_in(config, "r", sample("github-actions", "environment", **mine))

    def test_pointer(self):
        config = self.role({"/a/b": "x"})
        base = {"iss": "https://i.example", "aud": "one"}
        self.assert_in(config, "r", {**base, "a": {"b": "x"}})
        self.assert_out(config, "r", {**base, "a": {"b": "y"}}, differs("/a/b"))
        for bad in ({"a": "x"}, {"a": {}}, {"/a/b": "x"}, {"a": ["x"]}, {"a": None}):
            with self.subTest(bad=bad):
                self.assert_out(config, "r", {**base, **bad}, missing("/a/b"))

    def test_a_decoded_token_is_claims_too(self):
        config = self.role({"a": "b"})
        self.assert_in(config, "r", {"header": {"alg": "RS256"}, "claims": {"iss": "https://i.example", "aud": "one", "a": "b"}})

    def test_what_is_no_claims(self):
        config = self.role({"a": "b"})
        for text in ("", "[]", "nothing", '{"iss":', '{"a":"b","a":"c"}'):
            with self.subTest(text=text):
                self.assertNotEqual(self.ask(config, "r", text).returncode, 0)


ISSUERS = f"""issuers:
  github:
    issuer: {GITHUB}
    jwks_file: /etc/cotter/jwks/github.json
  ghes:
    issuer: https://git.example.com/_services/token
    jwks_file: /etc/cotter/jwks/ghes.json
  gitlab:
    issuer: https://gitlab.example.com
    jwks_file: /etc/cotter/jwks/gitlab.json
  selfhosted:
    issuer: https://code.example.com
    jwks_file: /etc/cotter/jwks/selfhosted.json
  buildkite:
    issuer: https://agent.buildkite.com
    jwks_file: /etc/cotter/jwks/buildkite.json
  forgejo:
    issuer: https://forge.example.com/api/actions
    jwks_file: /etc/cotter/jwks/forgejo.json
  jenkins:
    issuer: https://jenkins.example.com/oidc
    jwks_file: /etc/cotter/jwks/jenkins.json
"""


def jwt(issuer, subject=None, glob=False, **claims):
    lines = [f"issuer: {issuer}", "bound_audiences: [cotter]"]
    if subject:
        lines.append(f"bound_subject: {json.dumps(subject)}")
    if glob:
        lines.append("bound_claims_type: glob")
    if claims:
        lines.append("bound_claims:")
        lines += [f"  {k}: {json.dumps(v)}" for k, v in claims.items()]
    return "    jwt:\n" + "".join(f"      {line}\n" for line in lines)


def kernel(**facts):
    return "    kernel:\n" + "".join(f"      {k}: {json.dumps(v)}\n" for k, v in facts.items())


NAMES = "binds names only: whoever registers a name anew gets in; bind the id (repository_id, project_id, organization_id), too"
FORGEJO = "Forgejo has no ids, so names are all there is: bind ref_protected at least"
PULLS = "matches pull requests: bind event_name, and ref or ref_protected"
MERGES = "matches merge request pipelines: bind ref_protected (and pipeline_source)"
FORK = "in a fork's merge request project_* names the fork or the target, by GitLab's version: bind job_project_id or ref_protected"
OLD_SUB = "binds the old sub: repositories made, renamed or moved after 2026-07-15 have repo:OWNER@ID/NAME@ID; bind repository_id instead"
NO_ORG = "forgets the organisation: all of Buildkite shares that issuer; bind organization_id"
NO_OWNER = "forgets the organisation: all of GitHub shares that issuer; bind repository_owner_id or repository_id"
STAR = "a '*' alone matches anything: leave the claim out, or say what it must be"
NO_GLOB = "has a '*' that stands for itself: bound_claims_type: glob is not set"
UID = "goes by uid or gid alone: every process of that user gets in; bind a cgroup or a unit, too"

ROOT_BY_TCP = "is for uid 0 while http.listen is set: by TCP a setuid program of any user is uid 0; leave the uid out, or http.listen"


class Lint(ExampleCase):
    def test_the_texts_are_those_of_the_source(self):
        """A row that is new in policy_lint.c belongs here, too."""
        with open(os.path.join(ROOT, "broker", "policy_lint.c")) as f:
            table = f.read().partition("rows[] = {")[2].partition("};")[0]
        rows = re.findall(r'\{\w+, "(.*)"\},', table)
        self.assertEqual(rows, [NAMES, FORGEJO, PULLS, MERGES, FORK, OLD_SUB, NO_ORG, NO_OWNER, STAR, NO_GLOB, UID, ROOT_BY_TCP])

    def lint(self, role):
        texts = self.warnings(self.config(ISSUERS + "roles:\n  r:\n    policies: [release]\n" + role))
        self.assertEqual({name for name, _ in texts}, {"r"} if texts else set())
        return [text for _, text in texts]

    def pair(self, bad, good, *texts):
        with self.subTest(bad=bad):
            self.assertEqual(self.lint(bad), list(texts))
        with self.subTest(good=good):
            self.assertEqual(self.lint(good), [])

    def test_root_by_tcp(self):
        def config(uid, http="http:\n  listen: 127.0.0.1:8200\n"):
            return self.config(http + "roles:\n  r:\n    policies: [release]\n" + kernel(uids=[7, uid], units=["r.service"]))
        bad = config(0)
        self.assertEqual(self.warnings(bad), [("r", ROOT_BY_TCP)])
        p = run(COTTERD, "--config", bad, "--check")
        self.assertEqual((p.returncode, p.stdout.count(b"all right"), p.stderr.count(ROOT_BY_TCP.encode())), (0, 1, 1))
        for good in (config(998), config(0, "")):
            self.assertEqual(self.warnings(good), [])
            self.assertEqual(run(COTTERD, "--config", good, "--check").stderr, b"")

    def test_names_only(self):
        self.pair(jwt("github", repository="o/r", event_name="push", ref="refs/heads/main"),
                  jwt("github", repository="o/r", repository_id="1", event_name="push", ref="refs/heads/main"), NAMES)
        self.pair(jwt("ghes", repository_owner="o", ref_protected="true"),
                  jwt("ghes", repository_owner="o", repository_owner_id="1", ref_protected="true"), NAMES)
        self.pair(jwt("gitlab", project_path="g/p", ref_protected="true"), jwt("gitlab", project_id="1", ref_protected="true"), NAMES)
        self.pair(jwt("gitlab", subject="project_path:g/p:ref_type:branch:ref:main", ref_protected="true"),
                  jwt("gitlab", subject="project_path:g/p:ref_type:branch:ref:main", project_id="1", ref_protected="true"), NAMES)
        self.pair(jwt("selfhosted", namespace_path="g", ref_protected="true"), jwt("selfhosted", namespace_id="7", ref_protected="true"), NAMES)
        self.pair(jwt("buildkite", organization_slug="o", pipeline_slug="p", build_branch="main"),
                  jwt("buildkite", organization_slug="o", organization_id="1", pipeline_id="2", build_branch="main"), NAMES)
        self.pair(jwt("buildkite", subject="organization:o:pipeline:p:ref:refs/heads/main:commit:*:step:*", glob=True),
                  jwt("buildkite", organization_id="1", build_branch="main"), NAMES)
        # the new subject has the ids in it
        self.assertEqual(self.lint(jwt("github", subject="repo:o@1/r@2:ref:refs/heads/main")), [])

    def test_a_sign_in_another_place_is_no_id(self):
        """An '@' behind the names is not repo:OWNER@ID/NAME@ID."""
        self.assertIn(NAMES, self.lint(jwt("ghes", subject="repo:o/r:ref:refs/heads/v@1")))
        self.assertEqual(self.lint(jwt("github", subject="repo:o/r:ref:refs/heads/v@1")), [NAMES, OLD_SUB])
        self.assertEqual(self.lint(jwt("github", subject="repo:o/r:environment:a@b")), [NAMES, OLD_SUB])

    def test_forgejo(self):
        self.pair(jwt("forgejo", repository="o/r", ref="refs/heads/main"),
                  jwt("forgejo", repository="o/r", ref="refs/heads/main", ref_protected="true"), FORGEJO)
        self.assertEqual(self.lint(jwt("forgejo", repository="o/r")), [FORGEJO, PULLS])
        self.assertEqual(self.lint(jwt("forgejo", subject="repo:o/r:ref:refs/heads/main")), [FORGEJO])

    def test_github_pull_requests(self):
        self.pair(jwt("github", repository_id="1"), jwt("github", repository_id="1", event_name="push", ref="refs/heads/main"), PULLS)
        self.pair(jwt("ghes", subject="repo:o/r:*", glob=True, repository_id="1"),
                  jwt("ghes", subject="repo:o/r:*", glob=True, repository_id="1", ref_protected="true"), PULLS)
        self.pair(jwt("github", subject="repo:o@1/r@2:*", glob=True), jwt("github", subject="repo:o@1/r@2:ref:refs/heads/main"), PULLS)
        self.pair(jwt("github", subject="repo:o@1/r@2:pull_request"), jwt("github", subject="repo:o@1/r@2:environment:production"), PULLS)
        self.pair(jwt("selfhosted", repository_id="1"), jwt("selfhosted", repository_id="1", environment="production"), PULLS)
        # a glob behind the word that keeps them out
        self.assertEqual(self.lint(jwt("github", subject="repo:o@1/r@2:ref:refs/heads/*", glob=True, repository_id="2", ref_protected="true")), [])

    def test_event_name_that_is_a_pull_request(self):
        """Binding event_name to pull requests lets them in all the same."""
        self.assertIn(PULLS, self.lint(jwt("github", repository_id="1", event_name="pull_request")))
        self.assertIn(PULLS, self.lint(jwt("github", repository_id="1", event_name=["push", "pull_request_target"])))

    def test_gitlab_merge_requests(self):
        self.pair(jwt("gitlab", job_project_id="1", ref="main"), jwt("gitlab", job_project_id="1", ref="main", ref_protected="true"), MERGES)
        self.pair(jwt("selfhosted", job_project_id="1"), jwt("selfhosted", job_project_id="1", pipeline_source="push"), MERGES)
        self.assertEqual(self.lint(jwt("gitlab", job_project_id="1", environment_protected="true")), [])

    def test_gitlab_merge_requests_bound(self):
        """The claims are bound, to what lets them in."""
        self.assertIn(MERGES, self.lint(jwt("gitlab", job_project_id="1", ref_protected="false")))
        self.assertIn(MERGES, self.lint(jwt("gitlab", job_project_id="1", pipeline_source=["push", "merge_request_event"])))

    def test_gitlab_fork(self):
        self.pair(jwt("gitlab", project_id="1", pipeline_source="push"),
                  jwt("gitlab", project_id="1", job_project_id="1", pipeline_source="push"), FORK)
        self.pair(jwt("selfhosted", namespace_id="7", pipeline_source="push"), jwt("selfhosted", namespace_id="7", ref_protected="true"), FORK)
        self.assertEqual(self.lint(jwt("gitlab", project_path="g/p")), [NAMES, MERGES, FORK])

    def test_old_subject(self):
        self.pair(jwt("github", subject="repo:o/r:ref:refs/heads/main", repository_id="1"),
                  jwt("github", subject="repo:o@1/r@2:ref:refs/heads/main", repository_id="1"), OLD_SUB)
        self.assertEqual(self.lint(jwt("github", subject="repo:o/r:ref:refs/heads/main")), [NAMES, OLD_SUB])
        # an Enterprise Server keeps it
        self.assertEqual(self.lint(jwt("ghes", subject="repo:o/r:ref:refs/heads/main", repository_id="1")), [])

    def test_buildkite_organisation(self):
        self.pair(jwt("buildkite", pipeline_id="1", build_branch="main"),
                  jwt("buildkite", organization_id="1", pipeline_id="1", build_branch="main"), NO_ORG)
        self.assertEqual(self.lint(jwt("buildkite", pipeline_slug="release")), [NAMES, NO_ORG])
        self.assertEqual(self.lint(jwt("buildkite", build_branch="main")), [NO_ORG])

    def test_buildkite_subject_without_organisation(self):
        self.assertIn(NO_ORG, self.lint(jwt("buildkite", subject="organization:*:pipeline:release:*", glob=True, pipeline_id="1")))

    def test_github_owner(self):
        self.pair(jwt("github", event_name="push", ref="refs/heads/main"),
                  jwt("github", event_name="push", ref="refs/heads/main", repository_owner_id="1"), NO_OWNER)
        self.assertEqual(self.lint(jwt("github", environment="production")), [NO_OWNER])
        # an Enterprise Server is one's own
        self.assertEqual(self.lint(jwt("ghes", event_name="push", ref="refs/heads/main")), [])

    def test_github_own_issuers(self):
        """An enterprise's own issuer and one of ghe.com are not shared by all of GitHub."""
        for own in (GITHUB + "/octocat-inc", "https://token.actions.octocat.ghe.com"):
            config = ISSUERS.replace(f"    issuer: {GITHUB}\n", f"    issuer: {own}\n")
            role = "roles:\n  r:\n    policies: [release]\n" + jwt("github", event_name="push", ref="refs/heads/main")
            with self.subTest(issuer=own):
                self.assertNotIn(("r", NO_OWNER), self.warnings(self.config(config + role)))

    def test_sub_among_the_claims(self):
        """bound_claims: sub binds what bound_subject does."""
        for how in ({"subject": "repo:o/r:ref:refs/heads/main"}, {"sub": "repo:o/r:ref:refs/heads/main"}):
            with self.subTest(how=how):
                self.assertEqual(self.lint(jwt("github", **how)), [NAMES, OLD_SUB])
        for how in ({"subject": "organization:o:pipeline:p:*"}, {"sub": "organization:o:pipeline:p:*"}):
            with self.subTest(how=how):
                self.assertEqual(self.lint(jwt("buildkite", glob=True, **how)), [NAMES])

    def test_claims_by_pointer(self):
        """/repository_id is repository_id."""
        self.assertEqual(self.lint(jwt("github", **{"/repository_id": "1", "/event_name": "push", "ref": "refs/heads/main"})), [])

    def test_star_alone(self):
        self.pair(jwt("github", glob=True, repository_id="1", event_name="push", ref="*"),
                  jwt("github", glob=True, repository_id="1", event_name="push", ref="refs/heads/*"), STAR)
        self.pair(jwt("jenkins", glob=True, branch=["main", "***"]), jwt("jenkins", glob=True, branch=["main", "v*"]), STAR)
        self.pair(jwt("jenkins", subject="*", glob=True), jwt("jenkins", subject="https://jenkins.example.com/job/x/*", glob=True), STAR)
        self.assertIn(STAR, self.lint(jwt("github", subject="repo:*", glob=True)))

    def test_star_without_glob(self):
        self.pair(jwt("github", repository_id="1", event_name="push", ref="refs/heads/*"),
                  jwt("github", glob=True, repository_id="1", event_name="push", ref="refs/heads/*"), NO_GLOB)
        self.pair(jwt("jenkins", subject="https://jenkins.example.com/job/x/*"), jwt("jenkins", subject="https://jenkins.example.com/job/x/"),
                  NO_GLOB)
        self.pair(jwt("jenkins", branch=["main", "v*"]), jwt("jenkins", branch=["main", "v1"]), NO_GLOB)

    def test_uid_alone(self):
        self.pair(kernel(uids=[1000]), kernel(uids=[1000], units=["runner.service"]), UID)
        self.pair(kernel(uids=[1000]), kernel(uids=[1000], cgroups=["/system.slice/runner-*.service"]), UID)
        self.pair(kernel(gids=[1000]), kernel(units=["runner.service"]), UID)

    def test_many_roles(self):
        """Each role by its name, with the number in the end; JSON says the same."""
        roles = (f"roles:\n  first:\n    policies: [release]\n{kernel(uids=[1])}  fine:\n    policies: [release]\n{kernel(units=['a.service'])}"
                 f"  last:\n    policies: [release]\n{jwt('buildkite', build_branch='main')}")
        config = self.config(ISSUERS + roles)
        self.assertEqual(self.warnings(config), [("first", UID), ("last", NO_ORG)])
        p = self.b.cli("policy", "lint", "--json", "--config", config)
        self.assertEqual(p.returncode, 1)
        self.assertEqual([json.loads(line) for line in p.stdout.splitlines()],
                         [{"role": "first", "warning": UID}, {"role": "last", "warning": NO_ORG}])


if __name__ == "__main__":
    unittest.main()
