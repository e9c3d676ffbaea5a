"""Jobs: tokens that are worth nothing outside of them. Real processes under different uids, in cgroups of their own."""
import concurrent.futures
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

import peers
from harness import BUILD, COTTER, COTTERD, Case, SlowDisk, clean_env, run, wait_for
from peers import Cgroup, Process, Session, as_peer, ask, connect, passed_connection, request

ROOT = os.geteuid() == 0
NO_CGROUP = peers.cgroups_missing() if ROOT else "needs root: other uids, and cgroups"
JOB, OTHER = 12345, 12346


class JobCase(Case):
    """A broker that other uids can reach, with a secret or two."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.dir, 0o755)
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=cls.configure)
        cls.b.put("release/npm-token", "N")
        cls.b.put("build/a/token", "B")

    @classmethod
    def sub(cls, name):
        path = super().sub(name)
        os.chmod(path, 0o755)
        return path

    @staticmethod
    def configure(text):
        return text

    def setUp(self):
        self.ends = []

    def tearDown(self):
        for end in reversed(self.ends):
            end()
        self.assertEqual(self.b.curl("sys/health")[0], 200)  # whatever was done to it, it lives

    def cgroup(self, name=None):
        c = Cgroup(name)
        self.ends.append(c.remove)
        return c

    def process(self, **kw):
        p = Process(**kw)
        self.ends.append(p.end)
        return p

    def job(self, leader, *args):
        """(token, job id) for a leader."""
        p = self.b.cli("job", "start", "--leader", str(leader), "--policy", "release", "--json", *args, check=True)
        reply = json.loads(p.stdout)
        return reply["token"], reply["job"]

    def get(self, token, path="release/npm-token", **kw):
        return as_peer(ask, self.b.socket, "GET", f"secret/data/{path}", token, **kw)[0]

    def last_audit(self):
        """Of a request: a job of an earlier test may end at any time."""
        return [line for line in self.b.audit(20).splitlines() if line.startswith("seq=") and " ev=job.e" not in line][-1]

    def jobs(self):
        return {j["job"] for j in json.loads(self.b.cli("job", "list", "--json", check=True).stdout)}


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Stolen(JobCase):
    """A token that somebody else got hold of."""

    def setUp(self):
        super().setUp()
        self.cg = self.cgroup()
        self.leader = self.process(uid=JOB, cgroup=self.cg)
        self.token, self.id = self.job(self.leader.pid)

    def test_good_inside(self):
        self.assertEqual(self.get(self.token, uid=JOB, cgroup=self.cg), 200)
        record = self.last_audit()
        self.assertIn(f"job={self.id} cgroup={self.cg.id} uid={JOB} pidfd=", record)
        self.assertNotIn("pidfd=-", record)

    def refused(self, why, **kw):
        self.assertEqual(self.get(self.token, **kw), 403)
        record = self.last_audit()
        self.assertIn("result=denied", record)
        self.assertIn(why, record)

    def test_same_uid_other_cgroup(self):
        self.refused("another_cgroup", uid=JOB, cgroup=self.cgroup())

    def test_same_uid_root_cgroup(self):
        self.refused("another_cgroup", uid=JOB)

    def test_same_cgroup_other_uid(self):
        self.refused("another_uid", uid=OTHER, cgroup=self.cg)

    def test_root_is_no_exception(self):
        self.refused("another_uid", cgroup=self.cg)

    def test_after_the_leader(self):
        self.leader.end()
        self.refused("no_such_token", uid=JOB, cgroup=self.cg)

    def test_through_a_forwarder(self):
        """A relay in another cgroup: the peer is the relay, whoever speaks."""
        path = os.path.join(self.dir, "forward.sock")
        relay = self.process(uid=JOB, cgroup=self.cgroup())
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        self.ends.append(lambda: (listener.close(), os.unlink(path)))

        def serve():
            client, _ = listener.accept()
            data = client.recv(65536)
            status, _ = relay.do(forward, self.b.socket, data)
            client.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
            client.close()
        threading.Thread(target=serve).start()
        self.assertEqual(as_peer(ask, path, "GET", "secret/data/release/npm-token", self.token, uid=JOB, cgroup=self.cg)[0], 403)
        self.assertIn("another_cgroup", self.last_audit())

    def test_a_connection_is_who_made_it(self):
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then="stay")
        self.ends.append(lambda: (s.close(), os.kill(pid, 9), os.waitpid(pid, 0)))
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 200)
        # and moves with it
        self.cgroup().enter(pid)
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 403)
        self.assertIn("another_cgroup", self.last_audit())

    def test_a_connection_dies_with_who_made_it(self):
        s, _ = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB)
        self.ends.append(s.close)
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 403)
        self.assertIn("the_caller_is_gone", self.last_audit())

    def test_a_pid_that_is_used_again_is_nobody(self):
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB)
        self.ends.append(s.close)
        again = peers.process_with_pid(pid)
        self.ends.append(lambda: (os.kill(again, 9), os.waitpid(again, 0)))
        self.assertEqual(again, pid)
        self.cg.enter(again)
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 403)
        self.assertIn("the_caller_is_gone", self.last_audit())

    def test_a_zombie_is_gone(self):
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then=lambda: os._exit(0))
        self.ends.append(lambda: (s.close(), os.waitpid(pid, 0)))
        wait_for("a zombie", lambda: run("ps", "-o", "stat=", "-p", str(pid)).stdout.startswith(b"Z"))
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 403)

    def test_the_end_of_who_asked_often(self):
        """By many connections at once, of a process that nobody waits for: a zombie still has its uid and its cgroup."""
        all_of_it, pid = peers.passed_connections(self.b.socket, 300, cgroup=self.cg, uid=JOB, then="stay")
        self.ends.append(lambda: [s.close() for s in all_of_it])
        for _ in range(3):
            self.assertEqual([request(s, "GET", "secret/data/release/npm-token", self.token)[0] for s in all_of_it], [200] * 300)
        os.kill(pid, 9)
        self.ends.append(lambda: os.waitpid(pid, 0))
        wait_for("a zombie", lambda: run("ps", "-o", "stat=", "-p", str(pid)).stdout.startswith(b"Z"))
        self.assertEqual([request(s, "GET", "secret/data/release/npm-token", self.token)[0] for s in all_of_it[::-1]], [403] * 300)
        self.assertIn("the_caller_is_gone", self.last_audit())

    def test_the_end_of_the_leader_of_who_asked_often(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, _ = self.job(leader.pid)
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then="stay")
        self.ends.append(lambda: (s.close(), os.kill(pid, 9), os.waitpid(pid, 0)))
        for _ in range(3):
            self.assertEqual(request(s, "GET", "secret/data/release/npm-token", token)[0], 200)
        os.kill(leader.pid, 9)
        wait_for("a zombie", lambda: run("ps", "-o", "stat=", "-p", str(leader.pid)).stdout.startswith(b"Z"))
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", token)[0], 403)

    def test_a_setuid_program_is_somebody_else(self):
        program = os.path.join(self.dir, "setuid-sleep")
        shutil.copy("/bin/sleep", program)
        os.chmod(program, 0o4755)
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then=lambda: os.execv(program, ["sleep", "600"]))
        self.ends.append(lambda: (s.close(), os.kill(pid, 9), os.waitpid(pid, 0)))
        wait_for("the setuid program", lambda: os.stat(f"/proc/{pid}").st_uid == 0 and "setuid-sleep" in os.readlink(f"/proc/{pid}/exe"))
        self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 403)
        self.assertIn("setuid", self.last_audit())

    def test_namespaces_change_nothing(self):
        """Its own token works in a container of its own; the host's uid is logged."""
        code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import peers; " \
               f"print(peers.ask({self.b.socket!r}, 'GET', 'secret/data/release/npm-token', sys.stdin.read().strip())[0])"

        def contained():
            return subprocess.run(["unshare", "-U", "-r", "-p", "-f", "-C", "/usr/bin/python3", "-c", code], input=self.token.encode(),
                                  capture_output=True)
        p = as_peer(contained, uid=JOB, cgroup=self.cg)
        self.assertEqual(p.stdout.strip(), b"200", p.stderr)
        self.assertIn(f"uid={JOB} ", self.last_audit())

    def test_high_and_overflow_uids(self):
        high = self.process(uid=4000000000, cgroup=self.cg)
        token, _ = self.job(high.pid)
        self.assertEqual(self.get(token, uid=4000000000, cgroup=self.cg), 200)
        self.assertIn("uid=4000000000 ", self.last_audit())
        token = self.b.token("--policy", "release")
        self.assertEqual(self.get(token, uid=65534, cgroup=self.cg), 403)
        self.assertIn("no_uid_that_the_broker_can_see", self.last_audit())

    def test_a_connect_storm_is_told_apart(self):
        """Of many that come and go, each is logged as who it was."""
        token = self.b.token("--policy", "release")

        def storm(n):
            return [ask(self.b.socket, "GET", "secret/data/release/npm-token", token)[0] for _ in range(n)]
        before = int(self.b.status()["audit_size"])
        with concurrent.futures.ProcessPoolExecutor(3) as pool:
            futures = [pool.submit(as_peer_storm, self.b.socket, token, uid) for uid in (JOB, OTHER, 12347)]
            for f in futures:
                self.assertEqual(f.result(), [200] * 300)
        log = self.b.audit(int(self.b.status()["audit_size"]) - before + 10)
        for uid in (JOB, OTHER, 12347):
            self.assertEqual(log.count(f"ev=get job=- cgroup=- uid={uid} "), 300)


def as_peer_storm(path, token, uid):
    def storm():
        return [ask(path, "GET", "secret/data/release/npm-token", token)[0] for _ in range(300)]
    return as_peer(storm, uid=uid)


def forward(path, data):
    with connect(path) as s:
        s.sendall(data)
        return peers.answer(s)


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
@unittest.skipIf(os.environ.get("COTTER_SANITIZE"), "the sanitizer wants to be the first library")
class LongRound(JobCase):
    """A disk that is slow keeps the broker at one request, and behind it in the same round waits one of a process that dies meanwhile."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.stop()
        cls.disk = SlowDisk(cls.dir)
        cls.b.start(prefix=cls.disk.prefix)

    def setUp(self):
        super().setUp()
        self.cg = self.cgroup()
        self.leader = self.process(uid=JOB, cgroup=self.cg)
        self.token, _ = self.job(self.leader.pid)

    @contextlib.contextmanager
    def halted(self):
        """What is sent meanwhile is found in one round."""
        os.kill(self.b.process.pid, signal.SIGSTOP)
        wait_for("its stop", lambda: run("ps", "-o", "stat=", "-p", str(self.b.process.pid)).stdout.startswith(b"T"))
        yield
        os.kill(self.b.process.pid, signal.SIGCONT)

    def answer_after(self, death):
        """The status that a connection's request gets, whose last bytes came after the death."""
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then="stay")
        self.ends.append(lambda: (s.close(), os.kill(pid, 9), os.waitpid(pid, 0)))
        for _ in range(3):
            self.assertEqual(request(s, "GET", "secret/data/release/npm-token", self.token)[0], 200)
        get = f"GET /v1/secret/data/release/npm-token HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\n\r\n".encode()
        put = b'{"data": {"value": "x"}}'
        with connect(self.b.operator_socket) as operator:
            request(operator, "GET", "sys/health")
            self.disk.wait(1000)
            with self.halted():
                operator.sendall(b"POST /v1/secret/data/build/b/token HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(put) + put)
                s.sendall(get[:10])
            time.sleep(0.2)
            victim = death(pid)
            wait_for("a zombie", lambda: run("ps", "-o", "stat=", "-p", str(victim)).stdout.startswith(b"Z"))
            s.sendall(get[10:])
            status = peers.answer(s)[0]
            self.disk.wait(0)
            self.assertEqual(peers.answer(operator)[0], 200)
        return status

    def kill(self, pid):
        os.kill(pid, 9)
        return pid

    def test_a_quick_answer_waits_for_no_slow_ones(self):
        """But for those of its round; answers of one user leave together only while they are quick."""
        put = b'{"data": {"value": "x"}}'
        with contextlib.ExitStack() as stack:
            quick, *slow = [stack.enter_context(connect(self.b.operator_socket)) for _ in range(7)]
            for s in (quick, *slow):
                self.assertEqual(request(s, "GET", "sys/health")[0], 200)
            self.disk.wait(300)
            with self.halted():
                quick.sendall(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
                for i, s in enumerate(slow):
                    s.sendall(b"POST /v1/secret/data/build/slow/%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (i, len(put)) + put)
            self.assertEqual(peers.answer(quick)[0], 200)
            time.sleep(0.05)
            self.assertEqual(select.select(slow[-1:], [], [], 0)[0], [])
            self.disk.wait(0)
            for s in slow:
                self.assertEqual(peers.answer(s)[0], 200)

    def test_nobody_dies(self):
        self.assertEqual(self.answer_after(lambda _: self.kill(self.process().pid)), 200)

    def test_the_peer_dies(self):
        self.assertEqual(self.answer_after(self.kill), 403)

    def test_the_leader_dies(self):
        self.assertEqual(self.answer_after(lambda _: self.kill(self.leader.pid)), 403)


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class WhileHardwareWorks(JobCase):
    """The peer is looked at again before the answer leaves. The helper is stopped meanwhile, so that there is time."""

    @staticmethod
    def configure(text):
        return text.replace("unseal: cache 5m", "unseal: each-use")

    def setUp(self):
        super().setUp()
        self.cg = self.cgroup()
        self.leader = self.process(uid=JOB, cgroup=self.cg)
        self.token, self.id = self.job(self.leader.pid)
        self.helper = self.b.children()[0]

    def ask_slowly(self, meanwhile, then="stay"):
        s, pid = passed_connection(self.b.socket, cgroup=self.cg, uid=JOB, then=then)
        self.ends.append(s.close)
        os.kill(self.helper, signal.SIGSTOP)
        try:
            s.sendall(f"GET /v1/secret/data/release/npm-token HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\n\r\n".encode())
            wait_for("the request to reach the hardware", lambda: self.b.status()["providers"][0]["queued"] > 0)
            meanwhile(pid)
        finally:
            os.kill(self.helper, signal.SIGCONT)
        return peers.answer(s)[0]

    def test_nothing_happens(self):
        self.assertEqual(self.ask_slowly(lambda pid: self.ends.append(lambda: (os.kill(pid, 9), os.waitpid(pid, 0)))), 200)

    def test_the_peer_goes(self):
        def gone(pid):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        self.assertEqual(self.ask_slowly(gone), 403)
        self.assertIn("the_caller_is_gone", self.last_audit())
        self.assertIn("result=denied", self.last_audit())

    def test_the_peer_moves(self):
        def move(pid):
            self.ends.append(lambda: (os.kill(pid, 9), os.waitpid(pid, 0)))
            self.cgroup().enter(pid)
        self.assertEqual(self.ask_slowly(move), 403)
        self.assertIn("moved_to_another_cgroup", self.last_audit())

    def test_the_job_ends(self):
        def end(pid):
            self.ends.append(lambda: (os.kill(pid, 9), os.waitpid(pid, 0)))
            self.b.cli("job", "end", self.id, check=True)
        self.assertEqual(self.ask_slowly(end), 403)
        self.assertIn("no_such_token", self.last_audit())


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Ends(JobCase):
    """A job is over, and every token of it."""

    def setUp(self):
        super().setUp()
        self.cg = self.cgroup()

    def works(self, token, cgroup=None):
        return self.get(token, uid=JOB, cgroup=cgroup or self.cg) == 200

    def test_leader_exits(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        self.process(uid=JOB, cgroup=self.cg)  # the cgroup does not empty
        token, job = self.job(leader.pid)
        more = self.b.token("--policy", "release", "--job", job)
        self.assertTrue(self.works(token) and self.works(more))
        leader.end()
        self.assertFalse(self.works(token) or self.works(more))
        wait_for("the job's end", lambda: job not in self.jobs())
        self.assertIn(f"ev=job.end job={job} ", self.b.audit(20))
        self.assertIn("its_leader_ended", self.b.audit(20))

    def test_cgroup_empties(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        elsewhere = self.cgroup()
        elsewhere.enter(leader.pid)  # alive, but not there any more
        wait_for("the job's end", lambda: job not in self.jobs())
        self.assertIn("its_cgroup_is_empty", self.b.audit(20))
        self.assertFalse(self.works(token))

    def test_it_is_ended(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        other, other_job = self.job(leader.pid, "--name", "second")
        self.b.cli("job", "end", job, check=True)
        self.assertFalse(self.works(token))
        self.assertTrue(self.works(other))
        # by its own token; not by another's
        self.assertEqual(leader.do(ask, self.b.socket, "POST", "cotter/jobs/end", other, {"job": "0" * 16})[0], 400)
        self.assertEqual(leader.do(ask, self.b.socket, "POST", "cotter/jobs/end", other, {})[0], 204)
        self.assertFalse(self.works(other))
        p = self.b.cli("job", "end", job)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"ended", p.stderr)

    def test_it_is_revoked(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        (token, job), (other, _) = self.job(leader.pid), self.job(leader.pid)
        self.assertEqual(self.b.cli("token", "revoke", "--job", job, check=True).stdout, b"1 revoked\n")
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual([self.works(token), self.works(other)], [False, True])

    def test_one_job_does_not_end_another(self):
        a, b = self.process(uid=JOB, cgroup=self.cg), self.process(uid=JOB, cgroup=self.cg)
        (token_a, job_a), (token_b, job_b) = self.job(a.pid), self.job(b.pid)
        self.assertEqual(a.do(ask, self.b.socket, "POST", "cotter/jobs/end", token_a, {"job": job_b})[0], 403)
        self.assertTrue(self.works(token_b))

    def test_deadline(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid, "--ttl", "2s")
        self.assertTrue(self.works(token))
        wait_for("the deadline", lambda: not self.works(token), 10)
        wait_for("the job's end", lambda: job not in self.jobs())

    def test_no_rows_are_left(self):
        before = self.b.status()["tokens"]
        leader = self.process(uid=JOB, cgroup=self.cg)
        _, job = self.job(leader.pid)
        for _ in range(5):
            self.b.token("--policy", "release", "--job", job)
        self.assertEqual(self.b.status()["tokens"], before + 6)
        leader.end()
        wait_for("the rows' end", lambda: self.b.status()["tokens"] == before)
        with sqlite3.connect(f"file:{self.b.state}/store.db?mode=ro", uri=True) as db:
            self.assertEqual(db.execute("SELECT count(*) FROM job WHERE id = ?", (bytes.fromhex(job),)).fetchone()[0], 0)
            self.assertEqual(db.execute("SELECT count(*) FROM token WHERE job = ?", (bytes.fromhex(job),)).fetchone()[0], 0)

    def test_restart_keeps_the_living(self):
        alive, dead = self.process(uid=JOB, cgroup=self.cg), self.process(uid=JOB, cgroup=self.cg)
        (good, good_job), (gone, gone_job) = self.job(alive.pid), self.job(dead.pid)
        moved_cg = self.cgroup()
        moved = self.process(uid=JOB, cgroup=moved_cg)
        empty, empty_job = self.job(moved.pid)
        self.b.stop(signal.SIGKILL)
        dead_pid = dead.pid
        dead.end()
        again = peers.process_with_pid(dead_pid)  # the pid is used again, in the same cgroup, by the same uid
        self.ends.append(lambda: (os.kill(again, 9), os.waitpid(again, 0)))
        self.cg.enter(again)
        self.cg.enter(moved.pid)
        self.b.start()
        self.assertTrue(self.works(good))
        self.assertFalse(self.works(gone))
        self.assertFalse(self.works(empty, moved_cg))
        self.assertIn(good_job, self.jobs())
        self.assertFalse({gone_job, empty_job} & self.jobs())
        alive.end()
        wait_for("the living job's end", lambda: good_job not in self.jobs())

    def test_a_leader_in_a_setuid_program_lives(self):
        program = os.path.join(self.dir, "setuid-sleep")
        shutil.copy("/bin/sleep", program)
        os.chmod(program, 0o4755)
        leader = self.process(uid=JOB, cgroup=self.cg)
        _, job = self.job(leader.pid)
        leader.start(os.execv, program, ["sleep", "600"])
        wait_for("the setuid program", lambda: os.stat(f"/proc/{leader.pid}").st_uid == 0 and "setuid-sleep" in os.readlink(f"/proc/{leader.pid}/exe"))
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertIn(job, self.jobs())

    def test_what_ended_stays_so(self):
        """The store cannot be written while jobs and tokens end: that is said, and made good as soon as it can."""
        leader = self.process(uid=JOB, cgroup=self.cg)
        (one, one_job), (two, two_job) = self.job(leader.pid), self.job(leader.pid)
        loose = self.b.token("--policy", "release")
        accessor = json.loads(self.b.cli("token", "show", "--json", stdin=loose, check=True).stdout)["accessor"]
        db = sqlite3.connect(f"{self.b.state}/store.db", isolation_level=None)
        self.ends.append(db.close)
        db.execute("BEGIN IMMEDIATE")  # another program writes, and does not stop
        for command in (["job", "end", one_job], ["token", "revoke", accessor]):
            p = self.b.cli(*command)
            self.assertNotEqual(p.returncode, 0)
        self.assertFalse(self.works(one))
        self.assertEqual(self.get(loose), 403)
        wait_for("the record", lambda: "ev=store.behind" in self.b.audit(20), 20)
        db.execute("ROLLBACK")
        wait_for("the removal", lambda: self.b.audit(20).count("ev=store.behind") == 2, 20)
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertEqual([self.works(one), self.works(two), self.get(loose)], [False, True, 403])
        self.assertIn(two_job, self.jobs())
        self.assertNotIn(one_job, self.jobs())

    def test_on_a_full_disk(self):
        """What gives nothing is done also when its record finds no room."""
        self.b.stop()
        self.b.start()
        with Session(self.b.socket) as s:  # RLIMIT_FSIZE is the full disk: the log is to reach it long before the store does
            token = self.b.token("--policy", "release")
            for _ in range(2000):
                s.request("GET", "secret/data/release/npm-token", token)
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        loose = self.b.token("--policy", "release")
        size = os.path.getsize(os.path.join(self.b.state, "audit.log"))
        run("prlimit", f"--pid={self.b.process.pid}", f"--fsize={size}:", check=True)
        try:
            self.assertEqual(self.get(loose), 503)
            self.assertEqual(leader.do(ask, self.b.socket, "POST", "cotter/jobs/end", token, {})[0], 204)
            self.assertEqual(ask(self.b.socket, "POST", "auth/token/revoke-self", loose)[0], 204)
        finally:
            run("prlimit", f"--pid={self.b.process.pid}", "--fsize=unlimited:", check=True)
        self.assertNotIn(job, self.jobs())
        self.assertEqual([self.works(token), self.get(loose)], [False, 403])

    def test_a_narrowed_token_ends_nothing(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        narrowed = self.b.cli("token", "narrow", "--op", "get", token=token, check=True).stdout.decode().strip()
        self.assertEqual(leader.do(ask, self.b.socket, "POST", "cotter/jobs/end", narrowed, {})[0], 403)
        self.assertIn(job, self.jobs())

    def test_hostile_cgroup_names(self):
        """A path that a terminal would obey is no path: the job goes by its leader."""
        cg = self.cgroup("cotter-test-\x1b[31m\x9b")
        leader = self.process(uid=JOB, cgroup=cg)
        _, job = self.job(leader.pid)
        out = self.b.cli("job", "list", check=True).stdout
        self.assertIn(job.encode(), out)
        self.assertNotIn(b"\x1b", out)

    def test_a_reboot_drops_all(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        self.b.stop()
        with sqlite3.connect(f"{self.b.state}/store.db") as db:  # as if all rows were of another boot
            db.execute("UPDATE token SET boot = 'another'")
            db.execute("UPDATE job SET boot = 'another'")
        db.close()
        self.b.start()
        self.assertFalse(self.works(token))
        self.assertNotIn(job, self.jobs())

    def test_a_jobs_row_of_another_hand_is_none(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        token, job = self.job(leader.pid)
        self.b.stop()
        with sqlite3.connect(f"{self.b.state}/store.db") as db:
            db.execute("UPDATE token SET uid = 4294967295, cgroup = 0, job = x'0000000000000000'")
        db.close()
        self.b.start()
        self.assertEqual(self.get(token, uid=OTHER), 403)

    def test_wrong_leaders(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        inode = peers.pidfd_inode(leader.pid)
        pid = leader.pid
        leader.end()

        def start(body):
            return self.b.curl("cotter/jobs", socket_path=self.b.operator_socket, body=json.dumps({"policies": ["release"], **body}).encode())
        status, reply = start({"leader": pid})
        self.assertEqual(status, 400)
        self.assertIn("no process", reply["errors"][0])
        again = peers.process_with_pid(pid)
        self.ends.append(lambda: (os.kill(again, 9), os.waitpid(again, 0)))
        status, reply = start({"leader": pid, "leader_id": inode})
        self.assertEqual(status, 400)
        self.assertIn("used again", reply["errors"][0])
        for body in ({}, {"leader": 0}, {"leader": -1}, {"leader": "1"}, {"leader": 2**40}, {"leader": again, "policies": []},
                     {"leader": again, "policies": ["nope"]}, {"leader": again, "ttl": "2x"}, {"leader": again, "name": "a b"},
                     {"leader": again, "cgroup": self.cg.name}, {"leader": again, "uid": -1}, {"leader": again, "num_uses": 0}):
            self.assertEqual(start(body)[0], 400, body)
        self.assertEqual(self.b.curl("cotter/jobs", body=b'{"leader": 1, "policies": ["release"]}', token=self.b.token("--policy", "admin"))[0], 403)

    def test_the_cli_says_what_is_wrong(self):
        for args, status, text in ((["start", "--policy", "release"], 2, b"--leader"), (["start", "--leader", "1"], 2, b"--policy"),
                                   (["start", "--leader", "x", "--policy", "release"], 2, b"number"), (["end"], 2, b"name the job"),
                                   (["frob"], 2, b"frob"), (["list", "x"], 2, b"too many")):
            p = self.b.cli("job", *args)
            self.assertEqual(p.returncode, status, args)
            self.assertIn(text, p.stderr)

    def test_two_hundred_jobs(self):
        leader = self.process(uid=JOB, cgroup=self.cg)
        with connect(self.b.operator_socket) as s:
            tokens = [request(s, "POST", "cotter/jobs", body={"leader": leader.pid, "policies": ["release"]})[1] for _ in range(200)]
        self.assertGreaterEqual(len(self.jobs()), 200)
        self.assertEqual(leader.do(ask, self.b.socket, "GET", "secret/data/release/npm-token", tokens[199]["auth"]["client_token"])[0], 200)
        leader.end()
        wait_for("all their ends", lambda: not self.jobs() & {t["data"]["job"] for t in tokens})


class Run(JobCase):
    """cotter run: a job that its siblings of the same uid cannot reach."""

    def start(self, *args, **kw):
        p = subprocess.Popen([COTTER, "run", *args], env=self.b.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **kw)
        self.ends.append(lambda: (p.kill(), p.wait(), p.stdout.close(), p.stderr.close()))
        return p

    def victim(self, *args):
        p = self.start(*args, "--", "sh", "-c", "echo ready; exec sleep 600")
        self.assertEqual(p.stdout.readline(), b"ready\n", p.stderr)
        return p

    def attack_from(self, pid, prefix):
        out = run(*prefix, "/usr/bin/python3", os.path.join(os.path.dirname(__file__), "peers.py"), str(pid), env=self.b.env)
        return json.loads(out.stdout)

    def test_the_attacks_work_without_it(self):
        """Else the next test could not fail."""
        p = subprocess.Popen(["sleep", "600"])
        self.ends.append(lambda: (p.kill(), p.wait()))
        self.assertEqual(self.attack_from(p.pid, []), list(peers.ATTACKS))

    def test_siblings_cannot_reach_each_other(self):
        # root may read an environment from any domain: not as root
        user = ("--user", "daemon") if ROOT else ()
        for kind in (user, (*user, "--policy", "release")):
            victim = self.victim(*kind)
            self.assertEqual(self.attack_from(victim.pid, [COTTER, "run", *kind, "--"]), [])
            # nor out of a user namespace of its own
            self.assertEqual(self.attack_from(victim.pid, [COTTER, "run", *kind, "--", "unshare", "-U", "-r"]), [])

    def test_it_is_the_command(self):
        env = dict(self.b.env)
        for command, status in ((["true"], 0), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -9 $$"], -9), (["nonsense-command"], 1)):
            self.assertEqual(subprocess.run([COTTER, "run", "--policy", "release", "--", *command], env=env, capture_output=True).returncode, status)
        out = run(COTTER, "run", "--policy", "release", "--env", "T=release/npm-token", "--", "sh", "-c", 'echo "$T ${COTTER_TOKEN-none}"', env=env)
        self.assertEqual(out.stdout, b"N none\n", out.stderr)
        self.assertEqual(self.jobs(), set())

    def test_the_token_is_given_when_asked_for(self):
        out = run(COTTER, "run", "--policy", "release", "--give-token", "--", COTTER, "get", "release/npm-token", env=self.b.env)
        self.assertEqual(out.stdout, b"N", out.stderr)
        # what it may not
        out = run(COTTER, "run", "--policy", "release", "--give-token", "--", COTTER, "get", "build/a/token", env=self.b.env)
        self.assertEqual(out.returncode, 3)

    def test_pipes_end_with_the_command(self):
        start = time.monotonic()
        out = run(COTTER, "run", "--policy", "release", "--", "echo", "done", env=self.b.env)
        self.assertEqual(out.stdout, b"done\n")
        self.assertLess(time.monotonic() - start, 20)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_a_token_taken_out_of_it_is_worth_nothing(self):
        p = self.start("--policy", "release", "--give-token", "--no-mask", "--", "sh", "-c", 'echo "$COTTER_TOKEN"; exec sleep 600')
        token = p.stdout.readline().decode().strip()
        self.assertTrue(token.startswith("cot1_"))
        self.assertEqual(self.b.cli("get", "release/npm-token", token=token).returncode, 3)
        self.assertIn("another_cgroup", self.last_audit())
        out = run(COTTER, "run", "--policy", "release", "--", "sh", "-c", f"COTTER_TOKEN={token} {COTTER} get release/npm-token", env=self.b.env)
        self.assertEqual(out.returncode, 3)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_nothing_outlives_the_leader(self):
        """kill -9 of the job's process: what it left running goes, its cgroup goes, its token is dead."""
        p = self.start("--policy", "release", "--give-token", "--no-mask", "--", "sh", "-c",
                       'setsid sleep 601 & echo $! "$COTTER_TOKEN" $(cat /proc/self/cgroup | sed -n s/^0:://p); exec sleep 600')
        daemon, token, path = p.stdout.readline().decode().split()
        self.assertTrue(os.path.isdir(peers.cgroup_root() + path))
        p.kill()
        p.wait()
        wait_for("the daemon's end", lambda: not os.path.exists(f"/proc/{daemon}"))
        wait_for("the cgroup's end", lambda: not os.path.exists(peers.cgroup_root() + path))
        self.assertEqual(self.jobs(), set())

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_what_waits_outside_has_no_token(self):
        """The process that ends the cgroup: others of its uid may read its environment."""
        token = self.b.token("--policy", "release")
        p = subprocess.Popen([COTTER, "run", "--", "sh", "-c", "echo ready; exec sleep 600"], env={**self.b.env, "COTTER_TOKEN": token}, stdout=subprocess.PIPE)
        self.ends.append(lambda: (p.kill(), p.wait(), p.stdout.close()))
        p.stdout.readline()
        seen = 0
        for pid in run("pgrep", "-x", "cotter-reaper").stdout.decode().split():
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    self.assertEqual(f.read().strip(b"\0"), b"")
                seen += 1
            except (ProcessLookupError, FileNotFoundError):
                pass  # of a job that just ended
        self.assertGreaterEqual(seen, 1)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_no_cgroup_below_it(self):
        out = run(COTTER, "run", "--policy", "release", "--", "sh", "-c", f"mkdir {peers.cgroup_root()}$(sed -n s/^0:://p /proc/self/cgroup)/below",
                  env=self.b.env)
        self.assertNotEqual(out.returncode, 0)
        self.assertIn(b"Resource temporarily unavailable", out.stderr)

    @unittest.skipUnless(ROOT, "needs root: becomes another user")
    def test_as_another_user(self):
        out = run(COTTER, "run", "--policy", "release", "--user", "daemon", "--give-token", "--env", "T=release/npm-token", "--", "sh", "-c",
                  f'id -u; id -G; echo $T; {COTTER} get release/npm-token', env=self.b.env)
        self.assertEqual(out.stdout.split(), [b"1", b"1", b"N", b"N"], out.stderr)
        self.assertEqual(run(COTTER, "run", "--policy", "release", "--user", "no-such-user", "--", "true", env=self.b.env).returncode, 2)

    def test_nothing_is_typed_into_the_terminal(self):
        """TIOCSTI would have the caller's shell run it after the job's end; the upper half of the request is ignored by the kernel."""
        code = "import ctypes, os, pty, sys; m, s = pty.openpty(); os.setsid(); import fcntl; fcntl.ioctl(s, 0x540e, 0); libc = ctypes.CDLL(None, use_errno=True); " \
               "c = ctypes.create_string_buffer(b'x'); " \
               "print([(libc.syscall(16, s, ctypes.c_ulong(r), c), ctypes.get_errno()) for r in (0x5412, 0x100005412)])"
        child = f"import os\nif os.fork() == 0:\n    exec({code!r})\nelse:\n    os.wait()"
        free = run("/usr/bin/python3", "-c", child, env=self.b.env)
        out = run(COTTER, "run", "--policy", "release", "--", "/usr/bin/python3", "-c", child, env=self.b.env)
        self.assertEqual(out.stdout.strip(), b"[(-1, 1), (-1, 1)]", (out.stderr, free.stdout))

    def test_usage(self):
        for args, text in ((["--policy", "release"], b"command"), (["--policy", "a", "--role", "b", "--", "true"], b"either"),
                           (["--jwt-file", "x", "--", "true"], b"--role"), (["--frob", "--", "true"], b"unknown")):
            p = run(COTTER, "run", *args, env=self.b.env)
            self.assertEqual(p.returncode, 2, args)
            self.assertIn(text, p.stderr)
        p = run(COTTER, "run", "--policy", "nope", "--", "true", env=self.b.env)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"policy of that name", p.stderr)


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Isolation(JobCase):
    @staticmethod
    def configure(text):
        return text.replace("require_cgroup: false", "require_cgroup: true\n  require_isolation: true")

    def test_only_isolated_jobs_in_cgroups(self):
        cg = self.cgroup()
        leader = self.process(uid=JOB, cgroup=cg)
        p = self.b.cli("job", "start", "--leader", str(leader.pid), "--policy", "release")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"cotter run", p.stderr)
        args = ["--policy", "release", "--env", "T=release/npm-token", "--", "sh", "-c", "echo $T"]
        out = run(COTTER, "run", "--user", "daemon", *args, env=self.b.env)
        self.assertEqual(out.stdout, b"N\n", out.stderr)
        out = run(COTTER, "run", *args, env=self.b.env)  # root cannot be isolated from root
        self.assertEqual(out.returncode, 1)
        self.assertIn(b"--user", out.stderr)

    def test_nobody_in_the_root_cgroup(self):
        token = self.b.token("--policy", "release")
        self.assertEqual(self.get(token), 403)
        self.assertIn("root_cgroup", self.last_audit())
        self.assertEqual(self.get(token, uid=JOB, cgroup=self.cgroup()), 200)


@unittest.skipUnless(ROOT, "needs root: other uids")
class Refusals(JobCase):
    """Nobody needs a token to be refused: that must not fill the disk."""

    @staticmethod
    def configure(text):
        return text.replace("require_cgroup: true", "require_cgroup: false")

    def size(self):
        return os.path.getsize(os.path.join(self.b.state, "audit.log"))

    def test_a_flood(self):
        before, denied = self.size(), self.b.status()["denied"]
        as_peer(flood, self.b.socket, 5000, uid=OTHER)
        self.assertGreaterEqual(self.b.status()["denied"], denied + 5000)

        def told():
            log = [line for line in self.b.audit(1000).splitlines() if f" uid={OTHER} " in line]
            folded = sum(int(line.rpartition("repeated=")[2].split()[0]) for line in log if "ev=refused" in line)
            return folded + sum("ev=refused" not in line for line in log)
        wait_for("the record of all others", lambda: told() >= 5000, 20)
        self.assertEqual(told(), 5000)
        self.assertLess(self.size() - before, 100_000)
        # others have records of their own, and their answers
        self.assertEqual(self.get("x", uid=JOB), 403)
        self.assertIn(f" uid={JOB} ", self.last_audit())
        self.assertEqual(self.get(self.b.token("--policy", "release"), uid=OTHER), 200)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_one_user_does_not_hide_another(self):
        """However many cgroups it has."""
        for _ in range(40):
            cg = self.cgroup()
            as_peer(flood, self.b.socket, 105, uid=OTHER + 2, cgroup=cg)
        for _ in range(5):
            self.assertEqual(self.get("x", uid=OTHER + 3), 403)
        self.assertEqual(sum(f" uid={OTHER + 3} " in line for line in self.b.audit(1000).splitlines()), 5)

    def test_an_operator_no_more_is_nobody(self):
        self.b.reload(lambda text: text.replace("operators:", f"operators: [0, {OTHER + 4}]", 1) if "operators: [" in text
                      else text.replace("operators:\n", f"operators:\n  - {OTHER + 4}\n", 1))
        p = self.process(uid=OTHER + 4)
        before = self.size()
        self.assertEqual(p.do(ask, self.b.operator_socket, "GET", "cotter/status")[0], 200)
        connection = Process(uid=OTHER + 4)
        self.ends.append(connection.end)
        connection.start(flood_later, self.b.operator_socket, 2000)
        time.sleep(0.3)
        self.b.edit(lambda text: text.replace(f", {OTHER + 4}]", "]").replace(f"  - {OTHER + 4}\n", ""))
        self.b.process.send_signal(signal.SIGHUP)
        self.assertLess(connection.result(), 200)
        self.assertLess(self.size() - before, 100_000)

    def test_wrong_wrapping_tokens_do_not_fill_the_log(self):
        before = os.path.getsize(self.b.log)
        wrapping = self.b.token("--policy", "release", "--wrap", "60s")
        self.assertEqual(ask(self.b.socket, "POST", "sys/wrapping/unwrap", wrapping, {})[0], 200)
        as_peer(flood_unwraps, self.b.socket, wrapping, 2000, uid=OTHER + 5)
        self.assertLess(os.path.getsize(self.b.log) - before, 50_000)

    def test_what_was_counted_is_recorded_at_the_end(self):
        as_peer(flood, self.b.socket, 300, uid=OTHER + 1)
        self.b.stop()
        self.b.start()
        log = [line for line in self.b.audit(1000).splitlines() if f" uid={OTHER + 1} " in line]
        folded = sum(int(line.rpartition("repeated=")[2].split()[0]) for line in log if "ev=refused" in line)
        self.assertEqual(folded + sum("ev=refused" not in line for line in log), 300)


def flood_later(path, n):
    """How many answers came over one connection, once who made it is no operator any more."""
    with connect(path) as s:
        request(s, "GET", "cotter/status")
        time.sleep(1)
        for i in range(n):
            try:
                if request(s, "GET", "cotter/status")[0] != 403:
                    return n
            except OSError:
                return i
        return n


def flood_unwraps(path, token, n):
    with Session(path) as s:
        for _ in range(n):
            s.request("POST", "sys/wrapping/unwrap", token, {})


def flood(path, n):
    with Session(path) as s:
        return {s.request("GET", "secret/data/a/b", "cot1_x")[0] for _ in range(n)}


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Caveats(JobCase):
    """Those that speak of the job: each holds, and each refuses."""

    def test_job_and_cgroup(self):
        cg, other = self.cgroup(), self.cgroup()
        leader = self.process(uid=JOB, cgroup=cg)
        token, job = self.job(leader.pid)
        free = self.b.token("--policy", "release")
        for base, caveat, cgroup, status in (
                (token, f"job = {job}", cg, 200), (token, "job = " + "0" * 16, cg, 403), (free, f"job = {job}", cg, 403),
                (free, f"cgroup = {cg.id}", cg, 200), (free, f"cgroup = {cg.id}", other, 403), (free, f"cgroup = {other.id}", cg, 403)):
            narrowed = self.b.cli("token", "narrow", "--caveat", caveat, token=base, check=True).stdout.decode().strip()
            self.assertEqual(self.get(narrowed, uid=JOB, cgroup=cgroup), status, caveat)
        for bad in ("job = x", "job = " + "A" * 16, "cgroup = 1", "cgroup = 0", "cgroup = 01", "cgroup = -5", "cgroup = 99999999999999999999"):
            self.assertEqual(self.b.cli("token", "narrow", "--caveat", bad, token=free).returncode, 2, bad)

    def test_contradictions_deny(self):
        token = self.b.token("--policy", "release")
        both = self.b.cli("token", "narrow", "--caveat", f"uid = {JOB}", "--caveat", f"uid = {OTHER}", token=token, check=True).stdout.decode().strip()
        for uid in (JOB, OTHER):
            self.assertEqual(self.get(both, uid=uid), 403)


@unittest.skipUnless(ROOT, "needs root: namespaces and seccomp around the broker")
class Elsewhere(JobCase):
    """A broker that cannot see its peers, and a kernel that tells too little."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.stop()

    def setUp(self):
        super().setUp()
        self.token = None

    def tearDown(self):
        for end in reversed(self.ends):
            end()

    def start(self, *prefix):
        self.b.start(wait=False, prefix=prefix)
        # unshare passes no SIGTERM on
        self.ends.append(lambda: self.b.stop(signal.SIGKILL))

        def up():
            if self.b.process.poll() is not None:
                return True
            try:
                return ask(self.b.socket, "GET", "sys/health")[0] == 200
            except OSError:
                return False
        wait_for("the broker", up)

    def refused(self, why):
        status, _ = ask(self.b.socket, "GET", "secret/data/release/npm-token", "cot1_x")
        self.assertEqual(status, 403)
        with open(f"{self.b.state}/audit.log", "rb") as f:
            text = f.read().rstrip(b"\0").decode()
        self.assertIn(why, text.splitlines()[-1])
        # the operators' socket closes: who cannot be told is no operator
        with connect(self.b.operator_socket) as s:
            try:
                s.sendall(b"GET /v1/cotter/status HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(s.recv(100), b"")
            except (ConnectionResetError, BrokenPipeError):
                pass

    def test_in_a_pid_namespace(self):
        self.start("unshare", "-p", "-f", "--kill-child")
        self.refused("pid_namespace")

    def test_in_a_user_namespace(self):
        def other_uid():
            return ask(self.b.socket, "GET", "secret/data/release/npm-token", "cot1_x")[0]
        self.start("unshare", "-U", "-r")
        # root is mapped, everybody else is not
        self.assertEqual(as_peer(other_uid, uid=JOB), 403)
        with open(f"{self.b.state}/audit.log", "rb") as f:
            self.assertIn("user_namespace", f.read().rstrip(b"\0").decode().splitlines()[-1])

    def old_kernel(self, require):
        self.b.edit(lambda text: text.replace("require_cgroup: " + ("false" if require else "true"), "require_cgroup: " + ("true" if require else "false")))
        code = "import errno, os, sys, seccomp; f = seccomp.SyscallFilter(seccomp.ALLOW); " \
               "f.add_rule(seccomp.ERRNO(errno.ENOPROTOOPT), 'getsockopt', seccomp.Arg(2, seccomp.EQ, 77)); f.load(); os.execv(sys.argv[1], sys.argv[1:])"
        self.start("/usr/bin/python3", "-c", code)

    def test_an_old_kernel_is_refused(self):
        self.old_kernel(True)
        self.assertNotEqual(self.b.process.wait(10), 0)
        with open(self.b.log) as f:
            self.assertIn("SO_PEERPIDFD", f.read())

    def test_an_old_kernel_is_said_where_it_is_allowed(self):
        self.old_kernel(False)
        wait_for("unsealed", lambda: self.b.status().get("sealed") is False)
        with open(self.b.log) as f:
            self.assertIn("tokens cannot be bound to a job's cgroup", f.read())
        self.assertEqual(ask(self.b.socket, "GET", "secret/data/release/npm-token", self.b.token("--policy", "release"))[0], 200)


if __name__ == "__main__":
    unittest.main()
