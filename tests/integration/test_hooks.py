"""The runners' hooks, driven as each runner would: its environment, folders, files and exit statuses, and stand-ins for what it serves."""
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import threading
import time
import unittest

from harness import COTTER, ROOT, run, wait_for
from test_jobs import JOB, NO_CGROUP, JobCase
from test_login import Keys

HOOKS = "/usr/share/cotter/hooks"
KEY = "-----BEGIN KEY-----\nline one of it\n\n  it's \"two\" $(touch /tmp/cotter-hook-was-here) `id` \\n 100% \\\nEOF\ncotter_0123\n-----END KEY-----\n"
CONFIG = """
  deploy:
    - path: "deploy/*"
      allow: [read]
issuers:
  ci:
    issuer: https://ci.example
    jwks_file: JWKS
roles:
  ci:
    kernel:
      uids: [12345]
    policies: [release]
  others:
    kernel:
      uids: [12346]
    policies: [release]
  idtoken:
    jwt:
      issuer: ci
      bound_audiences: [https://cotter.example/?a=b]
      bound_claims: {project_id: "20"}
    policies: [release]
"""


def read(path):
    with open(path) as f:
        return f.read()


def call(argv, env, cwd, stdin):
    """What a runner's process does: the hook is its child."""
    p = subprocess.run(argv, env=env, cwd=cwd, input=stdin, capture_output=True, timeout=60)
    return p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class HookCase(JobCase):
    """A runner of its own user, in a cgroup of its own, as a systemd unit has one."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.put("release/key", KEY.rstrip("\n"))
        cls.b.cli("put", "release/db", "--data", "-", stdin='{"user": "bob", "password": "p\'a\\"s$(id)s"}', check=True)
        cls.b.put("deploy/secret", "not-for-this-role")
        cls.hooks = os.path.join(cls.dir, "hooks")
        shutil.copytree(os.path.join(ROOT, "tools/hooks"), cls.hooks)
        cls.conf_file = os.path.join(cls.dir, "hooks.conf")
        lib = os.path.join(cls.hooks, "lib.sh")
        with open(lib) as f:
            text = f.read()
        assert text.count("conf=/etc/cotter/hooks.conf") == 1
        with open(lib, "w") as f:  # as a package with another place for configurations would
            f.write(text.replace("conf=/etc/cotter/hooks.conf", f"conf={cls.conf_file}"))

    @classmethod
    def configure(cls, text):
        cls.keys = Keys(cls.sub("keys"))
        with open(cls.keys.jwks, "w") as f:
            json.dump({"keys": cls.keys.keys}, f)
        os.chmod(cls.keys.jwks, 0o644)
        return text + CONFIG.replace("JWKS", cls.keys.jwks)

    def setUp(self):
        super().setUp()
        self.cg = self.cgroup()
        self.worker = self.process(uid=JOB, cgroup=self.cg)
        self.work = self.folder("work")
        self.bin = self.folder("bin")
        self.calls = os.path.join(self.work, ".calls")
        self.program("curl", f'printf "%s\\n" "$@" >>{self.calls}\nexec /usr/bin/curl "$@"')
        os.symlink(COTTER, os.path.join(self.bin, "cotter"))
        self.conf()

    def folder(self, name):
        path = os.path.join(self.dir, f"{self.id()}-{name}")
        os.makedirs(path)
        os.chown(path, JOB, JOB)
        return path

    def program(self, name, text):
        path = os.path.join(self.bin, name)
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + text + "\n")
        os.chmod(path, 0o755)

    def scanner(self, status):
        """A cotter that scans, with this outcome; else it is the real one."""
        self.scans = os.path.join(self.work, ".scans")
        self.program("cotter", f"""case $1 in
scan) printf '%s\\n' "$@" "token=$COTTER_TOKEN" >>{self.scans}; exit {status} ;;
--help) echo '  cotter scan    [--job ID] PATH...' >&2 ;;
*) exec {COTTER} "$@" ;;
esac""")

    def scanned(self):
        return read(self.scans).splitlines() if os.path.exists(self.scans) else []

    def conf(self, role="ci", socket_path=None, **settings):
        with open(self.conf_file, "w") as f:
            f.write(f"role={role}\nPATH={self.bin}:$PATH\n" + ("" if socket_path is False else f"export COTTER_SOCKET={socket_path or self.b.socket}\n"))
            f.writelines(f"{k}={shlex.quote(v)}\n" for k, v in settings.items())
        os.chmod(self.conf_file, 0o644)

    def hook(self, *argv, env=None, stdin=b"", cwd=None):
        base = {"PATH": "/usr/bin:/bin", "HOME": self.work}
        return self.worker.do(call, [a.replace(HOOKS, self.hooks) for a in argv], {**base, **(env or {})}, cwd or self.work, stdin)

    def works(self, token):
        return self.get(token, uid=JOB, cgroup=self.cg) == 200

    def jwt(self):
        now = int(time.time())
        return self.keys.sign({"iss": "https://ci.example", "aud": "https://cotter.example/?a=b", "project_id": "20", "iat": now,
                               "exp": now + 300, "jti": os.urandom(8).hex()})

    def job_list(self):
        return json.loads(self.b.cli("job", "list", "--json", check=True).stdout)

    def job_names(self):
        return [j["name"] for j in self.job_list()]

    def ends_with_its_script(self, script, token_file):
        """The job that runs now: whoever kills the script has ended the token, whatever the script started."""
        wait_for("the job", lambda: os.path.exists(token_file) and read(token_file).endswith("\n"))
        (job,), token = self.job_list(), read(token_file).strip()
        self.assertIn(script, read(f"/proc/{job['leader']}/cmdline").split("\0"))
        self.assertTrue(self.works(token))
        os.kill(job["leader"], signal.SIGKILL)
        wait_for("the token's end", lambda: not self.works(token))

    def id(self):
        return super().id().rpartition(".")[2]

    def assert_no_argument(self, *secrets):
        calls = read(self.calls)
        self.assertNotEqual(calls, "")
        for s in secrets:
            self.assertNotIn(s, calls)


def parse_environment_file(text):
    """As GitHub's runner reads GITHUB_ENV."""
    out, lines = {}, iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, _, rest = line.partition("<<") if "<<" in line and ("=" not in line or line.index("<<") < line.index("=")) else (line, "", "")
        if not rest:
            name, _, value = line.partition("=")
            out[name] = value
            continue
        value = []
        while (line := next(lines)) != rest:
            value.append(line)
        out[name] = "\n".join(value)
    return out


def masks(out):
    """What the log hides after these workflow commands."""
    undo = lambda v: v.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    return {undo(line[len("::add-mask::"):]) for line in out.splitlines() if line.startswith("::add-mask::")}


class GitHub(HookCase):
    """And Gitea's runner, which takes the same hooks."""

    def setUp(self):
        super().setUp()
        self.env_file = os.path.join(self.work, "set_env")
        open(self.env_file, "w").close()
        os.chown(self.env_file, JOB, JOB)
        self.env = {"GITHUB_ACTIONS": "true", "GITHUB_ENV": self.env_file, "GITHUB_REPOSITORY": "acme/web", "GITHUB_RUN_ID": "4711",
                    "GITHUB_JOB": "build", "GITHUB_WORKSPACE": self.work}

    def started(self, **env):
        return self.hook("bash", "-e", HOOKS + "/github/job-started.sh", env={**self.env, **env})

    def given(self):
        return parse_environment_file(read(self.env_file))

    def completed(self, env, **more):
        return self.hook("bash", "-e", HOOKS + "/job-completed.sh", env={**self.env, **env, **more})

    def test_a_job(self):
        self.conf(secrets="NPM_TOKEN=release/npm-token KEY=release/key DB_PASSWORD=release/db#password role=release/npm-token", scan_paths=self.folder("clean"))
        status, out, err = self.started()
        self.assertEqual((status, err), (0, ""))
        env = self.given()
        token = env["COTTER_TOKEN"]
        self.assertEqual(env, {"NPM_TOKEN": "N", "KEY": KEY.rstrip("\n"), "DB_PASSWORD": "p'a\"s$(id)s", "role": "N", "COTTER_TOKEN": token,
                               "COTTER_JOB": env["COTTER_JOB"]})
        # nothing but masks is printed, and of every line of a secret
        self.assertEqual([line for line in out.splitlines() if not line.startswith("::add-mask::")], [])
        self.assertEqual(masks(out), {"N", KEY.rstrip("\n"), *(line for line in KEY.split("\n") if line), "p'a\"s$(id)s", token})
        self.assertFalse(os.path.exists("/tmp/cotter-hook-was-here"))
        self.assertIn("github-acme-web-4711-build", self.job_names())
        self.assertTrue(self.works(token))
        self.assertEqual(self.get(token, uid=JOB, cgroup=self.cgroup()), 403)
        status, out, err = self.completed(env)
        self.assertEqual((status, out), (0, ""))
        self.assertIn("0 found", err)
        self.assertFalse(self.works(token))
        self.assertNotIn("github-acme-web-4711-build", self.job_names())

    def test_another_shell(self):
        """Where there is no bash."""
        self.conf(secrets="KEY=release/key", scan_paths=self.folder("clean"))
        status, out, err = self.hook("dash", "-e", HOOKS + "/github/job-started.sh", env=self.env)
        self.assertEqual((status, err, self.given()["KEY"]), (0, "", KEY.rstrip("\n")))
        self.assertIn("line one of it", masks(out))
        self.assertEqual(self.hook("dash", "-e", HOOKS + "/job-completed.sh", env={**self.env, **self.given()})[0], 0)
        self.assertFalse(self.works(self.given()["COTTER_TOKEN"]))
        before = self.jobs()
        self.conf(secrets="A=deploy/secret")
        self.assertEqual(self.hook("dash", "-e", HOOKS + "/github/job-started.sh", env=self.env)[0], 1)
        self.assertEqual(self.jobs(), before)

    def test_masks_come_first(self):
        """In one stream with what the steps see, the masks stand before every value."""
        self.conf(secrets="NPM=release/npm-token KEY=release/key DB=release/db#password")
        status, out, _ = self.started(GITHUB_ENV="/dev/stdout")
        self.assertEqual(status, 0)
        lines = out.splitlines()
        first = {name: next(i for i, line in enumerate(lines) if line.startswith(name + "<<")) for name in ("NPM", "KEY", "DB", "COTTER_TOKEN")}
        for name, value in (("NPM", "N"), ("KEY", "line one of it"), ("DB", "p'a\"s$(id)s"), ("COTTER_TOKEN", lines[first["COTTER_TOKEN"] + 1])):
            self.assertLess(lines.index("::add-mask::" + value), min(first.values()), name)
        ends = [lines[i].partition("<<")[2] for i in first.values()]
        self.assertEqual(len(set(ends)), 4)  # nobody can know them
        for end in ends:
            self.assertRegex(end, "^cotter_[0-9a-f]{32}$")

    def test_the_worker_is_the_leader(self):
        self.assertEqual(self.started()[0], 0)
        token = self.given()["COTTER_TOKEN"]
        self.assertTrue(self.works(token))
        stay = self.process(uid=JOB, cgroup=self.cg)  # the cgroup lives on
        self.worker.end()
        wait_for("the token's end", lambda: not self.works(token))
        self.assertTrue(stay.pid)

    def refused(self, *says, **env):
        before = self.jobs()
        status, out, err = self.started(**env)
        self.assertNotEqual(status, 0)
        for word in says:
            self.assertIn(word, err)
        self.assertEqual(self.given(), {})
        self.assertNotIn("N\n", out + err)
        self.assertEqual(self.jobs(), before)
        return out

    def test_denied(self):
        self.conf(role="others")
        self.assertEqual(self.refused("this job gets no secrets"), "")
        self.assertNotEqual(self.completed({})[0], 0)
        self.conf(role="others", denied="go-on")
        status, out, err = self.started()
        self.assertEqual((status, out, self.given()), (0, "", {}))
        self.assertIn("this job gets no secrets", err)
        self.assertEqual(self.completed({})[0], 0)

    def test_a_secret_that_is_denied_keeps_all_back(self):
        self.conf(secrets="A=release/npm-token B=deploy/secret")
        self.assertEqual(len(masks(self.refused())), 1)  # the token's, which is dead

    def test_a_broker_that_is_not_there(self):
        for denied in ("fail", "go-on"):  # nobody denied anything
            self.conf(socket_path=self.dir + "/nowhere", denied=denied)
            self.refused("no broker")

    def test_no_configuration(self):
        os.unlink(self.conf_file)
        self.refused("hooks.conf")
        self.conf(role="")
        self.refused("names no role")
        self.conf(scan="maybe")
        self.refused("fail, warn or off")

    def test_odd_names(self):
        self.assertEqual(self.started(GITHUB_JOB="$(touch x)\n'\"; --leader=1 é" + "y" * 200, GITHUB_REPOSITORY="-../../x")[0], 0)
        name = next(n for n in self.job_names() if n.startswith("github"))
        self.assertRegex(name, r"^github--..-..-x-4711---touch-x---[-a-z0-9]+$")
        self.assertEqual(len(name), 64)

    def test_what_a_workflow_sets_is_not_asked(self):
        """Another cotter, another broker, other settings."""
        evil = self.folder("evil")
        for name in ("cotter", "dirname", "curl", "tr", "cat", "grep"):
            with open(os.path.join(evil, name), "w") as f:
                f.write(f"#!/bin/sh\ntouch {self.work}/evil\n")
            os.chmod(f.name, 0o755)
        env = {"PATH": evil + ":/usr/bin:/bin", "COTTER_SOCKET": self.dir + "/nowhere", "COTTER_CONFIG": "/nowhere", "role": "others", "scan": "off",
               "secrets": "X=release/key", "denied": "go-on", "COTTER_TOKEN": "cot1_x"}
        self.assertEqual(self.started(**env)[0], 0)
        self.assertEqual(set(self.given()), {"COTTER_TOKEN", "COTTER_JOB"})
        self.scanner(1)
        self.assertEqual(self.completed({**env, **self.given()})[0], 1)
        self.assertFalse(os.path.exists(self.work + "/evil"))
        open(self.env_file, "w").close()
        self.conf(socket_path=False)  # the default's
        self.refused("no broker at /run/cotter/", COTTER_SOCKET=self.b.socket)

    def test_gate(self):
        for setting, found, want in (("fail", 0, 0), ("fail", 1, 1), ("fail", 5, 1), ("warn", 1, 0), ("warn", 5, 0), ("off", 1, 0)):
            with self.subTest(setting=setting, found=found):
                open(self.env_file, "w").close()
                self.scanner(found)
                self.conf(scan=setting)
                self.assertEqual(self.started()[0], 0)
                env = self.given()
                status, out, err = self.completed(env)
                self.assertEqual((status, out), (want, ""))
                self.assertEqual(self.scanned(), [] if setting == "off" else ["scan", "--job", "--no-rules", "--", self.work, "token=" + env["COTTER_TOKEN"]])
                self.assertEqual("stand in its files" in err, found == 1 and setting != "off")
                self.assertEqual("could not be looked through" in err, found == 5)
                self.assertFalse(self.works(env["COTTER_TOKEN"]))  # in any case
                if os.path.exists(self.scans):
                    os.unlink(self.scans)

    def test_gate_within_the_job(self):
        """Before a step that uploads."""
        self.scanner(1)
        self.conf(scan_paths="dist cache")
        self.assertEqual(self.started()[0], 0)
        env = self.given()
        self.assertEqual(self.hook(HOOKS + "/scan", "this", env=env)[0], 1)
        self.assertEqual(self.scanned()[3:6], ["--", "dist", "cache"])
        self.assertTrue(self.works(env["COTTER_TOKEN"]))

    def test_a_token_that_was_taken_away(self):
        self.scanner(0)
        self.assertEqual(self.started()[0], 0)
        for value in ({}, {"COTTER_TOKEN": ""}):
            status, _, err = self.completed(value)
            self.assertEqual(status, 1)
            self.assertIn("not looked through", err)
        self.conf(scan="warn")
        self.assertEqual(self.completed({})[0], 0)

    def test_id_tokens(self):
        server = IdTokens(self.jwt())
        self.ends.append(server.end)
        env = {"ACTIONS_ID_TOKEN_REQUEST_URL": server.url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runtime-token"}
        self.conf(role="idtoken", audience="https://cotter.example/?a=b")
        self.assertEqual(self.started(**env)[0], 0)
        self.assertTrue(self.works(self.given()["COTTER_TOKEN"]))
        (path, bearer), = server.asked
        self.assertEqual((path.lower(), bearer), ("/token?x=1&audience=https%3a%2f%2fcotter.example%2f%3fa%3db", "Bearer runtime-token"))
        self.assert_no_argument("runtime-token", server.jwt)
        open(self.env_file, "w").close()
        self.refused("this job gets no secrets", **env)  # it is good once
        server.status = 500
        self.refused("no ID token", **env)
        self.refused("no ID token")
        self.conf(role="idtoken", audience="https://cotter.example/?a=b", denied="go-on")
        self.assertEqual(self.started()[0], 0)
        self.assertEqual(self.given(), {})


class IdTokens:
    """GitHub's token service."""

    def __init__(self, jwt):
        self.jwt, self.asked, self.status = jwt, [], 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, self.headers["Authorization"]))
                body = json.dumps({"count": 1, "value": outer.jwt}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token?x=1"
        threading.Thread(target=self.server.serve_forever).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


def documented(pattern):
    return re.search(pattern, read(os.path.join(ROOT, "doc/runners.md")), re.S).group(1)


class GitLabShell(HookCase):
    """The shell executor: one script for the build, which begins and ends with what config.toml says."""

    def build(self, script, **env):
        """The lines of doc/runners.md, around the job's."""
        before, after = documented("pre_build_script = '''\n(.*?)\n'''"), documented('post_build_script = "(.*?)"')
        text = "\n".join(["set -eo pipefail", "set +o noclobber", before.replace(HOOKS, self.hooks), script, after.replace(HOOKS, self.hooks)])
        text = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        env = {"CI_PROJECT_PATH": "acme/web app", "CI_JOB_ID": "42", "CI_PROJECT_DIR": self.work, "GITLAB_CI": "true", **env}
        env["PATH"] = f"{self.bin}:/usr/bin:/bin"
        return self.hook("bash", "--noprofile", env={**env, "COTTER_SOCKET": self.b.socket}, stdin=f": | eval $'{text}'\nexit $?\n".encode())

    def read(self, name):
        return read(os.path.join(self.work, name))

    def test_a_job(self):
        self.conf(scan_paths=self.folder("clean"))
        script = 'echo "$COTTER_TOKEN" >token; cotter run --env T=release/db#password -- sh -c \'echo "$T" | tee value\'; cotter get release/npm-token >during'
        status, out, err = self.build(script)
        self.assertEqual((status, self.read("during")), (0, "N"), err)
        self.assertEqual(self.read("value"), "p'a\"s$(id)s\n")
        self.assertEqual(out, "***(db#password)***\n")
        self.assertFalse(self.works(self.read("token").strip()))

    def test_a_secret_in_the_workspace(self):
        """The gate itself: what the job received, and not what others have."""
        status, out, err = self.build("cotter get release/db#password >artifact")
        self.assertEqual(status, 1)
        self.assertIn("artifact:1:1: the secret release/db", out)
        self.assertNotIn("p'a", out + err)
        self.assertEqual(self.build("rm artifact; echo N >other")[0], 0)

    def test_the_shell_is_the_leader(self):
        status, _, _ = self.build('echo "$COTTER_TOKEN" >token; cotter get release/npm-token >during; exit 7')
        self.assertEqual((status, self.read("during")), (7, "N"))
        stay = self.process(uid=JOB, cgroup=self.cg)
        wait_for("the token's end", lambda: not self.works(self.read("token").strip()))
        self.assertTrue(stay.pid)

    def test_denied(self):
        self.conf(role="others")
        status, out, err = self.build("touch ran")
        self.assertEqual((status, out, os.path.exists(self.work + "/ran")), (1, "", False))
        self.assertIn("this job gets no secrets", err)
        self.conf(role="others", denied="go-on")
        self.assertEqual(self.build('echo "${COTTER_TOKEN-none}"')[:2], (0, "none\n"))

    def test_id_token(self):
        self.conf(role="idtoken", audience="given")
        script = 'echo "${COTTER_JWT-gone}"; cotter get release/npm-token'
        status, out, _ = self.build(script, COTTER_JWT=self.jwt())
        self.assertEqual((status, out), (0, "gone\nN"))
        self.assertEqual(self.build("touch ran")[0], 1)
        self.assertFalse(os.path.exists(self.work + "/ran"))

    def test_gate(self):
        self.scanner(1)
        status, _, err = self.build('echo "$COTTER_TOKEN" >token')
        self.assertEqual(status, 1)
        self.assertIn("stand in its files", err)
        self.assertFalse(self.works(self.read("token").strip()))


class GitLabCustom(HookCase):
    """The custom executor: config, prepare, run for each stage, cleanup."""
    BUILD_FAILURE, SYSTEM_FAILURE = 41, 42

    def setUp(self):
        super().setUp()
        self.builds = self.folder("builds")
        self.conf(builds=self.builds)
        self.env = {"CUSTOM_ENV_CI_JOB_ID": "77", "CUSTOM_ENV_CI_PROJECT_PATH": "acme/`x`", "BUILD_FAILURE_EXIT_CODE": str(self.BUILD_FAILURE),
                    "SYSTEM_FAILURE_EXIT_CODE": str(self.SYSTEM_FAILURE), "PATH": f"{self.bin}:/usr/bin:/bin", "COTTER_SOCKET": self.b.socket}

    def stage(self, *args, **env):
        return self.hook(HOOKS + "/gitlab/custom-executor", *args, env={**self.env, **env})

    def run_stage(self, stage, script, **env):
        path = os.path.join(self.work, "script")
        with open(path, "w") as f:
            f.write("set -e\n" + script)
        return self.stage("run", path, stage, **env)

    def prepared(self):
        self.assertEqual(self.stage("prepare"), (0, "", ""))
        return os.path.join(self.builds, "77")

    def test_a_job(self):
        status, out, err = self.stage("config")
        config = json.loads(out)
        self.assertEqual((status, err, config["builds_dir_is_shared"]), (0, "", False))
        where = self.prepared()
        self.assertTrue(config["builds_dir"].startswith(where + "/"))
        self.assertEqual(os.stat(where).st_mode & 0o777, 0o700)
        status, out, _ = self.run_stage("get_sources", 'echo "${COTTER_TOKEN-none}"; umask')
        self.assertEqual((status, out), (0, "none\n0022\n"))
        script = 'echo "$COTTER_TOKEN"; printf %s "$COTTER_TOKEN" >token; cotter run --env T=release/npm-token --no-mask -- sh -c \'printf %s "$T" >during\'; ' \
                 'echo "$PATH"; umask; readlink /proc/self/cwd'
        status, out, err = self.run_stage("step_script", script)
        self.assertEqual((status, out.splitlines()), (0, ["***(token)***", self.env["PATH"], "0022", where]), err)
        self.assertEqual(read(where + "/during"), "N")
        token = read(where + "/token")
        self.assertFalse(self.works(token))
        self.assertEqual(self.run_stage("after_script", 'echo "${COTTER_TOKEN-none}"')[1], "none\n")
        self.assertEqual(self.stage("cleanup")[0], 0)
        self.assertFalse(os.path.exists(where))

    def test_the_driver_is_the_leader(self):
        where, driver, script = self.prepared(), self.hooks + "/gitlab/custom-executor", os.path.join(self.work, "script")
        with open(script, "w") as f:
            f.write('echo "$COTTER_TOKEN" >token; while [ ! -e go ]; do sleep 0.05; done')
        self.worker.start(call, [driver, "run", script, "step_script"], self.env, self.work, b"")
        self.ends_with_its_script(driver, where + "/token")
        open(where + "/go", "w").close()
        self.worker.result()

    def test_exit_statuses(self):
        self.prepared()
        self.assertEqual(self.run_stage("build_script", "exit 3")[0], self.BUILD_FAILURE)
        self.assertEqual(self.run_stage("get_sources", "exit 42")[0], self.BUILD_FAILURE)
        self.scanner(0)  # a clean folder makes no build good
        self.assertEqual(self.run_stage("build_script", "exit 3")[0], self.BUILD_FAILURE)
        self.assertEqual(len(self.scanned()), 6)
        self.conf(builds=self.builds, role="others")
        status, out, err = self.run_stage("build_script", "touch ran")
        self.assertEqual((status, out), (self.BUILD_FAILURE, ""))  # asking again would not help
        self.assertIn("this job gets no secrets", err)
        self.conf(builds=self.builds, socket_path=self.dir + "/nowhere")
        self.assertEqual(self.run_stage("build_script", "touch ran")[0], self.SYSTEM_FAILURE)
        self.assertFalse(os.path.exists(self.builds + "/77/ran"))
        self.conf(builds=self.builds, role="others", denied="go-on")
        status, out, _ = self.run_stage("build_script", 'echo "${COTTER_TOKEN-none}"')
        self.assertEqual((status, out), (0, "none\n"))

    def test_job_ids_are_numbers(self):
        keep = os.path.join(self.builds, "keep")
        os.makedirs(keep)
        for id in ("", ".", "../" + os.path.basename(self.builds), "keep", "7 7", "$(id)"):
            for stage in ("config", "prepare", "cleanup"):
                self.assertEqual(self.stage(stage, CUSTOM_ENV_CI_JOB_ID=id)[0], self.SYSTEM_FAILURE)
        self.assertTrue(os.path.isdir(keep))
        self.conf()
        self.assertEqual(self.stage("prepare")[0], self.SYSTEM_FAILURE)

    def test_not_as_root(self):
        p = run(self.hooks + "/gitlab/custom-executor", "prepare", env={**os.environ, **self.env})
        self.assertEqual(p.returncode, self.SYSTEM_FAILURE)
        self.assertIn(b"User=", p.stderr)

    def test_id_token(self):
        self.conf(builds=self.builds, role="idtoken", audience="given")
        self.prepared()
        self.assertEqual(self.run_stage("build_script", "touch ran")[0], self.BUILD_FAILURE)
        self.assertEqual(self.run_stage("build_script", "cotter get release/npm-token >got", CUSTOM_ENV_COTTER_JWT=self.jwt())[0], 0)
        self.assertEqual(read(self.builds + "/77/got"), "N")

    def test_gate(self):
        self.scanner(1)
        where = self.prepared()
        self.assertEqual(self.run_stage("build_script", "true")[0], self.BUILD_FAILURE)
        self.assertEqual(self.scanned()[4], where)


class JobApi:
    """Buildkite's, of the agent: takes what is to be redacted, from who has its token."""

    def __init__(self, path, token):
        self.path, self.redactions, self.refuse, self.token = path, [], None, token
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = self.headers["Authorization"] == f"Bearer {outer.token}" and self.path == "/api/current-job/v0/redactions"
                status = 401 if not good else 201
                if good:
                    try:
                        value = json.loads(body)["redact"]
                    except ValueError:
                        value, status = "", 400
                    status = 500 if outer.refuse and outer.refuse in value else status
                    if status == 201:
                        outer.redactions.append(value)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def address_string(self):
                return "agent"

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            pass
        self.server = Server(path, Handler)
        os.chmod(path, 0o777)
        threading.Thread(target=self.server.serve_forever).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        os.unlink(self.path)


class Buildkite(HookCase):
    """Hooks are read by a shell of the agent's bootstrap; what they export is there in the next phases."""

    def setUp(self):
        super().setUp()
        self.api = JobApi(os.path.join(self.dir, "api.sock"), "job-api-token")
        self.ends.append(self.api.end)
        self.env = {"BUILDKITE": "true", "BUILDKITE_JOB_ID": "0191-abc", "BUILDKITE_PIPELINE_SLUG": "web", "BUILDKITE_BUILD_NUMBER": "7",
                    "BUILDKITE_BUILD_CHECKOUT_PATH": self.work, "BUILDKITE_AGENT_JOB_API_SOCKET": self.api.path,
                    "BUILDKITE_AGENT_JOB_API_TOKEN": "job-api-token"}

    def phase(self, name, **env):
        """(exit status, what was printed, the environment after it or None)"""
        after = os.path.join(self.work, ".after")
        if os.path.exists(after):
            os.unlink(after)
        hook = documented(rf"(\. {HOOKS}/buildkite/{name})\n").replace(HOOKS, self.hooks)
        status, out, err = self.hook("/bin/bash", "-c", f"{hook}\nenv -0 >.after", env={**self.env, **env})
        values = None
        if os.path.exists(after):
            values = dict(entry.split("=", 1) for entry in read(after).split("\0") if entry)
        return status, out + err, values

    def test_a_job(self):
        self.conf(secrets="KEY=release/key DB=release/db#password NPM=release/npm-token")
        status, text, env = self.phase("environment")
        self.assertEqual((status, text), (0, ""))
        self.assertEqual((env["KEY"], env["DB"], env["NPM"]), (KEY.rstrip("\n"), "p'a\"s$(id)s", "N"))
        token = env["COTTER_TOKEN"]
        self.assertEqual(set(self.api.redactions), {token, KEY.rstrip("\n"), *(line for line in KEY.split("\n") if line), "p'a\"s$(id)s", "N"})
        self.assertFalse(os.path.exists("/tmp/cotter-hook-was-here"))
        self.assertFalse([name for name in env if name.startswith(("cotter_", "COTTER_SECRET"))])
        self.assert_no_argument("job-api-token", token, "line one", "s$(id)s")
        self.assertTrue(self.works(token))
        self.assertIn("buildkite-web-7-0191-abc", self.job_names())
        job = {name: env[name] for name in ("COTTER_TOKEN", "COTTER_JOB")}
        self.assertEqual(self.phase("pre-artifact", **job)[0], 0)
        self.assertTrue(self.works(token))
        self.assertEqual(self.phase("pre-exit", **job)[0], 0)
        self.assertFalse(self.works(token))

    def refused(self, **env):
        before = self.jobs()
        status, text, after = self.phase("environment", **env)
        self.assertEqual((status, after), (1, None))
        self.assertIn("no secrets", text)
        self.assertNotIn("line one", text)
        self.assertEqual(self.jobs(), before)

    def test_what_cannot_be_masked_is_not_handed_out(self):
        self.conf(secrets="NPM=release/npm-token KEY=release/key")
        self.api.refuse = "two"
        self.refused()
        self.api.refuse = "cot1_"
        self.refused()
        self.api.refuse = None
        self.refused(BUILDKITE_AGENT_JOB_API_TOKEN="wrong")
        self.refused(BUILDKITE_AGENT_JOB_API_SOCKET=self.dir + "/nowhere")
        self.refused(BUILDKITE_AGENT_JOB_API_SOCKET="")
        self.b.cli("put", "release/control", "--data", "-", stdin='{"value": "a\\u0001bcdefgh"}', check=True)
        self.conf(secrets="C=release/control")
        self.refused()

    def test_a_curlrc_of_a_job_before(self):
        with open(os.path.join(self.work, ".curlrc"), "w") as f:
            f.write(f"trace-ascii = {self.work}/trace\n")
        self.assertEqual(self.phase("environment", http_proxy="http://127.0.0.1:1/")[0], 0)
        self.assertEqual(len(self.api.redactions), 1)
        self.assertFalse(os.path.exists(self.work + "/trace"))

    def test_denied(self):
        self.conf(role="others")
        self.refused()
        self.conf(secrets="NPM=release/npm-token B=deploy/secret")
        self.refused()
        self.conf(role="others", denied="go-on")
        status, _, after = self.phase("environment")
        self.assertEqual((status, after and after.get("COTTER_TOKEN")), (0, None))

    def test_the_bootstrap_is_the_leader(self):
        token = self.phase("environment")[2]["COTTER_TOKEN"]
        stay = self.process(uid=JOB, cgroup=self.cg)
        self.assertTrue(self.works(token))
        self.worker.end()
        wait_for("the token's end", lambda: not self.works(token))
        self.assertTrue(stay.pid)

    def test_gate(self):
        self.scanner(1)
        env = self.phase("environment")[2]
        job = {name: env[name] for name in ("COTTER_TOKEN", "COTTER_JOB")}
        self.assertEqual(self.phase("pre-artifact", **job)[0], 1)
        self.assertTrue(self.works(env["COTTER_TOKEN"]))
        self.assertEqual(self.phase("pre-exit", **job)[0], 1)
        self.assertFalse(self.works(env["COTTER_TOKEN"]))

    def test_id_token(self):
        self.program("buildkite-agent", f'[ "$*" = "oidc request-token --audience given" ] && printf %s {self.jwt()}')
        self.conf(role="idtoken", audience="given")
        self.assertTrue(self.works(self.phase("environment")[2]["COTTER_TOKEN"]))


class Steps(HookCase):
    """Jenkins, Woodpecker, Forgejo: a step is a job."""

    def step(self, *args, **env):
        env = {"WORKSPACE": self.work, "BUILD_TAG": "jenkins-web » main #3", "PATH": f"{self.bin}:/usr/bin:/bin", "COTTER_SOCKET": self.b.socket, **env}
        return self.hook(HOOKS + "/step", *args, env=env)

    def test_a_step(self):
        self.conf(scan_paths=self.folder("clean"))
        script = 'echo "$T"; printf %s "$T" >got; echo "${COTTER_TOKEN-none} ${COTTER_JWT-none}"; echo "$PATH"; umask; exit 9'
        status, out, _ = self.step("--env", "T=release/db#password", "--", "sh", "-c", script, COTTER_JWT="x")
        self.assertEqual(status, 9)
        self.assertEqual(out.splitlines()[1:], ["none none", f"{self.bin}:/usr/bin:/bin", "0022"])
        self.assertEqual(out.splitlines()[0], "***(db#password)***")
        self.assertEqual(read(self.work + "/got"), "p'a\"s$(id)s")

    def test_its_token_ends(self):
        status, _, _ = self.step("--give-token", "--", "sh", "-c", 'printf %s "$COTTER_TOKEN" >token; cotter get release/npm-token >got')
        self.assertEqual((status, read(self.work + "/got")), (0, "N"))
        self.assertFalse(self.works(read(self.work + "/token")))
        self.assertEqual(self.jobs(), set())

    def test_it_is_the_leader(self):
        script = 'echo "$COTTER_TOKEN" >token; while [ ! -e go ]; do sleep 0.05; done'
        self.worker.start(call, [self.hooks + "/step", "--give-token", "--", "sh", "-c", script], {"PATH": "/usr/bin:/bin"}, self.work, b"")
        self.ends_with_its_script(self.hooks + "/step", self.work + "/token")
        open(self.work + "/go", "w").close()
        self.worker.result()

    def test_names(self):
        seen = os.path.join(self.work, "go")
        self.worker.start(call, [self.hooks + "/step", "--", "sh", "-c", f"until [ -e {seen} ]; do sleep 0.05; done"],
                          {"CI_REPO": "acme/web", "CI_PIPELINE_NUMBER": "5", "CI_STEP_NAME": "$(x)", "PATH": "/usr/bin:/bin"}, self.work, b"")
        wait_for("the job", lambda: "acme-web-5---x-" in self.job_names())
        open(seen, "w").close()
        self.assertEqual(self.worker.result()[0], 0)

    def test_refused(self):
        self.conf(role="others", denied="go-on")
        status, out, err = self.step("--", "touch", "ran")  # it is there for the secrets alone
        self.assertEqual((status, out), (1, ""))
        self.assertIn("this job gets no secrets", err)
        self.conf()
        self.assertNotEqual(self.step("--env", "T=deploy/secret", "--", "touch", "ran")[0], 0)
        self.assertFalse(os.path.exists(self.work + "/ran"))
        self.assertEqual(self.jobs(), set())

    def test_id_token(self):
        self.conf(role="idtoken", audience="given")
        self.assertEqual(self.step("--env", "T=release/npm-token", "--", "true", COTTER_JWT=self.jwt())[0], 0)
        self.assertNotEqual(self.step("--env", "T=release/npm-token", "--", "true")[0], 0)

    def test_gate(self):
        self.scanner(0)
        self.assertEqual(self.step("--", "sh", "-c", "exit 9")[0], 9)
        os.unlink(self.scans)
        self.scanner(1)
        self.assertEqual(self.step("--", "true")[0], 1)
        self.assertEqual(self.scanned()[4], self.work)
        self.assertEqual(self.jobs(), set())


class Scripts(unittest.TestCase):
    def test_shells(self):
        """Each one parses in each shell that may read it."""
        for folder, _, files in os.walk(os.path.join(ROOT, "tools/hooks")):
            for name in files:
                path = os.path.join(folder, name)
                with open(path) as f:
                    first = f.readline()
                for shell in ["bash"] if "bash" in first else ["dash", "bash"]:
                    self.assertEqual(run(shell, "-n", path).stderr, b"", path)

    def test_the_documented_files_exist(self):
        names = set(re.findall(HOOKS + r"/([\w./-]+\w)", read(os.path.join(ROOT, "doc/runners.md"))))
        self.assertGreater(len(names), 8)
        for name in names:
            self.assertTrue(os.path.exists(os.path.join(ROOT, "tools/hooks", name)), name)


if __name__ == "__main__":
    unittest.main()
