"""Jobs with keys, for the tests of the PKCS#11 token and of the ssh-agent: a job that waits, an sshd, p11-kit's protocol by hand."""
import os
import pwd
import signal
import socket
import struct
import subprocess
import unittest

from harness import COTTER, run, wait_for
from peers import as_peer, cgroup_root
from test_sign import SignCase

MODULE = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
EXTENSIONS = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=codeSigning,emailProtection\n"


def agent_pid(path):
    """Whose socket it is."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        return struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


class KeysCase(SignCase):
    """Keys `release/<type>`, each but Ed25519 with a certificate of the test's own CA."""
    certified = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ca = os.path.join(cls.dir, "ca.crt")
        if cls.certified:
            cls.make_certificates()
        cls.message = os.path.join(cls.dir, "release.txt")
        with open(cls.message, "wb") as f:
            f.write(b"release 1.0\n" * 100)

    @classmethod
    def make_certificates(cls):
        key, extensions = os.path.join(cls.dir, "ca.key"), os.path.join(cls.dir, "extensions")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cls.ca, "-subj", "/CN=Test CA", "-days", "2", check=True)
        with open(extensions, "w") as f:
            f.write(EXTENSIONS)
        for kind in [k for k in cls.types if k != "ed25519"]:
            run("openssl", "x509", "-new", "-force_pubkey", cls.key(cls, kind), "-subj", f"/CN={kind}", "-CA", cls.ca, "-CAkey", key,
                "-extfile", extensions, "-out", cls.certificate(kind), "-days", "1", check=True)
            cls.b.cli("key", "certificate", f"release/{kind}", "--certificate", cls.certificate(kind), check=True)

    @classmethod
    def certificate(cls, kind):
        return os.path.join(cls.dir, kind + ".crt")

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def in_job(self, *command, policy="signer", token=None, env=None, **kw):
        """The command as a job of its own, its keys at hand."""
        words = [] if token else ["--policy", policy]
        env = {**self.b.env, "LC_ALL": "C", **(env or {}), **({"COTTER_TOKEN": token} if token else {})}
        return run(COTTER, "run", *words, "--keys", "--", *command, env=env, cwd=self.dir, **kw)

    def shell(self, script, **kw):
        """A script of which no command fails, and all that it said."""
        p = self.in_job("bash", "-euc", script, **kw)
        text = (p.stdout + p.stderr).decode(errors="replace")
        self.assertEqual(p.returncode, 0, text)
        return text

    def job(self, *args, **kw):
        job = Job(self.b, *args, **kw)
        self.addCleanup(job.end)
        return job

    def signatures(self):
        return [line for line in self.b.audit(1000).splitlines() if " ev=sign " in line and "result=granted" in line]


def own_cgroup(pid):
    with open(f"/proc/{pid}/cgroup") as f:
        return next((line[3:].strip() for line in f if line.startswith("0::")), None)


class Job:
    """`cotter run --keys` of something that waits; what is to speak with its sockets enters its cgroup."""

    def __init__(self, broker, *args, token=None):
        words = args if args or token else ("--policy", "signer")
        env = {**broker.env, **({"COTTER_TOKEN": token} if token else {})}
        self.process = subprocess.Popen([COTTER, "run", *words, "--keys", "--", "sh", "-c", "env; echo .; exec cat"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        self.env = {}
        while (line := self.process.stdout.readline().decode()) not in (".\n", ""):
            name, _, value = line.rstrip("\n").partition("=")
            self.env[name] = value
        assert line == ".\n", "the job did not start"
        self.pkcs11 = self.env["P11_KIT_SERVER_ADDRESS"].removeprefix("unix:path=")
        self.ssh = self.env["SSH_AUTH_SOCK"]
        self.dir = os.path.dirname(self.ssh)
        self.group = own_cgroup(self.process.pid)

    def enter(self, pid=0):
        # an ordinary user's job stays in its caller's cgroup, where we stand already
        if self.group != own_cgroup(pid or "self") and cgroup_root():
            with open(f"{cgroup_root()}{self.group}/cgroup.procs", "w") as f:
                f.write(str(pid))

    def do(self, function, *args):
        """What the function returns in a process of the job's cgroup."""
        return as_peer(function, *args, cgroup=self)

    @property
    def agent(self):
        return self.do(agent_pid, self.pkcs11)

    def end(self, sig=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()


class Sshd:
    """An sshd of the test's own, on a port that is free."""

    def __init__(self, directory):
        if os.geteuid() != 0:
            raise unittest.SkipTest("sshd needs root")
        self.dir = directory
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.host_key, self.log = os.path.join(directory, "host"), os.path.join(directory, "log")
        self.authorized, self.known = os.path.join(directory, "authorized"), os.path.join(directory, "known")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.host_key, check=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        with open(self.host_key + ".pub") as f, open(self.known, "w") as known:
            known.write(f"[127.0.0.1]:{self.port} {f.read()}")
        with open(os.path.join(directory, "config"), "w") as f:
            f.write(f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.host_key}\nPidFile none\nAuthorizedKeysFile {self.authorized}\n"
                    "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n"
                    "PubkeyAcceptedAlgorithms +ssh-rsa\n")
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", os.path.join(directory, "config"), "-E", self.log])
        wait_for("sshd", self.listens)
        self.user = pwd.getpwuid(os.geteuid()).pw_name

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def authorize(self, line):
        with open(self.authorized, "w") as f:
            f.write(line + "\n")

    def ssh(self, *options):
        """The words of an ssh command, but for what is to run."""
        return ("ssh", "-F", "none", "-p", str(self.port), "-o", f"UserKnownHostsFile={self.known}", "-o", "StrictHostKeyChecking=yes",
                "-o", "PreferredAuthentications=publickey", "-o", "IdentityFile=none", *options, f"{self.user}@127.0.0.1")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


# ---- p11-kit's RPC, the client's side -----------------------------------------------------------------------------------------

INITIALIZE, OPEN_SESSION, LOGIN, GET_ATTRIBUTE_VALUE, FIND_OBJECTS_INIT, FIND_OBJECTS, FIND_OBJECTS_FINAL = 1, 10, 18, 24, 26, 27, 28
SIGN_INIT, SIGN, GENERATE_RANDOM = 42, 43, 64
CKM_SHA256, CKM_ECDSA, CKM_ECDSA_SHA256, CKM_SHA256_RSA_PKCS_PSS, CKG_MGF1_SHA256 = 0x250, 0x1041, 0x1044, 0x43, 2
CKA_CLASS, CKA_LABEL, CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_WRAP_TEMPLATE, CKO_PRIVATE_KEY = 0, 3, 0x11, 0x123, 0x40000211, 3


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def array(data):
    return b"\1" + u32(len(data)) + data


def message(call, signature, body=b"", code=1):
    payload = u32(call) + u32(len(signature)) + signature.encode() + body
    return struct.pack(">III", code, 0, len(payload)) + payload


class Rpc:
    """A connection that speaks version 2 (p11-kit 0.25.6 and later) or 0; `sent` is all that went out."""

    def __init__(self, path, version=2, timeout=10):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout)
        self.s.connect(path)
        self.version, self.sent = version, []
        self.s.sendall(bytes([version]))
        assert self.s.recv(1) == bytes([version])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def read(self, n):
        out = b""
        while len(out) < n:
            chunk = self.s.recv(n - len(out))
            if not chunk:
                raise EOFError
            out += chunk
        return out

    def raw(self, data):
        """(the error's number, or 0; the values' bytes)."""
        self.sent.append(data)
        self.s.sendall(data)
        _, options, length = struct.unpack(">III", self.read(12))
        self.read(options)
        reply = self.read(length)
        call, n = struct.unpack(">II", reply[:8])
        values = reply[8 + n:]
        return (struct.unpack(">Q", values)[0], b"") if call == 0 else (0, values)

    def call(self, number, signature, *body):
        return self.raw(message(number, signature, b"".join(body)))

    def good(self, number, signature, *body):
        rv, values = self.call(number, signature, *body)
        assert rv == 0, f"call {number}: 0x{rv:x}"
        return values

    def log_in(self):
        self.good(INITIALIZE, "ayyay", array(b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"), b"\0", array(b"\0"))
        self.session = struct.unpack(">Q", self.good(OPEN_SESSION, "uu", u64(1), u64(4)))[0]
        self.good(LOGIN, "uuay", u64(self.session), u64(1), b"\0" + u32(0))
        return self

    def find(self, label):
        template = u32(CKA_CLASS) + b"\1" + u32(8) + u64(CKO_PRIVATE_KEY) + u32(CKA_LABEL) + b"\1" + u32(len(label)) + u32(len(label)) + label.encode()
        self.good(FIND_OBJECTS_INIT, "uaA", u64(self.session), u32(2), template)
        found = self.good(FIND_OBJECTS, "ufu", u64(self.session), u32(8))
        self.good(FIND_OBJECTS_FINAL, "u", u64(self.session))
        n = struct.unpack(">I", found[1:5])[0]
        return list(struct.unpack(f">{n}Q", found[5:]))

    def mechanism(self, number, *params):
        if params:
            return u32(number) + (b"\1" if self.version >= 2 else b"") + b"".join(map(u64, params))
        return u32(number) + (b"" if self.version >= 2 else u32(0xffffffff))

    def sign(self, key, data, number, *params):
        """(error, signature)."""
        rv, _ = self.call(SIGN_INIT, "uMu", u64(self.session), self.mechanism(number, *params), u64(key))
        if rv:
            return rv, b""
        rv, out = self.call(SIGN, "uayfy", u64(self.session), array(data), u32(1024))
        return rv, out[5:]

    def attribute(self, key, kind):
        """The error that stands beside the value."""
        values = self.good(GET_ATTRIBUTE_VALUE, "uufA", u64(self.session), u64(key), u32(1), u32(kind), u32(512))
        return struct.unpack(">Q", values[-8:])[0]


def der_ecdsa(raw):
    """An ECDSA signature as openssl wants it."""
    def integer(data):
        data = data.lstrip(b"\0") or b"\0"
        data = b"\0" + data if data[0] & 0x80 else data
        return b"\2" + bytes([len(data)]) + data
    body = integer(raw[:len(raw) // 2]) + integer(raw[len(raw) // 2:])
    return b"\x30" + bytes([len(body)]) + body
