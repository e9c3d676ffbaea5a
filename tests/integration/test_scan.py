"""cotter scan: trees, histories, archives, a job's leavings; by fingerprints, by values, by rules."""
import base64
import gzip
import io
import json
import os
import random
import re
import string
import subprocess
import tarfile
import unittest
import zipfile
import zlib

from harness import COTTER, Case, clean_env, run

GIT = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
rng = random.Random(7)


def word(n, letters=string.ascii_letters + string.digits):
    return "".join(rng.choice(letters) for _ in range(n))


def checksummed(prefix):
    """As GitHub makes them: 30 characters and their CRC-32."""
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    body = word(30)
    c, end = zlib.crc32(body.encode()), ""
    for _ in range(6):
        c, d = divmod(c, 62)
        end = digits[d] + end
    return prefix + body + end


STRONG, OTHER, WEAK = word(32), word(40), "hunter2-horse"


class ScanCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.dir, 0o755)
        cls.b = cls.broker(hsm=cls.softhsm(), edit=lambda text: text + "  app:\n    - path: app/*\n      allow: [get]\n")
        cls.b.put("app/token", STRONG)
        cls.b.cli("put", "app/db", "--data", "-", stdin=json.dumps({"user": "bob", "password": OTHER}), check=True)
        cls.b.put("app/weak", WEAK)
        cls.serial = 0

    def tree(self, files):
        type(self).serial += 1
        top = os.path.join(self.dir, f"tree{self.serial}")
        for name, content in files.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(content if isinstance(content, bytes) else content.encode())
        os.makedirs(top, exist_ok=True)
        return top

    def scan(self, *args, status=None, **kw):
        kw.setdefault("env", self.b.env)
        p = run(COTTER, "scan", *args, **kw)
        if status is not None:
            self.assertEqual(p.returncode, status, p.stderr + p.stdout)
        return p

    def findings(self, *args, **kw):
        p = self.scan("--format", "json", *args, **kw)
        return [(f["path"], f["line"], f.get("secret") or f["rule"]) for f in json.loads(p.stdout)["findings"]]


class Exact(ScanCase):
    def test_in_every_form(self):
        b64 = base64.b64encode(f"user:{STRONG}".encode()).decode()
        top = self.tree({"a.txt": f"one\ntwo {STRONG}\n", "sub/b.json": json.dumps({"x": OTHER}), "c": b"\0\1" + STRONG.encode() + b"\0",
                         "basic": f"Authorization: Basic {b64}\n", "hex": STRONG.encode().hex(), "wrapped": "\n".join(base64.b64encode(STRONG.encode() * 3).decode()[i:i + 20] for i in range(0, 128, 20)),
                         "wide": STRONG.encode("utf-16le"), "clean": "nothing here " + word(32)})
        want = {("a.txt", "app/token"), ("sub/b.json", "app/db"), ("c", "app/token"), ("basic", "app/token"), ("hex", "app/token"), ("wrapped", "app/token"), ("wide", "app/token")}
        found = self.findings("--no-rules", status=1, cwd=top)
        self.assertEqual({(p, s) for p, _, s in found}, want)
        self.assertIn(("a.txt", 2, "app/token"), found)
        # no value is told, in no format
        for form in ("text", "json", "sarif"):
            p = self.scan("--format", form, cwd=top)
            for secret in (STRONG, OTHER, b64):
                self.assertNotIn(secret.encode(), p.stdout + p.stderr)

    def test_fingerprints_tell_nothing(self):
        key = base64.b64encode(bytes(32)).decode()
        body = json.dumps({"key": key, "secrets": [{"path": "app/token"}, {"path": "app/weak"}]}).encode()
        status, reply = self.b.curl("cotter/fingerprints", body=body, socket_path=self.b.operator_socket)
        self.assertEqual(status, 200)
        token, weak = reply["data"]["secrets"]
        self.assertEqual(weak["fingerprints"], "")
        self.assertGreater(len(token["fingerprints"]), 100)
        for form in (STRONG.encode(), base64.b64encode(STRONG.encode()), STRONG.encode().hex().encode()):
            self.assertNotIn(form[:8], base64.b64decode(token["fingerprints"]))
        # for operators alone; each has its record; no job is told to have received it
        self.assertEqual(self.b.curl("cotter/fingerprints", body=body, token=self.b.token("--policy", "app"))[0], 403)
        self.assertIn("ev=fingerprint", self.b.audit(3))
        for bad in ({"key": "x"}, {"key": base64.b64encode(bytes(31)).decode()}, {}):
            bad["secrets"] = [{"path": "app/token"}]
            self.assertEqual(self.b.curl("cotter/fingerprints", body=json.dumps(bad).encode(), socket_path=self.b.operator_socket)[0], 400)

    def test_an_index_needs_no_broker(self):
        index = os.path.join(self.dir, "index")
        p = self.scan("--write-index", index, status=0)
        self.assertIn(b"1 secrets have less than 80 bits", p.stderr)
        with open(index, "rb") as f:
            text = f.read()
        self.assertNotIn(STRONG.encode(), text)
        alone = clean_env(COTTER_SOCKET="/nonexistent/x")
        top = self.tree({"a": f"x{STRONG}y", "w": WEAK})
        self.assertEqual(self.findings("--index", index, top, env=alone, status=1), [(f"{top}/a", 1, "app/token")])
        p = self.scan(top, env=alone, status=6)
        self.assertIn(b"--no-store", p.stderr)
        for bad in (b"", b"{}", b"[]", text.replace(b'"cotter_index":1', b'"cotter_index":2'), text.replace(b'"fingerprints":"', b'"fingerprints":"A'), text[:-20]):
            with open(index, "wb") as f:
                f.write(bad)
            self.scan("--index", index, top, env=alone, status=7)

    def test_over_windows(self):
        """At each end of what is read at once; and lines and columns stay right."""
        filler = ("x" * 99 + "\n") * 2700
        for at in (262144 - 10, 262144 + 16384 - 16, 262144 + 16384 + 5):
            text = filler[:at] + STRONG + filler[at:]
            top = self.tree({"f": text})
            line = text[:text.index(STRONG)].count("\n") + 1
            self.assertEqual(self.findings("--no-rules", cwd=top, status=1), [("f", line, "app/token")])

    def test_archives(self):
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("deep.txt", "x" * 70000 + STRONG)
        outer = io.BytesIO()
        with tarfile.open(fileobj=outer, mode="w:gz") as t:
            for name, data in (("in.zip", inner.getvalue()), ("plain", OTHER.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
        top = self.tree({"a.tar.gz": outer.getvalue(), "log.gz": gzip.compress(STRONG.encode()), "broken.gz": gzip.compress(os.urandom(5000))[:3000], "no-name": inner.getvalue()})
        p = self.scan("--format", "json", "--no-rules", cwd=top, status=1)
        self.assertEqual({(f["path"], f["secret"]) for f in json.loads(p.stdout)["findings"]},
                         {("a.tar.gz!in.zip!deep.txt", "app/token"), ("a.tar.gz!plain", "app/db"), ("log.gz!data", "app/token"), ("no-name!deep.txt", "app/token")})
        self.assertIn(b"broken.gz", p.stderr)
        self.assertEqual(self.findings("--no-rules", "--no-archives", cwd=top, status=0), [])

    def test_archives_whatever_their_names(self):
        def zipped(name, data):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
                z.writestr(name, data)
            return out.getvalue()

        deep = STRONG
        for _ in range(6):
            deep = zipped("in", deep)
        top = self.tree({"a": zipped("data.bin", zipped("x", STRONG)), "b": b"PK\3\4 is how a zip begins\n" + STRONG.encode(), "c": b"070701 is a cpio, or a number\n" + STRONG.encode()})
        found = self.findings("--no-rules", cwd=top, status=1)
        self.assertLessEqual({("a!data.bin!x", 1, "app/token"), ("b", 2, "app/token")}, set(found))
        self.assertIn(("app/token", 2), {(name, line) for path, line, name in found if path.startswith("c")})
        # what is too deep is no success
        p = self.scan("--no-rules", cwd=self.tree({"deep": deep}), status=7)
        self.assertIn(b"too deep", p.stderr)

    def test_a_repository_in_a_tree(self):
        """An artifact with the token that cloned it."""
        header = base64.b64encode(b"x-access-token:" + STRONG.encode()).decode()
        git = {f"a/.git/{name}": "x" for name in ("HEAD", "refs/heads/x", "objects/pack/x")}
        top = self.tree({**git, "a/.git/lfs/objects/aa/bb": STRONG, "foo.gitlab/.git/HEAD": "x", "foo.gitlab/.git/refs/x": "x", "foo.gitlab/.git/objects/x": STRONG,
                         "a/.git/config": f'[http "https://x/"]\n\textraheader = AUTHORIZATION: basic {header}\n', "a/.git/objects/x": STRONG,
                         "a/objects/y": STRONG, "a/.github/objects/z": STRONG})
        self.assertEqual(self.findings("--no-rules", cwd=top, status=1),
                         [("a/.git/config", 2, "app/token"), ("a/.git/lfs/objects/aa/bb", 1, "app/token"), ("a/.github/objects/z", 1, "app/token"),
                          ("a/objects/y", 1, "app/token")])
        self.assertEqual(len(self.findings("--no-rules", cwd=os.path.join(top, "a"), status=1)), 4)
        self.assertEqual(len(self.findings("--no-rules", cwd=os.path.join(top, "a/.git"), status=1)), 2)

    def test_pipes_that_are_named(self):
        fifo = os.path.join(self.tree({}), "fifo")
        os.mkfifo(fifo)
        writer = subprocess.Popen(["sh", "-c", 'sleep 0.5; echo "$1" >"$2"', "sh", STRONG, fifo])
        self.scan("--no-rules", fifo, status=1, timeout=60)
        writer.wait()

    def test_marks_tell_nothing(self):
        """A baseline's key is public: what a secret of the store could be is not to be tried against its mark."""
        top = self.tree({"a": "x " + WEAK})
        values, base, marks = os.path.join(self.dir, "weak.json"), os.path.join(self.dir, "weak.base"), []
        self.scan("--no-store", "--write-baseline", base, self.tree({"none": ""}))
        for value in (WEAK, "x " + WEAK):
            with open(values, "w") as f:
                json.dump([{"name": "weak", "value": value}], f)
            p = self.scan("--values-file", values, "--baseline", base, "--format", "json", top, status=1)
            marks.append(json.loads(p.stdout)["findings"][0]["mark"])
        self.assertEqual(marks[0], marks[1])

    def test_what_cannot_be_read_is_no_success(self):
        self.scan("/nonexistent/tree", status=7)
        # and what was found in the rest is told
        p = self.scan("--no-rules", "--format", "json", "/nonexistent/tree", self.tree({"a": STRONG}), status=7)
        self.assertEqual([f["secret"] for f in json.loads(p.stdout)["findings"]], ["app/token"])
        self.assertIn(b"/nonexistent/tree", p.stderr)
        top = self.tree({"broken.gz": gzip.compress(os.urandom(5000))[:3000]})
        self.scan(top, status=7)
        os.mkfifo(os.path.join(top, "fifo"))
        os.symlink("/etc/passwd", os.path.join(top, "link"))
        os.remove(os.path.join(top, "broken.gz"))
        self.scan(top, status=0)

    def test_standard_input_and_values(self):
        values = os.path.join(self.dir, "values.json")
        with open(values, "w") as f:
            json.dump(["shortish", {"name": "named", "value": "another-value"}, {"name": "bytes", "base64": base64.b64encode(b"\0\x01not text\xff\xfe").decode()}], f)
        text = b"1\n2 c2hvcnRpc2g=\n3 another-value\n4 \0\x01not text\xff\xfe\n"
        p = self.scan("--values-file", values, "--format", "json", "-", stdin=text, status=1)
        self.assertEqual([(f["line"], f["secret"]) for f in json.loads(p.stdout)["findings"]], [(2, "value 0"), (3, "named"), (4, "bytes")])
        self.assertNotIn(b"another-value", p.stdout + p.stderr)
        # the same file, the same values, for a log
        self.assertEqual(run(COTTER, "mask", "--values-file", values, stdin=text, check=True).stdout,
                         b"1\n2 ***\n3 ***(named)***\n4 ***(bytes)***\n")

    def test_a_bad_values_file(self):
        self.scan("--values-file", "-", "-", stdin=b'["some-value"]', status=2)
        values = os.path.join(self.dir, "values.json")
        for text, why in ((b"[7]", b"item 0"), (b'["x", {"name": "n"}]', b"item 1"), (b"{}", b"not a JSON array"), (b'["x"', b"not JSON (line 1"), (b'[{"base64": "YWJj\\u0000ZGVm"}]', b"not base64"),
                          (b'[{"value": 7, "base64": "YWJj"}]', b"item 0"),
                          (b'[{"base64": "A"}]', b"not base64"), (b"[" + b'"' + b"x" * (1 << 20) + b'"]', b"values.json")):
            with open(values, "wb") as f:
                f.write(text)
            self.assertIn(why, self.scan("--values-file", values, "-", stdin=b"", status=7).stderr)
            p = run(COTTER, "mask", "--values-file", values)
            self.assertEqual((p.returncode, p.stdout), (1, b""))
            self.assertIn(why, p.stderr)


class Large(ScanCase):
    def test_large_secrets_do_not_hinder_the_others(self):
        lines = "\n".join(word(64) for _ in range(600))
        self.b.put("app/lines", lines)
        self.b.put("app/long", word(60000))
        self.b.put("app/deep", "[" * 300 + '"' + word(40) + '"' + "]" * 300)
        for i in range(40):  # together more than one answer holds
            self.b.put(f"app/pem{i}", "\n".join(word(64) for _ in range(100)))
        top = self.tree({"f": f"a\n{lines[:200]}\n{STRONG}\n"})
        found = {name for _, _, name in self.findings("--no-rules", top, status=1)}
        self.assertEqual(found, {"app/lines", "app/token"})
        p = run(COTTER, "run", "--env", "T=app/lines", "--", "sh", "-c", 'echo "$T"', env=self.b.env)
        self.assertEqual((p.returncode, b"".join(p.stdout.split())), (0, b"***(lines)***"))


class Jobs(ScanCase):
    def test_exactly_what_it_received(self):
        """Also what has too few bits for a fingerprint; and not what others have."""
        top = self.tree({"artifact": f"weak is {base64.b64encode(WEAK.encode()).decode()}\n", "log": f"{STRONG}\n"})
        script = f"cotter get app/weak > /dev/null; cotter scan --job --no-rules --format json {top}; echo $?"
        p = run(COTTER, "run", "--policy", "app", "--give-token", "--no-mask", "--", "sh", "-c", script, env=self.b.env)
        text, status = p.stdout.decode().rsplit("\n", 2)[:2]
        self.assertEqual(status, "1", p.stderr)
        self.assertEqual([(f["path"], f["secret"]) for f in json.loads(text)["findings"]], [(f"{top}/artifact", "app/weak")])

    def test_by_an_operator_before_it_ends(self):
        top = self.tree({"log": f"{STRONG}\n"})
        p = subprocess.Popen([COTTER, "run", "--policy", "app", "--give-token", "--no-mask", "--", "sh", "-c", "cotter get app/token >/dev/null; echo ready; exec sleep 600"],
                             env=self.b.env, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (p.kill(), p.wait(), p.stdout.close()))
        self.assertEqual(p.stdout.readline(), b"ready\n")
        jobs = json.loads(self.b.cli("job", "list", "--json", check=True).stdout)
        job = jobs[0]["job"]
        self.assertEqual(self.findings(f"--job={job}", "--no-rules", top, status=1), [(f"{top}/log", 1, "app/token")])
        p.kill()
        p.wait()
        self.scan("--job=0123456789abcdef", top, status=4)

    def test_a_job_that_received_nothing(self):
        top = self.tree({"log": f"{STRONG}\n"})
        p = run(COTTER, "run", "--policy", "app", "--give-token", "--no-mask", "--", "cotter", "scan", "--job", "--no-rules", top, env=self.b.env)
        self.assertEqual(p.returncode, 0, p.stderr)
        # a token of no job
        p = run(COTTER, "scan", "--job", top, env={**self.b.env, "COTTER_TOKEN": self.b.token("--policy", "app")})
        self.assertEqual(p.returncode, 4)


class Git(ScanCase):
    def repository(self):
        top = self.tree({"f": "nothing\n"})
        self.git(top, "init", "-q")
        self.git(top, "add", ".")
        self.git(top, "commit", "-qm", "one")
        return top

    def git(self, top, *args):
        subprocess.run([*GIT, "-C", top, *args], check=True, env=clean_env(), capture_output=True)

    def write(self, top, name, text):
        with open(os.path.join(top, name), "w") as f:
            f.write(text)

    def test_a_history(self):
        """What was taken out again is still there; each object once, with a commit and a path."""
        top = self.repository()
        self.write(top, "gone", f"a\n{STRONG}\n")
        self.git(top, "add", ".")
        self.git(top, "commit", "-qm", "two")
        self.git(top, "rm", "-q", "gone")
        self.git(top, "commit", "-qm", f"three {OTHER}")
        self.git(top, "gc", "-q")
        found = self.findings(f"--git={top}", "--no-rules", status=1)
        self.assertEqual(len(found), 2)
        self.assertEqual({s for _, _, s in found}, {"app/token", "app/db"})
        self.assertTrue(any(re.fullmatch("[0-9a-f]{12}:gone", p) and line == 2 for p, line, _ in found), found)
        self.assertTrue(any(p.startswith("commit:") for p, _, _ in found))
        # a tree's own words about its history alone
        self.assertEqual({os.path.dirname(path) for path, _, _ in self.findings("--no-rules", cwd=top, status=1)}, {".git", ".git/logs", ".git/logs/refs/heads"})
        self.scan("--git=/nonexistent", status=7)

    def test_what_is_staged(self):
        top = self.repository()
        self.write(top, "a", STRONG)
        self.write(top, "f", f"x\ny\n{OTHER}\n")
        self.git(top, "add", "f")
        self.write(top, "f", "clean again, but not staged")
        self.assertEqual(self.findings("--staged", "--no-rules", cwd=top, status=1), [("f", 3, "app/db")])
        self.git(top, "add", ".")
        self.assertEqual(self.findings("--staged", "--no-rules", cwd=top, status=1), [("a", 1, "app/token")])
        self.git(top, "commit", "-qm", "x")
        self.assertEqual(self.findings("--staged", "--no-rules", cwd=top, status=0), [])

    def test_a_hostile_repository_runs_nothing(self):
        top = self.repository()
        ran = os.path.join(self.dir, "ran")
        with open(os.path.join(top, ".git", "config"), "a") as f:
            f.write(f'[core]\n\tfsmonitor = "touch {ran}; false"\n\tpager = "touch {ran}"\n[diff]\n\texternal = "touch {ran}"\n[diff "x"]\n\ttextconv = "touch {ran}; cat"\n')
        self.write(top, ".gitattributes", "* diff=x\n")
        self.write(top, "b", STRONG)
        self.git(top, "-c", "core.fsmonitor=false", "add", ".")
        if os.path.exists(ran):
            os.remove(ran)
        self.scan(f"--staged={top}", status=1)
        self.scan(f"--git={top}", status=1)
        self.assertFalse(os.path.exists(ran))


    def test_a_signed_commit_runs_nothing(self):
        top = self.repository()
        program, ran = os.path.join(self.dir, "gpg"), os.path.join(self.dir, "gpg-ran")
        with open(program, "w") as f:
            f.write(f"#!/bin/sh\ntouch {ran}\n")
        os.chmod(program, 0o755)
        self.write(top, "f", checksummed("ghp_") + "\n")
        self.git(top, "add", "f")
        tree = subprocess.run([*GIT, "-C", top, "write-tree"], capture_output=True, check=True).stdout.decode().strip()
        commit = f"tree {tree}\nauthor x <x@x> 1700000000 +0000\ncommitter x <x@x> 1700000000 +0000\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\nm\n"
        commit = subprocess.run([*GIT, "-C", top, "hash-object", "-t", "commit", "-w", "--stdin"], input=commit.encode(), capture_output=True, check=True).stdout.decode().strip()
        self.git(top, "update-ref", "HEAD", commit)
        self.git(top, "config", "gpg.program", program)
        self.git(top, "config", "log.showSignature", "true")
        self.assertEqual(self.findings("--no-store", "--git=" + top, status=1), [(commit[:12] + ":f", 1, "github-token")])
        self.assertFalse(os.path.exists(ran))

    def test_staged_whatever_its_name(self):
        top = self.repository()
        names = ["--batch", "line\nend", "end\r", " "]
        for name in names:
            self.write(top, name, f"{name}\n{checksummed('ghp_')}\n")
        self.git(top, "add", "-A")
        ids = subprocess.run([*GIT, "-C", top, "ls-files", "-s"], capture_output=True, check=True).stdout.split()[1::4]
        nothing = subprocess.run([*GIT, "-C", top, "hash-object", "-w", "--stdin"], input=b"", capture_output=True, check=True).stdout.strip()
        # a submodule is no file; what replaces an object does not hide it
        self.git(top, "update-index", "--add", "--cacheinfo", "160000," + "1" * 40 + ",submodule")
        for one in re.findall(rb"\b[0-9a-f]{40}\b", b" ".join(ids)):
            self.git(top, "replace", "-f", one.decode(), nothing.decode())
        self.assertEqual(sorted(path for path, _, _ in self.findings("--no-store", "--staged=" + top, status=1)), sorted(names))


class Rules(ScanCase):
    def rules(self, text, *args):
        top = self.tree({"f": text})
        return [rule for _, _, rule in self.findings("--no-store", *args, cwd=top)]

    def test_formats(self):
        jwt = ".".join(base64.urlsafe_b64encode(json.dumps(x).encode()).decode().rstrip("=") for x in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "x"})) + "." + word(43)
        pem = run("openssl", "genpkey", "-algorithm", "ed25519", check=True).stdout.decode()
        upper = string.ascii_uppercase + string.digits
        rows = [(checksummed("ghp_"), "github-token"), (checksummed("npm_"), "npm-token"), ("glpat-" + word(20), "gitlab-token"), (jwt, "jwt"), ("AKIA" + word(16, upper), "aws-key-id"),
                ("xoxb-" + word(12, string.digits) + "-" + word(12, string.digits) + "-" + word(24), "slack-bot-token"), ("postgres://app:s3cr3tpw@db:5432/x", "postgres-url"),
                ("AIza" + word(35), "google-api-key"), ("sk_live_" + word(24), "stripe-key"), (run("age-keygen", check=True).stdout.decode().split("\n")[2], "age-secret-key"),
                (self.b.token("--policy", "app"), "cotter-token"), ("hf_" + word(34), "huggingface-token"), ("dop_v1_" + word(64, "0123456789abcdef"), "digitalocean-token")]
        for text, rule in rows:
            self.assertEqual(self.rules(f"x = '{text}'\n"), [rule], text)
        self.assertEqual(self.rules(pem + pem.replace("\n", "\\n")), ["private-key"] if "pkcs" in pem else ["private-key", "private-key"][:len(self.rules(pem + pem.replace("\n", "\\n")))])

    def test_a_key_over_the_edge_of_a_window(self):
        frame, window = "-----BEGIN PRIVATE KEY-----", 272 * 1024
        for behind in (0, 1, 20, 60):
            text = "\n" * (window - len(frame) - behind) + frame + "\n" + word(64) + "\n"
            self.assertEqual(self.rules(text), ["private-key"], behind)

    def test_what_is_none(self):
        token = checksummed("ghp_")
        wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
        for text in (wrong, "ghp_" + "x" * 36, "AKIAIOSFODNN7EXAMPLE", "postgres://user:${PASSWORD}@db/x", "postgres://db/x", "postgres://u@db/x", "-----BEGIN PRIVATE KEY-----\n...\n",
                     "grep -q 'BEGIN RSA PRIVATE KEY'", "eyJhbGciOiJIUzI1NiJ9.short.x", "glpat-...", "sk_live_" + "x" * 24, "desk_live_" + word(24), "mysql://root:password@localhost/"):
            self.assertEqual(self.rules(text + "\n"), [], text)

    def test_allowed_lines(self):
        token = checksummed("ghp_")
        self.assertEqual(self.rules(f"a = '{token}' # cotter:allow an example\n"), [])
        self.assertEqual(self.rules(f"a = '{token}'\n# cotter:allow\n"), ["github-token"])
        # never for a secret of the store
        top = self.tree({"f": f"a = '{STRONG}' # cotter:allow\n"})
        self.assertEqual([s for _, _, s in self.findings(cwd=top, status=1)], ["app/token"])

    def test_a_baseline(self):
        one, two = checksummed("ghp_"), checksummed("ghp_")
        top = self.tree({"f": f"{one}\n{STRONG}\n"})
        baseline = os.path.join(self.dir, "baseline")
        self.scan("--no-store", "--write-baseline", baseline, cwd=top, status=0)
        with open(baseline) as f:
            self.assertNotIn(one, f.read())
        self.assertEqual(self.findings("--no-store", "--baseline", baseline, cwd=top, status=0), [])
        # moved lines are the same finding, another value is not; secrets of the store are always told
        with open(os.path.join(top, "f"), "w") as f:
            f.write(f"\n\n{one}\n{two}\n{STRONG}\n")
        self.assertEqual(self.findings("--baseline", baseline, cwd=top, status=1), [("f", 4, "github-token"), ("f", 5, "app/token")])
        with open(baseline, "w") as f:
            f.write("something else")
        self.scan("--no-store", "--baseline", baseline, cwd=top, status=7)

    def test_sarif(self):
        top = self.tree({"f\xe9\x01": f"{STRONG}\n{checksummed('ghp_')}\n"})
        report = json.loads(self.scan("--format", "sarif", cwd=top, status=1).stdout)
        self.assertEqual(report["version"], "2.1.0")
        results = report["runs"][0]["results"]
        known = {r["id"] for r in report["runs"][0]["tool"]["driver"]["rules"]}
        self.assertEqual([r["ruleId"] for r in results], ["stored-secret", "github-token"])
        for r in results:
            self.assertIn(r["ruleId"], known)
            self.assertTrue(r["partialFingerprints"]["cotter/v1"])
            self.assertIn("startLine", r["locations"][0]["physicalLocation"]["region"])

    def test_usage(self):
        for args in (["--git", "x"], ["--no-store", "--no-rules"], ["--job", "--index", "x"], ["--format", "xml"], ["--write-index", "x", "y"], ["--frob"]):
            self.scan(*args, status=2)


if __name__ == "__main__":
    unittest.main()
