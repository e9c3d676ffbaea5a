"""The ssh-agent of a job: ssh, git and ssh-keygen sign by it, nobody changes it, and no other host borrows it."""
import base64
import hashlib
import os
import socket
import struct
import subprocess
import unittest

from agents import MODULE, KeysCase, Sshd
from harness import COTTER, run, wait_for
from peers import as_peer, Cgroup, cgroups_missing

FAILURE, SUCCESS, IDENTITIES_ANSWER, SIGN_REQUEST, SIGN_RESPONSE, EXTENSION, EXTENSION_FAILURE = 5, 6, 12, 13, 14, 27, 28
NAMES = {"ecdsa-p256": "ecdsa-sha2-nistp256", "ecdsa-p384": "ecdsa-sha2-nistp384", "rsa-2048": "ssh-rsa", "rsa-3072": "ssh-rsa", "ed25519": "ssh-ed25519"}


def text(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data


def talk(path, messages, half=False):
    """The answers on one connection; None: it was closed. half: nothing is sent behind the first."""
    out = []
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        for message in messages:
            try:
                s.sendall(text(message))
                if half:
                    s.shutdown(socket.SHUT_WR)
                head = s.recv(4, socket.MSG_WAITALL)
                out.append(s.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL) if len(head) == 4 else None)
            except ConnectionError:
                out.append(None)
            if out[-1] is None:
                break
    return out


def sign_request(blob, data, flags=0):
    return bytes([SIGN_REQUEST]) + text(blob) + text(data) + struct.pack(">I", flags)


def authentication(session, blob, algorithm):
    """What a client signs to log in (RFC 4252, section 7)."""
    return text(session) + b"\x32" + text("root") + text("ssh-connection") + text("publickey") + b"\1" + text(algorithm) + text(blob)


def is_closed(path):
    try:
        return talk(path, [bytes([11])]) == [None]
    except OSError:
        return True


class Host:
    """A host's key, made by openssl, which binds sessions."""

    def __init__(self, directory):
        self.file = os.path.join(directory, "host.pem")
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", self.file, check=True)
        der = run("openssl", "pkey", "-in", self.file, "-pubout", "-outform", "DER", check=True).stdout
        self.blob = text("ssh-ed25519") + text(der[-32:])

    def signature(self, session):
        path = self.file + ".session"
        with open(path, "wb") as f:
            f.write(session)
        raw = run("openssl", "pkeyutl", "-sign", "-inkey", self.file, "-rawin", "-in", path, check=True).stdout
        return text("ssh-ed25519") + text(raw)

    def bind(self, session, forwarding=False, signature=None):
        return bytes([EXTENSION]) + text("session-bind@openssh.com") + text(self.blob) + text(session) + text(signature or self.signature(session)) + \
            bytes([forwarding])


class Agent:
    def public(self, kind):
        """The key as ssh writes it, in a file of its own."""
        lines = self.shell("ssh-add -L").splitlines()
        line = next(line for line in lines if line.endswith(f" release/{kind}"))
        self.write(f"{kind}.pub", line + "\n")
        return line

    def blob(self, kind):
        return base64.b64decode(self.public(kind).split()[1])

    def test_lists(self):
        lines = [line.split() for line in self.shell("ssh-add -L").splitlines() if line.startswith(("ssh-", "ecdsa-"))]
        self.assertEqual({line[2]: line[0] for line in lines}, {f"release/{kind}": NAMES[kind] for kind in self.types})
        for line in lines:
            kind = line[2].removeprefix("release/")
            if kind != "ed25519":  # ssh-keygen does not read that one as PKCS#8
                own = run("ssh-keygen", "-i", "-m", "PKCS8", "-f", self.key(kind), check=True).stdout.split()
                self.assertEqual(own[1].decode(), line[1])

    def test_ssh_keygen(self):
        for kind in self.types:
            self.public(kind)
            self.write("signers", f"release@example.org {self.read(kind + '.pub').decode()}")
            self.shell(f"rm -f release.txt.sig; ssh-keygen -Y sign -n file -f {kind}.pub release.txt")
            verify = ("ssh-keygen", "-Y", "verify", "-n", "file", "-f", self.path("signers"), "-I", "release@example.org", "-s", self.path("release.txt.sig"))
            self.assertEqual(run(*verify, stdin=self.read("release.txt")).returncode, 0, kind)
            self.assertNotEqual(run(*verify, stdin=b"another").returncode, 0, kind)

    def test_records(self):
        self.public("ecdsa-p256")
        before = len(self.signatures())
        self.shell("rm -f release.txt.sig; ssh-keygen -Y sign -n file -f ecdsa-p256.pub release.txt")
        lines = self.signatures()[before:]
        self.assertEqual(len(lines), 1)
        signed = b"SSHSIG" + text("file") + text("") + text("sha512") + text(hashlib.sha512(self.read("release.txt")).digest())
        self.assertIn("secret=release/ecdsa-p256 ver=1 ", lines[0])
        self.assertIn(f"why=ecdsa_sha2-256_{hashlib.sha256(signed).hexdigest()}", lines[0])
        self.assertRegex(lines[0], " job=[0-9a-f]{16} ")

    def test_git(self):
        kind = self.types[-1]
        self.public(kind)
        self.write("signers", f"release@example.org {self.read(kind + '.pub').decode()}")
        git = f"git -c user.name=Release -c user.email=release@example.org -c gpg.format=ssh -c user.signingkey=$PWD/{kind}.pub " \
              "-c gpg.ssh.allowedSignersFile=$PWD/signers -C repository"
        self.shell(f"rm -rf repository; git init -q repository; {git} commit -q -S --allow-empty -m one; {git} tag -s -m two v1")
        for what in ("verify-commit HEAD", "verify-tag v1"):
            p = run("bash", "-c", f"{git} {what}", cwd=self.dir)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertIn(b'Good "git" signature for release@example.org', p.stdout + p.stderr)

    def test_ssh(self):
        sshd = self.sshd()
        for kind in self.types:
            sshd.authorize(self.public(kind))
            p = self.in_job(*sshd.ssh("-o", "BatchMode=yes"), "echo far side")
            self.assertEqual(p.stdout, b"far side\n", (kind, p.stderr))

    def sshd(self):
        self.n = getattr(self, "n", 0) + 1
        sshd = Sshd(self.sub(f"{self.id()}-{self.n}"))
        self.addCleanup(sshd.stop)
        return sshd


class SoftHsm(Agent, KeysCase):
    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "ed25519")
    certified = False

    @classmethod
    def make_hardware(cls):
        cls.hsm = cls.softhsm()

    def test_nothing_changes(self):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path("other"), check=True)
        os.chmod(self.write("answer", "#!/bin/sh\necho word\n"), 0o700)
        self.public("ecdsa-p256")
        ask = f"SSH_ASKPASS={self.path('answer')} SSH_ASKPASS_REQUIRE=force"
        before = self.shell("ssh-add -L")
        for command in ("ssh-add other", "ssh-add -t 60 other", "ssh-add -c other", "ssh-add -D", "ssh-add -d ecdsa-p256.pub", f"{ask} ssh-add -x",
                        f"{ask} ssh-add -X", f"{ask} ssh-add -s {MODULE}", f"ssh-add -e {MODULE}"):
            p = self.in_job("bash", "-c", f"{command}; code=$?; ssh-add -L >after; exit $code")
            self.assertEqual(p.returncode, 1, (command, p.stderr))
            self.assertIn(self.read("after").decode(), before, command)
        job = self.job()
        for number in (1, 9, 17, 18, 19, 20, 21, 22, 23, 25, 26, 200):
            self.assertEqual(job.do(talk, job.ssh, [bytes([number]) + text("x")]), [bytes([FAILURE])], number)

    def test_sha1(self):
        """ssh-rsa is refused by the agent, though this sshd would take it."""
        sshd, job = self.sshd(), self.job()
        sshd.authorize(self.public("rsa-2048"))
        p = self.in_job(*sshd.ssh("-o", "BatchMode=yes", "-o", "PubkeyAcceptedAlgorithms=ssh-rsa"), "true")
        self.assertEqual(p.returncode, 255)
        self.assertIn(b"Permission denied", p.stderr)
        blob = self.blob("rsa-2048")
        answers = job.do(talk, job.ssh, [sign_request(blob, b"x"), sign_request(blob, b"x", 2), sign_request(blob, b"x", 4)])
        self.assertEqual([a[0] for a in answers], [FAILURE, SIGN_RESPONSE, SIGN_RESPONSE])
        self.assertEqual([text("rsa-sha2-256") in a or text("rsa-sha2-512") in a for a in answers], [False, True, True])

    def test_a_forwarded_agent_signs_nothing(self):
        sshd = self.sshd()
        key = self.public("ecdsa-p256")
        sshd.authorize(key)
        before = len(self.signatures())
        far = f"cd {self.dir}; ssh-add -L; rm -f far.sig; cp release.txt far; ssh-keygen -Y sign -n file -f ecdsa-p256.pub far; echo status $?"
        again = " ".join((*sshd.ssh("-o", "BatchMode=yes"), "true"))
        p = self.in_job(*sshd.ssh("-A", "-o", "BatchMode=yes"), f"{far}; {again}; echo status $?")
        said = p.stdout.decode()
        self.assertIn(key, said)
        self.assertIn("status 255\n", said)
        self.assertEqual(said.count("status 0"), 0, said)
        self.assertIn(b"agent refused operation", p.stderr)
        self.assertFalse(os.path.exists(self.path("far.sig")))
        # the log-in that led there, and nothing else
        self.assertEqual(len(self.signatures()), before + 1)

    def test_session_bind(self):
        host, job = Host(self.sub("host")), self.job()
        blob, session, other = self.blob("ecdsa-p256"), os.urandom(32), os.urandom(32)
        wrong = host.signature(other)

        def answers(*messages):
            return [a and a[0] for a in job.do(talk, job.ssh, messages)]

        def auth(which):
            return sign_request(blob, authentication(which, blob, "ecdsa-sha2-nistp256"))
        file = sign_request(blob, b"SSHSIG and more")
        self.assertEqual(answers(file, host.bind(session), auth(session), auth(other), file), [SIGN_RESPONSE, SUCCESS, SIGN_RESPONSE, FAILURE, SIGN_RESPONSE])
        self.assertEqual(answers(host.bind(session, signature=wrong), auth(session), file), [EXTENSION_FAILURE, FAILURE, FAILURE])
        self.assertEqual(answers(host.bind(session, forwarding=True), auth(session), file), [SUCCESS, FAILURE, FAILURE])
        # bound for a log-in, it is not bound again; and what could not be bound is not made good by what can
        self.assertEqual(answers(host.bind(session), host.bind(other), auth(other), file), [SUCCESS, EXTENSION_FAILURE, FAILURE, FAILURE])
        self.assertEqual(answers(host.bind(session, signature=wrong), host.bind(session), auth(session))[::2], [EXTENSION_FAILURE, FAILURE])
        self.assertEqual(answers(host.bind(session)[:-1], file), [EXTENSION_FAILURE, FAILURE])
        self.assertEqual(answers(host.bind(b"", signature=wrong), file), [EXTENSION_FAILURE, FAILURE])
        self.assertEqual(answers(host.bind(bytes(65)), file), [EXTENSION_FAILURE, FAILURE])
        # elsewhere nothing is bound
        self.assertEqual(answers(auth(session), file), [SIGN_RESPONSE, SIGN_RESPONSE])
        self.assertEqual(answers(bytes([EXTENSION]) + text("query")), [FAILURE])

    def test_bad_messages(self):
        job = self.job()
        pid, blob = job.agent, self.blob("ecdsa-p256")
        good = sign_request(blob, b"x")
        for message in (good + b"x", sign_request(blob + b"x", b"x"), sign_request(b"", b"x"), bytes([11]) + b"x",
                        *(good[:n] for n in range(1, len(good))), bytes([SIGN_REQUEST]) + b"\xff\xff\xff\xff" + blob):
            self.assertEqual(job.do(talk, job.ssh, [message]), [bytes([FAILURE])], message)
        self.assertEqual(job.do(send_raw, job.ssh, b"\xff\xff\xff\xff\x0d"), b"")
        self.assertEqual(job.do(send_raw, job.ssh, b"\0\0\0\0"), b"")
        self.assertEqual(job.do(send_raw, job.ssh, b"\0\1\0\0\x0d"), b"")
        self.assertEqual(job.do(talk, job.ssh, [good])[0][0], SIGN_RESPONSE)
        self.assertEqual(job.do(talk, job.ssh, [good], True)[0][0], SIGN_RESPONSE)
        self.assertEqual(job.agent, pid)

    def test_only_granted_keys(self):
        job = self.job("--policy", "narrow")
        listed = job.do(talk, job.ssh, [bytes([11]), sign_request(self.blob("rsa-2048"), b"x", 2), sign_request(self.blob("ecdsa-p256"), b"x")])
        self.assertEqual(listed[0][:5], bytes([IDENTITIES_ANSWER]) + struct.pack(">I", 1))
        self.assertEqual([a[0] for a in listed[1:]], [FAILURE, SIGN_RESPONSE])

    def test_a_revoked_token(self):
        token = self.b.token("--policy", "signer")
        job = self.job(token=token)
        blob = self.blob("ed25519")
        self.assertEqual(job.do(talk, job.ssh, [sign_request(blob, b"x")])[0][0], SIGN_RESPONSE)
        self.b.cli("token", "revoke", self.b.cli("token", "show", token=token, check=True).stdout.split()[1].decode(), check=True)
        self.assertEqual(job.do(talk, job.ssh, [sign_request(blob, b"x")])[0][0], FAILURE)

    def test_its_directory(self):
        place = self.path("agents-place")
        leader = subprocess.Popen(["sleep", "60"])
        self.addCleanup(lambda: (leader.poll() is None and leader.kill(), leader.wait()))
        command = (COTTER, "agent", "--leader", str(leader.pid), "--dir", place)
        env = {**self.b.env, "COTTER_TOKEN": self.b.token("--policy", "signer")}
        run(*command, env=env, check=True)
        served = sorted(os.listdir(place))
        self.assertEqual(len(served), 2)
        # a second one finds the place taken, and leaves the first alone
        self.assertNotEqual(run(*command, env=env).returncode, 0)
        self.assertEqual(sorted(os.listdir(place)), served)
        leader.kill()
        wait_for("the agent's end", lambda: not os.path.exists(place))
        os.mkdir(place)
        os.chmod(place, 0o777)
        p = run(*command, env=env)
        self.assertEqual(p.returncode, 2)
        self.assertIn(b"nobody else can write to", p.stderr)

    def test_others_are_turned_away(self):
        if why := cgroups_missing():
            raise unittest.SkipTest(why)
        job, other = self.job(), Cgroup()
        self.addCleanup(other.remove)
        self.assertTrue(is_closed(job.ssh))
        self.assertTrue(as_peer(is_closed, job.ssh, cgroup=other))
        self.assertFalse(job.do(is_closed, job.ssh))


class Tpm(Agent, KeysCase):
    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048")
    certified = False

    @classmethod
    def make_hardware(cls):
        cls.tpm = cls.swtpm()


def send_raw(path, data):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(path)
        s.sendall(data)
        try:
            return s.recv(100)
        except ConnectionError:
            return b""


if __name__ == "__main__":
    unittest.main()
