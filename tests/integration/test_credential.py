"""cotter credential: the tools themselves ask, where they are on the machine; else their calls, as their protocols have them."""
import base64
import functools
import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import unittest

from harness import COTTER, Case, clean_env, run

PASSWORD = "hunter2-$x y"
NAMES = {"git": "git-credential-cotter", "docker": "docker-credential-cotter", "cargo": "cargo-credential-cotter",
         "terraform": "terraform-credentials-cotter", "pip": "keyring"}

POLICY = """  helpers:
    - {path: "git/*", allow: [get]}
    - {path: "docker/*", allow: [get]}
    - {path: "cargo/*", allow: [get]}
    - {path: "pip/*", allow: [get]}
    - {path: "npm/*", allow: [get]}
    - {path: "terraform/*", allow: [get]}
    - {path: "aws/*", allow: [get]}
    - {path: "kubectl/*", allow: [get]}
    - {path: "ci/*", allow: [get]}
"""


class Server:
    """An HTTP server of this machine: respond(path, headers, body) gives (status, body) or (status, body, headers)."""

    def __init__(self, respond, tls=None):
        outer = self
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                outer.seen.append((self.path, self.headers.get("Authorization")))
                status, text, *more = respond(self, body)
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def tool(name):
    """The path of a tool that the machine may have, outside of the package list; None: it has none."""
    return shutil.which(name)


class Helpers(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker_ = cls.broker(hsm=cls.softhsm(), edit=lambda text: text + POLICY)
        cls.token = cls.broker_.token("--policy", "helpers")
        cls.bin = cls.sub("bin")
        os.symlink(COTTER, os.path.join(cls.bin, "cotter"))
        for name in NAMES.values():
            os.symlink(COTTER, os.path.join(cls.bin, name))
        cls.home = cls.sub("home")
        cls.env = clean_env(COTTER_SOCKET=cls.broker_.socket, COTTER_TOKEN=cls.token, HOME=cls.home, XDG_STATE_HOME=cls.home + "/state")
        cls.env["PATH"] = cls.bin + ":" + cls.env["PATH"]

    def put(self, path, **fields):
        self.broker_.cli("put", path, "--data", "-", stdin=json.dumps(fields), check=True)

    def serve(self, respond, tls=None):
        s = Server(respond, tls)
        self.addCleanup(s.stop)
        return s

    def tls(self):
        """A server's context for localhost, and its certificate."""
        key, cert = os.path.join(self.dir, "key.pem"), os.path.join(self.dir, "cert.pem")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", check=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        return context, cert

    def credential(self, *args, stdin="", env=None, token=True):
        e = dict(self.env, **(env or {}))
        if not token:
            del e["COTTER_TOKEN"]
        return run(COTTER, "credential", *args, stdin=stdin, env=e)

    def refused(self, p, status=None, says=None):
        """Nothing was told, and no value stands in the error."""
        self.assertNotEqual(p.returncode, 0)
        if status is not None:
            self.assertEqual(p.returncode, status, p.stderr)
        self.assertEqual(p.stdout, b"")
        self.assertNotIn(PASSWORD.encode(), p.stderr)
        if says:
            self.assertIn(says, p.stderr.decode())

    # ---- git ----

    def git(self, *args, **kw):
        env = dict(self.env, GIT_TERMINAL_PROMPT="0", GIT_CONFIG_NOSYSTEM="1", GIT_ASKPASS="/bin/false")
        return run("git", *args, env=env, **kw)

    def test_git_fill(self):
        self.put("git/git.example.org", username="ci", password=PASSWORD)
        p = self.git("-c", "credential.helper=cotter", "credential", "fill", stdin="protocol=https\nhost=GIT.example.org\n\n")
        self.assertEqual(p.stdout.decode(), f"protocol=https\nhost=GIT.example.org\nusername=ci\npassword={PASSWORD}\n", p.stderr)
        # what git does after a success, and after a refusal by the server
        for verb in ("approve", "reject"):
            p = self.git("-c", "credential.helper=cotter", "credential", verb,
                         stdin="protocol=https\nhost=git.example.org\nusername=ci\npassword=other\n\n", check=True)
            self.assertEqual(p.stderr, b"")
        self.assertEqual(self.broker_.cli("get", "git/git.example.org#password").stdout.decode(), PASSWORD)

    def test_git_clone(self):
        origin = self.sub("origin.git")
        run("git", "init", "-q", "--bare", origin, check=True)

        def respond(h, body):
            if h.headers.get("Authorization") != basic("git", PASSWORD):
                return 401, b"", {"WWW-Authenticate": 'Basic realm="x"'}
            path, _, query = h.path.partition("?")
            env = clean_env(GIT_PROJECT_ROOT=self.dir, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query, REQUEST_METHOD=h.command,
                            CONTENT_TYPE=h.headers.get("Content-Type", ""), REMOTE_USER="ci")
            out = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env).stdout
            head, _, body = out.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            return int(fields.pop("Status", "200").split()[0]), body, fields
        server = self.serve(respond)
        # one field, and git asked for no user
        self.put(f"ci/deploy-{server.port}", value=PASSWORD)
        target = os.path.join(self.dir, "clone")
        url = f"http://{server.host}/origin.git"
        options = ["-c", f"credential.helper=cotter --path ci/deploy-{server.port} --host {server.host}"]
        p = self.git(*options, "clone", "-q", url, target)
        self.assertEqual(p.returncode, 0, p.stderr)
        # nothing stays in the clone, and without the helper there is no way in
        self.assertNotEqual(run("grep", "-r", "-F", PASSWORD, target).returncode, 0)
        self.assertNotEqual(self.git("clone", "-q", url, target + "2").returncode, 0)

    def test_git_path(self):
        self.put("git/hub.example/org/app.git", username="app", password=PASSWORD)
        p = self.git("-c", "credential.helper=cotter", "-c", "credential.useHttpPath=true", "credential", "fill",
                     stdin="protocol=https\nhost=hub.example\npath=org/app.git\n\n")
        self.assertIn(f"username=app\npassword={PASSWORD}\n", p.stdout.decode(), p.stderr)
        for path in ("org/../app.git", "../../ci/x", "a b", "a//b", "/etc"):
            self.refused(self.credential("git", "get", stdin=f"protocol=https\nhost=hub.example\npath={path}\n\n"), 1)

    def test_git_hostile(self):
        self.put("git/evil.example", username="ci", password=PASSWORD)
        self.put("git/with.newline", username="ci", password=PASSWORD + "\nhost=elsewhere")
        good = "protocol=https\nhost=evil.example\n"
        for text, says in ((good + "username=other\n\n", "another user"), ("protocol=http\nhost=evil.example\n\n", "https alone"),
                           ("protocol=ssh\nhost=evil.example\n\n", "https"), ("protocol=https\nhost=\n\n", "not a host"),
                           ("protocol=https\n\n", "not a host"), (good + "host=b.example\n\n", "two lines"), (good + "no-equals\n\n", "key=value"),
                           (good.rstrip(), "ends within a line"), ("protocol=https\nhost=evil.example\0x\n\n", "key=value"),
                           ("protocol=https\nhost=../ci\n\n", "not a host"), ("protocol=https\nhost=a..b\n\n", "not a host"),
                           ("protocol=https\nhost=evil.example/..\n\n", None), ("protocol=https\nhost=u@evil.example\n\n", "not a host"),
                           ("protocol=https\nhost=evil.example:99999x\n\n", "not a host"), ("protocol=https\nhost=" + "a" * 200 + "\n\n", "128 bytes"),
                           ("protocol=https\nhost=with.newline\n\n", "not a line of text"), ("x" * 70000, "longer than")):
            if says is None:
                continue
            self.refused(self.credential("git", "get", stdin=text), 1 if "user" not in says else 4, says)
        self.refused(self.credential("git", "get", stdin="protocol=https\nhost=none.example\n\n"), 4)
        self.refused(self.credential("git"), 2)

    def test_path_is_for_one_host(self):
        self.put("ci/git", username="ci", password=PASSWORD)
        ask = lambda *o, host="git.example.org": self.credential("git", *o, "get", stdin=f"protocol=https\nhost={host}\n\n")
        self.refused(ask("--path", "ci/git"), 2, "--host")
        self.refused(ask("--path", "ci/git", "--host", "git.example.org", host="evil.example"), 4, "another host")
        self.refused(ask("--path", "ci/git", "--host", "git.example.org", host="git.example.org:8443"), 4)
        self.assertIn(PASSWORD, ask("--path=ci/git", "--host=Git.Example.org").stdout.decode())
        self.put("team/a/git.example.org", password=PASSWORD)
        self.refused(ask("--prefix", "team/a"), 3, "permission denied")
        self.put("ci/sub/git.example.org", password=PASSWORD)
        self.assertIn(f"username=git\npassword={PASSWORD}\n", ask("--prefix", "ci/sub").stdout.decode())
        self.refused(ask("--prefix", "ci/../team/a"), 1)
        self.refused(ask("--path"), 2)

    # ---- docker ----

    def docker(self, verb, stdin=""):
        return run(os.path.join(self.bin, NAMES["docker"]), verb, stdin=stdin, env=self.env)

    def test_docker(self):
        self.put("docker/index.docker.io", username="ci", password=PASSWORD)
        self.put("docker/registry.example.org+5000", token=PASSWORD)
        for server, user in (("https://index.docker.io/v1/", "ci"), ("registry.example.org:5000", "<token>"), ("Registry.example.org:5000\n", "<token>")):
            p = self.docker("get", server)
            self.assertEqual(p.returncode, 0, p)
            self.assertEqual(json.loads(p.stdout), {"ServerURL": server.strip(), "Username": user, "Secret": PASSWORD})
        self.assertEqual((self.docker("list").returncode, json.loads(self.docker("list").stdout)), (0, {}))
        # a miss has its own sentence: the client goes on without a login
        p = self.docker("get", "https://elsewhere.example/v2/")
        self.assertEqual((p.returncode, p.stdout), (1, b"credentials not found in native keychain\n"))
        for verb, stdin in (("store", json.dumps({"ServerURL": "a.example", "Username": "u", "Secret": PASSWORD})), ("erase", "a.example"),
                            ("get", "http://index.docker.io/v1/"), ("get", "a/../b"), ("get", ""), ("get", "-x.example/.."), ("get", "a b"),
                            ("get", "a" * 70000), ("get", "a\0b"), ("fetch", "a.example")):
            p = self.docker(verb, stdin)
            self.assertEqual(p.returncode, 1, (verb, stdin))
            self.assertNotIn(PASSWORD.encode(), p.stdout + p.stderr)
            self.assertTrue(p.stdout.strip(), (verb, stdin))

    @unittest.skipUnless(tool("docker"), "there is no docker on this machine")
    def test_docker_itself(self):
        tls, cert = self.tls()
        server = self.serve(lambda h, _: (404, b"{}") if h.headers.get("Authorization") else (401, b"", {"WWW-Authenticate": 'Basic realm="x"'}), tls)
        self.put(f"docker/localhost+{server.port}", username="ci", password=PASSWORD)
        config = self.sub("docker")
        with open(config + "/config.json", "w") as f:
            json.dump({"credHelpers": {f"localhost:{server.port}": "cotter"}}, f)
        run(tool("docker"), "--config", config, "manifest", "inspect", f"localhost:{server.port}/app:1", env=dict(self.env, SSL_CERT_FILE=cert))
        self.assertIn(("/v2/app/manifests/1", basic("ci", PASSWORD)), server.seen)

    # ---- cargo ----

    def cargo(self, *requests, args=("--cargo-plugin",)):
        lines = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in requests)
        p = run(os.path.join(self.bin, NAMES["cargo"]), *args, stdin=lines, env=self.env)
        out = [json.loads(line) for line in p.stdout.splitlines()]
        return p, out

    @staticmethod
    def cargo_get(url, kind="get", v=1, args=()):
        return {"v": v, "registry": {"index-url": url, "name": "alt", "headers": []}, "kind": kind, "operation": "read", "args": list(args)}

    def test_cargo_protocol(self):
        self.put("cargo/crates.example", token=PASSWORD)
        good = {"Ok": {"kind": "get", "token": PASSWORD, "cache": "session", "operation_independent": True}}
        get = functools.partial(self.cargo_get, "sparse+https://crates.example/index/")
        p, out = self.cargo(get(), get(), self.cargo_get("https://none.example/"), get(kind="login"), get(v=2), self.cargo_get("http://crates.example/"),
                            "no json", "[1]", '{"v":1}', get(args=["--path"]), get(args=[1]), get(args=["--bogus", "x"]), get(args=["x"] * 40))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(out[:3], [{"v": [1]}, good, good])
        self.assertEqual([list(o["Err"].values())[0] for o in out[3:]],
                         ["not-found", "operation-not-supported", "operation-not-supported", "other", "other", "other", "other", "other", "other", "other", "other"])
        self.put("ci/crates", value=PASSWORD)
        p, out = self.cargo(get(args=["--path", "ci/crates", "--host", "crates.example"]), get(args=["--path", "ci/crates", "--host", "b.example"]))
        self.assertEqual(out[1:], [good, {"Err": {"kind": "not-found"}}])
        self.assertEqual(self.cargo(args=())[0].returncode, 2)
        self.assertEqual(self.cargo("x" * 200000)[0].returncode, 1)
        self.assertEqual(run(COTTER, "credential", "cargo", "--cargo-plugin", stdin='{"v":1', env=self.env).returncode, 1)

    @unittest.skipUnless(tool("cargo"), "there is no cargo on this machine")
    def test_cargo(self):
        entry = json.dumps({"name": "thing", "vers": "1.0.0", "deps": [], "cksum": "0" * 64, "features": {}, "yanked": False}).encode()

        def respond(h, _):
            if h.headers.get("Authorization") != PASSWORD.replace(" ", ""):
                return 401, b""
            if h.path == "/config.json":
                return 200, json.dumps({"dl": f"http://{server.host}/dl", "auth-required": True}).encode()
            return (200, entry) if h.path == "/th/in/thing" else (404, b"")
        server = self.serve(respond)
        self.put(f"cargo/127.0.0.1+{server.port}", token=PASSWORD.replace(" ", ""))
        project = self.sub("crate")
        os.makedirs(project + "/src")
        os.makedirs(project + "/.cargo")
        with open(project + "/src/lib.rs", "w"), open(project + "/Cargo.toml", "w") as f:
            f.write('[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nthing = { version = "1", registry = "alt" }\n')
        with open(project + "/.cargo/config.toml", "w") as f:
            f.write(f'[registries.alt]\nindex = "sparse+http://{server.host}/"\ncredential-provider = ["cargo-credential-cotter"]\n')
        env = dict(self.env, CARGO_HOME=self.sub("cargo-home"), HOME=os.path.expanduser("~"))
        p = run(tool("cargo"), "generate-lockfile", env=env, cwd=project)
        self.assertEqual(p.returncode, 0, p.stderr)
        with open(project + "/Cargo.lock") as f:
            self.assertIn('name = "thing"', f.read())

    # ---- one JSON object ----

    def test_aws(self):
        self.put("aws/deploy", access_key_id="AKIDEXAMPLE", secret_access_key=PASSWORD, session_token="st", expiration="2036-01-02T03:04:05Z")
        p = self.credential("aws", "--path", "aws/deploy")
        self.assertEqual(json.loads(p.stdout), {"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": PASSWORD, "SessionToken": "st",
                                                "Expiration": "2036-01-02T03:04:05Z"})
        self.put("aws/static", access_key_id="AKIDEXAMPLE", secret_access_key=PASSWORD)
        self.assertEqual(sorted(json.loads(self.credential("aws", "--path", "aws/static").stdout)), ["AccessKeyId", "SecretAccessKey", "Version"])
        self.put("aws/half", access_key_id="AKIDEXAMPLE")
        self.put("aws/odd", access_key_id="AKIDEXAMPLE", secret_access_key=7)
        self.refused(self.credential("aws", "--path", "aws/half"), 4)
        self.refused(self.credential("aws", "--path", "aws/odd"), 1)
        self.refused(self.credential("aws"), 2, "--path")
        self.refused(self.credential("aws", "--path", "aws/deploy", "more"), 2)
        self.refused(self.credential("aws", "--path", "other/deploy"), 3)

    def test_botocore(self):
        self.put("aws/real", access_key_id="AKIDEXAMPLE", secret_access_key=PASSWORD, session_token="st", expiration="2036-01-02T03:04:05Z")
        config = os.path.join(self.home, "aws")
        with open(config, "w") as f:
            f.write("[profile deploy]\ncredential_process = cotter credential aws --path aws/real\n")
        script = ("import json, botocore.session as s\n"
                  "c = s.Session(profile='deploy').get_credentials().get_frozen_credentials()\n"
                  "print(json.dumps([c.access_key, c.secret_key, c.token]))")
        p = run("/usr/bin/python3", "-c", script, env=dict(self.env, AWS_CONFIG_FILE=config, AWS_SHARED_CREDENTIALS_FILE="/dev/null"))
        self.assertEqual(json.loads(p.stdout), ["AKIDEXAMPLE", PASSWORD, "st"], p.stderr)

    def test_kubectl_protocol(self):
        self.put("kubectl/token", token=PASSWORD, expiration="2036-01-02T03:04:05Z")
        self.put("kubectl/pair", client_certificate="-----BEGIN C\n", client_key="-----BEGIN K\n")
        self.put("kubectl/half", client_key="-----BEGIN K\n")
        ask = lambda path, info=None: self.credential("kubectl", "--path", path, env={"KUBERNETES_EXEC_INFO": info} if info is not None else None)
        v1 = "client.authentication.k8s.io/v1"
        token = {"token": PASSWORD, "expirationTimestamp": "2036-01-02T03:04:05Z"}
        for info, version in ((None, v1), ("", v1), ({"apiVersion": v1, "kind": "ExecCredential", "spec": {"interactive": False}}, v1),
                              ({"apiVersion": v1 + "beta1"}, v1 + "beta1")):
            p = ask("kubectl/token", json.dumps(info) if info else info)
            self.assertEqual(json.loads(p.stdout), {"apiVersion": version, "kind": "ExecCredential", "status": token}, p.stderr)
        self.assertEqual(json.loads(ask("kubectl/pair").stdout)["status"],
                         {"clientCertificateData": "-----BEGIN C\n", "clientKeyData": "-----BEGIN K\n"})
        self.refused(ask("kubectl/half"), 4)
        for info in ("{", "[]", "{}", '{"apiVersion":"client.authentication.k8s.io/v2"}', '{"apiVersion":1}', " " * 70000):
            self.refused(ask("kubectl/token", info), 1)

    @unittest.skipUnless(tool("kubectl"), "there is no kubectl on this machine")
    def test_kubectl(self):
        tls, cert = self.tls()
        server = self.serve(lambda h, _: (200, b'{"major":"1","minor":"32"}', {"Content-Type": "application/json"})
                            if h.headers.get("Authorization") == f"Bearer {PASSWORD}" else (401, b"{}"), tls)
        self.put("kubectl/real", token=PASSWORD)
        config = os.path.join(self.dir, "kubeconfig")
        with open(config, "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                       "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                       "clusters": [{"name": "x", "cluster": {"server": f"https://{server.host}", "certificate-authority": cert}}],
                       "users": [{"name": "x", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "cotter",
                                                                 "args": ["credential", "kubectl", "--path", "kubectl/real"],
                                                                 "interactiveMode": "Never"}}}]}, f)
        p = run(tool("kubectl"), "--kubeconfig", config, "get", "--raw", "/version", env=self.env)
        self.assertEqual((p.returncode, json.loads(p.stdout or "0")), (0, {"major": "1", "minor": "32"}), p.stderr)

    def test_terraform(self):
        self.put("terraform/app.terraform.io", token=PASSWORD)
        ask = lambda *words: run(os.path.join(self.bin, NAMES["terraform"]), *words, env=self.env, stdin='{"token":"x"}')
        self.assertEqual(json.loads(ask("get", "app.terraform.io").stdout), {"token": PASSWORD})
        self.assertEqual(json.loads(ask("get", "none.example").stdout), {})
        self.put("ci/tf", value=PASSWORD)
        self.assertEqual(json.loads(ask("--path", "ci/tf", "--host", "a.example", "get", "a.example").stdout), {"token": PASSWORD})
        for words in (("store", "app.terraform.io"), ("forget", "app.terraform.io"), ("get", "a/b/../c"), ("get",), ()):
            p = ask(*words)
            self.assertNotIn(PASSWORD.encode(), p.stdout + p.stderr)
            if words[:1] != ("get",) or len(words) == 1:
                self.refused(p)

    # ---- podman ----

    def podman(self, verb, secret_id=None, stdin="", options=""):
        """As podman calls its driver "shell"."""
        env = dict(self.env, SECRET_ID=secret_id) if secret_id is not None else self.env
        return run("/bin/sh", "-c", f"cotter credential podman {options} {verb}", env=env, stdin=stdin)

    def test_podman(self):
        self.put("ci/db", user="u", password=PASSWORD)
        name = "62e8db5f2c2a4b7f9e8a0a1b2"
        self.assertEqual(self.podman("list").stdout, b"")
        self.assertEqual(self.podman("store", name, "cotter:ci/db#password").returncode, 0)
        self.assertEqual(self.podman("store", "b1", "cotter:ci/db\n").returncode, 0)
        self.assertEqual(sorted(self.podman("list").stdout.decode().split()), sorted([name, "b1"]))
        p = self.podman("lookup", name)
        self.assertEqual((p.returncode, p.stdout.decode()), (0, PASSWORD))
        self.refused(self.podman("lookup", "b1"), 2, "2 fields")
        # what is kept is the reference, for this user alone
        path = os.path.join(self.home, "state/cotter/podman", name)
        with open(path) as f:
            self.assertEqual(f.read(), "cotter:ci/db#password")
        self.assertEqual((os.stat(path).st_mode & 0o777, os.stat(os.path.dirname(path)).st_mode & 0o777), (0o600, 0o700))
        # a value is refused, and is in no file and no message
        for value in (PASSWORD, "cotter:" + PASSWORD, "cotter:../x", "cotter:", "", "cotter:a\0b", "cotter:" + "a" * 600, PASSWORD * 9000):
            p = self.podman("store", "c1", value)
            self.refused(p)
            self.assertNotIn(PASSWORD[:7].encode(), p.stderr)
        self.assertNotEqual(run("grep", "-rF", PASSWORD[:7], self.home + "/state").returncode, 0)
        self.refused(self.podman("store", name, "cotter:ci/other"), 1)
        for odd in (None, "", "../x", "a/b", ".", "a" * 65):
            for verb in ("store", "lookup", "delete"):
                self.refused(self.podman(verb, odd, "cotter:ci/db"), 2)
        self.assertEqual(self.podman("delete", name).returncode, 0)
        self.refused(self.podman("delete", name), 4)
        self.refused(self.podman("lookup", name), 4)
        self.refused(self.podman("pull"), 2)

    def test_podman_state(self):
        d = os.path.join(self.dir, "refs")
        self.assertEqual(self.podman("store", "a1", "cotter:ci/db", options=f"--state-dir {d}").returncode, 0)
        self.assertEqual(os.listdir(d), ["a1"])
        with open(d + "/a1", "w") as f:
            f.write("cotter:ci")
        os.chmod(d, 0o770)
        self.refused(self.podman("lookup", "a1", options=f"--state-dir {d}"), 1, "writable by others")
        self.refused(self.podman("list", options="--state-dir relative"), 2)

    # ---- pip, npm ----

    def test_pip_protocol(self):
        self.put("pip/pypi.example", username="ci", password=PASSWORD)
        ask = lambda *words: run(os.path.join(self.bin, "keyring"), *words, env=self.env)
        p = ask("get", "https://pypi.example/simple", "ci")
        self.assertEqual((p.returncode, p.stdout.decode()), (0, PASSWORD + "\n"))
        self.refused(ask("get", "https://pypi.example/simple", "other"), 4)
        self.refused(ask("get", "http://pypi.example/simple", "ci"), 1)
        self.refused(ask("get", "pypi.example", "ci"), 4)
        self.refused(ask("get", "https://none.example/", "ci"), 4)
        self.refused(ask("set", "https://pypi.example/simple", "ci"), 1)
        self.refused(ask("get", "https://pypi.example/simple"), 1)
        self.refused(ask(), 1)

    def test_pip(self):
        page = b'<!DOCTYPE html><a href="nothing-1.0.tar.gz">nothing-1.0.tar.gz</a>'
        server = self.serve(lambda h, _: (200, page, {"Content-Type": "text/html"}) if h.headers.get("Authorization") == basic("ci", PASSWORD)
                            else (401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
        self.put(f"pip/127.0.0.1+{server.port}", username="ci", password=PASSWORD)
        p = run("/usr/bin/python3", "-m", "pip", "--disable-pip-version-check", "index", "versions", "nothing", "--index-url",
                f"http://ci@{server.host}/simple", env=dict(self.env, PIP_CONFIG_FILE="/dev/null"))
        self.assertIn("nothing (1.0)", p.stdout.decode(), p.stderr)

    def test_npm(self):
        self.put("npm/registry.example", token=PASSWORD)
        self.assertEqual(self.credential("npm", "https://registry.example/").stdout.decode(), f"Bearer {PASSWORD}\n")
        self.assertEqual(self.credential("npm", "--path", "npm/registry.example").stdout.decode(), f"Bearer {PASSWORD}\n")
        self.refused(self.credential("npm"), 2)
        self.refused(self.credential("npm", "http://registry.example/"), 1)

    # ---- all ----

    def test_without_a_way_in(self):
        self.put("git/git.example.org", username="ci", password=PASSWORD)
        ask = lambda **env: self.credential("git", "get", stdin="protocol=https\nhost=git.example.org\n\n", env=env)
        self.refused(ask(COTTER_TOKEN="cot1_bogus"), 3)
        self.refused(ask(COTTER_SOCKET="/nowhere/cotter.sock"), 6)
        self.refused(self.credential("svn", "get"), 2)
        self.refused(run(COTTER, "credential", env=self.env), 2)
        self.assertIn(b"usage: cotter credential", run(os.path.join(self.bin, NAMES["git"]), "--help", env=self.env).stdout)


if __name__ == "__main__":
    unittest.main()
