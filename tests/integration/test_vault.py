"""Vault's dialect beside its engines: mounts, tokens, AppRole, response wrapping, as hvac and curl ask for them."""
import base64
import glob
import hmac
import os
import re
import signal
import socket
import sqlite3
import time
import unittest

import hvac

from harness import Case, free_port_pair, run, wait_for
from peers import Cgroup, Process, Session, as_peer, ask, cgroups_missing, connect, request
from test_sign import hvac_client

CONFIG = """\
  app:
    - path: app/*
      allow: [get, put, list, delete]
    - path: old/*
      allow: [get, put, list, delete]
    - path: team/kv/*
      allow: [get, put]
    - path: auth/token/create/*
      allow: [update]
    - path: auth/approle/role/web/secret-id
      allow: [update, list]
  other:
    - path: other/*
      allow: [get]
mounts:
  old: {type: kv, version: 1}
  team/kv: {type: kv}
  auth/apps: {type: approle}
roles:
  web:
    approle: {role_id: web-role, secret_id_ttl: 1h}
    policies: [app]
    ttl: 10m
    max_ttl: 20m
  once:
    approle: {role_id: once-role, secret_id_num_uses: 1}
    policies: [app]
  elsewhere:
    approle: {role_id: elsewhere-role}
    kernel: {uids: [12345]}
    policies: [app]
  wide:
    token: {orphan: true}
    policies: [other, app]
    ttl: 5m
  few:
    token: {orphan: true}
    policies: [app]
    uses: 3
  tick:
    token: {orphan: false}
    policies: [app]
    period: 2m
"""

NO_CGROUP = cgroups_missing()


class Vault(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false") + CONFIG)
        cls.token = cls.b.token("--policy", "app", "--ttl", "2h")
        cls.client = hvac_client(cls.b.socket, cls.token)
        cls.operator = hvac_client(cls.b.operator_socket, None)

    def ask(self, method, path, body=None, token=None, head=(), socket=None):
        with connect(socket or self.b.socket) as s:
            return request(s, method, path, token or self.token, body, head)

    def operate(self, method, path, body=None, head=()):
        with connect(self.b.operator_socket) as s:
            return request(s, method, path, None, body, head)

    def restart(self):
        self.b.stop(signal.SIGKILL)
        self.b.start()

    def on_disk(self):
        files = [f for f in glob.glob(f"{self.b.state}/**", recursive=True) if os.path.isfile(f)]
        self.assertIn(b"SQLite format 3", b"".join(open(f, "rb").read(15) for f in files))
        return b"".join(open(f, "rb").read() for f in files)

    def configure(self, change):
        """For this test alone."""
        with open(self.b.config) as f:
            before = f.read()
        self.b.reload(change)
        self.addCleanup(self.b.reload, lambda _: before)

    def create(self, token=None, **body):
        status, reply = self.ask("POST", "auth/token/create", body, token)
        self.assertEqual(status, 200, reply)
        return reply["auth"]

    def lookup(self, token):
        return self.ask("GET", "auth/token/lookup-self", token=token)


class Mounts(Vault):
    def test_kv_version_1(self):
        kv = self.client.secrets.kv.v1
        with self.assertRaises(hvac.exceptions.InvalidPath):
            kv.read_secret("a", mount_point="old")
        self.assertEqual(kv.create_or_update_secret("a", {"x": "1"}, mount_point="old").status_code, 204)
        self.assertEqual(kv.read_secret("a", mount_point="old")["data"], {"x": "1"})
        kv.create_or_update_secret("b/c", {"y": "2", "n": 5}, mount_point="old")
        kv.create_or_update_secret("a", {"x": "2"}, mount_point="old")
        self.assertEqual(kv.read_secret("a", mount_point="old")["data"], {"x": "2"})
        self.assertEqual(kv.list_secrets("", mount_point="old")["data"]["keys"], ["a", "b/"])
        self.assertEqual(kv.list_secrets("b", mount_point="old")["data"]["keys"], ["c"])
        # the same secret, by its place in the store
        self.assertEqual(self.ask("GET", "secret/data/old/a")[1]["data"]["metadata"]["version"], 2)
        self.assertEqual(kv.delete_secret("a", mount_point="old").status_code, 204)
        with self.assertRaises(hvac.exceptions.InvalidPath):
            kv.read_secret("a", mount_point="old")
        self.assertEqual(self.ask("PUT", "old/e", {})[0], 400)
        self.assertEqual(self.ask("GET", "old/data/b/c")[0], 404)
        self.assertEqual(self.ask("GET", "%kv1/b/c")[0], 400)
        self.assertEqual(self.ask("GET", "old/../app/x")[0], 400)
        other = self.b.token("--policy", "other")
        self.assertEqual(self.ask("GET", "old/b/c", token=other)[0], 403)

    def test_kv_version_2_elsewhere(self):
        kv = self.client.secrets.kv.v2
        kv.create_or_update_secret("x", {"k": "v"}, mount_point="team/kv")
        self.assertEqual(kv.read_secret_version("x", mount_point="team/kv")["data"]["data"], {"k": "v"})
        self.assertEqual(self.b.cli("get", "team/kv/x", "--field", "k", check=True).stdout.strip(), b"v")
        self.assertEqual(self.ask("GET", "sys/internal/ui/mounts/team/kv/x")[1]["data"]["path"], "team/kv/")
        self.assertEqual(self.ask("GET", "sys/internal/ui/mounts/old/x")[1]["data"]["options"], {"version": "1"})

    def test_lists(self):
        mounts = self.client.sys.list_mounted_secrets_engines()["data"]
        self.assertEqual({k: v["type"] for k, v in mounts.items()},
                         {"secret/": "kv", "transit/": "transit", "pki/": "pki", "ssh/": "ssh", "totp/": "totp", "sys/": "system", "old/": "kv", "team/kv/": "kv"})
        self.assertEqual(len({m["uuid"] for m in mounts.values()}), len(mounts))
        auth = self.client.sys.list_auth_methods()["data"]
        self.assertEqual({k: v["type"] for k, v in auth.items()},
                         {"token/": "token", "jwt/": "jwt", "kernel/": "kernel", "approle/": "approle", "apps/": "approle"})
        both = self.ask("GET", "sys/internal/ui/mounts")[1]["data"]
        self.assertEqual([set(both), both["secret"], both["auth"]], [{"secret", "auth"}, mounts, auth])
        got = self.client.sys.get_capabilities(["old/x", "team/kv/data/x", "team/kv/metadata/x"])["data"]
        self.assertEqual(got["old/x"], ["create", "delete", "list", "read", "update"])
        self.assertEqual(got["team/kv/data/x"], ["create", "patch", "read", "update"])

    def test_bad_configuration(self):
        for mounts, why in (("  secret/x: {type: kv}", "within each other"), ("  a: {type: kv}\n  a/b: {type: kv}", "within each other"),
                            ("  auth/x: {type: kv}", "cannot be mounted below auth/"), ("  x: {type: jwt}", "is mounted below auth/"),
                            ("  x: {type: kv, version: 3}", "expected version 1 or 2"), ("  auth/x: {type: jwt, version: 1}", "only kv has a version"),
                            ("  cotter: {type: kv}", "cotter's own"), ("  x: {type: pki}", "expected kv, jwt or approle"), ("  ../x: {type: kv}", "expected a mount")):
            with open(self.b.config) as f:
                text = f.read()
            try:
                self.b.edit(lambda text: text.replace("mounts:\n  old: {type: kv, version: 1}\n  team/kv: {type: kv}\n  auth/apps: {type: approle}\n", f"mounts:\n{mounts}\n"))
                p = self.b.cli("policy", "lint")
                self.assertNotEqual(p.returncode, 0, mounts)
                self.assertIn(why, p.stderr.decode())
            finally:
                self.b.edit(lambda _: text)


class Tokens(Vault):
    def test_hvac(self):
        made = self.client.auth.token.create(policies=["app", "default"], ttl="1h", num_uses=0, meta={"job": "47\"11", "who": "dép/loy"}, display_name="ci job",
                                             explicit_max_ttl="90m")["auth"]
        self.assertEqual([made["policies"], made["renewable"], made["orphan"], made["lease_duration"]], [["app", "default"], True, False, 3600])
        self.assertEqual(made["metadata"], {"job": "47\"11", "who": "dép/loy"})
        child = hvac_client(self.b.socket, made["client_token"])
        self.assertTrue(child.is_authenticated())
        seen = child.auth.token.lookup_self()["data"]
        self.assertEqual([seen[k] for k in ("id", "accessor", "display_name", "creation_ttl", "explicit_max_ttl", "path", "type", "meta")],
                         [made["client_token"], made["accessor"], "token-ci-job", 3600, 5400, "auth/token/create", "service", made["metadata"]])
        self.assertEqual(self.client.auth.token.lookup(made["client_token"])["data"]["accessor"], made["accessor"])
        by_accessor = self.client.auth.token.lookup_accessor(made["accessor"])["data"]
        self.assertEqual([by_accessor["id"], by_accessor["policies"]], ["", ["app", "default"]])
        renewed = child.auth.token.renew_self(increment="20m")["auth"]
        self.assertEqual([renewed["client_token"], renewed["lease_duration"]], [made["client_token"], 3600])
        self.assertIn("last_renewal", child.auth.token.lookup_self()["data"])
        self.assertEqual(self.client.auth.token.renew(made["client_token"], increment=600)["auth"]["lease_duration"], 3600)  # never shorter
        renewed = self.client.auth.token.renew_accessor(made["accessor"], increment="80m")["auth"]
        self.assertEqual([renewed["client_token"], renewed["lease_duration"]], ["", 4800])
        # up to its maximum, and it says so
        status, reply = self.ask("POST", "auth/token/renew-self", {"increment": "2h"}, made["client_token"])
        self.assertEqual(status, 200)
        self.assertTrue(5390 <= reply["auth"]["lease_duration"] <= 5400 and "cut" in reply["warnings"][0])
        self.restart()
        self.assertTrue(child.is_authenticated())
        self.assertEqual(child.auth.token.lookup_self()["data"]["meta"], made["metadata"])
        self.client.auth.token.revoke_accessor(made["accessor"])
        self.assertFalse(child.is_authenticated())
        with self.assertRaises(hvac.exceptions.Forbidden):
            self.client.auth.token.lookup_accessor(made["accessor"])

    def test_no_child_outlives_its_parent(self):
        parent = self.b.token("--policy", "app", "--ttl", "10m", "--max-ttl", "30m")
        status, reply = self.ask("POST", "auth/token/create", {"ttl": "768h"}, parent)
        self.assertEqual(status, 200)
        child = reply["auth"]["client_token"]
        self.assertTrue(590 <= reply["auth"]["lease_duration"] <= 600)
        self.assertIn("no token outlives the one that makes it", reply["warnings"][0])
        self.assertIsNone(self.ask("POST", "auth/token/create", {}, parent)[1]["warnings"])
        self.assertTrue(590 <= self.ask("POST", "auth/token/renew-self", {"increment": 3600}, child)[1]["auth"]["lease_duration"] <= 600)
        self.assertEqual(self.ask("POST", "auth/token/renew-self", {"increment": "20m"}, parent)[1]["auth"]["lease_duration"], 1200)
        self.assertEqual(self.ask("POST", "auth/token/renew-self", {"increment": "15m"}, child)[1]["auth"]["lease_duration"], 900)
        # the children go with it
        self.assertEqual(self.ask("POST", "auth/token/revoke-self", {}, parent)[0], 204)
        self.assertEqual(self.lookup(child)[0], 403)

    def test_a_renewal_never_shortens(self):
        """What was made with it would outlive it, and escape when its lineage is revoked."""
        first = self.b.token("--policy", "app", "--ttl", "10m", "--max-ttl", "30m")
        second = self.create(token=first, explicit_max_ttl="20m", ttl="5m")
        third = self.create(token=second["client_token"], ttl="5m")
        self.assertEqual(self.ask("POST", "auth/token/renew-self", {"increment": "1s"}, second["client_token"])[0], 200)
        time.sleep(2.2)
        self.assertEqual(self.lookup(second["client_token"])[0], 200)
        self.assertEqual(self.ask("POST", "auth/token/revoke-self", {}, first)[0], 204)
        self.assertEqual([self.lookup(t["client_token"])[0] for t in (second, third)], [403, 403])

    def test_a_policy_that_is_called_default(self):
        ro = self.b.token("--policy", "other")
        self.assertEqual(self.ask("POST", "auth/token/create", {"policies": ["default"]}, ro)[0], 200)
        self.configure(lambda text: text.replace("mounts:\n", "  default:\n    - path: shared/*\n      allow: [get]\nmounts:\n", 1))
        self.assertEqual(self.ask("POST", "auth/token/create", {"policies": ["default"]}, ro)[0], 403)

    def test_an_explicit_maximum_holds_through_wrapping(self):
        status, reply = self.operate("POST", "auth/token/create", {"policies": ["app"], "ttl": "1h", "explicit_max_ttl": "10m"}, ["X-Vault-Wrap-TTL: 60"])
        self.assertEqual(status, 200)
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": reply["wrap_info"]["token"]})[1]["auth"]["lease_duration"], 600)

    def test_only_rules_for_auth_give_tokens(self):
        self.configure(lambda text: text.replace("mounts:\n", """\
  everything:
    - path: "*"
      allow: [get, put, list, delete]
  project:
    - path: "{{project}}/*"
      allow: [get, put, list]
  both:
    - path: "*"
      allow: [get, put, list, delete]
    - path: auth/token/create/wide
      allow: [update]
  never:
    - path: auth/token/create/*
      allow: [update]
    - path: "*"
      allow: [deny]
mounts:
""", 1))
        for args, status in (("everything",), 403), (("project", "--meta", "project=auth/token/create"), 403), (("both",), 200), (("never",), 403):
            token = self.b.token("--policy", *args)
            self.assertEqual(self.ask("POST", "auth/token/create/wide", {}, token)[0], status, args)
            may = self.ask("POST", "sys/capabilities-self", {"paths": ["auth/token/create/wide"]}, token)[1]["capabilities"]
            self.assertEqual(may, ["update"] if status == 200 else ["deny"], args)
        token = self.b.token("--policy", "project", "--meta", "project=auth/approle")
        self.assertEqual(self.ask("POST", "auth/approle/role/web/secret-id", {}, token)[0], 403)

    def test_what_a_role_gives_at_most(self):
        for body, uses in (({}, 3), ({"num_uses": 0}, 3), ({"num_uses": 1000}, 3), ({"num_uses": 2}, 2)):
            status, reply = self.ask("POST", "auth/token/create/few", body)
            self.assertEqual((status, reply["auth"]["num_uses"]), (200, uses), body)

    def test_the_last_use_is_wrapped(self):
        self.b.put("app/last", "1")
        for ends in (False, True):
            parent = self.create()["client_token"]
            token = self.create(token=parent, num_uses=1)["client_token"]
            replies = [self.ask("GET", "secret/data/app/last", token=token, head=["X-Vault-Wrap-TTL: 60"]) for _ in range(2)]
            self.assertEqual([status for status, _ in replies], [200, 403])
            if ends:
                self.assertEqual(self.ask("POST", "auth/token/revoke-self", {}, parent)[0], 204)
            self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": replies[0][1]["wrap_info"]["token"]})[0], 400 if ends else 200)

    def test_freed_while_the_store_cannot_be_written(self):
        """The token ends all the same, and its children live: also when the broker dies before it could say so."""
        parent = self.b.token("--policy", "app", "--ttl", "1h")
        child = self.create(token=parent)["client_token"]
        behind = self.b.audit(10_000).count("ev=store.behind")
        db = sqlite3.connect(f"{self.b.state}/store.db", isolation_level=None)
        self.addCleanup(db.close)
        db.execute("BEGIN IMMEDIATE")  # another program writes, and does not stop
        self.assertEqual(self.operate("POST", "auth/token/revoke-orphan", {"token": parent})[0], 500)
        self.assertEqual([self.lookup(token)[0] for token in (parent, child)], [403, 200])
        wait_for("the record", lambda: self.b.audit(10_000).count("ev=store.behind") > behind)
        db.execute("ROLLBACK")
        wait_for("the removal", lambda: self.b.audit(10_000).count("ev=store.behind") > behind + 1, 20)
        self.restart()
        self.assertEqual([self.lookup(token)[0] for token in (parent, child)], [403, 200])

    def test_not_renewable(self):
        for token in (self.b.token("--policy", "app"), self.create(renewable=False)["client_token"]):
            self.assertFalse(self.lookup(token)[1]["data"]["renewable"])
            status, reply = self.ask("POST", "auth/token/renew-self", {}, token)
            self.assertEqual((status, reply["errors"]), (400, ["lease is not renewable"]))

    def test_reach(self):
        """A token reaches itself and what was made with it; one of somebody else only who has it."""
        a, b = self.create(), self.create()
        below = self.create(token=a["client_token"])
        for path in ("lookup-accessor", "renew-accessor", "revoke-accessor"):
            self.assertEqual(self.ask("POST", f"auth/token/{path}", {"accessor": b["accessor"]}, a["client_token"])[0], 403, path)
        self.assertEqual(self.ask("POST", "auth/token/lookup-accessor", {"accessor": below["accessor"]}, a["client_token"])[0], 200)
        self.assertEqual(self.ask("POST", "auth/token/lookup-accessor", {"accessor": a["accessor"]}, below["client_token"])[0], 403)
        self.assertEqual(self.ask("POST", "auth/token/lookup", {"token": b["client_token"]}, a["client_token"])[0], 200)
        foreign = self.b.token("--policy", "app", "--uid", "54321")
        for path in ("lookup", "renew", "revoke"):
            self.assertEqual(self.ask("POST", f"auth/token/{path}", {"token": foreign})[0], 403, path)
        narrow = self.b.cli("token", "narrow", "--path", "app/x", stdin=a["client_token"], check=True).stdout.decode().strip()
        for path, body in (("renew-self", {}), ("revoke-self", {}), ("create", {}), ("revoke", {"token": b["client_token"]}), ("revoke-accessor", {"accessor": below["accessor"]})):
            self.assertEqual(self.ask("POST", f"auth/token/{path}", body, narrow)[0], 403, path)
        self.assertEqual(self.ask("POST", "auth/token/revoke", {"token": narrow})[0], 403)
        for path in ("lookup", "renew", "revoke"):
            for bad in ("cot1_", "x", 5, "", a["client_token"][:-2] + "AA"):
                self.assertIn(self.ask("POST", f"auth/token/{path}", {"token": bad})[0], (400, 403), (path, bad))
            for bad in ("", "zz", 5, a["accessor"] + "00", "0" * 32):
                self.assertIn(self.ask("POST", f"auth/token/{path}-accessor", {"accessor": bad})[0], (400, 403), (path, bad))
        self.assertEqual(self.lookup(below["client_token"])[0], 200)

    def test_operators(self):
        made = self.operate("POST", "auth/token/create-orphan", {"policies": ["app"], "ttl": "10m"})[1]["auth"]
        self.assertTrue(made["orphan"])
        self.assertEqual(self.ask("POST", "auth/token/create-orphan", {"policies": ["app"]})[0], 403)
        self.assertEqual(self.ask("POST", "auth/token/create", {"no_parent": True})[0], 403)
        self.assertEqual(self.ask("POST", "auth/token/create", {"period": "1h"})[0], 403)
        child = self.create(token=made["client_token"])
        self.assertIn(child["accessor"], self.operator.auth.token.list_accessors()["data"]["keys"])
        self.assertEqual(self.ask("LIST", "auth/token/accessors")[0], 403)
        self.assertEqual(self.operator.auth.token.lookup(child["client_token"])["data"]["orphan"], False)
        self.operator.auth.token.revoke_and_orphan_children(made["client_token"])
        self.assertEqual([self.lookup(made["client_token"])[0], self.lookup(child["client_token"])[0]], [403, 200])
        self.assertTrue(self.lookup(child["client_token"])[1]["data"]["orphan"])
        self.operator.auth.token.revoke(child["client_token"])
        self.assertEqual(self.lookup(child["client_token"])[0], 403)
        period = self.operator.auth.token.create(policies=["app"], period="1h")["auth"]["client_token"]
        self.assertEqual([self.lookup(period)[1]["data"][k] for k in ("period", "ttl", "renewable")], [3600, 3600, True])

    def test_roles(self):
        made = self.client.auth.token.create(role_name="wide", policies=["other"])["auth"]
        self.assertEqual([made["policies"], made["orphan"], made["lease_duration"]], [["other"], True, 300])
        self.assertEqual(self.lookup(made["client_token"])[1]["data"]["path"], "auth/token/create/wide")
        self.assertEqual(self.ask("POST", "auth/token/create/wide", {})[1]["auth"]["policies"], ["other", "app"])
        self.assertEqual(self.ask("POST", "auth/token/create/wide", {"policies": ["admin"]})[0], 400)
        for role in ("nosuch", "web"):
            self.assertEqual(self.ask("POST", f"auth/token/create/{role}", {})[1]["errors"], ["unknown role"])
        self.assertEqual(self.ask("POST", "auth/token/create/wide", {}, made["client_token"])[0], 403)  # no policy of it says so
        tick = self.ask("POST", "auth/token/create/tick", {"ttl": "1h"})[1]["auth"]
        self.assertEqual(tick["lease_duration"], 120)
        self.assertEqual(self.ask("POST", "auth/token/renew-self", {"increment": "90s"}, tick["client_token"])[1]["auth"]["lease_duration"], 120)
        for path in ("x/wide", "wide/x"):
            self.assertEqual(self.ask("POST", f"auth/token/create/{path}", {})[1]["errors"], ["unknown role"])
        self.assertEqual(self.ask("POST", "auth/token/create/wide", {"ttl": "20h"})[1]["auth"]["lease_duration"], 300)
        self.assertEqual(self.operator.auth.token.list_roles()["data"]["keys"], ["wide", "few", "tick"])
        self.assertEqual(self.operator.auth.token.read_role("tick")["data"]["token_period"], 120)

    def test_uses(self):
        made = self.create(num_uses=2)
        self.assertEqual(made["num_uses"], 2)
        self.b.put("app/uses", "1")
        self.assertEqual([self.ask("GET", "secret/data/app/uses", token=made["client_token"])[0] for _ in range(3)], [200, 200, 403])

    def test_bad_input(self):
        for body in ({"ttl": "x"}, {"ttl": -5}, {"ttl": []}, {"renewable": "yes"}, {"id": "root"}, {"type": "batch"}, {"entity_alias": "x"}, {"meta": []},
                     {"meta": {"a": 5}}, {"meta": {"": "x"}}, {"meta": {"a=b": "x"}}, {"meta": {"a": "b\nc=d"}}, {"meta": {"a\nb": "c"}}, {"display_name": "x" * 65},
                     {"display_name": 5}, {"num_uses": "x"}, {"policies": ["nosuch"]}, {"policies": [5]}, {"policies": "app"}, {"policies": {"a": "app"}}):
            self.assertEqual(self.ask("POST", "auth/token/create", body)[0], 400, body)
        for increment in ("x", -1, [], {}):
            self.assertEqual(self.ask("POST", "auth/token/renew-self", {"increment": increment}, self.create()["client_token"])[0], 400, increment)

    def test_what_a_holder_says_proves_nothing(self):
        proven = self.b.token("--policy", "app", "--meta", "project=acme/web")
        self.assertEqual(self.ask("POST", "auth/token/create", {"meta": {"project": "acme/other"}}, proven)[0], 400)
        made = self.create(token=proven, meta={"scope": "acme/other"})
        self.assertEqual(made["metadata"], {"project": "acme/web", "scope": "acme/other"})
        self.b.reload(lambda text: text.replace("roles:\n", "scopes:\n  acme/other:\n    policies: [other]\nroles:\n"))
        self.b.put("other/x", "1")
        self.assertEqual(self.ask("GET", "secret/data/other/x", token=made["client_token"])[0], 403)
        said = self.b.token("--policy", "app", "--meta", "scope=acme/other")
        self.assertEqual(self.ask("GET", "secret/data/other/x", token=said)[0], 200)


class AppRole(Vault):
    def test_hvac(self):
        approle = self.operator.auth.approle
        self.assertEqual(approle.read_role_id("web")["data"]["role_id"], "web-role")
        self.assertEqual(approle.list_roles()["data"]["keys"], ["web", "once", "elsewhere"])
        self.assertEqual(approle.read_role("web")["data"]["token_policies"], ["app"])
        made = approle.generate_secret_id("web")["data"]
        self.assertEqual(made["secret_id_ttl"], 3600)
        self.assertRegex(made["secret_id"], "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        client = hvac_client(self.b.socket, None)
        for mount in ("approle", "apps"):
            auth = client.auth.approle.login("web-role", made["secret_id"], mount_point=mount)["auth"]
            self.assertEqual([auth["policies"], auth["lease_duration"], auth["renewable"], auth["metadata"]["role"]], [["app"], 600, True, "web"])
        client.token = auth["client_token"]
        client.secrets.kv.v2.create_or_update_secret("app/role", {"a": "b"})
        self.assertTrue(1190 <= client.auth.token.renew_self(increment="1h")["auth"]["lease_duration"] <= 1200)
        seen = approle.read_secret_id("web", made["secret_id"])["data"]
        self.assertEqual([seen["secret_id_accessor"], seen["secret_id_num_uses"]], [made["secret_id_accessor"], 0])
        self.assertEqual(approle.read_secret_id_accessor("web", made["secret_id_accessor"])["data"], seen)
        self.assertIn(made["secret_id_accessor"], approle.list_secret_id_accessors("web")["data"]["keys"])
        self.restart()
        self.assertEqual(self.login("web-role", made["secret_id"])[0], 200)
        self.assertNotIn(made["secret_id"].encode(), self.on_disk())
        approle.destroy_secret_id_accessor("web", made["secret_id_accessor"])
        self.assertEqual(self.login("web-role", made["secret_id"])[0], 400)

    def login(self, role, secret):
        with connect(self.b.socket) as s:
            return request(s, "POST", "auth/approle/login", None, {"role_id": role, "secret_id": secret})

    def secret_id(self, role, **body):
        status, reply = self.operate("POST", f"auth/approle/role/{role}/secret-id", body)
        self.assertEqual(status, 200, reply)
        return reply["data"]["secret_id"]

    def test_one_sentence_for_every_cause(self):
        web, once = self.secret_id("web"), self.secret_id("once")
        answers = [self.login(*pair) for pair in (("nosuch", web), ("web-role", once), ("web-role", web[:-1] + "x"), ("web-role", "x"), ("web", web),
                                                   ("elsewhere-role", self.secret_id("elsewhere")), ("web-role", "x" * 1000))]
        self.assertEqual({(status, reply["errors"][0]) for status, reply in answers}, {(400, "invalid role or secret ID")})
        self.assertEqual(self.login("", web)[1]["errors"], ["missing role_id"])
        self.assertEqual(self.login("web-role", "")[1]["errors"], ["missing secret_id"])
        self.assertEqual(self.login("web-role", 5)[0], 400)

    def test_uses_and_time(self):
        once = self.secret_id("once")
        self.assertEqual([self.login("once-role", once)[0] for _ in range(2)], [200, 400])
        self.assertEqual(self.operate("POST", "auth/approle/role/once/secret-id", {"num_uses": 2})[0], 400)
        self.assertEqual(self.operate("POST", "auth/approle/role/web/secret-id", {"ttl": "2h"})[0], 400)
        two = self.secret_id("web", num_uses=2)
        self.assertEqual([self.login("web-role", two)[0] for _ in range(2)], [200, 200])
        self.restart()
        self.assertEqual(self.login("web-role", two)[0], 400)
        short = self.secret_id("web", ttl=1)
        time.sleep(1.1)
        self.assertEqual(self.login("web-role", short)[0], 400)

    def test_full_of_secret_ids(self):
        """Whoever may make them for one role keeps nobody from using those of another."""
        two = self.secret_id("web", num_uses=3)
        with Session(self.b.operator_socket) as s:
            made = 0
            while s.request("POST", "auth/approle/role/once/secret-id", None, {})[0] == 200:
                made += 1
        self.assertGreater(made, 4000)
        self.assertEqual([self.login("web-role", two)[0] for _ in range(2)], [200, 200])
        keys = self.operate("LIST", "auth/approle/role/once/secret-id")[1]["data"]["keys"]
        with Session(self.b.operator_socket) as s:
            for key in keys:
                s.request("POST", "auth/approle/role/once/secret-id-accessor/destroy", None, {"secret_id_accessor": key})

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_bound_to_a_cgroup(self):
        here, there = Cgroup(), Cgroup()
        self.addCleanup(here.remove)
        self.addCleanup(there.remove)
        self.configure(lambda text: text.replace("roles:\n", f"roles:\n  bound:\n    approle: {{role_id: bound-role}}\n    kernel: {{cgroups: [{here.name}]}}\n    policies: [app]\n", 1))
        secret = self.secret_id("bound")
        other = Process(cgroup=there)
        self.addCleanup(other.end)
        said = {"role_id": "bound-role", "secret_id": secret, "cgroup": here.name}
        self.assertEqual(as_peer(ask, self.b.socket, "POST", "auth/approle/login", None, said, cgroup=here)[0], 200)
        self.assertEqual(as_peer(ask, self.b.socket, "POST", "auth/approle/login", None, said, cgroup=there)[0], 400)
        self.assertEqual(as_peer(ask, self.b.socket, "POST", "auth/approle/login", None, {**said, "leader": other.pid}, cgroup=here)[0], 400)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_renewed_within_a_job(self):
        here = Cgroup()
        self.addCleanup(here.remove)
        keeper = Process(cgroup=here)
        self.addCleanup(keeper.end)
        _, reply = keeper.do(ask, self.b.socket, "POST", "auth/approle/login", None, {"role_id": "web-role", "secret_id": self.secret_id("web")})
        token = reply["auth"]["client_token"]
        _, reply = keeper.do(ask, self.b.socket, "POST", "auth/token/renew-self", token, {"increment": "20m"})
        self.assertIn(reply["auth"]["lease_duration"], range(1190, 1201))  # beyond the role's ttl of 10m, up to its max_ttl

    def test_who_may(self):
        self.assertEqual(self.ask("POST", "auth/approle/role/web/secret-id", {})[0], 200)
        for path in ("once/secret-id", "web/secret-id/destroy", "web"):
            self.assertEqual(self.ask("POST", f"auth/approle/role/{path}", {})[0], 403, path)
        self.assertEqual(self.operate("POST", "auth/approle/role/web", {"token_policies": ["x"]})[0], 405)
        self.assertEqual(self.operate("POST", "auth/approle/role/nosuch/secret-id", {})[0], 404)
        self.assertEqual(self.operate("POST", "auth/approle/role/web/secret-id", {"metadata": "{\"a\":\"b\"}"})[0], 400)

    def test_wrapped(self):
        wrapped = self.operate("POST", "auth/approle/role/web/secret-id", {}, ["X-Vault-Wrap-TTL: 60s"])[1]["wrap_info"]
        self.assertEqual(wrapped["creation_path"], "auth/approle/role/web/secret-id")
        got = hvac_client(self.b.socket, None).sys.unwrap(wrapped["token"])
        self.assertEqual(self.login("web-role", got["data"]["secret_id"])[0], 200)


def totp(key, when, digest="sha1", digits=6, period=30):
    mac = hmac.digest(base64.b32decode(key + "=" * (-len(key) % 8)), int(when // period).to_bytes(8, "big"), digest)
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at:at + 4], 'big') & 0x7fffffff) % 10 ** digits:0{digits}d}"


class Totp(Vault):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.reload(lambda text: text.replace("mounts:\n", """\
  totp:
    - path: totp/*
      allow: [put, get, list, delete]
  codes:
    - path: totp/given
      allow: [sign]
mounts:
""", 1))
        cls.token = cls.b.token("--policy", "totp")

    def code(self, name, token=None):
        status, reply = self.ask("GET", f"totp/code/{name}", token=token)
        self.assertEqual(status, 200, reply)
        return reply["data"]["code"]

    def test_a_key_that_is_given(self):
        key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        self.assertEqual(self.ask("POST", "totp/keys/given", {"key": key, "issuer": "Acme", "account_name": "ci@acme"})[0], 204)
        now = time.time()
        self.assertIn(self.code("given"), (totp(key, now), totp(key, now + 30)))
        self.assertEqual(self.ask("GET", "totp/keys/given")[1]["data"], {"account_name": "ci@acme", "algorithm": "SHA1", "digits": 6, "issuer": "Acme", "period": 30})
        if time.time() % 30 > 25:
            time.sleep(30 - time.time() % 30)  # all within one period
        for code, valid in ((totp(key, time.time()), True), (totp(key, time.time() - 30), True), (totp(key, time.time() - 300), False), ("12345678", False)):
            self.assertEqual(self.ask("POST", "totp/code/given", {"code": code})[1]["data"], {"valid": valid})
            if valid:
                status, reply = self.ask("POST", "totp/code/given", {"code": code})
                self.assertEqual((status, reply["errors"]), (400, ["code already used; wait until the next time period"]))
        # whoever may use it, and no more, does not see the key
        codes = self.b.token("--policy", "codes")
        self.assertEqual(len(self.code("given", codes)), 6)
        for path in ("secret/data/totp/given", "totp/keys/given"):
            self.assertEqual(self.ask("GET", path, token=codes)[0], 403)
        self.assertIn("given", self.ask("LIST", "totp/keys")[1]["data"]["keys"])
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertIn(self.code("given"), (totp(key, time.time() - 1), totp(key, time.time() + 29)))
        self.assertEqual(self.ask("DELETE", "totp/keys/given")[0], 204)
        self.assertEqual(self.ask("GET", "totp/code/given")[0], 404)

    def test_one_that_is_made(self):
        status, reply = self.ask("POST", "totp/keys/made", {"generate": True, "issuer": "Acme", "account_name": "ci"})
        self.assertEqual(status, 200)
        key = re.search(r"^otpauth://totp/Acme:ci\?secret=([A-Z2-7]{32})&issuer=Acme$", reply["data"]["url"]).group(1)
        self.assertIn(self.code("made"), (totp(key, time.time() - 1), totp(key, time.time() + 29)))

    def test_a_url(self):
        url = "otpauth://totp/Acme:x?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&algorithm=SHA256&digits=8&period=60&issuer=Acme"
        self.assertEqual(self.ask("PUT", "totp/keys/url", {"url": url})[0], 204)
        when = [totp("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", time.time() + d, "sha256", 8, 60) for d in (-1, 59)]
        self.assertIn(self.code("url"), when)

    def test_bad_input(self):
        for body in ({}, {"key": "1"}, {"key": 5}, {"key": "A" * 300}, {"key": "GEZDGNBV", "digits": 7}, {"key": "GEZDGNBV", "period": 0.5}, {"key": "GEZDGNBV", "algorithm": "MD5"},
                     {"key": "GEZDGNBV", "period": 100000}, {"url": "http://x"}, {"url": "otpauth://totp/x?digits=6"}, {"generate": True}, {"generate": True, "issuer": "a b", "account_name": "x"},
                     {"generate": True, "issuer": "a", "account_name": "x", "key_size": 5}):
            self.assertEqual(self.ask("POST", "totp/keys/bad", body)[0], 400, body)
        self.assertEqual(self.ask("GET", "totp/code/bad")[0], 404)
        self.ask("POST", "totp/keys/ok", {"key": "GEZDGNBV"})
        for code in ("", 5, "123456789", None):
            self.assertEqual(self.ask("POST", "totp/code/ok", {"code": code})[0], 400, code)
        # a secret of that name that is no key
        self.ask("POST", "secret/data/totp/other", {"data": {"a": "b"}})
        self.assertEqual(self.ask("GET", "totp/code/other")[0], 400)


class Wrapping(Vault):
    def wrap(self, path="secret/data/app/w", token=None, ttl="60s", method="GET", body=None):
        status, reply = self.ask(method, path, body, token, [f"X-Vault-Wrap-TTL: {ttl}"])
        self.assertEqual(status, 200, reply)
        self.assertIsNone(reply["data"])
        return reply["wrap_info"]

    def test_any_call(self):
        self.b.cli("put", "app/w", "--data", "-", stdin='{"a":"wrapped-plaintext"}', check=True)
        info = self.wrap()
        self.assertEqual([info["ttl"], info["creation_path"]], [60, "secret/data/app/w"])
        self.assertNotIn(b"wrapped-plaintext", self.on_disk())
        looked = hvac_client(self.b.socket, None).sys
        seen = self.ask("POST", "sys/wrapping/lookup", {"token": info["token"]})[1]["data"]
        self.assertEqual([seen["creation_path"], seen["creation_ttl"]], ["secret/data/app/w", 60])
        self.restart()
        self.assertEqual(looked.unwrap(info["token"])["data"]["data"], {"a": "wrapped-plaintext"})
        for _ in range(2):
            status, reply = self.ask("POST", "sys/wrapping/unwrap", {"token": info["token"]})
            self.assertEqual((status, reply["errors"]), (400, ["wrapping token is not valid or does not exist"]))
        self.assertIn("ev=wrap ", self.b.audit())
        self.assertIn("ev=unwrap ", self.b.audit())

    def test_in_the_header(self):
        client = hvac_client(self.b.socket, self.token)
        info = self.wrap("sys/wrapping/wrap", method="POST", body={"x": {"y": [1, "z"]}})
        client.token = info["token"]
        self.assertEqual(client.sys.unwrap()["data"], {"x": {"y": [1, "z"]}})
        status, reply = self.ask("POST", "sys/wrapping/wrap", {"x": 1})
        self.assertEqual((status, reply["errors"][0][:47]), (400, "endpoint requires response wrapping to be used:"))

    def test_errors_are_not_wrapped(self):
        status, reply = self.ask("GET", "secret/data/app/nosuch", head=["X-Vault-Wrap-TTL: 60"])
        self.assertEqual((status, reply), (404, {"errors": []}))
        self.assertEqual(self.ask("GET", "secret/data/other/x", head=["X-Vault-Wrap-TTL: 60"])[0], 403)

    def test_rewrap(self):
        first = self.wrap("sys/wrapping/wrap", method="POST", body={"x": 1}, ttl="120")
        status, reply = self.ask("POST", "sys/wrapping/rewrap", {"token": first["token"]})
        self.assertEqual(status, 200)
        second = reply["wrap_info"]
        self.assertEqual([second["creation_path"], second["ttl"]], ["sys/wrapping/wrap", 120])
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": first["token"]})[0], 400)
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": second["token"]})[1]["data"], {"x": 1})

    def test_it_ends_with_what_made_it(self):
        parent = self.create()["client_token"]
        info = self.wrap("sys/wrapping/wrap", parent, method="POST", body={"x": 1})
        self.assertEqual(self.ask("POST", "auth/token/revoke", {"token": parent})[0], 204)
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": info["token"]})[0], 400)
        bound = self.b.token("--policy", "app", "--uid", "54321")
        self.assertEqual(self.ask("POST", "sys/wrapping/wrap", {"x": 1}, bound, ["X-Vault-Wrap-TTL: 60"])[0], 403)
        short = self.wrap("sys/wrapping/wrap", method="POST", body={"x": 1}, ttl="1s")
        time.sleep(1.2)
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": short["token"]})[0], 400)

    def test_a_login_and_a_new_token(self):
        info = self.wrap("auth/token/create", method="POST", body={"ttl": "5m"})
        token = self.ask("POST", "sys/wrapping/unwrap", {"token": info["token"]})[1]["auth"]["client_token"]
        self.assertEqual(self.lookup(token)[0], 200)
        for path in ("lookup", "unwrap", "rewrap"):
            for bad in (token, "x", "", 5):
                self.assertEqual(self.ask("POST", f"sys/wrapping/{path}", {"token": bad})[0], 400, (path, bad))
        self.assertEqual(self.ask("GET", "secret/data/app/w", token=self.wrap("sys/wrapping/wrap", method="POST", body={})["token"])[0], 403)

    def test_two_at_once(self):
        """Of many that unwrap at once exactly one gets it."""
        import threading
        info = self.wrap("sys/wrapping/wrap", method="POST", body={"x": 1})
        got = []
        threads = [threading.Thread(target=lambda: got.append(self.ask("POST", "sys/wrapping/unwrap", {"token": info["token"]})[0])) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(got), [200] + [400] * 15)

    def test_of_no_time(self):
        """As clients send it that always send the header."""
        self.b.put("app/w0", "1")
        for ttl in ("0", "0s", ""):
            self.assertIsNotNone(self.ask("GET", "secret/data/app/w0", head=[f"X-Vault-Wrap-TTL: {ttl}"])[1]["data"], ttl)
            self.assertEqual(self.ask("POST", "sys/wrapping/wrap", {"x": 1}, head=[f"X-Vault-Wrap-TTL: {ttl}"])[0], 400, ttl)
        self.assertEqual(self.wrap("secret/data/app/w0", ttl="1m30s")["ttl"], 90)
        for head in (("X-Vault-Wrap-TTL: -1",), ("X-Vault-Wrap-TTL: x",), ("X-Vault-Wrap-TTL: 25h",), (f"X-Vault-Wrap-TTL: {'0' * 30}",), ("X-Vault-Wrap-TTL: 60", "X-Vault-Wrap-TTL: 0")):
            self.assertEqual(self.ask("GET", "secret/data/app/w0", head=head)[0], 400, head)

    def accessors(self):
        return set(self.operate("LIST", "auth/token/accessors")[1]["data"]["keys"])

    def test_no_room_no_answer(self):
        """What cannot be wrapped is not done."""
        head = ["X-Vault-Wrap-TTL: 60"]
        token = self.b.token("--policy", "app", "--uid", str(os.getuid()))
        secret = self.operate("POST", "auth/approle/role/once/secret-id", {})[1]["data"]["secret_id"]
        login = {"role_id": "once-role", "secret_id": secret}
        self.b.put("app/full", "1")
        with Session(self.b.socket) as s:
            wrapped = []
            while (reply := s.request("POST", "sys/wrapping/wrap", token, {"x": 1}, head))[0] == 200:
                wrapped.append(reply[1]["wrap_info"]["token"])
        self.assertGreater(len(wrapped), 200)
        before, ids = self.accessors(), self.operate("LIST", "auth/approle/role/web/secret-id")
        for method, path, body in (("POST", "auth/token/create", {}), ("POST", "auth/token/create/wide", {}), ("POST", "auth/approle/role/web/secret-id", {}),
                                   ("POST", "auth/approle/login", login), ("POST", "secret/data/app/full", {"data": {"a": "2"}})):
            self.assertEqual(self.ask(method, path, body, token, head)[0], 429, path)
        self.assertEqual((self.accessors(), self.operate("LIST", "auth/approle/role/web/secret-id")), (before, ids))
        self.assertEqual(self.ask("GET", "secret/data/app/full")[1]["data"]["metadata"]["version"], 1)
        self.assertEqual(self.ask("POST", "auth/approle/login", login)[0], 200)  # its one use was not spent
        # one is exchanged and taken out, also by clients that always send the header
        status, reply = self.ask("POST", "sys/wrapping/rewrap", {"token": wrapped[0]}, head=head)
        self.assertEqual(status, 200)
        self.assertEqual(self.ask("POST", "sys/wrapping/unwrap", {"token": reply["wrap_info"]["token"]}, head=head)[1]["data"], {"x": 1})
        self.assertEqual(self.operate("POST", "sys/wrapping/wrap", {"x": 1}, head)[0], 200)
        self.assertEqual(self.ask("POST", "auth/token/revoke", {"token": token})[0], 204)

    def test_a_token_of_no_uid_has_its_limit(self):
        """Also where what it wrapped is wrapped anew."""
        token, kept = self.b.token("--policy", "app"), []
        with Session(self.b.socket) as s:
            for _ in range(300):
                status, reply = s.request("POST", "sys/wrapping/wrap", token, {"x": 1}, ["X-Vault-Wrap-TTL: 60"])
                if status == 200:
                    status, reply = s.request("POST", "sys/wrapping/rewrap", None, {"token": reply["wrap_info"]["token"]})
                    kept.append(status)
        self.assertEqual(set(kept), {200})
        self.assertLessEqual(len(kept), 256)
        self.assertEqual(self.ask("POST", "auth/token/revoke", {"token": token})[0], 204)

    @unittest.skipIf(os.getuid() != 0, "needs root")
    def test_a_quarter_is_the_operators(self):
        head = ["X-Vault-Wrap-TTL: 60"]
        os.chmod(self.dir, 0o755)
        tokens = {uid: self.b.token("--policy", "app", "--uid", str(uid)) for uid in range(54321, 54325)}

        def fill(token):
            with Session(self.b.socket) as s:
                return [s.request("POST", "sys/wrapping/wrap", token, {"x": 1}, head)[0] for _ in range(257)].count(200)
        self.assertLessEqual(sum(as_peer(fill, token, uid=uid) for uid, token in tokens.items()), 768)
        self.assertEqual(self.ask("POST", "sys/wrapping/wrap", {"x": 1}, head=head)[0], 429)
        self.assertEqual(self.operate("POST", "sys/wrapping/wrap", {"x": 1}, head)[0], 200)
        for token in tokens.values():
            self.operate("POST", "auth/token/revoke", {"token": token})

    def test_the_last_place_of_a_job(self):
        """A token takes it that its own answer was to be wrapped in."""
        leader = Process()
        self.addCleanup(leader.end)
        token = self.operate("POST", "cotter/jobs", {"leader": leader.pid, "policies": ["app"]})[1]["auth"]["client_token"]
        for _ in range(62):
            self.assertEqual(self.ask("POST", "auth/token/create", {}, token)[0], 200)
        before = self.accessors()
        self.assertEqual(self.ask("POST", "auth/token/create", {}, token, ["X-Vault-Wrap-TTL: 60"])[0], 429)
        self.assertEqual(self.accessors(), before)
        self.restart()
        self.assertEqual(self.accessors(), before)
        self.assertEqual([self.ask("POST", "auth/token/create", {}, token)[0] for _ in range(2)], [200, 429])

    def test_too_many(self):
        token = self.b.token("--policy", "app", "--uid", str(os.getuid()), "--ttl", "10m")
        seen = [self.ask("POST", "sys/wrapping/wrap", {"x": 1}, token, ["X-Vault-Wrap-TTL: 60"])[0] for _ in range(300)]
        self.assertEqual((set(seen[:200]), set(seen[260:])), ({200}, {429}))
        self.b.cli("token", "revoke", self.lookup(token)[1]["data"]["accessor"], check=True)
        self.assertEqual(self.ask("POST", "sys/wrapping/wrap", {"x": 1}, head=["X-Vault-Wrap-TTL: 60"])[0], 200)


def tcp(port, method, path, token=None, body=None, head=()):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(20)
        return request(s, method, path, token, body, head)


class Tcp(Vault):
    """Requests by TCP, when configured: the kernel tells whose socket it is."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.port = free_port_pair()
        cls.b.stop()
        cls.b.edit(lambda text: text.replace("socket:", f"http:\n  listen: 127.0.0.1:{cls.port}\nsocket:", 1))
        cls.b.start()

    def test_hvac(self):
        """As it comes: an address and a token."""
        client = hvac.Client(url=f"http://127.0.0.1:{self.port}", token=self.token)
        self.assertTrue(client.is_authenticated())
        client.secrets.kv.v2.create_or_update_secret("app/tcp", {"a": "b"})
        self.assertEqual(client.secrets.kv.v2.read_secret_version("app/tcp")["data"]["data"], {"a": "b"})
        self.assertFalse(client.sys.is_sealed())

    def test_whose_it_is(self):
        mine = self.b.token("--policy", "app", "--uid", str(os.getuid()))
        other = self.b.token("--policy", "app", "--uid", "54321")
        self.b.put("app/t", "1")
        self.assertEqual(tcp(self.port, "GET", "secret/data/app/t", mine)[0], 200)
        self.assertEqual(tcp(self.port, "GET", "secret/data/app/t", other)[0], 403)
        self.assertEqual(tcp(self.port, "GET", "secret/data/app/t")[0], 403)
        for path in ("cotter/status", "cotter/jobs", "auth/token/accessors?list=true"):
            self.assertEqual(tcp(self.port, "GET", path)[0], 403, path)

    @unittest.skipIf(os.getuid() != 0, "needs root")
    def test_another_user(self):
        token = self.b.token("--policy", "app", "--uid", "54321")
        self.b.put("app/t", "1")
        self.assertEqual(as_peer(tcp, self.port, "GET", "secret/data/app/t", token, uid=54321)[0], 200)
        self.assertEqual(as_peer(tcp, self.port, "GET", "secret/data/app/t", token, uid=54322)[0], 403)
        self.assertIn("uid=54321", [line for line in self.b.audit().splitlines() if " ev=get " in line and "result=granted" in line][-1])

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_another_cgroup(self):
        here, there = Cgroup(), Cgroup()
        self.addCleanup(here.remove)
        self.addCleanup(there.remove)
        self.b.reload(lambda text: text.replace("roles:\n", f"roles:\n  here:\n    kernel: {{cgroups: [{here.name}]}}\n    policies: [app]\n"))
        self.b.put("app/t", "1")
        keeper = Process(cgroup=here)  # an empty cgroup ends the job that is made of it
        self.addCleanup(keeper.end)
        status, reply = as_peer(tcp, self.port, "POST", "auth/kernel/login", None, {"role": "here", "cgroup": here.name}, cgroup=here)
        self.assertEqual(status, 200, reply)
        token = reply["auth"]["client_token"]
        self.assertEqual(as_peer(tcp, self.port, "POST", "auth/kernel/login", None, {"role": "here", "cgroup": here.name}, cgroup=there)[0], 400)
        self.assertEqual(as_peer(tcp, self.port, "GET", "secret/data/app/t", token, cgroup=here)[0], 200)
        self.assertEqual(as_peer(tcp, self.port, "GET", "secret/data/app/t", token, cgroup=there)[0], 403)
        self.assertEqual(tcp(self.port, "GET", "secret/data/app/t", token)[0], 403)

    def test_many_and_half_closed(self):
        conns = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(200)]
        for s in conns:
            self.assertEqual(request(s, "GET", "sys/health", None)[0], 200)
        for s in conns:
            s.close()
        # whoever said that nothing more comes, before the broker looked, is in a state that the kernel tells uid 0 of: refused, not believed
        self.b.put("app/t", "1")
        self.b.process.send_signal(signal.SIGSTOP)
        try:
            s = socket.create_connection(("127.0.0.1", self.port))
            s.settimeout(20)
            s.sendall(f"GET /v1/secret/data/app/t HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\n\r\n".encode())
            s.shutdown(socket.SHUT_WR)
        finally:
            self.b.process.send_signal(signal.SIGCONT)
        with s:
            self.assertEqual(s.recv(65536)[:12], b"HTTP/1.1 403")
        self.assertEqual(tcp(self.port, "GET", "secret/data/app/t", self.token)[0], 200)

    def test_a_socket_of_ipv6(self):
        """As Java's are: one that speaks IPv4 all the same."""
        self.b.put("app/t", "1")
        with socket.socket(socket.AF_INET6) as s:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            s.connect(("::ffff:127.0.0.1", self.port))
            self.assertEqual(request(s, "GET", "secret/data/app/t", self.token)[0], 200)

    def test_nobody_else_has_the_port(self):
        p = run("ss", "-Hltn", f"sport = :{self.port}")
        self.assertEqual(p.stdout.decode().split()[3], f"127.0.0.1:{self.port}")

    def test_bad_configuration(self):
        for address in ("0.0.0.0:8200", "10.0.0.1:8200", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "localhost:8200", "[::1]:8200", "127.0.0.1:82x"):
            with open(self.b.config) as f:
                text = f.read()
            try:
                self.b.edit(lambda text: text.replace(f"127.0.0.1:{self.port}", f'"{address}"'))
                p = self.b.cli("policy", "lint")
                self.assertNotEqual(p.returncode, 0, address)
                self.assertIn("127.0.0.1", p.stderr.decode())
            finally:
                self.b.edit(lambda _: text)


class Forgery(Vault):
    def test_a_header_that_only_clients_send(self):
        self.b.reload(lambda text: text.replace("socket:", "http:\n  require_request_header: true\nsocket:", 1))
        for head in ((), ("X-Vault-Request: false",), ("X-Vault-Request: TRUE",), ("X-Vault-Request: true", "X-Vault-Request: true")):
            status, reply = self.ask("GET", "secret/data/app/x", head=head)
            self.assertEqual((status, reply["errors"][0][:32]), (412, 'missing "X-Vault-Request" header'), head)
        self.assertEqual(self.ask("GET", "secret/data/app/x", head=("X-Vault-Request: true",))[0], 404)
        self.assertTrue(self.client.is_authenticated())
        self.b.put("app/x", "1")

    def test_browsers(self):
        self.assertEqual(self.ask("GET", "sys/health", head=("Origin: http://127.0.0.1",))[0], 400)


if __name__ == "__main__":
    unittest.main()
