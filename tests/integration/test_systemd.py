"""LoadCredential= from the broker's socket: a client that does what systemd's executor does, in the cgroup of a unit."""
import errno
import json
import os
import random
import signal
import socket
import time
import unittest
import uuid

import peers
from harness import COTTERD, Case, run, wait_for
from peers import Cgroup, Process, as_peer, become

NO_CGROUP = peers.cgroups_missing() or (os.getuid() != 0 and "root alone is systemd")
MOST = 1 << 20  # what systemd takes

CONFIG = """
credentials:
  deploy.service:
    npm-token: release/npm-token
    db: {path: release/db, field: password}
    user: release/db#user
    whole: release/db
    gone: release/gone
    missing: release/missing
    empty: release/empty
    number: release/number
    big: release/big
    moves: release/moves
    goes: release/goes
    leaves: release/leaves
  'web@1.service':
    npm-token: release/npm-token
"""


def address(unit, name, number=None):
    return b"\0%x/unit/%s/%s" % (random.getrandbits(64) if number is None else number, unit.encode(), name.encode())


def asking(bound):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    if bound is not None:
        s.bind(bound)
    return s


def rest(s):
    """As systemd reads: (None, value), or (errno, None) where the unit does not start."""
    out = b""
    while chunk := s.recv(65536):
        out += chunk
        if len(out) > MOST:
            return errno.E2BIG, None
    return None, out


def load(path, bound):
    with asking(bound) as s:
        s.connect(path)
        s.shutdown(socket.SHUT_WR)
        return rest(s)


def load_as(path, bound, uid):
    """Binds as root, and connects as somebody else."""
    with asking(bound) as s:
        become(uid)
        s.connect(path)
        return rest(s)


def chatter(path, bound):
    """Asks in HTTP."""
    with asking(bound) as s:
        s.connect(path)
        try:
            s.sendall(b"GET /v1/secret/data/release/db HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            return rest(s)
        except (BrokenPipeError, ConnectionResetError):
            return None, b"npm_value"  # it had answered, and was gone


def late(path, n, bound):
    """What n connections get that are read from late."""
    socks = [asking(b"\0%x" % i + bound) for i in range(n)]
    for s in socks:
        s.connect(path)
    time.sleep(12)
    out = [rest(s) for s in socks]
    for s in socks:
        s.close()
    return out


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Systemd(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.dir, 0o755)
        cls.b = cls.broker(hsm=cls.softhsm(), edit=lambda text: text + CONFIG)
        cls.path = os.path.join(os.path.dirname(cls.b.socket), "credentials.sock")
        cls.slice = Cgroup(f"cottertest{uuid.uuid4().hex[:8]}.slice")
        cls.deploy = Cgroup(cls.slice.name[1:] + "/deploy.service")
        cls.web = Cgroup(cls.slice.name[1:] + "/web@1.service")
        cls.stops.append(lambda: [cg.remove() for cg in (cls.deploy, cls.web, cls.slice)])
        cls.b.put("release/npm-token", "npm_value")
        for path, fields in (("release/db", {"user": "u", "password": "p w"}), ("release/gone", {"value": "x"}), ("release/empty", {"value": ""}),
                             ("release/number", {"value": 7}), ("release/big", {"value": "b" * 65000})):
            cls.b.cli("put", path, "--data", "-", stdin=json.dumps(fields), check=True)
        cls.b.cli("rm", "release/gone", check=True)

    def load(self, unit="deploy.service", name="npm-token", cgroup="deploy", uid=None, bound="", path=None):
        cg = getattr(self, cgroup) if isinstance(cgroup, str) else cgroup
        return as_peer(load, path or self.path, address(unit, name) if bound == "" else bound, cgroup=cg, uid=uid)

    def last(self):
        return [line for line in self.b.audit(20).splitlines() if " ev=credential " in line][-1]

    def refused(self, why, result="denied", **kw):
        self.assertEqual(self.load(**kw), (errno.E2BIG, None))
        self.assertIn(f"result={result}", self.last())
        self.assertIn(why.replace(" ", "_"), self.last())

    def test_values(self):
        for name, value in (("npm-token", b"npm_value"), ("db", b"p w"), ("user", b"u"), ("number", b"7"), ("big", b"b" * 65000)):
            self.assertEqual(self.load(name=name), (None, value))
        self.assertEqual(self.load("web@1.service", cgroup="web"), (None, b"npm_value"))
        self.load(name="db")
        self.assertRegex(self.last(), rf"cgroup={self.deploy.id} uid=0 pidfd=[0-9]+ .*release/db.*result=granted.*credential_db_of_deploy.service")

    def test_below_the_unit(self):
        inner = Cgroup(self.deploy.name[1:] + "/.control")
        self.addCleanup(inner.remove)
        self.assertEqual(self.load(cgroup=inner), (None, b"npm_value"))

    def test_another_cgroup(self):
        other = Cgroup()
        self.addCleanup(other.remove)
        # a unit's name below another's, made by who may make cgroups there, is not that unit
        below = Cgroup(other.name[1:] + "/deploy.service")
        self.addCleanup(below.remove)
        why = "does not stand in the cgroup of the unit that it names"
        for cg in (self.web, other, below, self.slice):
            self.refused(why, cgroup=cg)
        self.refused("no_cgroup" if peers.cgroup_root() != "/sys/fs/cgroup" else "", cgroup=None)
        self.refused(why, unit="web@1.service")
        self.refused(why, unit="other.service")

    def test_another_uid(self):
        # the socket's mode keeps them out already
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        with self.assertRaises(AssertionError):
            self.load(uid=12345)
        os.chmod(self.path, 0o666)
        self.addCleanup(os.chmod, self.path, 0o600)
        self.refused("for systemd alone", uid=12345)
        # bound by root is not connected by root
        self.assertEqual(as_peer(load_as, self.path, address("deploy.service", "npm-token"), 12345, cgroup=self.deploy), (errno.E2BIG, None))
        self.assertIn("for_systemd_alone", self.last())

    def test_another_name(self):
        self.refused("no such credential for this unit", name="other")
        self.refused("no such credential for this unit", unit="web@1.service", name="db", cgroup="web")

    def test_addresses(self):
        unit = b"/unit/deploy.service/"
        for bound in (None, b"\0x", b"\0" + unit + b"npm-token", b"\0zz" + unit + b"npm-token", b"\0" + b"1" * 17 + unit + b"npm-token",
                      b"\x001/unit/deploy.service", b"\x001/unit//npm-token", b"\x001" + unit, b"\x001" + unit + b"npm-token/", b"\x001" + unit + b"a/npm-token",
                      b"\x001" + unit + b"npm-token\0", b"\x001" + unit + b"npm\ntoken", b"\x001" + unit + b"npm\xfftoken", b"\x001" + unit + b"..\x1b[31m",
                      b"\x001/unit/deploy.service\0/npm-token", b"\x001/units/deploy.service/npm-token", b"\x001" + unit + b"n" * 70,
                      b"\x001" + unit + b"npm token", b"\x001A" + unit + b"npm-token"):
            self.refused("the caller", bound=bound)
        self.assertNotIn("31m", self.b.audit(100))
        file = os.path.join(self.dir, "named")
        self.refused("the caller", bound=file.encode())
        for bound in (b"\x00" + b"f" * 16 + unit + b"npm-token", b"\x000" + unit + b"npm-token"):
            self.assertEqual(self.load(bound=bound), (None, b"npm_value"))

    def test_no_value(self):
        self.refused("", name="missing", result="failed")
        self.refused("deleted", name="gone", result="failed")
        self.refused("the value is empty", name="empty", result="failed")
        self.refused("fields", name="whole", result="failed")

    def test_nothing_is_read(self):
        """What a client sends changes nothing, and an HTTP request is none."""
        self.assertEqual(as_peer(chatter, self.path, address("deploy.service", "npm-token"), cgroup=self.deploy), (None, b"npm_value"))
        self.assertNotIn("release/db", self.last())

    def while_hardware_works(self, name, change):
        """What comes of a credential when something changes between the question and the hardware's answer."""
        self.b.put(f"release/{name}", "value")
        helper = self.b.children()[0]
        p = Process(cgroup=self.deploy)
        os.kill(helper, signal.SIGSTOP)
        try:
            p.start(load, self.path, address("deploy.service", name))
            time.sleep(0.5)
            change(p)
        finally:
            os.kill(helper, signal.SIGCONT)
        if not p.pid:
            return None
        self.addCleanup(p.end)
        return p.result()

    def test_it_moves_meanwhile(self):
        self.assertEqual(self.while_hardware_works("moves", lambda p: self.web.enter(p.pid)), (errno.E2BIG, None))
        self.assertIn("does_not_stand_in_the_cgroup", self.last())
        self.assertEqual(self.load(name="moves"), (None, b"value"))

    def test_the_configuration_changes_meanwhile(self):
        line = "    goes: release/goes\n"
        self.addCleanup(self.b.reload, lambda text: text.replace("    big: release/big\n", "    big: release/big\n" + line))
        self.assertEqual(self.while_hardware_works("goes", lambda p: self.b.reload(lambda text: text.replace(line, ""))), (errno.E2BIG, None))
        self.assertIn("no_such_credential", self.last())

    def test_it_leaves_meanwhile(self):
        self.while_hardware_works("leaves", lambda p: p.end())
        self.assertEqual(self.load(name="leaves"), (None, b"value"))

    def test_who_reads_late(self):
        """A refusal that is cut off would be a value: it waits for its reader, or for his end."""
        fds = lambda: len(os.listdir(f"/proc/{self.b.process.pid}/fd"))
        before = fds()
        self.assertEqual(as_peer(late, self.path, 20, b"/unit/other.service/x", cgroup=self.deploy), [(errno.E2BIG, None)] * 20)
        self.assertEqual(as_peer(late, self.path, 20, b"/unit/deploy.service/db", cgroup=self.deploy), [(None, b"p w")] * 20)
        wait_for("their end", lambda: fds() <= before)

    def test_reload(self):
        changed = lambda text: text.replace("db: {path: release/db, field: password}", "db: {path: release/db, field: user}")
        self.b.reload(changed)
        self.addCleanup(self.b.reload, lambda text: text.replace("db: {path: release/db, field: user}", "db: {path: release/db, field: password}"))
        self.assertEqual(self.load(name="db"), (None, b"u"))


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Sealed(Case):
    def test_sealed(self):
        cg = Cgroup(f"cottertest{uuid.uuid4().hex[:8]}.slice/deploy.service")
        self.stops.append(lambda: (cg.remove(), os.rmdir(os.path.dirname(cg.dir))))
        b = self.broker(hsm=self.softhsm(), pin_source=False, start=False, edit=lambda text: text + CONFIG)
        b.start(wait=False)
        path = os.path.join(os.path.dirname(b.socket), "credentials.sock")
        wait_for("the socket", lambda: os.path.exists(path) and b.status().get("sealed") is True)
        ask = lambda: as_peer(load, path, address("deploy.service", "npm-token"), cgroup=cg)
        start = time.monotonic()
        self.assertEqual(ask(), (errno.E2BIG, None))
        self.assertGreater(time.monotonic() - start, 3)
        record = [line for line in b.audit(20).splitlines() if " ev=credential " in line][-1]
        self.assertIn("sealed", record)
        # who comes while it is being opened waits for it
        p = Process(cgroup=cg)
        self.stops.append(p.end)
        p.start(load, path, address("deploy.service", "npm-token"))
        time.sleep(0.5)
        b.cli("unlock", "hsm", stdin="123456\n", check=True)
        b_put = lambda: b.cli("put", "release/npm-token", stdin="npm_value").returncode == 0
        wait_for("the store", b_put)
        first = p.result()
        self.assertIn(first, ((None, b"npm_value"), (errno.E2BIG, None)))  # it may have been faster than the value was there
        self.assertEqual(ask(), (None, b"npm_value"))
        b.stop()
        # whoever waits when the broker ends does not get an empty credential
        b.start(wait=False)
        wait_for("the socket", lambda: os.path.exists(path) and b.status().get("sealed") is True)
        p.start(load, path, address("deploy.service", "npm-token"))
        time.sleep(0.5)
        # the socket is as old as the broker
        b.stop()
        self.assertEqual(p.result(), (errno.E2BIG, None))
        self.assertFalse(os.path.exists(path))

    def test_no_room(self):
        """Who cannot be served yet waits; a connection that is turned away would be an empty credential."""
        cg = Cgroup(f"cottertest{uuid.uuid4().hex[:8]}.slice/deploy.service")
        self.stops.append(lambda: (cg.remove(), os.rmdir(os.path.dirname(cg.dir))))
        b = self.broker("full", hsm=self.softhsm("full-h"), start=False, edit=lambda text: text.replace("sync: write", "sync: disk") + CONFIG)
        b.start(prefix=("prlimit", "--nofile=256:256"))
        b.put("release/npm-token", "npm_value")
        path = os.path.join(os.path.dirname(b.socket), "credentials.sock")
        p = Process(cgroup=cg)
        self.stops.append(p.end)
        socks = [asking(address("other.service", "x")) for _ in range(150)]
        for s in socks:
            s.connect(path)
        p.start(load, path, address("deploy.service", "npm-token"))
        p.ours.settimeout(3)
        with self.assertRaises(socket.timeout):
            p.result()
        p.ours.settimeout(None)
        for s in socks:
            s.close()
        self.assertEqual(p.result(), (None, b"npm_value"))

    def test_off(self):
        b = self.broker("off", hsm=self.softhsm("off-h"))
        self.assertFalse(os.path.exists(os.path.join(os.path.dirname(b.socket), "credentials.sock")))
        b.edit(lambda text: text + CONFIG)
        b.process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "needs_a_restart" in b.audit(5) or "the_file_is_not_right" in b.audit(5))


class Configuration(Case):
    def test_refused(self):
        b = self.broker(start=False, hsm=self.softhsm())
        with open(b.config) as f:
            good = f.read()
        for text, says in (("  deploy.service: release/x\n", "expected a mapping"), ("  deploy:\n    a: b\n", "expected a unit"),
                           ("  'a b.service':\n    a: b\n", "expected a unit"), ("  a/b.service:\n    a: b\n", "expected a unit"),
                           ("  a.service:\n    a b: c\n", "expected a name"), ("  a.service:\n    a: ../c\n", "secret's path"),
                           ("  a.service:\n    a: rotation.pending/c\n", "secret's path"), ("  a.service:\n    a: 'c#'\n", "name of a field"),
                           ("  a.service:\n    a: {field: x}\n", "'path' is missing"), ("  a.service:\n    a: [c]\n", "expected a mapping"),
                           ("  a.service:\n    a: {path: c, x: y}\n", "unknown key"), ("  a.service:\n    a: c\n    a: d\n", "stands here twice"),
                           (f"  {'a' * 60}.service:\n    {'b' * 30}: c\n", "room for"), ("  a.service:\n    a: c#" + "f" * 65 + "\n", "name of a field"),
                           ("  a.service:\n    a: " + "c" * 600 + "\n", "secret's path")):
            with open(b.config, "w") as f:
                f.write(good + "\ncredentials:\n" + text)
            p = run(COTTERD, "--check", "--config", b.config)
            self.assertEqual(p.returncode, 1, (text, p.stdout))
            self.assertIn(says, p.stderr.decode(), text)


if __name__ == "__main__":
    unittest.main()
