"""Real parts for the integration tests: a SoftHSM token, a swtpm, cotterd, each in a temporary directory of its own."""
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ.get("COTTER_BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
BUILD = os.path.realpath(BUILD)
ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
COTTER = os.path.join(BUILD, "tools", "cotter")
COTTERD = os.path.join(BUILD, "broker", "cotterd")
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "123456"


def clean_env(**extra):
    """The test's environment without cotter's own variables."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COTTER_") and not k.startswith("SOFTHSM")}
    env["PATH"] = f"{BUILD}/tools:{BUILD}/broker:/usr/sbin:{env['PATH']}"
    env.update(extra)
    return env

# SoftHSM 2.6 forgets a curve's name, 37 bytes, at each use of an Ed25519 key (valgrind pkcs11-tool --sign -m EDDSA tells the same)
SOFTHSM_LEAK = re.compile(r"=+\n==\d+==ERROR: LeakSanitizer: detected memory leaks\n+Direct leak of \d+ byte\(s\) in (\d+) object\(s\) allocated from:\n"
                          r"(?: +#\d+ .*\n)+\nIndirect leak of \d+ byte\(s\) in \1 object\(s\) allocated from:\n(?: +#\d+ .*\n)*? +#1 \S+ in ASN1_STRING_set .*\n"
                          r"(?: +#\d+ .*\n)*\nSUMMARY: AddressSanitizer: \d+ byte\(s\) leaked .*\n")


def run(*args, stdin=b"", env=None, check=False, timeout=60, cwd=None):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    p = subprocess.run(args, input=stdin, capture_output=True, env=env or clean_env(), timeout=timeout, cwd=cwd)
    if check and p.returncode != 0:
        raise AssertionError(f"{args}: status {p.returncode}\n{p.stdout.decode(errors='replace')}{p.stderr.decode(errors='replace')}")
    return p


def wait_for(what, condition, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"timed out waiting for {what}")


def free_port_pair():
    """swtpm wants two neighbouring ports."""
    while True:
        with socket.socket() as a, socket.socket() as b:
            a.bind(("127.0.0.1", 0))
            port = a.getsockname()[1]
            try:
                b.bind(("127.0.0.1", port + 1))
                return port
            except (OSError, OverflowError):
                continue


class SlowDisk:
    """A broker started behind its prefix waits as many milliseconds more for each flush as it was told last (slow_disk.c)."""

    def __init__(self, directory, ms=0):
        self.path = os.path.join(directory, "slow-disk")
        self.wait(ms)
        self.prefix = ("env", f"LD_PRELOAD={os.path.join(BUILD, 'tests', 'libslow_disk.so')}", f"SLOW_DISK={self.path}")

    def wait(self, ms):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as f:
            f.write(struct.pack("=i", ms))


class SoftHSM:
    def __init__(self, directory, label="cotter"):
        self.dir = os.path.join(directory, "softhsm")
        self.tokens = os.path.join(self.dir, "tokens")
        os.makedirs(self.tokens)
        self.label = label
        self.conf = os.path.join(self.dir, "softhsm2.conf")
        with open(self.conf, "w") as f:
            f.write(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.env = clean_env(SOFTHSM2_CONF=self.conf)
        run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678",
            env=self.env, check=True)
        self.pin_file = os.path.join(self.dir, "pin")
        self.set_pin(PIN)

    def set_pin(self, pin):
        with open(os.open(self.pin_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(pin + "\n")

    def uri(self, pin_source=True):
        return f"pkcs11:token={self.label}?module-path={SOFTHSM}" + (f"&pin-source=file:{self.pin_file}" if pin_source else "")

    def init_args(self, name="hsm", pin_source=True):
        return ["--provider", f"{name}={self.uri(pin_source)}", "--environment", f"{name}=SOFTHSM2_CONF={self.conf}",
                "--readable", f"{name}={self.conf}", "--writable", f"{name}={self.tokens}"]

    def tool(self, *args):
        return run("pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", PIN, *args, env=self.env, check=True)


class Swtpm:
    def __init__(self, directory):
        self.dir = os.path.join(directory, "swtpm")
        os.makedirs(self.dir)
        self.process = None
        for _ in range(8):
            self.port = free_port_pair()
            if self.run():
                return
        raise AssertionError("no two ports for swtpm")

    def start(self):
        """Once more, at the same ports."""
        if not self.run():
            raise AssertionError("swtpm ended at its start")

    def run(self):
        """False: it ended, as where another program was faster at one of its ports."""
        self.process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.dir}",
             "--server", f"type=tcp,port={self.port},bindaddr=127.0.0.1",
             "--ctrl", f"type=tcp,port={self.port + 1},bindaddr=127.0.0.1", "--flags", "not-need-init,startup-clear"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_env())

        wait_for("swtpm", lambda: self.process.poll() is not None or (self.listens(self.port) and self.listens(self.port + 1)))
        return self.process.poll() is None

    def listens(self, port):
        """It, and not another program there."""
        with open("/proc/net/tcp") as f:
            inodes = {x[9] for x in map(str.split, f) if x[1] == f"0100007F:{port:04X}" and x[3] == "0A"}
        fds = f"/proc/{self.process.pid}/fd"
        try:
            return any(os.readlink(f"{fds}/{fd}") in {f"socket:[{i}]" for i in inodes} for fd in os.listdir(fds))
        except OSError:
            return False

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait()

    @property
    def tcti(self):
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def tool(self, *args, **kw):
        """A tpm2 tool; what it leaves in the TPM is flushed, as there is no resource manager."""
        env = clean_env(TPM2TOOLS_TCTI=self.tcti)
        p = run(*args, env=env, **kw)
        for what in ("-t", "-l", "-s"):
            run("tpm2_flushcontext", what, env=env)
        if kw.get("check", True) and p.returncode:
            raise AssertionError(f"{args}: {p.stderr.decode()}")
        return p


class Broker:
    """cotter init and cotterd with one or both providers."""

    def __init__(self, directory, hsm=None, tpm=None, pin_source=True, recovery=True, init_extra=(), edit=None):
        self.dir = directory
        self.hsm, self.tpm = hsm, tpm
        self.socket = os.path.join(directory, "run", "cotter.sock")
        self.operator_socket = os.path.join(directory, "run", "operator.sock")
        self.state = os.path.join(directory, "state")
        self.config = os.path.join(directory, "etc", "cotter.yaml")
        self.log = os.path.join(directory, "cotterd.log")
        self.recovery_key = os.path.join(directory, "recovery.key")
        self.process = None
        self.env = clean_env(COTTER_SOCKET=self.socket, COTTER_CONFIG=self.config)
        args = ["--dir", os.path.join(directory, "etc"), "--state-dir", self.state, "--socket", self.socket, *init_extra]
        if hsm:
            args += hsm.init_args(pin_source=pin_source)
        if tpm:
            args += ["--provider", f"tpm=tpm:{tpm.tcti}"]
        if recovery:
            run("age-keygen", "-o", self.recovery_key, check=True)
            self.recovery = run("age-keygen", "-y", self.recovery_key, check=True).stdout.decode().strip()
            args += ["--recovery", self.recovery]
        self.init = run(COTTER, "init", *args, stdin=PIN + "\n", env=self.env, check=True)
        self.add_policies()
        if edit:
            self.edit(edit)

    def add_policies(self):
        with open(self.config, "a") as f:
            f.write("  release:\n    - path: release/*\n      allow: [get, list]\n"
                    "  writer:\n    - path: build/+/token\n      allow: [get, put]\n")

    def edit(self, change):
        with open(self.config) as f:
            text = f.read()
        with open(self.config, "w") as f:
            f.write(change(text))

    def reload(self, change):
        reloads = lambda: self.audit(100_000).count("ev=config.reload")
        before = reloads()
        self.edit(change)
        self.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: reloads() > before)

    def recipients(self):
        out = []
        with open(self.config) as f:
            for line in f:
                if line.startswith("    - age1tag1"):
                    out.append(line.split()[1])
        return out

    def start(self, wait=True, prefix=()):
        log = open(self.log, "ab")
        self.process = subprocess.Popen([*prefix, COTTERD, "--config", self.config], stdout=log, stderr=log, env=clean_env())
        log.close()
        if wait:
            wait_for("cotterd", lambda: self.process.poll() is not None or self.status().get("sealed") is False)
            assert self.process.poll() is None, open(self.log).read()
        return self

    def stop(self, sig=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(20)
            with open(self.log, errors="replace") as f:
                log = SOFTHSM_LEAK.sub("", f.read())
            assert "Sanitizer" not in log and "runtime error" not in log, log
        return self.process.returncode if self.process else None

    def cli(self, *args, token=None, **kw):
        env = dict(self.env)
        if token:
            env["COTTER_TOKEN"] = token
        return run(COTTER, *args, env=env, **kw)

    def status(self):
        p = self.cli("status", "--json")
        try:
            return json.loads(p.stdout)
        except ValueError:
            return {}

    def put(self, path, value, **kw):
        return self.cli("put", path, stdin=value, check=True, **kw)

    def token(self, *args):
        return self.cli("token", "make", *args, check=True).stdout.decode().strip()

    def curl(self, path, *args, token=None, socket_path=None, body=None):
        """(status, JSON or None) of curl, the first client."""
        extra = ["-H", f"X-Vault-Token: {token}"] if token else []
        if body is not None:
            extra += ["-d", "@-"]
        p = run("curl", "-s", "-S", "-o", "-", "-w", "\n%{http_code}", "--unix-socket", socket_path or self.socket, *extra, *args,
                f"http://localhost/v1/{path}", stdin=body or b"")
        text, _, status = p.stdout.decode().rpartition("\n")
        return int(status or 0), json.loads(text) if text.strip() else None

    def raw(self, data, socket_path=None, timeout=5, shutdown=False):
        """What comes back for raw bytes."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(socket_path or self.socket)
            s.sendall(data)
            if shutdown:
                s.shutdown(socket.SHUT_WR)
            out = b""
            try:
                while True:
                    chunk = s.recv(65536)
                    if not chunk:
                        return out
                    out += chunk
            except (socket.timeout, ConnectionResetError):
                return out

    def audit(self, last=1000):
        return self.cli("audit", "--last", str(last), check=True).stdout.decode()

    def children(self):
        """pids of cotter-keyd below this broker."""
        out = run("pgrep", "-f", f"{BUILD}/.*cotter-keyd.*").stdout.split()
        mine = []
        for pid in map(int, out):
            try:
                with open(f"/proc/{pid}/status") as f:
                    parent = next(int(line.split()[1]) for line in f if line.startswith("PPid"))
                with open(f"/proc/{parent}/status") as f:
                    grand = next(int(line.split()[1]) for line in f if line.startswith("PPid"))
                if grand == self.process.pid:
                    mine.append(pid)
            except (OSError, StopIteration):
                pass
        return mine


class Case(unittest.TestCase):
    """One temporary directory a class; what was started is stopped."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="cot.", dir="/tmp")
        cls.stops = []
        cls.addClassCleanup(cls.clean_up)

    @classmethod
    def clean_up(cls):
        """Also after a set-up that failed; one thing that does not stop well keeps none of the others running."""
        failures = []
        for stop in reversed(cls.stops):
            try:
                stop()
            except (AssertionError, subprocess.TimeoutExpired) as e:
                failures.append(e)
        shutil.rmtree(cls.dir, ignore_errors=True)
        if failures:
            raise failures[0]

    @classmethod
    def sub(cls, name):
        path = os.path.join(cls.dir, name)
        os.makedirs(path)
        return path

    @classmethod
    def softhsm(cls, name="h", **kw):
        return SoftHSM(cls.sub(name), **kw)

    @classmethod
    def swtpm(cls, name="t"):
        tpm = Swtpm(cls.sub(name))
        cls.stops.append(tpm.stop)
        return tpm

    @classmethod
    def broker(cls, name="b", start=True, **kw):
        b = Broker(cls.sub(name), **kw)
        cls.stops.append(b.stop)
        return b.start() if start else b
