"""From who somebody is to a token: the kernel's word, CI ID tokens, wrapped tokens; what policies make of it; and revocation."""
import base64
import concurrent.futures
import json
import os
import signal
import time
import unittest

import peers
from harness import COTTER, Case, run, wait_for
from peers import Session, as_peer, ask, connect, request
from test_jobs import JOB, NO_CGROUP, OTHER, JobCase

ISSUER = "https://ci.example"

CONFIG = """
  projects:
    - path: "{{project}}/*"
      allow: [read, list]
    - path: "{{project}}/private/*"
      allow: [deny]
    - path: "other/{{missing}}"
      allow: [read]
  base:
    - path: shared/*
      capabilities: [read]
  no-prod:
    - path: shared/prod
      capabilities: [deny]
  below:
    - path: both/*
      allow: [list]
  creator:
    - path: made/*
      allow: [create]
    - path: kept/*
      allow: [update]
  unresolved-deny:
    - path: "{{nobody}}/x"
      allow: [deny]
    - path: shared/*
      allow: [read]
issuers:
  ci:
    issuer: https://ci.example
    jwks_file: JWKS
    max_age: 30d
roles:
  ci:
    jwt: &jwt
      issuer: ci
      bound_audiences: [cotter, second]
      bound_claims:
        project_id: "20"
        ref_protected: "true"
      claim_mappings:
        project_path: project
    policies: [projects]
    scope: "{{project}}"
    ttl: 10m
  subject:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_subject: repo:acme/web:ref:refs/heads/main
    policies: [base]
  globs:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_claims_type: glob
      bound_claims:
        ref: ["refs/heads/release/*", "refs/tags/v*"]
        /a/b: "x*"
    policies: [base]
    uses: 1
  again:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_claims: {project_id: ["20", "21"]}
      replay: same-cgroup
    policies: [base]
  pointers:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_claims: {"/a~1b/c~0d": "x"}
    policies: [base]
  strict:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_claims: {project_id: "20"}
      leeway: 0s
    policies: [base]
  lenient:
    jwt:
      issuer: ci
      bound_audiences: [cotter]
      bound_claims: {project_id: "20"}
      leeway: 10m
    policies: [base]
  user:
    kernel:
      uids: [12345]
    policies: [base]
  group:
    kernel:
      gids: [12346]
    policies: [base]
  place:
    kernel:
      uids: [12345]
      cgroups: [/cotter-test-runner-*/job, /cotter-test-deep/**]
    policies: [base]
  unit:
    kernel:
      units: [cotter-test-runner-*.service]
    policies: [base]
scopes:
  acme:
    policies: [base]
  acme/web:
    policies: [no-prod]
"""


def b64(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Keys:
    """An issuer: RS256 and ES256 by openssl and jose, Ed25519 by openssl."""

    def __init__(self, directory):
        self.dir = directory
        self.jwks = os.path.join(directory, "jwks.json")
        run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.pem("rsa"), check=True)
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", self.pem("ed"), check=True)
        for name, alg in (("ec", "ES256"), ("jose-rsa", "RS256")):
            run("jose", "jwk", "gen", "-i", json.dumps({"alg": alg, "kid": name}), "-o", os.path.join(directory, name + ".jwk"), check=True)
        modulus = run("openssl", "rsa", "-in", self.pem("rsa"), "-noout", "-modulus", check=True).stdout.decode().strip().split("=")[1]
        ed = run("openssl", "pkey", "-in", self.pem("ed"), "-pubout", "-outform", "DER", check=True).stdout[-32:]
        self.keys = [{"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"},
                     {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(ed)},
                     {"kty": "oct", "kid": "shared", "k": b64(b"x" * 32)}, {"kty": "EC", "kid": "p521", "crv": "P-521", "x": "AA", "y": "AA"}]
        for name in ("ec", "jose-rsa"):
            self.keys.append(json.loads(run("jose", "jwk", "pub", "-i", os.path.join(directory, name + ".jwk"), "-o", "-", check=True).stdout))
        self.write(self.keys)

    def pem(self, name):
        return os.path.join(self.dir, name + ".pem")

    def write(self, keys):
        with open(self.jwks + ".new", "w") as f:
            json.dump({"keys": keys}, f)
        os.chmod(self.jwks + ".new", 0o644)
        os.rename(self.jwks + ".new", self.jwks)

    def sign(self, claims, kid="rsa", header=None):
        header = header or {"typ": "JWT", "alg": {"rsa": "RS256", "ed": "EdDSA", "ec": "ES256", "jose-rsa": "RS256"}[kid], "kid": kid}
        text = f"{b64(header)}.{b64(claims)}"
        if kid in ("ec", "jose-rsa"):
            payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
            return run("jose", "jws", "sig", "-I", "-", "-k", os.path.join(self.dir, kid + ".jwk"), "-s", json.dumps({"protected": header}), "-c",
                       "-o", "-", stdin=payload, check=True).stdout.decode().strip()
        message = os.path.join(self.dir, "message")
        with open(message, "w") as f:
            f.write(text)
        if kid == "rsa":
            signature = run("openssl", "dgst", "-sha256", "-sign", self.pem("rsa"), message, check=True).stdout
        else:
            signature = run("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.pem("ed"), "-in", message, check=True).stdout
        return f"{text}.{b64(signature)}"


class LoginCase(JobCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = None
        super().setUpClass()
        for path in ("acme/web/token", "acme/web/private/token", "acme/api/token", "shared/a", "shared/prod", "other/x", "kept/x"):
            cls.b.put(path, "v")

    @classmethod
    def configure(cls, text):
        cls.keys = Keys(cls.sub("keys"))
        text = text.replace("require_cgroup: true", "require_cgroup: false")
        return text + CONFIG.replace("JWKS", cls.keys.jwks)

    def setUp(self):
        super().setUp()
        self.keys.write(self.keys.keys)

    def claims(self, **change):
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "repo:acme/web:ref:refs/heads/main", "aud": "cotter", "iat": now, "nbf": now, "exp": now + 300,
                  "jti": base64.b16encode(os.urandom(8)).decode(), "project_id": "20", "ref_protected": "true", "project_path": "acme/web"}
        claims.update(change)
        return {k: v for k, v in claims.items() if v is not ...}

    def login(self, jwt, role="ci", **body):
        return ask(self.b.socket, "POST", "auth/jwt/login", body={"role": role, "jwt": jwt, **body})

    def token(self, jwt, role="ci", **body):
        status, reply = self.login(jwt, role, **body)
        self.assertEqual(status, 200, reply)
        return reply["auth"]["client_token"]

    def read(self, token, path):
        return ask(self.b.socket, "GET", f"secret/data/{path}", token)[0]

    def refused(self, text, jwt, role="ci", status=400, **body):
        got, reply = self.login(jwt, role, **body)
        self.assertEqual(got, status, reply)
        self.assertIn(text, reply["errors"][0])
        self.assertIn("ev=login.jwt", self.last_audit())
        return reply["errors"][0]


class IdToken(LoginCase):
    def test_each_algorithm(self):
        for kid in ("rsa", "ed", "ec", "jose-rsa"):
            status, reply = self.login(self.keys.sign(self.claims(), kid))
            self.assertEqual(status, 200, reply)
            self.assertEqual(reply["auth"]["metadata"], {"role": "ci", "project": "acme/web", "scope": "acme/web"})
            self.assertEqual(reply["auth"]["policies"], ["projects"])
            self.assertLessEqual(reply["auth"]["lease_duration"], 600)
        self.assertIn("why=role_ci", self.b.audit(8))

    def test_the_shapes_of_claims(self):
        for change in ({"aud": ["x", "second"]}, {"project_id": 20}, {"ref_protected": True}, {"project_id": ["7", 20]}, {"exp": time.time() + 100.5}):
            self.assertEqual(self.login(self.keys.sign(self.claims(**change)))[0], 200, change)

    def test_claims_that_stay_out(self):
        now = int(time.time())
        for change, text in (
                ({"aud": "vault"}, "audience"), ({"aud": ...}, "audience"), ({"aud": {"cotter": 1}}, "audience"), ({"iss": ISSUER + "/"}, "issuer"),
                ({"iss": ...}, "issuer"), ({"project_id": "200"}, '"project_id" does not match'), ({"project_id": ...}, '"project_id" is missing'),
                ({"project_id": None}, "does not match"), ({"project_id": 20.5}, "does not match"), ({"project_id": {"id": "20"}}, "does not match"),
                ({"ref_protected": "false"}, '"ref_protected"'), ({"ref_protected": False}, '"ref_protected"'),
                ({"exp": now - 61}, "expired"), ({"exp": ...}, "no exp"), ({"exp": "soon"}, "not a time"), ({"exp": -5}, "not a time"), ({"exp": 2**63 - 1}, "not a time"), ({"nbf": 2**63 - 1}, "not a time"), ({"exp": 1e18}, "not a time"),
                ({"nbf": now + 120}, "valid only in"), ({"iat": now + 120}, "valid only in"), ({"exp": now + 2 * 86400}, "more than 24 hours"),
                ({"project_path": ...}, '"project_path" is missing'), ({"project_path": "../x"}, "part of a path"), ({"project_path": "a b"}, "part of a path"),
                ({"project_path": "a\nrole=admin"}, "part of a path"), ({"project_path": "x/" * 200 + "x"}, "part of a path"), ({"project_path": ""}, "part of a path")):
            self.refused(text, self.keys.sign(self.claims(**change)))
        # the clock may be off by the leeway
        for change in ({"exp": now - 30}, {"nbf": now + 30, "iat": now + 30}):
            self.assertEqual(self.login(self.keys.sign(self.claims(**change)))[0], 200)

    def test_subject_and_globs(self):
        self.assertEqual(self.login(self.keys.sign(self.claims()), "subject")[0], 200)
        for sub in ("repo:acme@1/web@2:ref:refs/heads/main", "repo:acme/web:pull_request", "repo:acme/web:environment:Production%3AV1", 7, None):
            self.refused("sub claim", self.keys.sign(self.claims(sub=sub)), "subject")
        for ref, b, status in (("refs/heads/release/1", "xy", 200), ("refs/tags/v1", "x", 200), ("refs/heads/release/a/b:c", "xy", 200), ("refs/heads/main", "xy", 400),
                               ("refs/tags/v1", "y", 400), ("x/refs/tags/v1", "xy", 400)):
            status_now, reply = self.login(self.keys.sign(self.claims(ref=ref, a={"b": b})), "globs")
            self.assertEqual(status_now, status, (ref, b, reply))
        self.refused('"/a/b" is missing', self.keys.sign(self.claims(ref="refs/tags/v1")), "globs")

    def test_signatures_that_stay_out(self):
        good = self.keys.sign(self.claims())
        header, payload, signature = good.split(".")
        none = {"alg": "none", "kid": "rsa"}
        with open(self.keys.pem("rsa")) as f:
            public = f.read()  # whatever bytes: HS256 is not spoken
        import hashlib
        import hmac
        hs = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{payload}"
        hs += "." + b64(hmac.new(public.encode(), hs.encode(), hashlib.sha256).digest())
        other = Keys(self.sub(f"other{time.monotonic_ns()}"))
        for jwt, text in (
                (f"{b64(none)}.{payload}.", "compact form"), (f"{b64(none)}.{payload}.{signature}", "algorithm"), (f"{b64({'alg': 'None', 'kid': 'rsa'})}.{payload}.AA", "algorithm"),
                (hs, "algorithm"), (f"{b64({'alg': 'HS256', 'kid': 'shared'})}.{payload}.{signature}", "unknown key id 'shared'"),
                (f"{b64({'alg': 'ES256', 'kid': 'rsa'})}.{payload}.{signature}", "algorithm"), (f"{b64({'alg': 'RS512', 'kid': 'rsa'})}.{payload}.{signature}", "algorithm"),
                (f"{b64({'alg': 'RS256', 'kid': 'ed'})}.{payload}.{signature}", "algorithm"), (f"{header}.{b64(self.claims())}.{signature}", "signature"),
                (f"{header}.{payload}.{b64(bytes(256))}", "signature"), (f"{header}.{payload}.{b64(base64.urlsafe_b64decode(signature + '==')[:-1])}", "signature"), (other.sign(self.claims()), "signature"),
                (self.keys.sign(self.claims(), header={"alg": "RS256"}), "names no key"), (self.keys.sign(self.claims(), header={"alg": "RS256", "kid": 5}), "not a string"),
                (self.keys.sign(self.claims(), header={"alg": "RS256", "kid": "rsa", "crit": ["x"]}), "critical"),
                (self.keys.sign(self.claims(), header={"kid": "rsa"}), "names no algorithm")):
            self.refused(text, jwt)

    def test_bytes_that_are_no_token(self):
        good = self.keys.sign(self.claims())
        header, payload, signature = good.split(".")
        twice = b'{"iss": "%s", "project_id": "99", "project_id": "20"}' % ISSUER.encode()
        for jwt in ("", ".", "..", "a.b", "a.b.c", good + ".x", good + "=", " " + good, good.replace(".", ".\n", 1), f"{header}.{b64(b'[]')}.{signature}",
                    f"{header}.{b64(b'x')}.{signature}", f"{b64(b'[1]')}.{payload}.{signature}", f"{header}.{b64(twice)}.{signature}",
                    f"{b64(b'{' + b'x' * 20)}.{payload}.{signature}", f"{header}.{b64(b'{' + bytes([0x22, 0xff, 0x22]) + b': 1}')}.{signature}",
                    f"{header}.{b64(b'{' + b'[' * 40)}.{signature}", header + "." + "A" * 17000 + "." + signature, f"{header}.{payload}.{'A' * 2000}"):
            status, reply = self.login(jwt)
            self.assertEqual(status, 400, jwt[:60])
            self.assertTrue(reply["errors"][0])
        signed_twice = self.keys.sign(twice)
        self.refused("key twice", signed_twice)
        for body in ({"role": "ci"}, {"jwt": good}, {"role": 5, "jwt": good}, {"role": "nope", "jwt": good}, {"role": "user", "jwt": good}, {}):
            self.assertEqual(ask(self.b.socket, "POST", "auth/jwt/login", body=body)[0], 400)
        # a body that is too large is not waited for
        with connect(self.b.socket) as s:
            s.sendall(b"POST /v1/auth/jwt/login HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{")
            self.assertEqual(peers.answer(s)[0], 413)

    def test_json_that_fills_the_locked_memory(self):
        """Many small values cost more there than they have bytes. The parser must not run on when it is full."""
        token = self.b.token("--policy", "base")
        seen = set()
        for n in range(15000, 17000, 40):
            body = b'{"a":[' + b"{}," * n + b'0],"s":"' + b"A" * 6000 + b'"}'
            with connect(self.b.socket) as s:
                s.sendall(f"POST /v1/auth/token/create HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                seen.add(peers.answer(s)[0])
        self.assertTrue(seen <= {200, 429} and 429 in seen, seen)
        self.assertIsNone(self.b.process.poll())
        self.assertLess(self.b.status()["arena_used"], 400000)  # and all of it was given back
        self.b.stop()  # so many refusals were counted, and the next would be
        self.b.start()

    def test_replay(self):
        jwt = self.keys.sign(self.claims())
        self.token(jwt)
        self.refused("used before", jwt)
        # the same jti, signed anew
        claims = self.claims()
        self.token(self.keys.sign(claims))
        self.refused("used before", self.keys.sign({**claims, "exp": claims["exp"] + 1}))
        # across a restart
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.refused("used before", jwt)
        # Forgejo has no jti: what was signed counts, not the signature, which for ES256 has another form: (r, n - s)
        claims = self.claims(jti=...)
        jwt = self.keys.sign(claims, "ec")
        self.token(jwt)
        self.refused("used before", jwt)
        head, _, signature = jwt.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        raw = raw[:32] + (n - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
        self.refused("used before", f"{head}.{b64(raw)}")
        # a refused login uses nothing up
        jwt = self.keys.sign(self.claims())
        self.refused("no role", jwt, "nope")
        self.assertEqual(self.login(jwt, leader=2**22 + 1)[0], 400)
        self.token(jwt)

    def test_replay_in_a_role_of_longer_leeway(self):
        """It expired for the first role, and is remembered for as long as any other might take it."""
        jwt = self.keys.sign(self.claims(exp=int(time.time()) + 2))
        self.token(jwt, "strict")
        time.sleep(3.1)
        self.refused("expired", self.keys.sign(self.claims(exp=int(time.time()) - 1)), "strict")
        self.token(self.keys.sign(self.claims(exp=int(time.time()) - 1)), "lenient")
        self.refused("used before", jwt, "lenient")

    def test_json_pointers(self):
        self.token(self.keys.sign(self.claims(**{"a/b": {"c~d": "x"}})), "pointers")
        for change in ({"a/b": {"c~d": "y"}}, {"a": {"b": {"c~d": "x"}}}, {"a~1b": {"c~0d": "x"}}):
            self.refused("/a~1b/c~0d", self.keys.sign(self.claims(**change)), "pointers")

    def test_the_record_names_the_token(self):
        status, reply = self.login(self.keys.sign(self.claims()))
        self.assertEqual(status, 200)
        self.assertIn(f"tok={reply['auth']['accessor'][:8]} ", self.last_audit())

    def test_replay_is_raced(self):
        jwt = self.keys.sign(self.claims())
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda _: self.login(jwt)[0], range(64)))
        self.assertEqual((statuses.count(200), statuses.count(400)), (1, 63))

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_replay_in_the_same_cgroup(self):
        """GitLab's runner logs in once a secret, with one token: a role may allow that, for who used it first."""
        cg, other = self.cgroup(), self.cgroup()
        jwt = self.keys.sign(self.claims())
        where = (self.b.socket, "POST", "auth/jwt/login", None, {"role": "again", "jwt": jwt})
        self.assertEqual([as_peer(ask, *where, uid=JOB, cgroup=cg)[0] for _ in range(2)], [200, 200])
        self.assertEqual(as_peer(ask, *where, uid=JOB, cgroup=other)[0], 400)
        self.assertEqual(as_peer(ask, *where, uid=OTHER, cgroup=cg)[0], 400)
        self.assertEqual(as_peer(ask, *where, uid=JOB)[0], 400)
        # one role allows it, the other does not: in either order
        for roles in (("again", "lenient"), ("lenient", "again")):
            jwt = self.keys.sign(self.claims())
            statuses = [as_peer(ask, self.b.socket, "POST", "auth/jwt/login", None, {"role": role, "jwt": jwt}, uid=JOB, cgroup=cg)[0] for role in roles]
            self.assertEqual(statuses, [200, 400], roles)

    def test_keys_are_replaced(self):
        one = [k for k in self.keys.keys if k["kid"] == "ed"]
        old = self.keys.sign(self.claims())
        self.keys.write(one)
        self.assertIn("and is 0 days old", self.refused("unknown key id 'rsa': the pinned set has 1 keys", old))
        self.assertEqual(self.login(self.keys.sign(self.claims(), "ed"))[0], 200)
        # the only key needs no name
        self.assertEqual(self.login(self.keys.sign(self.claims(), "ed", header={"alg": "EdDSA"}))[0], 200)
        self.refused("(not printable)", self.keys.sign(self.claims(), header={"alg": "RS256", "kid": "\x1b[31m"}))
        self.keys.write(self.keys.keys)
        self.assertEqual(self.login(old)[0], 200)
        # an old set raises an alarm, and is used
        stamp = time.time() - 45 * 86400
        os.utime(self.keys.jwks, (stamp, stamp))
        self.assertEqual(self.login(self.keys.sign(self.claims()))[0], 200)
        with open(self.b.log) as f:
            self.assertIn("is 45 days old", f.read())
        issuer = self.b.status()["issuers"][0]
        self.assertEqual((issuer["name"], issuer["age_days"], issuer["old"]), ("ci", 45, True))
        doctor = self.b.cli("doctor")
        self.assertIn(b"45 days", doctor.stdout)

    def test_bad_key_sets(self):
        for text in ("", "{", "[]", '{"keys": 5}', '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA"}]}', '{"keys": [], "keys": []}',
                     json.dumps({"keys": [{"kty": "RSA", "kid": "rsa", "n": b64(b"\xff" * 128), "e": "AQAB"}]}), json.dumps({"keys": [{}] * 65}), "x" * 70000):
            with open(self.keys.jwks, "w") as f:
                f.write(text)
            self.refused("cannot be used", self.keys.sign(self.claims()))
        os.unlink(self.keys.jwks)
        os.mkfifo(self.keys.jwks)  # stops nothing
        self.refused("cannot be used", self.keys.sign(self.claims()))
        os.unlink(self.keys.jwks)
        self.refused("cannot be used", self.keys.sign(self.claims()))
        self.keys.write(self.keys.keys)
        os.chmod(self.keys.jwks, 0o666)
        self.refused("cannot be used", self.keys.sign(self.claims()))

    def test_the_tools(self):
        p = self.b.cli("login", "--role", "ci", "--jwt-file", "-", stdin=self.keys.sign(self.claims()), check=True)
        self.assertEqual(self.b.cli("get", "acme/web/token", token=p.stdout.decode().strip(), check=True).stdout, b"v")
        jwt = os.path.join(self.dir, "jwt")
        with open(jwt, "w") as f:
            f.write(self.keys.sign(self.claims()) + "\n")
        os.chmod(jwt, 0o644)
        out = run(COTTER, "run", "--role", "ci", "--jwt-file", jwt, "--env", "T=acme/web/token", "--", "sh", "-c", "echo $T", env=self.b.env)
        self.assertEqual(out.stdout, b"v\n", out.stderr)
        p = self.b.cli("login", "--role", "ci", "--jwt-file", jwt)
        self.assertEqual((p.returncode, p.stdout), (3, b""))
        self.assertIn(b"used before", p.stderr)


class Policies(LoginCase):
    def test_templates_deny_and_scopes(self):
        token = self.token(self.keys.sign(self.claims()))
        for path, status in (("acme/web/token", 200), ("acme/web/private/token", 403), ("acme/api/token", 403), ("other/x", 403),
                             ("shared/a", 200), ("shared/prod", 403)):  # the organisation's policy; the group's denies
            self.assertEqual(self.read(token, path), status, path)
        token = self.token(self.keys.sign(self.claims(project_path="acme/api")))
        for path, status in (("acme/api/token", 200), ("acme/web/token", 403), ("shared/a", 200), ("shared/prod", 200)):
            self.assertEqual(self.read(token, path), status, path)
        # a value is never a wildcard
        token = self.token(self.keys.sign(self.claims(project_path="+/+")))
        self.assertEqual(self.read(token, "acme/web/token"), 403)

    def test_a_child_keeps_what_denies(self):
        parent = self.b.token("--policy", "base", "--policy", "no-prod")
        for body in ({"policies": ["base"]}, {}):
            status, reply = ask(self.b.socket, "POST", "auth/token/create", parent, {**body, "ttl": "5m"})
            self.assertEqual((status, reply["auth"]["policies"]), (200, ["base", "no-prod"]))
            child = reply["auth"]["client_token"]
            self.assertEqual([self.read(child, p) for p in ("shared/a", "shared/prod")], [200, 403])

    def test_create_is_not_update(self):
        token = self.b.token("--policy", "creator")

        def write(path):
            return ask(self.b.socket, "POST", f"secret/data/{path}", token, {"data": {"value": "w"}})[0]
        self.assertEqual([write("made/new"), write("made/new"), write("kept/x"), write("kept/new")], [200, 403, 200, 403])

    def test_a_folder_is_not_the_secret_of_its_name(self):
        self.b.put("both", "v")
        self.b.put("both/x", "v")
        token = self.b.token("--policy", "below")
        self.assertEqual(ask(self.b.socket, "LIST", "secret/metadata/both", token)[0], 200)
        self.assertEqual(ask(self.b.socket, "GET", "secret/metadata/both?list=true", token)[0], 200)
        self.assertEqual(ask(self.b.socket, "GET", "secret/metadata/both", token)[0], 403)
        self.assertEqual(ask(self.b.socket, "GET", "secret/metadata/both/x", token)[0], 200)

    def test_what_cannot_be_told_from_denied_is_denied(self):
        self.assertEqual(self.read(self.b.token("--policy", "unresolved-deny"), "shared/a"), 403)
        self.assertEqual(self.read(self.b.token("--policy", "unresolved-deny", "--meta", "nobody=acme"), "shared/a"), 200)

    def test_reload(self):
        token = self.b.token("--policy", "base")
        with open(self.b.config) as f:
            good = f.read()

        def reload(text, word):
            with open(self.b.log) as f:
                f.seek(0, 2)
                with open(self.b.config, "w") as out:
                    out.write(text)
                self.b.process.send_signal(signal.SIGHUP)
                seen = []
                wait_for("the reload", lambda: seen.append(f.read()) or word in "".join(seen))
        with connect(self.b.socket) as s:
            self.assertEqual(request(s, "GET", "secret/data/shared/a", token)[0], 200)
            reload(good.replace("path: shared/*\n      capabilities: [read]", "path: shared/b\n      capabilities: [read]"), "was read again")
            self.assertEqual(request(s, "GET", "secret/data/shared/a", token)[0], 403)  # the connection lives, the rule is new
            reload(good.replace("capabilities: [read]", "capabilities: [fly]"), "stays as it was")
            self.assertEqual(request(s, "GET", "secret/data/shared/a", token)[0], 403)
            reload(good.replace("state_dir: ", "state_dir: /tmp/elsewhere # "), "needs a restart")
            reload(good, "was read again")
            self.assertEqual(request(s, "GET", "secret/data/shared/a", token)[0], 200)
        self.assertIn("ev=config.reload", self.b.audit(20))

    def test_why(self):
        token = self.token(self.keys.sign(self.claims()))

        def why(path, *args, token=token):
            p = self.b.cli("token", "why", path, *args, token=token)
            return p.returncode, p.stdout.decode()
        self.assertEqual(why("acme/web/token")[0], 0)
        status, text = why("acme/web/private/token")
        self.assertEqual(status, 3)
        for word in ("denied: get", "policy", "projects", "{{project}}/private/*", "line"):
            self.assertIn(word, text)
        self.assertIn("policy 'no-prod'", why("shared/prod")[1])
        self.assertIn("no policy of the token allows it", why("nothing/there")[1])
        self.assertIn("another uid", why("acme/web/token", "--uid", "54321")[1])
        narrowed = self.b.cli("token", "narrow", "--op", "get", "--path", "acme/web/", "--caveat", "uid = 777", token=token, check=True).stdout.decode().strip()
        status, text = why("acme/web/token", token=narrowed)
        self.assertEqual(status, 3)
        self.assertIn("caveat 3: uid = 777", text)
        self.assertIn("caveat 1", why("acme/web/token", "--op", "list", token=narrowed)[1])
        self.assertIn("signature", why("acme/web/token", token=token[:-2] + ("AA" if token[-2:] != "AA" else "BB"))[1])
        # operators only
        self.assertEqual(ask(self.b.socket, "POST", "cotter/why", token, {"token": token, "path": "a"})[0], 403)
        shown = self.b.cli("token", "show", token=narrowed, stdin="", check=True).stdout.decode()
        for word in ("only secrets under acme/web/", "only the operation get"):
            self.assertIn(word, shown)


class Wrapped(LoginCase):
    def wrap(self, *args):
        return self.b.token("--policy", "base", "--wrap", "60s", *args)

    def unwrap(self, token, **body):
        return ask(self.b.socket, "POST", "sys/wrapping/unwrap", token, body)

    def test_once(self):
        wrapping = self.wrap("--ttl", "5m", "--uses", "2")
        self.assertEqual(self.read(wrapping, "shared/a"), 403)  # good for nothing else
        self.assertEqual(ask(self.b.socket, "POST", "auth/token/create", wrapping, {})[0], 403)
        status, reply = self.unwrap(wrapping)
        self.assertEqual(status, 200)
        token = reply["auth"]["client_token"]
        self.assertEqual((reply["auth"]["num_uses"], reply["auth"]["policies"]), (2, ["base"]))
        self.assertEqual([self.read(token, "shared/a") for _ in range(3)], [200, 200, 403])
        status, reply = self.unwrap(wrapping)
        self.assertEqual((status, reply["errors"]), (400, ["wrapping token is not valid or does not exist"]))
        with open(self.b.log) as f:
            self.assertIn("it was stolen", f.read())
        self.assertIn("result=denied", self.last_audit())

    def test_raced(self):
        wrapping = self.wrap()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda _: self.unwrap(wrapping)[0], range(64)))
        self.assertEqual((statuses.count(200), statuses.count(400)), (1, 63))

    def test_in_the_body_and_by_the_tool(self):
        self.assertEqual(ask(self.b.socket, "PUT", "sys/wrapping/unwrap", None, {"token": self.wrap()})[0], 200)
        token = self.b.cli("login", "--unwrap", stdin=self.wrap(), check=True).stdout.decode().strip()
        self.assertEqual(self.read(token, "shared/a"), 200)

    def test_a_bad_leader_uses_nothing_up(self):
        wrapping = self.wrap()
        self.assertEqual(self.unwrap(wrapping, leader=2**22 + 1)[0], 400)
        self.assertEqual(self.unwrap(wrapping)[0], 200)

    def test_what_came_out_goes_with_its_wrapping(self):
        wrapping = self.wrap()
        accessor = json.loads(self.b.cli("token", "show", "--json", stdin=wrapping, check=True).stdout)["accessor"]
        token = self.unwrap(wrapping)[1]["auth"]["client_token"]
        self.assertEqual(self.read(token, "shared/a"), 200)
        self.b.cli("token", "revoke", accessor, check=True)
        self.assertEqual(self.read(token, "shared/a"), 403)
        self.assertEqual(self.b.cli("token", "revoke", accessor).returncode, 4)

    def test_across_a_restart_and_expired(self):
        wrapping, short = self.wrap(), self.b.token("--policy", "base", "--wrap", "1s")
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual(self.unwrap(wrapping)[0], 200)
        time.sleep(1.2)
        self.assertEqual(self.unwrap(short)[0], 400)

    def test_what_is_no_wrapping_token(self):
        narrowed = self.b.cli("token", "narrow", "--op", "get", token=self.wrap(), check=True).stdout.decode().strip()
        for token in (self.b.token("--policy", "base"), "cot1_", "x", self.wrap() + "x", narrowed):
            self.assertEqual(self.unwrap(token)[0], 400)
        self.assertEqual(ask(self.b.socket, "POST", "sys/wrapping/unwrap", None, {})[0], 400)
        for value in ("-1", "x", "2d", "1e3"):
            with connect(self.b.operator_socket) as s:
                status, _ = request(s, "POST", "auth/token/create", None, {"policies": ["base"]}, head=[f"X-Vault-Wrap-TTL: {value}"])
                self.assertEqual(status, 400, value)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_it_is_bound_to_who_unwraps(self):
        cg = self.cgroup()
        self.process(cgroup=cg)  # an empty one ends the job that is made of it
        _, reply = as_peer(ask, self.b.socket, "POST", "sys/wrapping/unwrap", self.wrap(), {}, uid=JOB, cgroup=cg)
        token = reply["auth"]["client_token"]
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 200)
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=self.cgroup()), 403)
        self.assertEqual(self.get(token, "shared/a", uid=OTHER, cgroup=cg), 403)


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Kernel(LoginCase):
    def kernel(self, role, body=None, **kw):
        return as_peer(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": role, **(body or {})}, **kw)

    def test_uid_and_gid(self):
        cg = self.cgroup()
        self.process(cgroup=cg)  # an empty one ends the job that is made of it
        status, reply = self.kernel("user", uid=JOB, cgroup=cg)
        self.assertEqual(status, 200)
        self.assertEqual(reply["auth"]["metadata"], {"role": "user", "uid": str(JOB)})
        token = reply["auth"]["client_token"]
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 200)
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=self.cgroup()), 403)
        self.assertEqual(self.kernel("user", uid=OTHER, cgroup=cg)[0], 400)
        self.assertEqual(self.kernel("group", uid=JOB, gid=12346, cgroup=cg)[0], 200)
        self.assertEqual(self.kernel("group", uid=JOB, gid=JOB, cgroup=cg)[0], 400)
        for role in ("nope", "ci", None, 5):
            self.assertEqual(self.kernel(role, uid=JOB, cgroup=cg)[0], 400)

    def test_it_ends_with_its_cgroup(self):
        cg = self.cgroup()
        p = self.process(uid=JOB, cgroup=cg)
        token = p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user"})[1]["auth"]["client_token"]
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 200)
        wait_for("the ends of others", lambda: len(self.jobs()) == 1)
        p.end()
        wait_for("the job's end", lambda: not self.jobs())
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 403)

    def test_it_ends_when_its_cgroup_was_empty(self):
        """Emptied and filled again at once: whoever stands there now is somebody else, with the old job's token."""
        cg = self.cgroup()
        p = self.process(uid=JOB, cgroup=cg)
        token = p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user"})[1]["auth"]["client_token"]
        time.sleep(0.8)
        thief = self.process(uid=JOB)
        p.end()
        cg.enter(thief.pid)
        wait_for("the job's end", lambda: not self.jobs())
        self.assertEqual(thief.do(ask, self.b.socket, "GET", "secret/data/shared/a", token)[0], 403)

    def freeze(self, cg, state):
        with open(os.path.join(cg.dir, "cgroup.freeze"), "w") as f:
            f.write(state)
        time.sleep(0.2)

    def test_it_lives_through_nested_freezes(self):
        """Of which the kernel tells, though nothing changes; and jobs that start meanwhile spoil nothing for the older ones."""
        outer = self.cgroup()
        inner = self.cgroup(outer.name[1:] + "/inner")
        p = self.process(uid=JOB, cgroup=inner)
        token = p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user"})[1]["auth"]["client_token"]
        time.sleep(0.6)
        self.freeze(outer, "1")
        self.freeze(inner, "1")
        self.job(p.pid, "--policy", "base")
        self.freeze(inner, "0")
        self.freeze(outer, "0")
        self.assertEqual(p.do(ask, self.b.socket, "GET", "secret/data/shared/a", token)[0], 200)

    def test_freezes_do_not_stop_the_broker(self):
        """Many jobs in many cgroups, all told of at once and without end: others have their answers."""
        outer = self.cgroup()
        inside = [self.cgroup(f"{outer.name[1:]}/{i}") for i in range(100)]
        processes = [self.process(uid=JOB, cgroup=c) for c in inside]
        before = self.jobs()
        for p in processes:
            for _ in range(4):
                self.assertEqual(p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user", "leader": p.pid})[0], 200)
        toggler = os.fork()
        if toggler == 0:
            with open(os.path.join(outer.dir, "cgroup.freeze"), "w") as f:
                while True:
                    for state in "10":
                        f.write(state)
                        f.flush()
                        time.sleep(0.012)
        self.ends.append(lambda: (os.kill(toggler, 9), os.waitpid(toggler, 0), self.freeze(outer, "0")))
        with Session(self.b.socket) as s:
            for _ in range(200):
                self.assertEqual(s.request("GET", "sys/health")[0], 200)
        self.assertEqual(len(self.jobs() - before), 400)

    def test_it_lives_through_a_freeze(self):
        cg = self.cgroup()
        p = self.process(uid=JOB, cgroup=cg)
        token = p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user"})[1]["auth"]["client_token"]
        time.sleep(0.8)
        for state in ("1", "0"):
            self.freeze(cg, state)
        self.assertEqual(p.do(ask, self.b.socket, "GET", "secret/data/shared/a", token)[0], 200)

    def test_a_place_is_not_carried_elsewhere(self):
        """What the kernel said is true of the caller's cgroup: its token is not for a leader in another."""
        inside, outside = self.cgroup("cotter-test-deep"), self.cgroup()
        inside = self.cgroup("cotter-test-deep/a")
        caller, leader = self.process(uid=JOB, cgroup=inside), self.process(uid=JOB, cgroup=outside)
        status, reply = caller.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "place", "leader": leader.pid})
        self.assertEqual(status, 400)
        self.assertIn("another cgroup", reply["errors"][0])

    def test_with_a_leader(self):
        cg = self.cgroup()
        p, leader, foreign = self.process(uid=JOB, cgroup=cg), self.process(uid=JOB, cgroup=cg), self.process(uid=OTHER, cgroup=cg)
        token = p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user", "leader": leader.pid})[1]["auth"]["client_token"]
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 200)
        leader.end()
        self.assertEqual(self.get(token, "shared/a", uid=JOB, cgroup=cg), 403)
        self.assertEqual(p.do(ask, self.b.socket, "POST", "auth/kernel/login", None, {"role": "user", "leader": foreign.pid})[0], 403)

    def test_cgroups_and_units(self):
        inside = [self.cgroup("cotter-test-runner-1"), self.cgroup("cotter-test-runner-1/job"), self.cgroup("cotter-test-deep"), self.cgroup("cotter-test-deep/a"),
                  self.cgroup("cotter-test-deep/a/b")]
        self.assertEqual([self.kernel("place", uid=JOB, cgroup=c)[0] for c in inside], [400, 200, 400, 200, 200])
        self.assertEqual(self.kernel("place", uid=OTHER, cgroup=inside[1])[0], 400)
        self.assertEqual(self.kernel("place", uid=JOB)[0], 400)  # the root
        # a claim is proven by the inode, or refused
        for path in ("/cotter-test-runner-1/job", "/cotter-test-deep/a/../a", "/", "", "x", "/cotter-test-runner-1//job", "/nowhere"):
            want = 200 if path == "/cotter-test-runner-1/job" else 400
            self.assertEqual(self.kernel("place", {"cgroup": path}, uid=JOB, cgroup=inside[1])[0], want, path)
        self.assertEqual(self.kernel("place", {"cgroup": "/cotter-test-runner-1/job"}, uid=JOB, cgroup=inside[2])[0], 400)
        units = [self.cgroup("cotter-test-runner-9.service"), self.cgroup("cotter-test-runner-9.service/deeper"), self.cgroup("cotter-test.slice"),
                 self.cgroup("cotter-test.slice/cotter-test-runner-7.service"), self.cgroup("cotter-test-user.service"),
                 self.cgroup("cotter-test-user.service/cotter-test-runner-8.service")]  # made by a user below his own unit
        self.assertEqual([self.kernel("unit", uid=OTHER, cgroup=c)[0] for c in units], [200, 200, 400, 200, 400, 400])

    def test_the_tools(self):
        cg = self.cgroup()

        def tool():
            return run(COTTER, "login", "--role", "user", "--json", env=self.b.env)
        p = as_peer(tool, uid=JOB, cgroup=cg)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertTrue(json.loads(p.stdout)["token"].startswith("cot1_"))
        for args, text in ((["--role", "a", "--unwrap"], b"say --role"), ([], b"say --role"), (["x"], b"never given"), (["--role", "r", "--policy", "p"], b"says what it may")):
            q = self.b.cli("login", *args)
            self.assertEqual(q.returncode, 2, args)
            self.assertIn(text, q.stderr)

    def test_one_uid_does_not_take_every_place(self):
        cg = self.cgroup()
        flood = self.process(uid=JOB, cgroup=cg)
        statuses = flood.do(flood_logins, self.b.socket, 4200)
        self.assertEqual(set(statuses), {200, 429})
        self.assertEqual(statuses.count(200), 4096)
        self.b.token("--policy", "base")  # operators go on
        self.assertEqual(self.kernel("group", uid=OTHER, gid=12346, cgroup=self.cgroup())[0], 200)
        flood.end()
        wait_for("their ends", lambda: not self.jobs(), 60)


def flood_logins(path, n):
    with Session(path) as s:
        return [s.request("POST", "auth/kernel/login", None, {"role": "user"})[0] for _ in range(n)]


class Revocation(LoginCase):
    def tree(self):
        """grandparent → parent → child, and a sibling of the parent."""
        top = self.b.token("--policy", "base", "--ttl", "2h")

        def child(of):
            status, reply = ask(self.b.socket, "POST", "auth/token/create", of, {"ttl": "30m"})
            self.assertEqual(status, 200, reply)
            return reply["auth"]["client_token"]
        middle = child(top)
        status, reply = ask(self.b.socket, "POST", "auth/token/create", middle, {"ttl": "10m"})
        return top, middle, reply["auth"]["client_token"], child(top)

    def alive(self, tokens):
        return [self.read(t, "shared/a") == 200 for t in tokens]

    def accessor(self, token):
        return json.loads(self.b.cli("token", "show", "--json", stdin=token, check=True).stdout)["accessor"]

    def revoke(self, *args):
        return int(self.b.cli("token", "revoke", *args, check=True).stdout.split()[0])

    def restart(self):
        self.b.stop(signal.SIGKILL)
        self.b.start()

    def test_one_and_all_made_from_it(self):
        tokens = self.tree()
        self.assertEqual(self.alive(tokens), [True] * 4)
        self.assertEqual(self.revoke(self.accessor(tokens[1])), 2)
        self.assertEqual(self.alive(tokens), [True, False, False, True])
        self.restart()
        self.assertEqual(self.alive(tokens), [True, False, False, True])

    def test_a_lineage(self):
        tokens, others = self.tree(), self.tree()
        self.assertEqual(self.revoke(self.accessor(tokens[2]), "--lineage"), 4)
        self.assertEqual(self.alive(tokens) + self.alive(others), [False] * 4 + [True] * 4)
        self.restart()
        self.assertEqual(self.alive(tokens) + self.alive(others), [False] * 4 + [True] * 4)

    def test_a_role(self):
        roled = [self.token(self.keys.sign(self.claims())) for _ in range(3)]
        other = self.token(self.keys.sign(self.claims()), "subject")
        self.assertEqual(self.revoke("--role", "ci"), 3)
        self.assertEqual([self.read(t, "acme/web/token") for t in roled], [403] * 3)
        self.restart()
        self.assertEqual([self.read(t, "acme/web/token") for t in roled], [403] * 3)
        self.assertEqual(self.read(other, "shared/a"), 200)

    def test_the_record_says_what_was_revoked(self):
        self.token(self.keys.sign(self.claims()))
        self.revoke("--role", "ci")
        self.assertRegex(self.last_audit(), "why=role_ci_[0-9]+_tokens")
        self.assertEqual(ask(self.b.operator_socket, "POST", "cotter/revoke", None, {"role": "\x1b[31m"})[0], 200)
        self.assertIn("why=role_of_no_valid_name_0_tokens", self.last_audit())

    def test_everything(self):
        tokens = self.tree()
        self.b.cli("token", "revoke", "--all", check=True)
        self.assertEqual(self.alive(tokens), [False] * 4)
        self.assertEqual(self.b.status()["tokens"], 0)
        self.restart()
        self.assertEqual(self.alive(tokens), [False] * 4)
        new = self.b.token("--policy", "base")
        self.assertEqual(self.alive([new]), [True])
        self.restart()
        self.assertEqual(self.alive([new]), [True])

    def test_uses_are_exact_across_restarts(self):
        row = self.b.token("--policy", "base", "--uses", "3")
        caveat = self.b.cli("token", "narrow", "--uses", "3", token=self.b.token("--policy", "base"), check=True).stdout.decode().strip()
        for token in (row, caveat):
            seen = []
            for _ in range(4):
                seen.append(self.read(token, "shared/a"))
                self.restart()
            self.assertEqual(seen, [200, 200, 200, 403])

    def test_itself(self):
        top, middle, child, sibling = self.tree()
        narrowed = self.b.cli("token", "narrow", "--op", "get", token=middle, check=True).stdout.decode().strip()
        self.assertEqual(ask(self.b.socket, "POST", "auth/token/revoke-self", narrowed)[0], 403)
        self.assertEqual(ask(self.b.socket, "POST", "auth/token/revoke-self", middle)[0], 204)
        self.assertEqual(self.alive((top, middle, child, sibling)), [True, False, False, True])

    def test_no_option_is_passed_over(self):
        token = self.b.token("--policy", "base")
        for args in (("make", "--policy", "base", "--op", "get"), ("make", "--policy", "base", "--gid", "9"), ("make", "--policy", "base", "--path", "a"),
                     ("narrow", "--path", "a", "--uid", "4"), ("narrow", "--path", "a", "--ttl", "5s"), ("narrow", "--path", "a", "--cgroup", "9"),
                     ("show", "--path", "a"), ("revoke", "--all", "--uid", "1")):
            p = self.b.cli("token", *args, token=token)
            self.assertEqual((p.returncode, p.stdout), (2, b""), args)
        self.assertEqual(self.read(token, "shared/a"), 200)

    def test_caveats_of_any_bytes_are_shown(self):
        raw = base64.urlsafe_b64decode(self.b.token("--policy", "base")[5:] + "==")
        foreign = self.foreign(raw, b"\x9b\xff\x00\x1b[x")
        p = self.b.cli("token", "show", "--json", stdin=foreign, check=True)
        self.assertEqual(json.loads(p.stdout)["caveats"], ["\\x9b\\xff\\x00\\x1b[x"])
        p = self.b.cli("token", "show", stdin=foreign, check=True)
        self.assertIn(b"\\x9b\\xff\\x00\\x1b[x  (unknown", p.stdout)
        self.assertEqual(self.b.cli("token", "make", "--policy", "base", "--meta", b"a=\xff").returncode, 2)

    def foreign(self, raw, caveat):
        at = raw.rindex(b"\x00\x06\x20")  # end of the caveats, then the signature's packet
        return "cot1_" + base64.urlsafe_b64encode(raw[:at] + b"\x02" + bytes([len(caveat)]) + caveat + b"\x00" + raw[at:]).decode().rstrip("=")

    def test_what_cannot_be_revoked(self):
        for args, status in ((["0" * 32], 4), (["xyz"], 4), ([], 2), (["--all", "--role", "ci"], 2), (["--job", "0" * 16], 4)):
            self.assertEqual(self.b.cli("token", "revoke", *args).returncode, status, args)
        self.assertEqual(ask(self.b.socket, "POST", "cotter/revoke", self.b.token("--policy", "admin"), {"all": True})[0], 403)


if __name__ == "__main__":
    unittest.main()
