"""What people and their monitoring see: what a job holds, cotter top, cotter status, sys/metrics."""
import base64
import fcntl
import json
import os
import re
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import termios
import time
import unittest

from prometheus_client.parser import text_string_to_metric_families

from harness import COTTER, free_port_pair, run, wait_for
from peers import Session, as_peer, ask
from test_jobs import JOB, NO_CGROUP, JobCase


class TopCase(JobCase):
    def started(self, *args):
        """(token, id, cgroup, process) of a job."""
        cg = self.cgroup()
        leader = self.process(uid=JOB, cgroup=cg)
        return *self.job(leader.pid, *args), cg, leader

    def shown(self, job):
        status, reply = self.b.curl(f"cotter/jobs/{job}", socket_path=self.b.operator_socket)
        return reply["data"] if status == 200 else status

    def received(self, job):
        return [(x["path"], x["version"]) for x in self.shown(job)["received"]]

    def listed(self, job):
        reply = self.b.curl("cotter/jobs", socket_path=self.b.operator_socket)[1]["data"]["jobs"]
        return next(j for j in reply if j["job"] == job)

    def rows(self, job):
        with sqlite3.connect(f"file:{self.b.state}/store.db?mode=ro", uri=True) as db:
            return sorted(db.execute("SELECT path, version FROM received WHERE job = ?", (bytes.fromhex(job),)))


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Received(TopCase):
    @staticmethod
    def configure(text):
        return text + "  many:\n    - path: many/*\n      allow: [get]\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.put("release/other", "1")
        cls.b.put("release/other", "2")

    def test_nothing_at_first(self):
        _, job, _, _ = self.started()
        self.assertEqual(self.received(job), [])
        self.assertEqual(self.listed(job)["n_received"], 0)

    def test_what_was_given_and_nothing_else(self):
        token, job, cg, _ = self.started()
        get = lambda path, method="GET": as_peer(ask, self.b.socket, method, path, token, uid=JOB, cgroup=cg)[0]
        self.assertEqual(get("secret/data/release/npm-token"), 200)
        self.assertEqual(get("secret/data/build/a/token"), 403)       # denied
        self.assertEqual(get("secret/data/release/none"), 404)        # not there
        self.assertEqual(get("secret/metadata/release", "LIST"), 200)  # names, not values
        self.assertEqual(get("secret/subkeys/release/other"), 200)
        self.assertEqual(self.received(job), [("release/npm-token", 1)])
        self.assertEqual(get("secret/data/release/other?version=1"), 200)
        self.assertEqual(get("secret/data/release/other"), 200)
        self.assertEqual(self.received(job), [("release/other", 2), ("release/other", 1), ("release/npm-token", 1)])
        self.assertEqual(get("secret/data/release/npm-token"), 200)   # again: it is the latest, and there once
        self.assertEqual(self.received(job)[0], ("release/npm-token", 1))
        listed = self.listed(job)
        self.assertEqual((len(listed["received"]), listed["n_received"], listed["received_more"]), (3, 3, 0))

    def test_each_job_its_own(self):
        first, second = self.started(), self.started()
        as_peer(ask, self.b.socket, "GET", "secret/data/release/other", first[0], uid=JOB, cgroup=first[2])
        self.assertEqual(self.received(first[1]), [("release/other", 2)])
        self.assertEqual(self.received(second[1]), [])

    def test_a_deleted_version_gives_nothing(self):
        self.b.put("release/gone", "x")
        self.b.cli("rm", "release/gone", check=True)
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/gone", token, uid=JOB, cgroup=cg)[0], 404)
        self.assertEqual(self.received(job), [])

    def test_more_than_there_is_room_for(self):
        """64 by name, what is beyond is counted; a restart remembers both, and the store's rows go with the job."""
        token, job, cg, leader = self.started("--policy", "many")
        for i in range(66):
            self.b.put(f"many/s{i}", "x")
        for _ in range(2):
            for i in range(66):
                self.assertEqual(as_peer(ask, self.b.socket, "GET", f"secret/data/many/s{i}", token, uid=JOB, cgroup=cg)[0], 200)
        shown = self.shown(job)
        self.assertEqual((shown["n_received"], shown["received_more"]), (64, 4))
        self.assertEqual(self.received(job)[0], ("many/s63", 1))
        wait_for("the rows", lambda: len(self.rows(job)) == 65)
        self.b.stop(signal.SIGKILL)
        self.b.start()
        shown = self.shown(job)
        self.assertEqual((shown["n_received"], shown["received_more"]), (64, 1))
        self.assertEqual(set(self.received(job)), {(f"many/s{i}", 1) for i in range(64)})
        leader.end()
        wait_for("the job's end", lambda: self.shown(job) == 404)
        self.assertEqual(self.rows(job), [])

    def test_a_row_of_another_hand_counts_for_nothing(self):
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/npm-token", token, uid=JOB, cgroup=cg)[0], 200)
        wait_for("the row", lambda: len(self.rows(job)) == 1)
        self.b.stop()
        with sqlite3.connect(f"{self.b.state}/store.db") as db:
            db.execute("INSERT INTO received SELECT job, 'release/forged', version, mac FROM received WHERE job = ?", (bytes.fromhex(job),))
        self.b.start()
        self.assertEqual(self.received(job), [("release/npm-token", 1)])

    def test_an_orderly_stop_writes_the_last(self):
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/other", token, uid=JOB, cgroup=cg)[0], 200)
        self.b.stop()
        self.assertEqual(self.rows(job), [("release/other", 2)])
        self.b.start()

    def test_not_for_jobs(self):
        token, job, cg, _ = self.started()
        for path in ("cotter/jobs", f"cotter/jobs/{job}"):
            self.assertEqual(as_peer(ask, self.b.socket, "GET", path, token, uid=JOB, cgroup=cg)[0], 403)
        self.assertEqual(self.shown("0" * 16), 404)

    def test_its_own_with_a_record_each(self):
        token, job, cg, _ = self.started()
        self_ = lambda: as_peer(ask, self.b.socket, "GET", "cotter/jobs/self", token, uid=JOB, cgroup=cg)
        before = self.b.audit().count("job.show")
        self.assertEqual(self_()[1]["data"]["job"], job)
        self.assertEqual(self.shown(job)["job"], job)
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "cotter/jobs/self", token, uid=JOB)[0], 403)  # outside the job's cgroup
        records = [line for line in self.b.audit().splitlines() if "job.show" in line]
        self.assertEqual(len(records) - before, 3)
        self.assertEqual(sum(job in line and "granted" in line for line in records), 2)


class Metrics(TopCase):
    """The numbers, against traffic that is known."""

    @classmethod
    def configure(cls, text):
        cls.port = free_port_pair()
        return text.replace("socket:", f"http:\n  listen: 127.0.0.1:{cls.port}\nsocket:", 1) + (
            "  monitor:\n    - path: sys/metrics\n      capabilities: [read]\n"
            "  near:\n    - path: '*'\n      allow: [get]\n    - path: +/metrics\n      allow: [get]\n    - path: sys/metrics/x\n      allow: [get]\n"
            "  writes:\n    - path: sys/*\n      allow: [put]\n")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.both = cls.broker("both", hsm=cls.softhsm("h2"), tpm=cls.swtpm())

    def text(self, b=None):
        b = b or self.b
        p = run("curl", "-sS", "-f", "-D", "-", "--unix-socket", b.operator_socket, "http://localhost/v1/sys/metrics?format=prometheus", check=True)
        head, _, body = p.stdout.decode().partition("\r\n\r\n")
        self.assertIn("Content-Type: text/plain; version=0.0.4\r\n", head)
        return body

    def scrape(self, b=None):
        """{(name, labels): value}"""
        out = {}
        for family in text_string_to_metric_families(self.text(b)):
            for s in family.samples:
                key = (s.name, tuple(sorted(s.labels.items())))
                self.assertNotIn(key, out)
                out[key] = s.value
        return out

    @staticmethod
    def value(numbers, name, **labels):
        return numbers[(name, tuple(sorted(labels.items())))]

    def requests(self, before, after):
        """{(event, outcome): how many more}"""
        return {(dict(k[1])["event"], dict(k[1])["outcome"]): v - before[k] for k, v in after.items()
                if k[0] == "cotter_requests_total" and v != before[k]}

    def more(self, before, after, name, **labels):
        return self.value(after, name, **labels) - self.value(before, name, **labels)

    def test_names(self):
        """By Prometheus' conventions, and of a number that no client can change."""
        first = self.text()
        for family in text_string_to_metric_families(first):
            self.assertTrue(family.name.startswith("cotter_"), family.name)
            self.assertTrue(family.documentation, family.name)
            self.assertIn(family.type, ("counter", "gauge", "histogram"))
            self.assertEqual(f"{family.name}_total " in first or f"{family.name}_total{{" in first, family.type == "counter", family.name)
            self.assertNotRegex(family.name, "_(ms|us|ns|kb|count|sum|bucket)$")
        self.b.curl("secret/data/" + "a/" * 20 + "x")
        self.b.curl("nothing/of/that/kind")
        self.b.raw(b"FOO BAR\r\n\r\n")
        names = lambda text: re.findall(r"^(\S+) \S+$", text, re.M)
        self.assertEqual(names(self.text()), names(first))

    def test_known_traffic(self):
        self.b.put("release/counted", "x")
        token = self.b.token("--policy", "release")
        before = self.scrape()
        for _ in range(3):
            self.assertEqual(self.b.curl("secret/data/release/counted", token=token)[0], 200)
        for _ in range(2):
            self.assertEqual(self.b.curl("secret/data/build/a/token", token=token)[0], 403)
        self.assertEqual(self.b.curl("secret/data/release/none", token=token)[0], 404)
        self.assertEqual(self.b.curl("sys/health")[0], 200)
        self.assertEqual(self.b.curl("sys/nothing")[0], 404)
        self.assertEqual(self.b.curl("sys/health", "-X", "DELETE")[0], 405)
        self.assertIn(b" 400 ", self.b.raw(b"FOO\r\n\r\n"))
        after = self.scrape()
        self.assertEqual(self.requests(before, after), {
            ("get", "ok"): 3, ("get", "denied"): 2, ("get", "invalid"): 1, ("health", "ok"): 1, ("none", "invalid"): 2, ("metrics", "ok"): 1})
        self.assertEqual(self.more(before, after, "cotter_cache_misses_total"), 1)
        self.assertEqual(self.more(before, after, "cotter_cache_hits_total"), 2)
        self.assertEqual(self.more(before, after, "cotter_malformed_requests_total"), 1)
        self.assertEqual(self.more(before, after, "cotter_hardware_operations_total", provider="hsm", operation="agree"), 1)
        self.assertEqual(self.more(before, after, "cotter_hardware_operation_duration_seconds_count", provider="hsm"), 1)
        self.assertEqual(self.more(before, after, "cotter_hardware_failures_total", provider="hsm", operation="agree"), 0)
        self.assertGreater(self.more(before, after, "cotter_hardware_operation_duration_seconds_sum", provider="hsm"), 0)
        self.assertEqual(self.more(before, after, "cotter_request_duration_seconds_count"), 8)
        self.assertEqual(self.more(before, after, "cotter_request_duration_seconds_bucket", le="+Inf"), 8)
        # a record each of the gets, none of the scrapes, nor of what is open to all or not there at all
        self.assertEqual(self.more(before, after, "cotter_audit_records_total"), 6)
        self.assertEqual(self.more(before, after, "cotter_tokens"), 0)

    def test_what_there_is(self):
        before = self.scrape()
        self.b.put("release/one-more", "x")
        token = self.b.token("--policy", "release")
        after = self.scrape()
        self.assertEqual(self.more(before, after, "cotter_secrets"), 1)
        self.assertEqual(self.more(before, after, "cotter_tokens"), 1)
        self.assertEqual(self.value(after, "cotter_unsealed"), 1)
        self.assertEqual(self.value(after, "cotter_arena_size_bytes"), 4 << 20)
        self.assertEqual(self.value(after, "cotter_store_bytes") % 4096, 0)
        self.assertEqual(self.value(after, "cotter_build_info", version=self.b.status()["version"]), 1)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.b.socket)
            wait_for("the connection", lambda: self.value(self.scrape(), "cotter_connections") == 2)
        self.assertEqual(self.b.curl("auth/token/revoke-self", "-X", "POST", token=token)[0], 204)
        self.assertEqual(self.more(after, self.scrape(), "cotter_tokens"), -1)

    @unittest.skipIf(NO_CGROUP, NO_CGROUP)
    def test_jobs(self):
        before = self.scrape()
        _, _, _, leader = self.started()
        during = self.scrape()
        leader.end()
        wait_for("the job's end", lambda: self.value(self.scrape(), "cotter_jobs") == self.value(before, "cotter_jobs"))
        after = self.scrape()
        self.assertEqual([self.more(before, x, f"cotter_jobs{n}") for x in (during, after) for n in ("", "_started_total", "_ended_total")],
                         [1, 1, 0, 0, 1, 1])

    def test_signatures(self):
        self.b.cli("key", "add", "release/metrics", "--type", "ecdsa-p256", check=True)
        item = base64.b64encode(b"x").decode()
        before = self.scrape()
        status, reply = self.b.curl("transit/sign/release/metrics", socket_path=self.b.operator_socket,
                                    body='{"batch_input":[{"input":"%s"},{"input":"%s"}]}' % (item, item))
        self.assertEqual(status, 200, reply)
        after = self.scrape()
        self.assertEqual(self.more(before, after, "cotter_signatures_total"), 2)
        self.assertEqual(self.more(before, after, "cotter_hardware_operations_total", provider="hsm", operation="sign"), 2)
        self.assertEqual(self.requests(before, after), {("sign", "ok"): 1, ("metrics", "ok"): 1})

    # ---- who may

    def test_a_monitor_is_no_operator(self):
        token = self.b.token("--policy", "monitor")
        status, _ = self.b.curl("cotter/status", token=token)
        self.assertEqual(status, 403)
        records = len(self.b.audit().splitlines())
        p = run("curl", "-sS", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {token}", "-H", "Accept: application/json",
                f"http://127.0.0.1:{self.port}/v1/sys/metrics?format=prometheus")
        body, _, status = p.stdout.decode().rpartition("\n")
        self.assertEqual(status, "200")
        self.assertEqual(len(list(text_string_to_metric_families(body))), len(list(text_string_to_metric_families(self.text()))))
        self.assertEqual(len(self.b.audit().splitlines()), records)
        status, reply = self.b.curl("sys/capabilities-self", token=token, body='{"path":"sys/metrics"}')
        self.assertEqual((status, reply["data"]["sys/metrics"]), (200, ["read"]))
        wrapped, reply = self.b.curl("sys/metrics", "-H", "X-Vault-Wrap-TTL: 60", token=token)
        self.assertEqual(wrapped, 400)

    def test_nobody_else(self):
        """Neither a rule for secrets nor another operation reaches it, and each refusal is in the log."""
        for policy in ("release", "near", "writes"):
            token = self.b.token("--policy", policy)
            self.assertEqual(self.b.curl("sys/metrics", token=token)[0], 403, policy)
            self.assertIn(" ev=metrics ", self.last_audit())
            self.assertIn("result=denied", self.last_audit())
        self.assertEqual(self.b.curl("sys/metrics")[0], 403)
        self.assertEqual(self.b.curl("sys/metrics", "-X", "POST", token=self.b.token("--policy", "monitor"))[0], 405)

    def test_a_use_is_a_use(self):
        token = self.b.token("--policy", "monitor", "--uses", "2")
        ask_it = lambda: run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Vault-Token: {token}", "--unix-socket", self.b.socket,
                             "http://localhost/v1/sys/metrics").stdout
        self.assertEqual([ask_it() for _ in range(3)], [b"200", b"200", b"403"])

    # ---- when something is wrong

    def test_a_log_that_is_full_is_seen(self):
        token = self.b.token("--policy", "release")
        run("prlimit", f"--pid={self.b.process.pid}", f"--fsize={os.path.getsize(self.b.state + '/audit.log')}:", check=True)
        try:
            for _ in range(400):
                if self.b.curl("secret/data/release/npm-token", token=token)[0] != 200:
                    break
            numbers = self.scrape()
        finally:
            run("prlimit", f"--pid={self.b.process.pid}", "--fsize=unlimited:", check=True)
        self.assertGreaterEqual(self.value(numbers, "cotter_audit_failures_total"), 1)
        self.assertGreaterEqual(self.value(numbers, "cotter_requests_total", event="get", outcome="failed"), 1)
        self.b.stop()
        self.b.start()

    def test_two_providers(self):
        """Hardware that dies, that hangs, and a client that leaves meanwhile."""
        b = self.both
        b.put("release/x", "x")
        before = self.scrape(b)
        for provider in ("hsm", "tpm"):
            self.assertEqual(self.value(before, "cotter_hardware_state", provider=provider, state="ready"), 1)
            self.assertEqual(self.value(before, "cotter_hardware_state", provider=provider, state="absent"), 0)
            self.assertEqual(self.value(before, "cotter_hardware_helper_restarts_total", provider=provider), 0)
        helpers = b.children()
        self.assertEqual(len(helpers), 2)
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(b.operator_socket)
            s.sendall(b"GET /v1/secret/data/release/x HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for("the queue", lambda: sum(self.value(self.scrape(b), "cotter_hardware_queue", provider=p) for p in ("hsm", "tpm")) == 1)
        wait_for("the client's leaving", lambda: self.value(self.scrape(b), "cotter_requests_total", event="get", outcome="left") == 1)
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
        wait_for("new helpers", lambda: len(b.children()) == 2 and all(
            self.value(self.scrape(b), "cotter_hardware_state", provider=p, state="ready") == 1 and
            self.value(self.scrape(b), "cotter_hardware_helper_restarts_total", provider=p) == 1 for p in ("hsm", "tpm")))


class Terminal:
    """A program on a terminal of its own."""

    ENTER, LEAVE = b"\033[?1049h", b"\033[?1049l"

    def __init__(self, *args, env, rows=24, cols=80):
        self.fd, self.theirs = os.openpty()  # both stay open here: its modes are gone with the last who has it
        self.size(rows, cols)
        self.modes = termios.tcgetattr(self.fd)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.fd)
            os.login_tty(self.theirs)
            os.execve(args[0], args, env)
        self.out = b""
        self.status = None

    def size(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def read(self, seconds=0.05):
        try:
            while select.select([self.fd], [], [], seconds)[0]:
                self.out += os.read(self.fd, 65536)
        except OSError:
            pass  # it ended
        return self.out

    def frames(self):
        """Whole ones, each a list of lines."""
        return [[re.sub(r"\033\[K", "", line) for line in f[:f.index("\033[J")].split("\r\n")] for f in self.read().decode(errors="replace").split("\033[H")[1:] if "\033[J" in f]

    def wait_frame(self, what, condition, seconds=20):
        """The first frame from now on of which that is true."""
        n, found = len(self.frames()), []
        wait_for(what, lambda: found.extend(f for f in self.frames()[n:] if condition(f)) or found, seconds)
        return found[0]

    def send(self, keys):
        os.write(self.fd, keys)

    def end(self, seconds=10):
        """(status, whether the terminal is as it was)"""
        def ended():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return pid
        wait_for("its end", ended, seconds)
        return self.status, termios.tcgetattr(self.fd) == self.modes and self.read().rfind(self.LEAVE) > self.read().rfind(self.ENTER)

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        os.close(self.theirs)


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Top(TopCase):
    @staticmethod
    def configure(text):
        return text + "  signs:\n    - path: release/*\n      allow: [get, sign]\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.cli("key", "add", "release/codesign", "--type", "ecdsa-p256", check=True)

    def top(self, *args, **kw):
        t = Terminal(COTTER, "top", *args, env=self.b.env, **kw)
        self.ends.append(t.close)
        return t

    def shows_a_job(self, *args, **kw):
        token, job, cg, leader = self.started("--name", "build-4711")
        t = self.top("--interval", "1", *args, **kw)
        t.wait_frame("the job", lambda f: any(job in line for line in f))
        return t, job

    # ---- on a terminal

    def test_shows_and_ends(self):
        for how in (b"q", b"\x03", signal.SIGTERM, signal.SIGHUP):
            t, job = self.shows_a_job()
            self.assertIn(Terminal.ENTER, t.out)
            self.assertNotEqual(termios.tcgetattr(t.fd)[3] & (termios.ICANON | termios.ECHO), t.modes[3] & (termios.ICANON | termios.ECHO))
            self.assertNotIn(Terminal.LEAVE, t.out)
            if isinstance(how, bytes):
                t.send(how)
            else:
                os.kill(t.pid, how)
            self.assertEqual(t.end(), (0, True), how)

    def test_goes_on_by_itself(self):
        """The next look sees what came since, and keys other than q are no end."""
        t, _ = self.shows_a_job()
        _, second, _, leader = self.started()
        t.wait_frame("the second job", lambda f: any(second in line for line in f))
        t.send(b"x")
        leader.end()
        t.wait_frame("its end", lambda f: not any(second in line for line in f))
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))

    def test_another_size(self):
        jobs = [self.started()[1] for _ in range(6)]
        t, _ = self.shows_a_job(rows=30)
        t.wait_frame("all", lambda f: all(any(j in line for line in f) for j in jobs))
        t.size(9, 40)
        small = t.wait_frame("fewer lines", lambda f: len(f) <= 9)
        self.assertRegex("\n".join(small), r"\(\d+ more\)")
        self.assertIn(jobs[0], "\n".join(small))  # the longest first
        t.size(3, 10)
        t.wait_frame("hardly any", lambda f: len(f) <= 3)
        t.size(30, 80)
        t.wait_frame("all again", lambda f: all(any(j in line for line in f) for j in jobs))
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))

    def test_stopped_and_back(self):
        t, job = self.shows_a_job()
        t.send(b"\x1a")
        wait_for("the stop", lambda: os.waitid(os.P_PID, t.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT))
        t.read()
        self.assertEqual(termios.tcgetattr(t.fd), t.modes)
        self.assertGreater(t.out.rfind(Terminal.LEAVE), t.out.rfind(Terminal.ENTER))
        os.kill(t.pid, signal.SIGCONT)
        t.wait_frame("it again", lambda f: any(job in line for line in f))
        self.assertGreater(t.out.rfind(Terminal.ENTER), t.out.rfind(Terminal.LEAVE))
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))

    def test_the_broker_dies(self):
        t, job = self.shows_a_job()
        self.b.stop(signal.SIGKILL)
        frame = t.wait_frame("that it is gone", lambda f: "no broker" in f[0])
        self.assertIn(job, "\n".join(frame))  # what was known last
        self.b.start()
        frame = t.wait_frame("it again", lambda f: "no broker" not in "\n".join(f) and any(job in line for line in f))
        t.wait_frame("rates", lambda f: re.match(r"requests +\d", f[1]))
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))

    def test_the_broker_hangs(self):
        """Whoever wants to leave waits for nobody; and whoever stays hears of it."""
        t, _ = self.shows_a_job()
        os.kill(self.b.process.pid, signal.SIGSTOP)
        try:
            t.wait_frame("that it hangs", lambda f: "does not answer" in f[0])
            time.sleep(1.5)
            started = time.monotonic()
            t.send(b"q")
            self.assertEqual(t.end(), (0, True))
            self.assertLess(time.monotonic() - started, 3)
        finally:
            os.kill(self.b.process.pid, signal.SIGCONT)

    def test_names_are_no_commands(self):
        """U+009B begins a command of a terminal, and a cgroup's name may have it."""
        cg = self.cgroup("cotter-test-\u009b31mred-" + os.urandom(4).hex())
        leader = self.process(uid=JOB, cgroup=cg)
        _, job = self.job(leader.pid)
        t = self.top("--interval", "1")
        frame = t.wait_frame("the job", lambda f: any(job in line for line in f))
        self.assertRegex("\n".join(frame), r"cotter-test-\S*\?31mred-")
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))
        self.assertNotIn("\u009b".encode(), t.out)
        for args in (("top", "--interval", "1"), ("job", "list")):
            out = self.b.cli(*args, check=True).stdout
            self.assertIn(job.encode(), out)
            self.assertNotIn("\u009b".encode(), out)

    # ---- once

    def test_a_table(self):
        token, job, cg, _ = self.started("--policy", "signs", "--name", "one")
        later = self.started()[1]
        for name in ("npm-token", "npm-token"):
            self.assertEqual(as_peer(ask, self.b.socket, "GET", f"secret/data/release/{name}", token, uid=JOB, cgroup=cg)[0], 200)
        for args in (("--interval", "1"), ("--once", "--interval", "1")):
            out = self.b.cli("top", *args, check=True).stdout.decode()
            self.assertNotIn("\033", out)
            self.assertRegex(out, rf"(?m)^{job} +{JOB} +\d+ +\S+ +\S+ +1 +0  one  {cg.name.strip('/')}\n  1 secret: release/npm-token@1; may use release/codesign$")
            self.assertLess(out.index(job), out.index(later))
            self.assertRegex(out, r"(?m)^hsm +ready +0 waiting   \S+ op/s")

    def test_rates(self):
        """What others ask in between, and not what it asks itself."""
        self.b.put("release/rated", "x")
        token = self.b.token("--policy", "release")
        p = subprocess.Popen([COTTER, "top", "--json", "--interval", "6"], stdout=subprocess.PIPE, env=self.b.env)
        time.sleep(2)
        with Session(self.b.socket) as s:
            for i in range(40):
                self.assertEqual(s.request("GET", "secret/data/release/rated", token)[0], 200)
            for i in range(10):
                self.assertEqual(s.request("GET", "secret/data/build/a/token", token)[0], 403)
        out = json.loads(p.communicate(timeout=30)[0])
        rates = out["rates"]
        self.assertEqual([round(rates[k] * rates["seconds"]) for k in ("requests", "denied", "failed")], [50, 10, 0])
        self.assertAlmostEqual(rates["hits"], 39 / 40)
        self.assertEqual(round(rates["providers"][0]["operations"] * rates["seconds"]), 1)
        self.assertGreater(rates["providers"][0]["mean_ms"], 0)
        self.assertEqual(out["n_jobs"], len(out["jobs"]))

    def test_sealed(self):
        b = self.broker("sealed", hsm=self.softhsm("nopin"), pin_source=False, start=False)
        b.start(wait=False)
        wait_for("it", lambda: b.status().get("providers", [{}])[0].get("state") == "pin-needed")
        out = b.cli("top", "--interval", "1", check=True).stdout.decode()
        self.assertIn(" SEALED, ", out)
        self.assertIn("cotter unlock", out)
        self.assertEqual(json.loads(b.cli("top", "--json", "--interval", "1", check=True).stdout)["jobs"], [])

    def test_operators_alone(self):
        env = dict(self.b.env)
        status = as_peer(lambda: subprocess.run([COTTER, "top", "--once"], env=env, capture_output=True).returncode, uid=JOB)
        self.assertEqual(status, 3)

    def test_usage(self):
        for args in (("--interval", "0"), ("--interval", "x"), ("more",), ("--no",)):
            self.assertEqual(self.b.cli("top", *args).returncode, 2, args)

    def test_a_thousand_jobs(self):
        """More than the locked memory has room for as JSON."""
        leader = self.process(uid=JOB, cgroup=self.cgroup())
        before = len(self.jobs())
        with Session(self.b.operator_socket) as s:
            for i in range(1100):
                self.assertEqual(s.request("POST", "cotter/jobs", None, {"leader": leader.pid, "policies": ["release"], "name": f"job-{i}"})[0], 200)
        out = self.b.cli("job", "list", check=True).stdout.decode().splitlines()
        self.assertEqual((len(out), out[-1]), (1001, f"({1100 + before} in all)"))
        out = self.b.cli("top", "--interval", "1", check=True).stdout.decode()
        self.assertEqual(out.splitlines()[-1], f"({100 + before} more)")
        t = self.top("--interval", "1")
        t.wait_frame("jobs", lambda f: len(f) == 24 and "more)" in f[-1])
        t.send(b"q")
        self.assertEqual(t.end(), (0, True))


if __name__ == "__main__":
    unittest.main(verbosity=2)
