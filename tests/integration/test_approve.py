"""Keys that want more than a policy: approvals by operators before a job's first use, and rates."""
import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
import unittest

import peers
from agents import Job
from harness import COTTER, Case, run, wait_for
from peers import Cgroup, Process, as_peer, ask

ROOT = os.geteuid() == 0
NO_CGROUP = peers.cgroups_missing() if ROOT else "needs root: other uids, and cgroups"
JOB, ANN, BOB, EVE, FAY, GIL = 12345, 12351, 12352, 12353, 12354, 12355  # eve is an operator, and no approver
CONFIG = """\
  signer:
    - path: +/*
      allow: [sign, decrypt]
    - path: pki/web
      allow: [sign]
    - path: ssh/deploy
      allow: [sign]
keys:
  - path: release/*
    approvals: 2
    approvers: [0, 12345, 12351, 12352, 12354, 12355]
    wait: 20s
  - path: quick/*
    approvals: 1
    wait: 0s
  - path: fast/*
    rate: 3/10s
  - path: shared/*
    rate: 1000/s
    rate_per_job: 2/h
  - path: ca/x509
    approvals: 1
    wait: 20s
    rate: 2/h
  - path: ssh/deploy
    rate: 1/h
  - path: slow/*
    approvals: 1
    rate: 2/h
    wait: 20s
  - path: not/there
    rate: 1/h
pki:
  key: ca/x509
  roles:
    web:
      names: ["*.example"]
      usages: [server]
ssh:
  key: ca/ssh
  roles:
    deploy:
      type: user
      principals: [deploy]
"""


def configure(text):
    me = os.geteuid()  # root, where there are other uids
    own = f"operators:\n  - {me}\n"
    assert own in text
    text = text.replace(own, f"operators: [{me}, {JOB}, {ANN}, {BOB}, {EVE}, {FAY}, {GIL}]\n").replace("require_cgroup: true", "require_cgroup: false")
    return text + CONFIG.replace("approvers: [0,", f"approvers: [{me},")


def listed_keys(path):
    return run("ssh-add", "-L", env={**os.environ, "SSH_AUTH_SOCK": path}, timeout=10).stdout


def send_raw(path, data):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(path)
        s.sendall(data)
        out = b""
        try:
            while chunk := s.recv(65536):
                out += chunk
        except OSError:
            pass
        return out


def b64(data):
    return base64.b64encode(data).decode()


class ApproveCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.dir, 0o755)
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=configure)
        for name, kind in (("release/codesign", "ecdsa-p256"), ("release/rsa", "rsa-2048"), ("quick/one", "ecdsa-p256"), ("fast/one", "rsa-2048"),
                           ("fast/two", "ecdsa-p256"), ("shared/one", "ecdsa-p256"), ("slow/one", "ecdsa-p256"), ("ca/ssh", "ecdsa-p256")):
            cls.b.cli("key", "add", name, "--type", kind, check=True)

    @classmethod
    def sub(cls, name):
        path = super().sub(name)
        os.chmod(path, 0o755)
        return path

    def setUp(self):
        self.jobs = []
        self.ends = []

    def tearDown(self):
        for end in reversed(self.ends):
            end()
        self.assertEqual(self.b.curl("sys/health")[0], 200)

    def job(self, uid=JOB, cgroup=None):
        """(process of the job, its token, its id)"""
        leader = Process(uid=uid, cgroup=cgroup)
        self.ends.append(leader.end)
        reply = json.loads(self.b.cli("job", "start", "--leader", str(leader.pid), "--policy", "signer", "--name", "nightly", "--json", check=True).stdout)
        return leader, reply["token"], reply["job"]

    def sign(self, leader, token, key="release/codesign", **body):
        return leader.do(ask, self.b.socket, "POST", f"transit/sign/{key}", token, body or {"input": b64(b"x")})

    def begin(self, leader, token, key="release/codesign"):
        leader.start(ask, self.b.socket, "POST", f"transit/sign/{key}", token, {"input": b64(b"x")})

    def asker(self, token, key="release/codesign"):
        """One more process of the job that waits for the key."""
        child = Process(uid=JOB)
        self.ends.append(child.end)
        self.begin(child, token, key)
        return child

    def approve(self, uid, job, key="release/codesign", refuse=False, **kw):
        return as_peer(ask, self.b.operator_socket, "POST", "cotter/approve", None, {"job": job, "key": key, "refuse": refuse}, uid=uid, **kw)

    def listed(self, job):
        return {a["key"]: a for a in json.loads(self.b.cli("approve", "--json", check=True).stdout) if a["job"] == job}

    def waits(self, job, key="release/codesign", n=1):
        wait_for("the request to wait", lambda: self.listed(job).get(key, {}).get("waiting") == n)

    def records(self, job, *words):
        return [line for line in self.b.audit(1000).splitlines() if f"job={job} " in line and all(w in line for w in words)]


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Quorum(ApproveCase):
    def test_two_of_them_before_the_first_use(self):
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        a = self.listed(job)["release/codesign"]
        self.assertEqual((a["state"], a["lacks"], a["by"], a["uid"], a["name"]), ("waiting", 2, [0, JOB, ANN, BOB, FAY, GIL], JOB, "nightly"))
        self.assertIn("ecdsa sha2-256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", a["what"])
        self.assertEqual(len(self.records(job, "ev=approval.ask", "result=waits", "secret=release/codesign")), 1)
        # the first of them is not enough, and speaks once
        for _ in range(2):
            status, reply = self.approve(ANN, job)
            self.assertEqual((status, reply["data"]["state"], reply["data"]["lacks"], reply["data"]["approved"]), (200, "waiting", 1, [ANN]))
        self.waits(job)
        # neither the job's own user, nor whoever is no approver, nor nobody
        status, reply = self.approve(JOB, job)
        self.assertEqual(status, 403)
        self.assertIn("runs as you", reply["errors"][0])
        status, reply = self.approve(EVE, job)
        self.assertIn("none of that key's approvers", reply["errors"][0])
        self.assertEqual([self.approve(uid, job, refuse=True)[0] for uid in (EVE, JOB)], [403, 403])
        with self.assertRaises(AssertionError):  # turned away at the door
            self.approve(12399, job)
        self.waits(job)
        # by the tool, as root
        p = self.b.cli("approve", job, "release/codesign")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(b"approved", p.stdout)
        status, reply = leader.result()
        self.assertEqual(status, 200, reply)
        # and from then on nobody is asked; another job is
        self.assertEqual(self.sign(leader, token)[0], 200)
        self.assertEqual(len(self.records(job, "ev=approval.ask")), 1)
        self.assertEqual(len(self.records(job, "ev=sign", "result=granted")), 2)
        self.assertEqual(sorted(line.split(" uid=")[1].split()[0] for line in self.records(job, "ev=approve ", "result=granted")), ["0", str(ANN), str(ANN)])
        second, token2, job2 = self.job()
        self.begin(second, token2)
        self.waits(job2)
        # of another key of the same rule, too
        self.begin(leader, token, "release/rsa")
        self.waits(job, "release/rsa")
        self.assertEqual(self.approve(ANN, job, "release/rsa", refuse=True)[0], 200)
        self.assertEqual(leader.result()[0], 403)
        self.assertEqual(self.sign(leader, token)[0], 200)

    def test_refused(self):
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        self.approve(ANN, job)
        p = self.b.cli("approve", "--refuse", job, "release/codesign")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(b"refused by root", p.stdout)
        status, reply = leader.result()
        self.assertEqual(status, 403)
        self.assertIn("an operator refused", reply["errors"][0])
        # it stays so, whatever others say, until who refused thinks better of it
        self.approve(BOB, job)
        self.assertEqual(self.sign(leader, token)[0], 403)
        self.approve(0, job)
        self.assertEqual(self.sign(leader, token)[0], 200)

    def test_approved_before_it_asks_and_across_a_kill(self):
        leader, token, job = self.job()
        self.approve(ANN, job)
        self.approve(BOB, job)
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual(self.listed(job)["release/codesign"]["approved"], [ANN, BOB])
        self.assertEqual(self.sign(leader, token)[0], 200)
        leader.end()
        wait_for("its end", lambda: not self.listed(job))
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual(self.listed(job), {})

    def test_not_in_time(self):
        self.b.reload(lambda text: text.replace("wait: 20s", "wait: 1s"))
        leader, token, job = self.job()
        status, reply = self.sign(leader, token)
        self.assertEqual(status, 403)
        self.assertIn("not enough in time", reply["errors"][0])
        leader, token, job = self.job()
        status, reply = self.sign(leader, token, "quick/one")
        self.assertEqual(status, 403)
        self.assertIn("1 more approval of this job", reply["errors"][0])
        self.assertEqual(self.approve(EVE, job, "quick/one")[0], 200)  # any operator where none are named
        self.assertEqual(self.sign(leader, token, "quick/one")[0], 200)
        self.b.reload(lambda text: text.replace("wait: 1s", "wait: 20s"))

    def test_who_waits_ends_with_its_job(self):
        cg = Cgroup()
        self.ends.append(cg.remove)
        leader, token, job = self.job(cgroup=cg)
        child = Process(uid=JOB, cgroup=cg)
        self.ends.append(child.end)
        self.begin(child, token)
        self.waits(job)
        self.b.cli("job", "end", job, check=True)
        status, reply = child.result()
        self.assertEqual((status, reply["errors"]), (403, ["the job has ended"]))
        # a client that leaves waits no more
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        leader.end()
        wait_for("its end", lambda: not self.listed(job))

    def test_a_token_that_was_revoked_meanwhile(self):
        leader, token, job = self.job()
        spare = self.b.token("--policy", "signer", "--job", job)
        accessor = leader.do(ask, self.b.socket, "GET", "auth/token/lookup-self", spare)[1]["data"]["accessor"]
        self.begin(leader, spare)
        self.waits(job)
        self.b.cli("token", "revoke", accessor, check=True)
        self.approve(ANN, job)
        self.approve(BOB, job)
        self.assertEqual(leader.result()[0], 403)
        self.assertEqual(self.sign(leader, token)[0], 200)

    def test_only_jobs(self):
        token = self.b.token("--policy", "signer")
        for reply in (ask(self.b.socket, "POST", "transit/sign/release/codesign", token, {"input": b64(b"x")}),
                      ask(self.b.operator_socket, "POST", "transit/sign/release/codesign", None, {"input": b64(b"x")})):
            self.assertEqual(reply[0], 403)
            self.assertIn("only jobs", reply[1]["errors"][0])
        for suffix in ("hmac", "sign", "decrypt"):
            leader, token, job = self.job()
            body = {"input": b64(b"x")} if suffix != "decrypt" else {"ciphertext": leader.do(ask, self.b.socket, "POST", "transit/encrypt/release/rsa", token,
                                                                                            {"plaintext": b64(b"p")})[1]["data"]["ciphertext"]}
            leader.start(ask, self.b.socket, "POST", f"transit/{suffix}/release/rsa", token, body)
            self.waits(job, "release/rsa")
            self.approve(BOB, job, "release/rsa")
            self.approve(0, job, "release/rsa")
            self.assertEqual(leader.result()[0], 200)

    def test_a_process_of_a_job_approves_nothing(self):
        other, _, ended = self.job(uid=FAY)
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        for _ in range(2):
            for refuse in (False, True):
                status, reply = self.approve(FAY, job, refuse=refuse)
                self.assertEqual(status, 403)
                self.assertIn("a job ran as you", reply["errors"][0])
            # nor what is left of one that ended
            self.b.cli("job", "end", ended)
        self.assertEqual(self.listed(job)["release/codesign"]["approved"], [])

    def test_bad_words(self):
        _, _, job = self.job()
        for body, status in (({}, 404), ({"job": job}, 400), ({"job": job, "key": "fast/one"}, 400), ({"job": job, "key": "../x"}, 400),
                             ({"job": "0" * 16, "key": "release/codesign"}, 404), ({"job": 3, "key": "release/codesign"}, 404), ({"job": job, "key": 3}, 400)):
            self.assertEqual(ask(self.b.operator_socket, "POST", "cotter/approve", None, body)[0], status, body)
        p = self.b.cli("approve", "0" * 16, "release/codesign")
        self.assertEqual((p.returncode, p.stdout), (4, b""))
        self.assertIn(b"there is no job", p.stderr)
        for words in (["x"], ["x", "y", "z"], ["--refuse"], ["x", "/y"], ["--nope"]):
            self.assertEqual(self.b.cli("approve", *words).returncode, 2, words)
        # on the jobs' socket nobody is an operator
        self.assertEqual(ask(self.b.socket, "POST", "cotter/approve", None, {"job": job, "key": "release/codesign"})[0], 403)

    def test_too_many_wait(self):
        leader, token, job = self.job()
        children = [self.asker(token) for _ in range(36)]
        self.waits(job, n=32)
        self.approve(ANN, job)
        self.approve(BOB, job)
        self.assertEqual(sorted(child.result()[0] for child in children), [200] * 32 + [429] * 4)

    def test_by_tools_in_a_job(self):
        """The agent waits, and so does who asks it."""
        p = subprocess.Popen([COTTER, "run", "--policy", "signer", "--keys", "--", "bash", "-c",
                              "cd $(mktemp -d) && ssh-add -L | grep release/codesign >key.pub && echo hello >message && ssh-keygen -Y sign -n file -f key.pub message"
                              " && cat message.sig"],
                             env=self.b.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        waiting = lambda: [a["job"] for a in json.loads(self.b.cli("approve", "--json").stdout) if a["waiting"] and a["key"] == "release/codesign" and a["uid"] == 0]
        wait_for("the request", waiting)
        job = waiting()[0]
        self.assertIn(b"1 request waits", self.b.cli("approve").stdout)
        self.approve(ANN, job)
        self.approve(BOB, job)
        out, said = p.communicate(timeout=30)
        self.assertEqual(p.returncode, 0, said)
        self.assertIn(b"BEGIN SSH SIGNATURE", out)

    def test_an_agent_that_waits_is_not_deaf(self):
        job = Job(self.b, "--policy", "signer")
        self.ends.append(job.end)
        agent = job.agent
        with open(os.path.join(self.dir, "waiting.pub"), "wb") as f:
            f.write(next(line for line in job.do(listed_keys, job.ssh).splitlines(True) if b"release/codesign" in line))
        with open(os.path.join(self.dir, "waiting"), "w") as f:
            f.write("x")
        sign = lambda: subprocess.Popen(["ssh-keygen", "-Y", "sign", "-n", "f", "-f", os.path.join(self.dir, "waiting.pub"), os.path.join(self.dir, "waiting")],
                                        env={**self.b.env, "SSH_AUTH_SOCK": job.ssh}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=job.enter)
        waiting = lambda: sum(a["waiting"] for a in json.loads(self.b.cli("approve", "--json").stdout) if a["uid"] == 0)
        client = sign()
        wait_for("the request", lambda: waiting() == 1)
        # who asked is gone: so is the request, and the agent serves others
        client.kill()
        client.wait()
        wait_for("the request's end", lambda: waiting() == 0)
        self.assertIn(b"release/codesign", job.do(listed_keys, job.ssh))
        client = sign()
        wait_for("the request", lambda: waiting() == 1)
        os.kill(agent, signal.SIGTERM)
        wait_for("the agent's end", lambda: not os.path.exists(job.ssh), 5)
        client.wait(10)

    def test_what_a_reload_changes_is_weighed_again(self):
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        self.approve(ANN, job)
        self.waits(job)
        self.b.reload(lambda text: text.replace("approvals: 2", "approvals: 1"))
        try:
            self.assertEqual(leader.result()[0], 200)
        finally:
            self.b.reload(lambda text: text.replace("approvals: 1\n    approvers", "approvals: 2\n    approvers"))
        leader, token, job = self.job()
        self.begin(leader, token)
        self.waits(job)
        self.b.reload(lambda text: text.replace("path: release/*\n    approvals", "path: other/*\n    approvals"))
        try:
            self.assertEqual(leader.result()[0], 200)
        finally:
            self.b.reload(lambda text: text.replace("path: other/*\n    approvals", "path: release/*\n    approvals"))

    def test_they_go_on_in_their_order(self):
        leader, token, job = self.job()
        children = []
        for i in range(4):
            children.append(self.asker(token, "slow/one"))
            self.waits(job, "slow/one", i + 1)
        self.approve(GIL, job, "slow/one")
        self.assertEqual([child.result()[0] for child in children], [200, 200, 429, 429])

    def test_one_user_does_not_hide_the_others(self):
        loud = [self.job() for _ in range(45)]
        for leader, token, _ in loud:
            self.assertEqual(self.sign(leader, token, "quick/one")[0], 403)
        quiet, token, job = self.job(uid=JOB + 1)
        self.begin(quiet, token)
        self.waits(job)
        p = self.b.cli("approve")
        self.assertEqual(p.returncode, 0)
        self.assertIn(b"(5 more)", p.stdout)
        self.assertIn(job.encode(), p.stdout.splitlines()[0])
        # nor does it take all places
        children = [self.asker(loud[i % 3][1]) for i in range(66)]
        wait_for("them", lambda: sum(a["waiting"] for a in json.loads(self.b.cli("approve", "--json").stdout)) == 65)
        other, token, job = self.job(uid=JOB + 2)
        self.begin(other, token)
        self.waits(job)

    def test_what_is_sent_behind_is_not_kept(self):
        leader, token, job = self.job()
        body = json.dumps({"input": b64(b"x")})
        head = f"POST /v1/transit/sign/release/codesign HTTP/1.1\r\nX-Vault-Token: {token}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        leader.start(send_raw, self.b.socket, (head + "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX: " + "y" * 2000).encode())
        self.waits(job)
        self.approve(ANN, job)
        self.approve(BOB, job)
        out = leader.result()
        self.assertEqual(out.count(b"HTTP/1.1 "), 1)
        self.assertIn(b"200", out[:20])
        self.assertIn(b"Connection: close", out)

    def test_an_approval_that_somebody_else_wrote(self):
        leader, token, job = self.job()
        self.approve(ANN, job)
        self.b.stop(signal.SIGKILL)
        with sqlite3.connect(os.path.join(self.b.state, "store.db")) as db:
            row = db.execute("SELECT * FROM approval").fetchone()
            db.execute("INSERT INTO approval VALUES (?, ?, ?, ?, ?, ?)", (*row[:2], BOB, *row[3:]))
        self.b.start()
        self.assertEqual(self.listed(job)["release/codesign"]["approved"], [ANN])

    def test_no_second_name(self):
        ref = next(line.split()[3] for line in self.b.cli("key", "list").stdout.decode().splitlines() if "codesign" in line)
        p = self.b.cli("key", "add", "fast/codesign", "--ref", ref)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"one that wants approvals has one name", p.stderr)
        # nor does one that has a name get one that does
        ref = next(line.split()[3] for line in self.b.cli("key", "list").stdout.decode().splitlines() if "two-v1" in line)
        p = self.b.cli("key", "add", "release/two", "--ref", ref)
        self.assertIn(b"one that wants approvals has one name", p.stderr)
        p = self.b.cli("key", "remove", "release/codesign")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"take that out first", p.stderr)
        self.assertIn(b"rules for release/*", self.b.cli("key", "show", "release/codesign", check=True).stdout)


class Rates(ApproveCase):
    def test_a_key(self):
        token = self.b.token("--policy", "signer")
        sign = lambda key, body: ask(self.b.socket, "POST", f"transit/sign/{key}", token, body)
        one = {"input": b64(b"x")}
        self.assertEqual([sign("fast/one", one)[0] for _ in range(4)], [200, 200, 200, 429])
        status, reply = sign("fast/one", one)
        self.assertRegex(reply["errors"][0], "3 uses in 10 s: try again in [1-4] s")
        # what needs no private half is not counted; another key has a rate of its own; a batch counts by its items
        signature = sign("fast/two", one)[1]["data"]["signature"]
        for _ in range(5):
            self.assertEqual(ask(self.b.socket, "POST", "transit/verify/fast/two", token, {**one, "signature": signature})[0], 200)
            self.assertEqual(ask(self.b.socket, "POST", "transit/encrypt/fast/one", token, {"plaintext": b64(b"p")})[0], 200)
        self.assertEqual(sign("fast/two", {"batch_input": [one] * 4})[0], 400)
        self.assertEqual(sign("fast/two", {"batch_input": [one] * 3})[0], 429)
        self.assertEqual(sign("fast/two", {"batch_input": [one] * 2})[0], 200)
        self.assertEqual(sign("fast/two", one)[0], 429)
        for what, body in (("hmac", one), ("decrypt", {"ciphertext": ask(self.b.socket, "POST", "transit/encrypt/fast/one", token,
                                                                          {"plaintext": b64(b"p")})[1]["data"]["ciphertext"]})):
            self.assertEqual(ask(self.b.socket, "POST", f"transit/{what}/fast/one", token, body)[0], 429, what)
        time.sleep(3.5)
        self.assertEqual([sign("fast/one", one)[0] for _ in range(2)], [200, 429])
        self.assertIn("try_again_in", self.b.audit(10))

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_a_job(self):
        groups = [Cgroup() for _ in range(2)]
        for cg in groups:
            self.ends.append(cg.remove)
            leader, token, _ = self.job(cgroup=cg)
            self.assertEqual([self.sign(leader, token, "shared/one")[0] for _ in range(3)], [200, 200, 429])
        # a new job in the same place has no new share
        leader, token, _ = self.job(cgroup=groups[0])
        self.assertEqual(self.sign(leader, token, "shared/one")[0], 429)
        # what is of no job has one share for all
        tokens = [self.b.token("--policy", "signer") for _ in range(2)]
        self.assertEqual([ask(self.b.socket, "POST", "transit/sign/shared/one", t, {"input": b64(b"x")})[0] for t in tokens * 2], [200, 200, 429, 429])

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_certificates(self):
        """A role is under its own name's rules, and under those of the CA's key."""
        self.b.cli("key", "add", "ca/x509", "--type", "ecdsa-p256", check=True)
        key, cert = os.path.join(self.dir, "root.key"), os.path.join(self.dir, "ca.pem")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=root",
            "-days", "9", check=True)
        public, ca = os.path.join(self.dir, "public"), os.path.join(self.dir, "issued.pem")
        with open(public, "wb") as f:
            f.write(self.b.cli("key", "show", "ca/x509", "--pem", check=True).stdout)
        with open(os.path.join(self.dir, "ext"), "w") as f:
            f.write("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n")
        run("openssl", "x509", "-new", "-force_pubkey", public, "-subj", "/CN=ca", "-CA", cert, "-CAkey", key, "-days", "5", "-extfile", os.path.join(self.dir, "ext"),
            "-out", ca, check=True)
        self.b.cli("key", "certificate", "ca/x509", "--certificate", ca, check=True)
        leader, token, job = self.job()
        leader.start(ask, self.b.socket, "POST", "pki/issue/web", token, {"common_name": "a.example"})
        self.waits(job, "pki/web")
        self.assertEqual(self.listed(job)["pki/web"]["what"], "certificate for a.example")
        self.assertEqual(self.approve(BOB, job, "pki/web")[0], 200)
        status, reply = leader.result()
        self.assertEqual(status, 200, reply)
        issue = lambda: leader.do(ask, self.b.socket, "POST", "pki/issue/web", token, {"common_name": "a.example"})[0]
        self.assertEqual([issue(), issue()], [200, 429])
        ssh = {"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBYr7vFWr8mA4UJGVt+rKNE0e3PWZ8jlzdX6ZVxLLrTW", "valid_principals": "deploy"}
        self.assertEqual([leader.do(ask, self.b.socket, "POST", "ssh/sign/deploy", token, ssh)[0] for _ in range(2)], [200, 429])

    def test_a_name_that_is_none_is_told(self):
        with open(self.b.log) as f:
            log = f.read()
        self.assertIn("there is no key of the name not/there", log)
        self.assertNotIn("of the name ssh/deploy", log)

    def test_a_configuration_that_is_wrong(self):
        with open(self.b.config) as f:
            good = f.read()
        path = os.path.join(self.dir, "bad.yaml")
        for change, said in ((("rate: 3/10s", "rate: 3"), "a rate such as 100/h"), (("rate: 3/10s", "rate: 0/s"), "a rate such as"),
                             (("rate: 3/10s", "rate: 3/2d"), "a rate such as"), (("rate: 3/10s", "rate: 3/500ms"), "a rate such as"),
                             (("rate: 3/10s", "rate: 3/"), "a rate such as"), (("rate: 3/10s", "wait: 1s"), "demands nothing"),
                             (("rate: 3/10s", "approvers: [0]\n    rate: 3/s"), "say how many approvals"), (("approvals: 2", "approvals: 7"), "demands 7 approvals"),
                             (("approvals: 2", "approvals: 0"), "a number from 1"), (("12355]\n    wait", "12355, 12355]\n    wait"), "an approver already"),
                             (("12355]\n    wait", "7]\n    wait"), "none of the operators"), (("wait: 20s", "wait: 2h"), "at most 60 m"),
                             (("path: fast/*", "path: fast/{{x}}"), "a key's name or a pattern"), (("path: fast/*", "path: /fast"), "a key's name or a pattern")):
            self.assertIn(change[0], good)
            with open(path, "w") as f:
                f.write(good.replace(*change, 1))
            p = run(os.path.join(os.path.dirname(COTTER), "..", "broker", "cotterd"), "--check", "--config", path)
            self.assertNotEqual(p.returncode, 0, change)
            self.assertIn(said, (p.stdout + p.stderr).decode(), change)


if __name__ == "__main__":
    unittest.main()
