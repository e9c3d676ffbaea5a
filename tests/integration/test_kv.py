"""KV version 2, whole: versions, metadata, patches, as hvac and curl ask for them. Everything is gone or kept across kill -9."""
import json
import os
import random
import signal
import sqlite3
import threading
import time
import unittest

import hvac

from harness import Case
from peers import ask, connect, request
from test_sign import hvac_client

POLICIES = """\
  all:
    - path: kv/*
      allow: [get, put, list, delete]
  onlyread:
    - path: kv/*
      allow: [get]
  onlyput:
    - path: kv/*
      allow: [put]
"""


class KvCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false") + POLICIES)
        cls.token = cls.b.token("--policy", "all", "--ttl", "2h")
        cls.kv = hvac_client(cls.b.socket, cls.token).secrets.kv.v2

    def ask(self, method, path, body=None, token=None):
        kind = ("Content-Type: application/merge-patch+json",) if method == "PATCH" else ()
        with connect(self.b.socket) as s:
            return request(s, method, path, token or self.token, body, kind)

    def last_record(self, event):
        return [line for line in self.b.audit(50).splitlines() if f" ev={event} " in line][-1]

    def put(self, path, **data):
        return self.kv.create_or_update_secret(path, secret=data)["data"]["version"]

    def read(self, path, **kw):
        return self.kv.read_secret_version(path, **kw)["data"]["data"]

    def set(self, path, **options):
        self.assertEqual(self.ask("POST", f"secret/metadata/{path}", options)[0], 204)

    def restart(self):
        self.b.stop(signal.SIGKILL)
        self.b.start()


class Kv(KvCase):
    def test_versions(self):
        for i in range(1, 5):
            self.assertEqual(self.put("kv/v", n=i), i)
        self.assertEqual(self.read("kv/v"), {"n": 4})
        self.kv.delete_secret_versions("kv/v", [1, 4, 99])
        for version, there in ((1, False), (2, True), (3, True), (4, False), (None, False)):
            if there:
                self.assertEqual(self.read("kv/v", version=version), {"n": version})
            else:
                with self.assertRaises(hvac.exceptions.InvalidPath):
                    self.read("kv/v", version=version)
        # a version that is gone still tells when, with status 404
        status, reply = self.ask("GET", "secret/data/kv/v?version=1")
        self.assertEqual((status, reply["data"]["data"], reply["data"]["metadata"]["destroyed"]), (404, None, False))
        self.assertNotEqual(reply["data"]["metadata"]["deletion_time"], "")
        self.kv.undelete_secret_versions("kv/v", [4])
        self.kv.destroy_secret_versions("kv/v", [2])
        self.restart()
        self.assertEqual(self.read("kv/v"), {"n": 4})
        status, reply = self.ask("GET", "secret/data/kv/v?version=2")
        self.assertEqual((status, reply["data"]["data"], reply["data"]["metadata"]["destroyed"]), (404, None, True))
        # what is destroyed does not come back, and its bytes are nowhere
        self.kv.undelete_secret_versions("kv/v", [2, 1])
        self.assertEqual(self.ask("GET", "secret/data/kv/v?version=2")[0], 404)
        self.assertEqual(self.read("kv/v", version=1), {"n": 1})
        with sqlite3.connect(os.path.join(self.b.state, "store.db")) as db:
            self.assertEqual(db.execute("SELECT version, sealed IS NULL FROM version WHERE path = 'kv/v' ORDER BY version").fetchall(),
                             [(1, 0), (2, 1), (3, 0), (4, 0)])
        versions = self.kv.read_secret_metadata("kv/v")["data"]["versions"]
        self.assertEqual([(v, versions[v]["destroyed"], bool(versions[v]["deletion_time"])) for v in sorted(versions)],
                         [("1", False, False), ("2", True, False), ("3", False, False), ("4", False, False)])

    def test_a_cached_plaintext_goes_with_its_version(self):
        self.put("kv/cached", n=1)
        self.assertEqual(self.read("kv/cached"), {"n": 1})
        self.kv.destroy_secret_versions("kv/cached", [1])
        with self.assertRaises(hvac.exceptions.InvalidPath):
            self.read("kv/cached")

    def test_words_that_are_none(self):
        self.put("kv/words", n=1)
        for verb in ("delete", "undelete", "destroy"):
            for body in ({}, {"versions": []}, {"versions": [0]}, {"versions": [-1]}, {"versions": ["x"]}, {"versions": [1.5]}, {"versions": "1,x"}, {"versions": ",1"},
                         {"versions": "1," * 101}, {"versions": ""}, {"versions": 1}, {"versions": [1] * 101}, {"versions": [None]}, {"versions": ["1", "99999999999999999999"]}):
                self.assertEqual(self.ask("POST", f"secret/{verb}/kv/words", body)[0], 400, (verb, body))
            self.assertEqual(self.ask("PUT", f"secret/{verb}/kv/none", {"versions": [1]})[0], 204)
            self.assertEqual(self.ask("GET", f"secret/{verb}/kv/words")[0], 405)
        self.assertEqual(self.read("kv/words"), {"n": 1})
        self.put("kv/words", n=2)
        self.put("kv/words", n=3)
        self.assertEqual(self.ask("POST", "secret/delete/kv/words", {"versions": [999999999999999] * 80 + [3, 1, 2, 1]})[0], 204)
        self.assertIn("why=versions_1-3", self.last_record("delete"))
        self.assertEqual(self.ask("POST", "secret/undelete/kv/words", {"versions": [1, 3]})[0], 204)
        self.assertIn("why=versions_1,3", self.last_record("undelete"))
        self.assertEqual(self.ask("POST", "secret/delete/kv/words", {"versions": ["3"]})[0], 204)
        self.assertEqual(self.ask("POST", "secret/undelete/kv/words", {"versions": "2,3"})[0], 204)
        self.assertIn("why=versions_2-3", self.last_record("undelete"))
        self.assertEqual(self.ask("POST", "secret/delete/kv/words", {"versions": "3"})[0], 204)
        self.assertEqual(self.ask("GET", "secret/data/kv/words")[0], 404)

    def test_patch(self):
        self.put("kv/p", a="1", b={"c": "2", "d": "3"}, e=[1, 2])
        status, reply = self.ask("PATCH", "secret/data/kv/p", {"data": {"a": "9", "b": {"c": None, "x": {"y": 1}}, "e": [3], "n": {"deep": None}}})
        self.assertEqual((status, reply["data"]["version"]), (200, 2))
        self.assertEqual(self.read("kv/p"), {"a": "9", "b": {"d": "3", "x": {"y": 1}}, "e": [3], "n": {}})
        self.assertEqual(self.read("kv/p", version=1), {"a": "1", "b": {"c": "2", "d": "3"}, "e": [1, 2]})
        # with a check-and-set; hvac's own reads and writes
        self.assertEqual(self.ask("PATCH", "secret/data/kv/p", {"data": {"a": None}, "options": {"cas": 1}})[0], 400)
        status, reply = self.ask("PATCH", "secret/data/kv/p", {"data": {"a": None}, "options": {"cas": 2}})
        self.assertEqual((status, reply["data"]["version"]), (200, 3))
        self.assertNotIn("a", self.read("kv/p"))
        self.assertEqual(self.kv.patch("kv/p", secret={"h": "hvac"})["data"]["version"], 4)
        self.assertEqual([self.read("kv/p")[k] for k in "he"], ["hvac", [3]])
        # strings stay strings, and numbers numbers
        self.ask("PATCH", "secret/data/kv/p", {"data": {"s": "007", "i": 7}})
        self.assertEqual([self.read("kv/p")[k] for k in "si"], ["007", 7])
        for body in ({}, {"data": 3}, {"data": None}, {"data": []}):
            self.assertEqual(self.ask("PATCH", "secret/data/kv/p", body)[0], 400, body)
        self.assertEqual(self.ask("PATCH", "secret/data/kv/none", {"data": {"a": "b"}})[0], 404)
        for path in ("secret/data/kv/p", "secret/metadata/kv/p"):  # of no other kind
            self.assertEqual(ask(self.b.socket, "PATCH", path, self.token, {"data": {}})[0], 415)
        self.assertEqual(self.ask("POST", "secret/data/kv/p", {"data": {"z": "1"}, "options": {"cas": "5"}})[1]["data"]["version"], 6)
        for options in ({"cas": "x"}, {"cas": -1}, {"cas": None}, "cas=1", [], 0):
            for method in ("POST", "PATCH"):
                self.assertEqual(self.ask(method, "secret/data/kv/p", {"data": {}, "options": options})[0], 400, options)
        self.assertEqual(self.ask("POST", "secret/data/kv/p", {"data": {"z": "1"}, "options": None})[1]["data"]["version"], 7)
        self.kv.delete_latest_version_of_secret("kv/p")
        self.assertEqual(self.ask("PATCH", "secret/data/kv/p", {"data": {"a": "b"}})[0], 404)

    def test_what_a_patch_costs(self):
        """The hardware is asked for who says the right version, and a refusal behind it is a use, too."""
        self.put("kv/cost", a="x" * 65000)
        self.restart()
        token = self.b.token("--policy", "all", "--uses", "2")
        before = self.b.status()["providers"][0]["operations"]
        for _ in range(3):
            self.assertEqual(self.ask("PATCH", "secret/data/kv/cost", {"data": {}, "options": {"cas": 7}}, token)[0], 400)
        self.assertEqual(self.b.status()["providers"][0]["operations"], before)
        self.assertEqual([self.ask("PATCH", "secret/data/kv/cost", {"data": {"b": "y" * 1000}}, token)[0] for _ in range(3)], [413, 413, 403])
        self.assertEqual(self.kv.read_secret_metadata("kv/cost")["data"]["current_version"], 1)

    def test_patches_that_wait_leave_room(self):
        """A tree of small values takes many times its text: only the text is kept while the hardware works."""
        self.put("kv/wait", a="1")
        self.put("kv/other", a="1")
        self.restart()
        self.read("kv/other")
        helper = self.b.children()[0]
        os.kill(helper, signal.SIGSTOP)
        sockets = [connect(self.b.socket) for _ in range(6)]
        try:
            data = json.dumps({"data": {"a": [1] * 25000}}).encode()
            for s in sockets:
                s.sendall(f"PATCH /v1/secret/data/kv/wait HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\nContent-Type: application/merge-patch+json\r\n"
                          f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
            time.sleep(0.5)
            self.assertEqual(self.read("kv/other"), {"a": "1"})
            self.assertLess(self.b.status()["arena_used"], 1 << 20)
        finally:
            os.kill(helper, signal.SIGCONT)
        statuses = []
        for s in sockets:
            s.settimeout(20)
            statuses.append(int(s.recv(65536).split()[1]))
            s.close()
        self.assertEqual(statuses.count(429), 2)  # a user has four of them
        self.assertEqual(len(self.read("kv/wait")["a"]), 25000)

    def test_a_full_arena_stores_nothing_by_halves(self):
        """Whatever is acknowledged while others fill the locked memory reads back as it was."""
        admin = self.token
        self.ask("POST", "secret/data/kv/big", {"data": {"b": "z" * 60000}})
        deep = "1"
        for _ in range(27):
            deep = {"d": deep}
        hoard = []
        try:
            for i in range(400):
                s = connect(self.b.socket)
                s.sendall(f"GET /v1/secret/data/kv/big HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {admin}\r\n\r\n".encode() * 2)
                hoard.append(s)
                if i % 5 == 0:
                    status, reply = self.ask("POST", f"secret/data/kv/half-{i}", {"data": {"deep": deep, "pad": "p" * 1200}})
                    self.assertIn(status, (200, 429, 503), reply)
                    if status == 200:
                        hoard[-1].close()
        finally:
            for s in hoard:
                s.close()
        time.sleep(0.3)
        written = [i for i in range(0, 400, 5) if self.ask("GET", f"secret/metadata/kv/half-{i}")[0] == 200]
        self.assertTrue(written)
        for i in written:
            self.assertEqual(self.read(f"kv/half-{i}"), {"deep": deep, "pad": "p" * 1200})

    def test_patch_with_a_cold_cache(self):
        self.put("kv/cold", a="1")
        self.restart()
        status, reply = self.ask("PATCH", "secret/data/kv/cold", {"data": {"b": "2"}})
        self.assertEqual((status, reply["data"]["version"]), (200, 2))
        self.assertEqual(self.read("kv/cold"), {"a": "1", "b": "2"})

    def test_subkeys(self):
        self.put("kv/s", a="secret", b={"c": {"d": "deep"}, "empty": {}}, list=["x", {"y": 1}])
        status, reply = self.ask("GET", "secret/subkeys/kv/s")
        self.assertEqual((status, reply["data"]["subkeys"]), (200, {"a": None, "b": {"c": {"d": None}, "empty": None}, "list": None}))
        self.assertEqual(reply["data"]["metadata"]["version"], 1)
        self.assertEqual(self.ask("GET", "secret/subkeys/kv/s?depth=1")[1]["data"]["subkeys"], {"a": None, "b": None, "list": None})
        self.assertEqual(self.ask("GET", "secret/subkeys/kv/s?depth=2")[1]["data"]["subkeys"], {"a": None, "b": {"c": None, "empty": None}, "list": None})
        self.put("kv/s", z="1")
        self.assertEqual(self.ask("GET", "secret/subkeys/kv/s?version=1&depth=1")[1]["data"]["subkeys"], {"a": None, "b": None, "list": None})
        self.assertEqual(self.ask("GET", "secret/subkeys/kv/none")[0], 404)
        self.assertEqual(self.ask("GET", "secret/subkeys/kv/s?depth=x")[0], 400)
        self.assertNotIn("deep", json.dumps(reply))

    def test_metadata(self):
        self.kv.update_metadata("kv/m", max_versions=3, cas_required=True, delete_version_after="3h25m19s")
        self.set("kv/m", custom_metadata={"owner": "ann", "z": "ü\"\\"})
        out = self.kv.read_secret_metadata("kv/m")["data"]
        self.assertEqual({k: out[k] for k in ("max_versions", "cas_required", "delete_version_after", "custom_metadata", "current_version", "versions")},
                         {"max_versions": 3, "cas_required": True, "delete_version_after": "3h25m19s", "custom_metadata": {"owner": "ann", "z": "ü\"\\"},
                          "current_version": 0, "versions": {}})
        self.assertEqual(self.ask("GET", "secret/data/kv/m")[0], 404)
        self.assertIn("m", self.kv.list_secrets("kv")["data"]["keys"])
        status, reply = self.ask("POST", "secret/data/kv/m", {"data": {"a": "1"}})
        self.assertEqual((status, reply["errors"]), (400, ["check-and-set parameter required for this call"]))
        for i in range(5):
            self.kv.create_or_update_secret("kv/m", secret={"n": i}, cas=i)
        self.restart()
        out = self.kv.read_secret_metadata("kv/m")["data"]
        self.assertEqual((sorted(out["versions"]), out["oldest_version"], out["current_version"]), (["3", "4", "5"], 3, 5))
        read = self.kv.read_secret_version("kv/m")["data"]
        self.assertEqual(read["metadata"]["custom_metadata"], {"owner": "ann", "z": "ü\"\\"})
        self.assertNotEqual(read["metadata"]["deletion_time"], "")  # it is to come
        # a part of it alone; a patch of the custom part; and away with it
        self.kv.update_metadata("kv/m", max_versions=2, cas_required=False, delete_version_after="0s")
        self.assertEqual(sorted(self.kv.read_secret_metadata("kv/m")["data"]["versions"]), ["3", "4", "5"])  # until the next is written
        self.assertIn("why=max_versions_2_cas_required_0_delete_version_after_0_s", self.last_record("metadata.set"))
        status, _ = self.ask("PATCH", "secret/metadata/kv/m", {"custom_metadata": {"owner": None, "new": "1"}})
        self.assertEqual(status, 204)
        self.assertEqual(self.kv.read_secret_metadata("kv/m")["data"]["custom_metadata"], {"z": "ü\"\\", "new": "1"})
        self.assertEqual(self.put("kv/m", n=9), 6)
        self.assertEqual(sorted(self.kv.read_secret_metadata("kv/m")["data"]["versions"]), ["5", "6"])
        self.ask("POST", "secret/metadata/kv/m", {"custom_metadata": {}, "max_versions": 0})
        self.assertIsNone(self.kv.read_secret_metadata("kv/m")["data"]["custom_metadata"])
        for method in ("POST", "PATCH"):
            self.set("kv/m", custom_metadata={"x": "y"})
            self.assertEqual(self.ask(method, "secret/metadata/kv/m", {"custom_metadata": None})[0], 204)
            self.assertIsNone(self.kv.read_secret_metadata("kv/m")["data"]["custom_metadata"])
        self.set("kv/m", custom_metadata={"x": "y"})
        self.kv.delete_metadata_and_all_versions("kv/m")
        self.assertEqual(self.ask("GET", "secret/metadata/kv/m")[0], 404)
        self.assertEqual(self.put("kv/m", n=1), 1)
        self.assertIsNone(self.kv.read_secret_metadata("kv/m")["data"]["custom_metadata"])

    def test_metadata_that_is_none(self):
        for body in ({"max_versions": -1}, {"max_versions": 101}, {"max_versions": "3"}, {"cas_required": 1}, {"delete_version_after": "x"},
                     {"delete_version_after": -1}, {"delete_version_after": "5s3h"}, {"delete_version_after": ""}, {"custom_metadata": []},
                     {"custom_metadata": {"a": 1}}, {"custom_metadata": {"a": None}}, {"custom_metadata": {"": "x"}}, {"custom_metadata": {"k" * 129: "x"}},
                     {"custom_metadata": {"k": "v" * 513}}, {"custom_metadata": {str(i): "x" for i in range(65)}},
                     {"custom_metadata": {str(i): "x" * 500 for i in range(40)}}):
            self.assertEqual(self.ask("POST", "secret/metadata/kv/bad", body)[0], 400, body)
        self.assertEqual(self.ask("GET", "secret/metadata/kv/bad")[0], 404)
        self.assertEqual(self.ask("PATCH", "secret/metadata/kv/bad", {"custom_metadata": {"a": "b"}})[0], 404)

    def test_a_version_ends_by_itself(self):
        self.kv.update_metadata("kv/short", delete_version_after="1s")
        self.put("kv/short", n=1)
        self.assertEqual(self.read("kv/short"), {"n": 1})
        time.sleep(1.2)
        with self.assertRaises(hvac.exceptions.InvalidPath):
            self.read("kv/short")
        self.kv.undelete_secret_versions("kv/short", [1])
        self.assertEqual(self.read("kv/short"), {"n": 1})

    def test_who_may(self):
        self.put("kv/who", a="1")
        reader, writer = (self.b.token("--policy", p) for p in ("onlyread", "onlyput"))
        asks = (("GET", "secret/subkeys/kv/who", None, "onlyread"), ("PATCH", "secret/data/kv/who", {"data": {}}, "onlyput"),
                ("POST", "secret/undelete/kv/who", {"versions": [1]}, "onlyput"), ("POST", "secret/metadata/kv/who", {}, "onlyput"),
                ("PATCH", "secret/metadata/kv/who", {}, "onlyput"), ("POST", "secret/delete/kv/who", {"versions": [1]}, None),
                ("POST", "secret/destroy/kv/who", {"versions": [1]}, None))
        for method, path, body, who in asks:
            for name, token in (("onlyread", reader), ("onlyput", writer)):
                status = self.ask(method, path, body, token)[0]
                self.assertEqual(status < 300, name == who, (method, path, name, status))
        self.assertEqual(self.ask("POST", "secret/destroy/../who", {"versions": [1]})[0], 400)

    def test_where_am_i_and_what_may_i(self):
        """What the vault command asks before anything else, and libraries to draw their menus."""
        for path in ("secret", "secret/", "secret/kv/x", "secret/kv/x/"):
            status, reply = self.ask("GET", f"sys/internal/ui/mounts/{path}")
            self.assertEqual((status, reply["data"]["path"], reply["data"]["type"], reply["data"]["options"]), (200, "secret/", "kv", {"version": "2"}), path)
        self.assertEqual(self.ask("GET", "sys/internal/ui/mounts/transit/keys/x")[1]["data"]["type"], "transit")
        for path in ("secrets/x", "nothing", "sec"):
            self.assertEqual(self.ask("GET", f"sys/internal/ui/mounts/{path}")[0], 403, path)
        self.assertEqual(ask(self.b.socket, "GET", "sys/internal/ui/mounts/secret")[0], 403)
        client = hvac_client(self.b.socket, self.token)
        mounts = client.sys.list_mounted_secrets_engines()
        self.assertEqual(mounts["secret/"]["options"], {"version": "2"})
        self.assertEqual(mounts["data"]["transit/"]["type"], "transit")
        onlyread, onlyput = (self.b.token("--policy", p) for p in ("onlyread", "onlyput"))
        of = lambda token, *paths: hvac_client(self.b.socket, token).sys.get_capabilities(list(paths))
        self.assertEqual(of(self.token, "secret/data/kv/x")["capabilities"], ["create", "delete", "patch", "read", "update"])
        out = of(onlyread, "secret/data/kv/x", "secret/metadata/kv/x", "secret/data/other/x", "nothing/at/all", "cotter/jobs")
        self.assertEqual({k: v for k, v in out["data"].items()}, {"secret/data/kv/x": ["read"], "secret/metadata/kv/x": ["deny"], "secret/data/other/x": ["deny"],
                                                                   "nothing/at/all": ["deny"], "cotter/jobs": ["deny"]})
        self.assertEqual(out["secret/data/kv/x"], ["read"])
        self.assertEqual(of(onlyput, "secret/data/kv/x")["capabilities"], ["create", "patch", "update"])
        self.assertEqual(of(onlyput, "secret/metadata/kv/x")["capabilities"], ["create", "patch", "update"])
        self.assertEqual(of(self.token, "secret/data/kv/../x", "secret/data/kv//x", "secret/data/kv/x/", "sys/health")["data"],
                         {"secret/data/kv/../x": ["deny"], "secret/data/kv//x": ["deny"], "secret/data/kv/x/": ["deny"], "sys/health": ["read"]})
        self.assertEqual(of(onlyput, "auth/token/lookup-self")["capabilities"], ["read"])
        # a narrowed token knows of its own narrowness
        narrow = self.b.cli("token", "narrow", "--path", "kv/x", "--op", "get", stdin=self.token, check=True).stdout.decode().strip()
        self.assertEqual(of(narrow, "secret/data/kv/x", "secret/data/kv/y")["data"], {"secret/data/kv/x": ["read"], "secret/data/kv/y": ["deny"]})
        status, reply = ask(self.b.operator_socket, "POST", "sys/capabilities-self", None, {"path": "secret/data/a"})
        self.assertEqual((status, reply["capabilities"]), (200, ["root"]))
        for body in ({}, {"paths": []}, {"paths": [1]}, {"paths": [""]}, {"paths": ["x" * 700]}, {"paths": ["x"] * 65}, {"paths": 3}):
            self.assertEqual(self.ask("POST", "sys/capabilities-self", body)[0], 400, body)
        tricky = 'a"\\\n\u00e9'
        self.assertEqual(self.ask("POST", "sys/capabilities-self", {"paths": [tricky]})[1]["data"], {"capabilities": ["deny"], tricky: ["deny"]})

    def test_another_hand(self):
        """Options that somebody else wrote into the store, or took away, or put back."""
        self.set("kv/hand", cas_required=True, custom_metadata={"a": "b"})
        self.put_cas("kv/hand", 0)
        path = os.path.join(self.b.state, "store.db")
        with sqlite3.connect(path) as db:
            row = db.execute("SELECT * FROM secret_option WHERE path = 'kv/hand'").fetchone()
        for change in ("UPDATE secret_option SET cas_required = 0 WHERE path = 'kv/hand'", "DELETE FROM secret_option WHERE path = 'kv/hand'",
                       # the options' MAC in the place of one more version's
                       "INSERT INTO version SELECT path, 9999, 0, 0, 0, 0, '', NULL, mac, '', 0 FROM secret_option WHERE path = 'kv/hand'; "
                       "DELETE FROM secret_option WHERE path = 'kv/hand'",
                       "UPDATE secret_option SET custom = '{}' WHERE path = 'kv/hand'"):
            with sqlite3.connect(path) as db:
                db.executescript(change)
            self.assertEqual(self.ask("GET", "secret/metadata/kv/hand")[0], 500, change)
            if "custom =" not in change:
                self.assertEqual(self.ask("GET", "secret/data/kv/hand")[0], 500, change)
                self.assertEqual(self.ask("POST", "secret/data/kv/hand", {"data": {}, "options": {"cas": 1}})[0], 500, change)
            with sqlite3.connect(path) as db:
                db.executescript("DELETE FROM secret_option WHERE path = 'kv/hand'; DELETE FROM version WHERE version = 9999")
                db.execute("INSERT INTO secret_option VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self.assertEqual(self.kv.read_secret_metadata("kv/hand")["data"]["custom_metadata"], {"a": "b"})

    def put_cas(self, path, cas):
        return self.kv.create_or_update_secret(path, secret={"n": cas}, cas=cas)

    def test_kill_at_any_moment(self):
        """Writes, deletions and options while the broker is killed again and again: what was acknowledged is there, whole."""
        seen = {}
        deadline = time.monotonic() + 6
        n = kills = 0
        while time.monotonic() < deadline:
            with connect(self.b.socket) as s:
                stop = time.monotonic() + 0.05 + 0.3 * (kills % 5) / 5
                try:
                    while True:
                        path = f"kv/kill-{n % 7}"
                        status, reply = request(s, "POST", f"secret/data/{path}", self.token, {"data": {"n": n}})
                        if status == 200:
                            seen[path] = (reply["data"]["version"], n)
                            if n % 5 == 0:
                                request(s, "POST", f"secret/metadata/{path}", self.token, {"custom_metadata": {"n": str(n)}})
                        n += 1
                        if time.monotonic() > stop:
                            self.b.process.kill()
                            stop = deadline + 60
                except OSError:
                    pass
                except ValueError:
                    pass
            self.b.process.wait()
            self.b.start()
            kills += 1
            for path, (version, value) in seen.items():
                current = self.kv.read_secret_metadata(path)["data"]["current_version"]
                self.assertGreaterEqual(current, version)
                self.assertEqual(self.read(path, version=version), {"n": value})
        self.assertGreater(kills, 5)
        self.assertGreater(n, 100)


class Killed(KvCase):
    """kill -9 at any moment of a thousand random writes: nothing acknowledged is lost, and no version is half there."""

    def one(self, s, path, rng, state):
        """One random write. Returns what holds if it was acknowledged; state: (version, object or None) before."""
        version, data = state
        kind = rng.choice("pppppmdr")
        n = rng.getrandbits(40)
        if kind == "p" or version == 0:
            after = (version + 1, {"n": n, "twice": 2 * n, "pad": "x" * rng.randrange(5000)})
            call = ("POST", f"secret/data/{path}", {"data": after[1], "options": {"cas": version}})
        elif kind == "m" and data is not None:
            after = (version + 1, {**data, "n": n, "twice": 2 * n})
            call = ("PATCH", f"secret/data/{path}", {"data": {"n": n, "twice": 2 * n}})
        elif kind == "r" and data is not None:
            after = (version + 1, data)
            call = ("POST", f"cotter/rollback/{path}", {"version": version})
        else:
            after = (version, None)
            call = ("DELETE", f"secret/data/{path}", None)
        head = ("Content-Type: application/merge-patch+json",) if call[0] == "PATCH" else ()
        return after, lambda: request(s, call[0], call[1], self.token, call[2], head)[0]

    def found(self, path):
        status, reply = self.ask("GET", f"secret/data/{path}")
        if status == 404 and not (reply and reply.get("data")):
            return 0, None
        version, data = reply["data"]["metadata"]["version"], reply["data"]["data"]
        if data is not None:
            self.assertEqual(2 * data["n"], data["twice"])
        return version, data

    def write_until_killed(self, seed, paths, states, doubts, limit):
        rng = random.Random(seed)
        done = 0
        try:
            with connect(self.b.socket) as s:
                while done < limit:
                    path = rng.choice(paths)
                    after, send = self.one(s, path, rng, states[path])
                    doubts[path] = after
                    status = send()
                    if status == 0:
                        return
                    assert status in (200, 204), (path, after, status)
                    states[path] = doubts.pop(path)
                    done += 1
        except OSError:
            pass
        finally:
            self.written += done

    def test_a_thousand_writes(self):
        rng = random.Random(4711)
        groups = [[f"kv/killed/{w}/{i}" for i in range(6)] for w in range(4)]
        states = {path: (0, None) for group in groups for path in group}
        self.written = kills = 0
        while self.written < 1000:
            doubts = {}
            threads = [threading.Thread(target=self.write_until_killed, args=(rng.random(), group, states, doubts, 40)) for group in groups]
            for t in threads:
                t.start()
            time.sleep(rng.random() * 0.12)
            self.b.stop(signal.SIGKILL)
            for t in threads:
                t.join()
            kills += 1
            self.b.start()
            for path, state in states.items():
                now = self.found(path)
                self.assertIn(now, (state, doubts.get(path, state)), path)
                states[path] = now
        self.assertGreater(kills, 5)


if __name__ == "__main__":
    unittest.main()
