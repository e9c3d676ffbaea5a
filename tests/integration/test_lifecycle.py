"""What becomes of secrets: versions and who wrote them, going back, sealing anew, carrying."""
import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import unittest

from harness import COTTER, Case, run, wait_for
from peers import ask


class Lifecycle(Case):
    def value(self, path, *args):
        return self.b.cli("get", path, *args, check=True).stdout.decode().strip()


class Versions(Lifecycle):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false"))

    def test_history_and_rollback(self):
        for value in ("one", "two", "three"):
            self.b.put("release/x", value)
        lines = self.b.cli("history", "release/x", check=True).stdout.decode().splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["1", "2", "3"])
        self.assertRegex(lines[0], r"^ +1  20\d\d-\d\d-\d\dT\S+Z  \w+$")
        out = self.b.cli("rollback", "release/x", "--to", "1", check=True).stdout.decode()
        self.assertEqual(out, "release/x: version 4 is what version 1 was\n")
        self.assertEqual([self.value("release/x"), self.value("release/x", "--version", "3")], ["one", "three"])
        self.assertIn("why=back_to_version_1", self.b.audit(5))
        self.assertEqual(json.loads(self.b.cli("rollback", "release/x", "--to", "2", "--json", check=True).stdout), {"version": 5})
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual(self.value("release/x"), "two")
        self.assertEqual(set(json.loads(self.b.cli("history", "release/x", "--json", check=True).stdout)), set("12345"))

    def test_what_cannot_be_gone_back_to(self):
        self.b.put("release/y", "one")
        self.b.put("release/y", "two")
        ask(self.b.operator_socket, "POST", "secret/destroy/release/y", None, {"versions": [1]})
        p = self.b.cli("rollback", "release/y", "--to", "1")
        self.assertEqual((p.returncode != 0, "deleted or destroyed" in p.stderr.decode()), (True, True))
        self.assertIn("destroyed", self.b.cli("history", "release/y", check=True).stdout.decode().splitlines()[0])
        self.assertEqual(self.b.cli("rollback", "release/y", "--to", "9").returncode, 4)
        self.assertEqual(self.b.cli("rollback", "release/nosuch", "--to", "1").returncode, 4)
        self.assertEqual(self.b.cli("history", "release/nosuch").returncode, 4)
        for args in ((), ("--to", "0"), ("--to", "x"), ("--from", "1")):
            self.assertEqual(self.b.cli("rollback", "release/y", *args).returncode, 2, args)
        for body in ({}, {"version": 0}, {"version": "x"}, {"version": 1, "options": {"cas": "x"}}):
            self.assertEqual(ask(self.b.operator_socket, "POST", "cotter/rollback/release/y", None, body)[0], 400, body)
        self.assertEqual(ask(self.b.operator_socket, "POST", "cotter/rollback/release/y", None, {"version": 2, "options": {"cas": 1}})[0], 400)
        reader = self.b.token("--policy", "release")
        self.assertEqual(ask(self.b.socket, "POST", "cotter/rollback/release/y", reader, {"version": 2})[0], 403)

    def test_raw_stays_raw(self):
        for data in (b"\xff\x00raw", b"second", b"text"):
            self.b.cli("put", "release/raw", "--sealed", self.sealed(data), check=True)
        for version, want in ((1, b"\xff\x00raw"), (3, b"text")):
            made = json.loads(self.b.cli("rollback", "release/raw", "--to", str(version), "--json", check=True).stdout)["version"]
            data = ask(self.b.operator_socket, "GET", f"cotter/export/release/raw?version={made}")[1]["data"]["sealed"]
            self.assertEqual(run("age", "-d", "-i", self.b.recovery_key, stdin=base64.b64decode(data), check=True).stdout, want)

    def sealed(self, data):
        path = os.path.join(self.dir, "raw.age")
        run(COTTER, "seal", "-o", path, "-r", self.b.recipients()[0], "-r", self.b.recovery, stdin=data, env=self.b.env, check=True)
        return path

    def test_by_which_job(self):
        p = self.b.cli("run", "--policy", "writer", "--give-token", "--", COTTER, "put", "build/a/token", stdin=b"made")
        self.assertEqual(p.returncode, 0, p.stderr.decode())
        self.assertRegex(self.b.cli("history", "build/a/token", check=True).stdout.decode(), r"  job [0-9a-f]{16}\n$")

    def test_a_store_of_before(self):
        """Format 8 had no job and no seal: its rows stay good."""
        sealed = os.path.join(self.dir, "old.age")
        run(COTTER, "seal", "-o", sealed, "-r", self.b.recipients()[0], stdin=b"old value", env=self.b.env, check=True)
        self.b.cli("put", "release/old", "--sealed", sealed, check=True)
        self.b.cli("rm", "release/x", "--all")
        for path in json.loads(self.b.cli("list", "release", "--json", check=True).stdout):
            if path != "old":
                self.b.cli("rm", f"release/{path}", "--all", check=True)
        self.b.cli("rm", "build/a/token", "--all")
        self.b.stop()
        db = sqlite3.connect(os.path.join(self.b.state, "store.db"))
        db.executescript("ALTER TABLE version DROP COLUMN job; ALTER TABLE version DROP COLUMN seal; PRAGMA user_version = 8;")
        db.close()
        self.b.start()
        self.assertEqual(self.value("release/old"), "old value")
        self.b.put("release/old", "new")
        self.assertEqual(self.value("release/old"), "new")
        self.assertEqual(self.b.cli("reseal", check=True).stdout.decode(), "the store's key and 1 version was sealed anew\n")
        self.assertEqual(self.value("release/old", "--version", "1"), "old value")


class Reseal(Lifecycle):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm, cls.tpm = cls.softhsm(), cls.swtpm()
        cls.b = cls.broker(hsm=cls.hsm, tpm=cls.tpm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false"))
        for i in range(60):
            cls.b.put(f"release/{i % 30}", f"value {i}")
        cls.b.cli("rm", "release/3", check=True)

    def sealed(self):
        self.b.stop()
        db = sqlite3.connect(os.path.join(self.b.state, "store.db"))
        rows = db.execute("SELECT path, version, sealed FROM version WHERE sealed IS NOT NULL").fetchall()
        db.close()
        self.b.start()
        return rows

    def opens(self, data, key):
        return run("age", "-d", "-i", key, stdin=data).returncode == 0

    def test_another_seal(self):
        self.assertEqual(json.loads(self.b.cli("reseal", "--json", check=True).stdout), {"resealed": 0, "failed": 0})
        other_key = os.path.join(self.dir, "other.key")
        run("age-keygen", "-o", other_key, check=True)
        other = run("age-keygen", "-y", other_key, check=True).stdout.decode().strip()
        lost = self.b.recipients()[0]  # the HSM's
        self.b.stop()
        self.b.edit(lambda text: text.replace(self.b.recovery, other).replace(f"    - {lost}\n", "", 1))
        self.b.start()
        # killed in the middle, and called again
        p = subprocess.Popen([COTTER, "reseal"], env=self.b.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 20
        while time.monotonic() < end and self.b.audit(400).count("ev=reseal") < 10:
            pass
        self.b.stop(signal.SIGKILL)
        _, stderr = p.communicate(timeout=20)
        if p.returncode:
            self.assertIn("call it again to go on", stderr.decode())
        self.b.start()
        done = self.b.audit(1000).count("ev=reseal")
        again = json.loads(self.b.cli("reseal", "--json", check=True).stdout)
        self.assertEqual(again["failed"], 0)
        self.assertLessEqual(again["resealed"], 60 - (done - 4))  # two records of the first call, the key of the second, one in flight
        self.assertEqual(json.loads(self.b.cli("reseal", "--json", check=True).stdout), {"resealed": 0, "failed": 0})
        rows = self.sealed()
        self.assertEqual(len(rows), 60)
        for path, version, data in rows[::7]:
            self.assertEqual([self.opens(data, other_key), self.opens(data, self.b.recovery_key)], [True, False], (path, version))
        with open(os.path.join(self.b.state, "store-key.age"), "rb") as f:
            self.assertTrue(self.opens(f.read(), other_key))
        # the HSM is gone for good
        self.b.stop()
        self.b.edit(lambda text: re.sub(r"  hsm:\n(    .*\n)+", "", text))
        self.b.start()
        self.assertEqual([self.value("release/5"), self.value("release/5", "--version", "1")], ["value 35", "value 5"])
        self.assertEqual(self.b.cli("get", "release/3").returncode, 4)

    def test_not_by_jobs(self):
        token = self.b.token("--policy", "admin")
        self.assertEqual(ask(self.b.socket, "POST", "cotter/reseal", token, {})[0], 403)
        self.assertEqual(ask(self.b.operator_socket, "POST", "cotter/reseal", None, {"after": "../x"})[0], 400)
        self.assertEqual(self.b.cli("reseal", "x").returncode, 2)


class Carry(Lifecycle):
    """From one broker to another, whose sealing key is one of the first one's recipients."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        plain = lambda text: text.replace("require_cgroup: true", "require_cgroup: false")
        cls.there = cls.broker("there", hsm=cls.softhsm("h2"), edit=plain)
        far = cls.there.recipients()[0]
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: plain(text).replace("  recipients:\n", f"  recipients:\n    - {far}\n", 1))
        cls.b.cli("key", "add", "release/export", check=True)
        cls.pem = os.path.join(cls.dir, "export.pem")
        with open(cls.pem, "wb") as f:
            f.write(cls.b.cli("key", "show", "release/export", "--pem", check=True).stdout)
        for path, value in (("release/a", "1"), ("release/a", "2"), ("release/b/c", "3"), ("other/x", "4"), ("release/gone", "5")):
            cls.b.put(path, value)
        cls.b.cli("rm", "release/gone", check=True)

    def setUp(self):
        self.tree = os.path.join(self.dir, self.id().split(".")[-1])

    def export(self, *args):
        return json.loads(self.b.cli("export", self.tree, *args, "--key", "release/export", "--json", check=True).stdout)

    def take(self, *args, trust=None):
        return self.there.cli("import", self.tree, "--trust", trust or self.pem, *args)

    def counts(self):
        p = self.take("--json")
        self.assertEqual(p.returncode, 0, p.stderr.decode())
        return [json.loads(p.stdout)[k] for k in ("imported", "same", "older", "failed")]

    def test_a_there_and_back_never(self):
        self.assertEqual(self.export(), {"exported": 3})
        manifest, signature = os.path.join(self.tree, "MANIFEST"), os.path.join(self.tree, "MANIFEST.sig")
        run("openssl", "dgst", "-sha256", "-verify", self.pem, "-signature", signature, manifest, check=True)
        with open(manifest) as f:
            self.assertEqual([line.split()[1:] for line in f.read().splitlines()[1:]], [["1", "other/x"], ["2", "release/a"], ["1", "release/b/c"]])
        with open(os.path.join(self.tree, "secrets/release/a.age"), "rb") as f:
            self.assertEqual(run("age", "-d", "-i", self.b.recovery_key, stdin=f.read(), check=True).stdout, b'{"value":"2"}')
        self.assertEqual(self.counts(), [3, 0, 0, 0])
        self.assertEqual([self.there.cli("get", p, check=True).stdout for p in ("release/a", "release/b/c", "other/x")], [b"2", b"3", b"4"])
        self.assertEqual(self.there.cli("history", "release/a", check=True).stdout.decode().split()[0], "2")
        self.assertEqual(self.counts(), [0, 3, 0, 0])
        # newer, and then the old tree again: nothing goes back
        old = self.tree
        for value in ("6", "7"):
            self.b.put("release/a", value)
        self.tree += "-newer"
        self.assertEqual(self.export("release"), {"exported": 2})
        self.assertEqual(self.counts(), [1, 1, 0, 0])
        self.tree = old
        p = self.take()
        self.assertEqual((p.returncode, p.stdout.decode()), (0, "0 imported, 2 were here already, 1 older ones left out\n"))
        self.assertIn("release/a: not taken: version 2 is older than what is here", p.stderr.decode())
        self.assertEqual(self.there.cli("get", "release/a", check=True).stdout, b"7")
        # another one of the same number
        self.there.put("other/x", "own")
        self.b.put("other/x", "not own")
        self.tree += "-differs"
        self.export("other")
        self.assertEqual(self.counts(), [0, 0, 1, 0])
        self.assertEqual(self.there.cli("get", "other/x", check=True).stdout, b"own")

    def test_what_was_not_signed(self):
        self.b.put("forged/a", "1")
        self.b.put("forged/b", "2")
        self.export("forged")
        manifest = os.path.join(self.tree, "MANIFEST")
        with open(manifest, "rb") as f:
            text = f.read()
        a, b = (os.path.join(self.tree, f"secrets/forged/{n}.age") for n in "ab")
        with open(a, "rb") as f, open(b, "rb") as g:
            files = f.read(), g.read()
        other = os.path.join(self.dir, "other.pem")
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other + ".key", check=True)
        run("openssl", "pkey", "-in", other + ".key", "-pubout", "-out", other, check=True)
        p = self.take(trust=other)
        self.assertEqual(p.returncode, 3)
        self.assertIn("not signed by the key that is to be trusted", p.stderr.decode())
        for change in (text.replace(b"forged/b", b"forged/c"), text + text.splitlines(True)[1], text[:-1], b""):
            with open(manifest, "wb") as f:
                f.write(change)
            self.assertNotEqual(self.take().returncode, 0)
        with open(manifest, "wb") as f:
            f.write(text)
        for data in (files[1], files[0][:-1], b""):
            with open(a, "wb") as f:
                f.write(data)
            p = self.take()
            self.assertIn("is not the file that was signed", p.stderr.decode())
        os.remove(a)
        os.symlink(b, a)
        self.assertNotEqual(self.take().returncode, 0)
        self.assertEqual(self.there.cli("get", "forged/b").returncode, 4)  # nothing was taken at all
        os.remove(a)
        with open(a, "wb") as f:
            f.write(files[0])
        self.assertEqual(self.counts(), [2, 0, 0, 0])

    def test_names_that_look_like_files(self):
        for path in ("like/a", "like/a.age/b", "like/a.age", "like/.age/c"):
            self.b.put(path, path)
        self.assertEqual(self.export("like"), {"exported": 4})
        self.assertTrue(os.path.exists(os.path.join(self.tree, "secrets/like/a.age=/b.age")))
        self.assertEqual(self.counts(), [4, 0, 0, 0])
        self.assertEqual(self.there.cli("get", "like/a.age/b", check=True).stdout, b"like/a.age/b")

    def test_not_sealed_to_there(self):
        sealed = os.path.join(self.dir, "own.age")
        run(COTTER, "seal", "-o", sealed, "-r", self.b.recipients()[1], "-p", "alone/x", "--version", "1", stdin=b"own", env=self.b.env, check=True)
        self.b.cli("put", "alone/x", "--sealed", sealed, check=True)
        self.b.put("alone/y", "1")
        self.export("alone")
        p = self.take()
        self.assertEqual(p.returncode, 1)
        self.assertIn("alone/x: not taken: no match", p.stderr.decode())
        self.assertIn("are they sealed to this store's recipients?", p.stderr.decode())
        self.assertEqual(self.there.cli("get", "alone/y", check=True).stdout, b"1")

    def test_who_and_what(self):
        token = self.b.token("--policy", "admin")
        self.assertEqual(ask(self.b.socket, "GET", "cotter/export/release/a", token)[0], 403)
        for body in ({}, {"version": 5}, {"version": 0, "sealed": "AAAA"}, {"version": "5", "sealed": "AAAA"}, {"version": 5, "sealed": "!"}, {"version": 5, "sealed": "AAAA"},
                     {"version": 10 ** 18, "sealed": "AAAA"}):
            self.assertEqual(ask(self.there.operator_socket, "POST", "cotter/import/new/x", None, body)[0], 400, body)
        # not bound to a path and a version
        loose = os.path.join(self.dir, "loose.age")
        run(COTTER, "seal", "-o", loose, "-r", self.there.recipients()[0], stdin=b"x", env=self.there.env, check=True)
        with open(loose, "rb") as f:
            status, reply = ask(self.there.operator_socket, "POST", "cotter/import/new/x", None, {"version": 1, "sealed": base64.b64encode(f.read()).decode()})
        self.assertEqual((status, reply["errors"]), (400, ["the file is not bound to a secret and a version"]))
        p = self.there.cli("export", self.tree, "--key", "nosuch")
        self.assertEqual((p.returncode, "'cotter key add nosuch' makes one" in p.stderr.decode(), os.path.exists(self.tree)), (4, True, False), p.stderr)
        for args in ((), (self.tree,), (self.tree, "--key", "../x"), (self.tree, "a", "b", "--key", "k")):
            self.assertEqual(self.b.cli("export", *args).returncode, 2, args)
        self.assertEqual(self.b.cli("export", self.tree, "nosuch", "--key", "release/export").returncode, 4)


ROTATOR = """#!/usr/bin/python3
import json, os, sys
verb, path = sys.argv[1:]
said = json.load(sys.stdin)
here = os.path.dirname(os.path.abspath(__file__))
database = os.path.join(here, "database")
with open(os.path.join(here, "log"), "a") as f:
    f.write(verb + " " + ",".join(sorted(os.environ)) + "\\n")
assert said["path"] == path
if os.path.exists(os.path.join(here, "fail-" + verb)):
    sys.exit(7)
if os.path.exists(os.path.join(here, "hang-" + verb)):
    import time
    open(os.path.join(here, "hanging"), "w").close()
    time.sleep(600)
if verb == "create":
    print(json.dumps({"password": "p%d" % (int((said["current"] or {"password": "p0"})["password"][1:]) + 1)}))
elif verb == "apply":
    open(database, "w").write(said["pending"]["password"])
elif verb == "undo":
    open(database, "w").write((said["current"] or {"password": ""})["password"])
elif verb == "check":
    sys.exit(0 if open(database).read() == said["pending"]["password"] else 1)
"""


class Rotate(Lifecycle):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.scratch = cls.sub("rotator")
        cls.program = os.path.join(cls.scratch, "rotate")
        with open(cls.program, "w") as f:
            f.write(ROTATOR)
        os.chmod(cls.program, 0o755)
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false") + f"""\
rotations:
  - path: db/*
    program: {cls.program}
    rotate_every: 30d
    grace: 2s
  - path: quick/*
    rotate_every: 1ms
""")

    def setUp(self):
        for name in os.listdir(self.scratch):
            if name != "rotate":
                os.remove(os.path.join(self.scratch, name))

    def mark(self, name):
        path = os.path.join(self.scratch, name)
        open(path, "w").close()
        return path

    def database(self):
        with open(os.path.join(self.scratch, "database")) as f:
            return f.read()

    def log(self):
        with open(os.path.join(self.scratch, "log")) as f:
            return [line.split() for line in f.read().splitlines()]

    def password(self, path, *args):
        return self.value(path, "--field", "password", *args)

    def test_all_of_it(self):
        out = self.b.cli("rotate", "db/a", check=True).stdout.decode()
        self.assertEqual(out, "db/a: version 1 is current\n")
        self.assertEqual((self.password("db/a"), self.database()), ("p1", "p1"))
        self.assertEqual(self.b.cli("rotate", "db/a", "--json", check=True).stdout, b'{"version":2}\n')
        self.assertEqual((self.password("db/a"), self.database()), ("p2", "p2"))
        self.assertEqual(self.password("db/a", "--version", "1"), "p1")  # for a while
        time.sleep(2.1)
        self.assertEqual(self.b.cli("get", "db/a", "--version", "1").returncode, 4)
        self.assertEqual(self.b.cli("list", "rotation.pending").returncode, 4)
        self.assertEqual([verb for verb, _ in self.log()], ["create", "apply", "check"] * 2)
        self.assertLessEqual({name for _, names in self.log() for name in names.split(",")}, {"PATH", "LC_CTYPE"})  # Python sets the second

    def test_a_step_fails(self):
        self.b.cli("rotate", "db/f", check=True)
        for verb, steps in (("apply", ["create", "apply", "undo"]), ("check", ["create", "apply", "check", "undo"]), ("create", ["create"])):
            os.remove(os.path.join(self.scratch, "log"))
            marker = self.mark(f"fail-{verb}")
            p = self.b.cli("rotate", "db/f")
            self.assertEqual(p.returncode, 1, verb)
            self.assertIn(f"{verb}: its exit status is 7", p.stderr.decode())
            self.assertEqual([v for v, _ in self.log()], steps)
            self.assertEqual((self.password("db/f"), self.database()), ("p1", "p1"))
            self.assertEqual(self.b.cli("list", "rotation.pending").returncode, 4)
            os.remove(marker)
        self.b.cli("rotate", "db/f", check=True)
        self.assertEqual((self.password("db/f"), self.database()), ("p2", "p2"))

    def test_what_cannot_be_undone_is_kept(self):
        self.b.cli("rotate", "db/u", check=True)
        markers = [self.mark("fail-check"), self.mark("fail-undo")]
        p = self.b.cli("rotate", "db/u")
        self.assertEqual((p.returncode, "could NOT be undone" in p.stderr.decode()), (1, True))
        self.assertEqual(self.value("rotation.pending/db/u", "--field", "password"), "p2")
        for marker in markers:
            os.remove(marker)
        p = self.b.cli("rotate", "db/u", check=True)
        self.assertIn("going on with it", p.stderr.decode())
        self.assertEqual((self.password("db/u"), self.database()), ("p2", "p2"))

    def test_killed_in_the_middle(self):
        self.b.cli("rotate", "db/k", check=True)
        marker = self.mark("hang-check")
        p = subprocess.Popen([COTTER, "rotate", "db/k"], env=self.b.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        wait_for("the program", lambda: os.path.exists(os.path.join(self.scratch, "hanging")))
        self.b.stop(signal.SIGKILL)
        p.kill()
        p.communicate(timeout=20)
        self.assertNotEqual(run("pgrep", "-f", f"{self.program} check").returncode, 0)  # it went with cotter
        self.b.start()
        self.assertEqual((self.password("db/k"), self.database()), ("p1", "p2"))  # the database has the one that waits
        os.remove(marker)
        self.b.cli("rotate", "db/k", check=True)
        self.assertEqual((self.password("db/k"), self.database()), ("p2", "p2"))

    def test_an_answer_that_was_lost(self):
        """The value is current already, and still waits: only the tidying up is left."""
        for _ in range(2):
            self.b.cli("rotate", "db/l", check=True)
        self.b.cli("put", "rotation.pending/db/l", "--data", "-", stdin='{"password":"p2"}', check=True)
        os.remove(os.path.join(self.scratch, "log"))
        p = self.b.cli("rotate", "db/l", "--json", check=True)
        self.assertEqual(p.stdout, b'{"version":2}\n')
        self.assertFalse(os.path.exists(os.path.join(self.scratch, "log")))  # the program had nothing to do
        self.assertEqual((self.password("db/l"), self.b.cli("list", "rotation.pending").returncode), ("p2", 4))

    def test_after_a_deletion(self):
        self.b.cli("rotate", "db/d", check=True)
        self.b.cli("rm", "db/d", check=True)
        self.assertEqual(self.b.cli("rotate", "db/d", "--json", check=True).stdout, b'{"version":2}\n')
        self.assertEqual(self.password("db/d"), "p1")

    def test_what_waits_is_no_token_s(self):
        token = self.b.token("--policy", "admin")
        for method, path in (("POST", "secret/data/rotation.pending/db/x"), ("GET", "secret/data/rotation.pending/db/x"), ("LIST", "secret/metadata/rotation.pending/db")):
            self.assertEqual(ask(self.b.socket, method, path, token, {"data": {"password": "mine"}})[0], 403, path)

    def test_overdue(self):
        self.b.put("quick/x", "1")
        time.sleep(0.01)
        self.assertIn("overdue   1 secrets should have been rotated ('cotter rotate PATH')\n          quick/x, for 0 days\n",
                      self.b.cli("status", check=True).stdout.decode())
        self.assertEqual(self.b.status()["overdue"], [{"path": "quick/x", "days": 0}])
        p = self.b.cli("doctor")
        self.assertIn("quick/x: 'cotter rotate' does it", p.stdout.decode())
        p = self.b.cli("rotate", "quick/x")
        self.assertIn("names no program", p.stderr.decode())

    def test_programs_that_are_none(self):
        for program, why in (("/nonexistent", "No such file"), ("relative", "absolute"), ("/bin/cat", "create: its exit status is 1")):
            p = self.b.cli("rotate", "db/n", "--program", program)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(why, p.stderr.decode())
        flood = os.path.join(self.scratch, "flood")
        with open(flood, "w") as f:
            f.write("#!/bin/sh\nexec cat /dev/zero\n")
        os.chmod(flood, 0o755)
        self.assertIn("prints more than", self.b.cli("rotate", "db/n", "--program", flood).stderr.decode())
        self.assertEqual(self.b.cli("get", "db/n").returncode, 4)


if __name__ == "__main__":
    unittest.main()
