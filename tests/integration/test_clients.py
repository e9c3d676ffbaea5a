"""Vault's clients, unmodified, and the exact calls of those that cannot run here."""
import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import time
import unittest

from harness import ROOT, Case, free_port_pair, run
from test_login import ISSUER, Keys
from test_sign import b64

CONFIG = """\
  app:
    - path: app/*
      allow: [get, put, list, delete]
    - path: old/*
      allow: [get, put, list, delete]
    - path: release/*
      allow: [sign]
issuers:
  gitlab: {issuer: "https://ci.example", jwks_file: JWKS}
mounts:
  old: {type: kv, version: 1}
  kv-v2: {type: kv}
  auth/gitlab: {type: jwt}
roles:
  ci:
    jwt: {issuer: gitlab, bound_audiences: [cotter], bound_claims: {project_id: "20"}}
    policies: [app]
    uses: 5
  web:
    approle: {role_id: web-role}
    policies: [app]
    max_ttl: 2h
"""


class Clients(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.port = free_port_pair()
        cls.keys = Keys(cls.sub("i"))
        cls.b = cls.broker(hsm=cls.hsm, edit=cls.configure)
        cls.b.cli("key", "add", "release/web", "--type", "ecdsa-p256", check=True)
        cls.b.cli("key", "add", "release/rsa", "--type", "rsa-3072", check=True)
        cls.token = cls.b.token("--policy", "app")
        cls.b.cli("put", "app/kept", "--data", "-", stdin='{"password":"kept","port":5432}', check=True)
        cls.b.cli("put", "old/kept", "--data", "-", stdin='{"password":"old"}', check=True)
        cls.b.cli("put", "kv-v2/app", "--data", "-", stdin='{"password":"second"}', check=True)

    @classmethod
    def configure(cls, text):
        text = text.replace("require_cgroup: true", "require_cgroup: false").replace("socket:", f"http:\n  listen: 127.0.0.1:{cls.port}\nsocket:", 1)
        return text + CONFIG.replace("JWKS", cls.keys.jwks)

    def id_token(self):
        now = int(time.time())
        return self.keys.sign({"iss": ISSUER, "sub": "project_path:acme/web", "aud": "cotter", "iat": now, "exp": now + 300,
                               "jti": base64.b16encode(os.urandom(8)).decode(), "project_id": "20"})

    def secret_id(self):
        return self.b.curl("auth/approle/role/web/secret-id", "-X", "POST", socket_path=self.b.operator_socket)[1]["data"]["secret_id"]

    def call(self, method, path, headers, body=None, unix=False):
        """The very bytes that a client sends, as far as they matter: (status, headers, JSON)."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if unix:
            c.sock = socket.socket(socket.AF_UNIX)
            c.sock.connect(self.b.socket)
        c.request(method, f"/v1/{path}", json.dumps(body) if body is not None else None, headers)
        r = c.getresponse()
        text = r.read()
        c.close()
        return r.status, r.headers, json.loads(text) if text else None

    @unittest.skipUnless(shutil.which("node") and os.path.isdir(f"{ROOT}/tests/clients/node_modules/node-vault"), "node-vault is not installed: tests/run.sh does it")
    def test_node_vault(self):
        said = {"address": f"http://127.0.0.1:{self.port}", "token": self.token, "roleId": "web-role", "secretId": self.secret_id()}
        p = run("node", f"{ROOT}/tests/clients/vault.mjs", stdin=json.dumps(said))
        self.assertEqual(p.returncode, 0, p.stderr.decode())
        got = json.loads(p.stdout)
        self.assertEqual([got[k] for k in ("health", "status", "read", "v1", "child", "accessor", "renewed", "login", "loggedIn", "unwrapped", "signature")],
                         [True, False, {"user": "n", "n": 5}, {"v": "1"}, ["app"], True, 600, ["app"], {"password": "kept", "port": 5432}, {"a": "b"}, "vault:v1:"])
        self.assertIn("old/", got["mounts"])
        self.assertIn("node", got["list"])
        self.assertEqual([got[k]["status"] for k in ("deleted", "denied", "absent", "revoked", "again")], [404, 403, 404, 403, 400])
        self.assertEqual([got["denied"]["message"], got["again"]["message"]], ["permission denied", "wrapping token is not valid or does not exist"])

    def test_gitlab_runner(self):
        """secrets: vault, as the runner resolves it: one login and one read a secret."""
        common = {"User-Agent": "Go-http-client/1.1", "X-Vault-Request": "true", "X-Vault-Namespace": "", "Accept-Encoding": "gzip"}
        for unix in (False, True):
            for auth in ("jwt", "gitlab"):
                status, headers, reply = self.call("PUT", f"auth/{auth}/login", {**common, "Content-Type": "application/json"},
                                                   {"jwt": self.id_token(), "role": "ci"}, unix)
                self.assertEqual((status, headers["Content-Type"]), (200, "application/json"), reply)
                token = reply["auth"]["client_token"]
                for path, want in (("secret/data/app/kept", {"password": "kept", "port": 5432}), ("kv-v2/data/app", None), ("old/kept", {"password": "old"})):
                    status, _, reply = self.call("GET", path, {**common, "X-Vault-Token": token}, unix=unix)
                    if want is None:
                        self.assertEqual(status, 403)  # the folder kv-v2 is in no policy of that role
                    else:
                        self.assertEqual((status, reply["data"]["data"] if "/data/" in path else reply["data"]), (200, want))
                # absent is 404 without data, and nothing else is
                status, _, reply = self.call("GET", "secret/data/app/nosuch", {**common, "X-Vault-Token": token}, unix=unix)
                self.assertEqual((status, reply), (404, {"errors": []}))
        status, _, reply = self.call("PUT", "auth/jwt/login", common, {"jwt": "x.y.z", "role": "ci"})
        self.assertEqual((status, len(reply["errors"])), (400, 1))

    def test_jenkins(self):
        """The plug-in's Java driver: AppRole, a look at its token, a token for a job, one read; leading slashes are gone, the MIME type is exact."""
        common = {"User-Agent": "Java/17.0.1", "Accept": "*/*", "Accept-Charset": "UTF-8"}
        status, headers, reply = self.call("POST", "auth/approle/login", {**common, "Content-Type": "application/json; charset=utf-8"},
                                           {"role_id": "web-role", "secret_id": self.secret_id()})
        self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
        token = reply["auth"]["client_token"]
        common["X-Vault-Token"] = token
        status, headers, reply = self.call("GET", "auth/token/lookup-self", common)
        self.assertEqual((status, headers["Content-Type"], reply["data"]["ttl"] > 3500), (200, "application/json", True))
        status, _, reply = self.call("POST", "auth/token/create", common, {"policies": ["app"], "ttl": "1200s"})
        self.assertEqual((status, reply["auth"]["lease_duration"]), (200, 1200))
        common["X-Vault-Token"] = reply["auth"]["client_token"]
        status, _, reply = self.call("GET", "secret/data/app/kept", common)
        self.assertEqual((status, reply["data"]["data"]["password"], reply["lease_id"], reply["renewable"], reply["lease_duration"]), (200, "kept", "", False, 0))
        self.assertEqual(self.call("GET", "old/kept", common)[2]["data"], {"password": "old"})
        status, _, reply = self.call("GET", "secret/data/nosuch/x", common)
        self.assertEqual((status, reply["errors"]), (403, ["permission denied"]))

    def openssl_verifies(self, name, message, signature):
        for what, data in (("message", message), ("signature", signature)):
            with open(os.path.join(self.dir, what), "wb") as f:
                f.write(data)
        pem = os.path.join(self.dir, "key.pem")
        with open(pem, "wb") as f:
            f.write(self.b.cli("key", "show", name, "--pem", check=True).stdout)
        return run("openssl", "dgst", "-sha256", "-verify", pem, "-signature", os.path.join(self.dir, "signature"), os.path.join(self.dir, "message")).returncode == 0

    def test_cosign(self):
        """hashivault://KEY: the key, then a signature of a digest."""
        common = {"User-Agent": "Go-http-client/1.1", "X-Vault-Request": "true", "X-Vault-Token": self.token}
        for name in ("release/web", "release/rsa"):
            status, _, reply = self.call("GET", f"transit/keys/{name}", common, unix=True)
            self.assertEqual((status, reply["data"]["latest_version"], reply["data"]["name"]), (200, 1, name))
            self.assertIn("BEGIN PUBLIC KEY", reply["data"]["keys"]["1"]["public_key"])
            digest = hashlib.sha256(b"an image's manifest").digest()
            status, _, reply = self.call("PUT", f"transit/sign/{name}/sha2-256", common,
                                         {"input": b64(digest), "prehashed": True, "key_version": "0", "signature_algorithm": "pkcs1v15"}, unix=True)
            self.assertEqual(status, 200, reply)
            self.assertTrue(self.openssl_verifies(name, b"an image's manifest", base64.b64decode(reply["data"]["signature"].split(":")[2])))

    def test_jsign(self):
        """--storetype HASHICORPVAULT: over TCP, the token as a bearer's."""
        common = {"User-Agent": "Jsign (https://ebourg.github.io/jsign/)", "Authorization": f"Bearer {self.token}"}
        status, _, reply = self.call("GET", "transit/keys?list=true", common)
        self.assertEqual((status, reply["data"]["keys"]), (200, ["release/rsa", "release/web"]))
        self.assertEqual(self.call("GET", "transit/keys/release/rsa", common)[2]["data"]["type"], "rsa-3072")
        digest = hashlib.sha256(b"an installer").digest()
        status, _, reply = self.call("POST", "transit/sign/release/rsa", common, {"input": b64(digest), "prehashed": True, "hash_algorithm": "sha2-256",
                                                                                 "key_version": "1", "signature_algorithm": "pkcs1v15"})
        self.assertEqual(status, 200, reply)
        self.assertTrue(self.openssl_verifies("release/rsa", b"an installer", base64.b64decode(reply["data"]["signature"].split(":")[2])))
        # a token sees the keys that it may use
        other = self.b.token("--policy", "release")
        self.assertEqual(self.call("GET", "transit/keys?list=true", {"Authorization": f"Bearer {other}"})[0], 200)
        none = self.b.token("--policy", "writer")
        self.assertEqual(self.call("GET", "transit/keys?list=true", {"Authorization": f"Bearer {none}"})[0], 404)

    def test_curl(self):
        secret_id = self.secret_id()
        p = run("curl", "-sS", "--unix-socket", self.b.socket, "-X", "POST", "-d", "@-", "http://localhost/v1/auth/approle/login",
                stdin=json.dumps({"role_id": "web-role", "secret_id": secret_id}), check=True)
        token = json.loads(p.stdout)["auth"]["client_token"]
        p = run("curl", "-sS", f"http://127.0.0.1:{self.port}/v1/secret/data/app/kept", "-H", "@-", stdin=f"X-Vault-Token: {token}", check=True)
        self.assertEqual(json.loads(p.stdout)["data"]["data"]["password"], "kept")


if __name__ == "__main__":
    unittest.main()
