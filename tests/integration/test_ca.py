"""Certificates from a CA key in hardware: X.509 by openssl's word, OpenSSH's by ssh-keygen's and a real sshd's."""
import base64
import os
import signal
import socket
import sqlite3
import subprocess
import time
import unittest

from harness import run, wait_for
from peers import ask, connect
from test_sign import SignCase, Stopped, hvac_client

CONFIG = """\
  issuer:
    - path: pki/*
      allow: [sign]
    - path: ssh/deploy
      allow: [sign]
pki:
  key: release/KEY
  crl_url: http://ci.example/crl
  roles:
    servers:
      names: ["*.ci.example", exact.example]
      uris: ["spiffe://ci.example/*"]
      allow_ip: true
      usages: [server, client]
      organization: Example
      ttl: 1h
      max_ttl: 2h
    code:
      names: ["Release *"]
      usages: [code]
ssh:
  key: release/KEY
  roles:
    deploy:
      type: user
      principals: [USER, "app-*"]
      extensions: [permit-pty, permit-port-forwarding]
      ttl: 10m
      max_ttl: 1h
    hosts:
      type: host
      principals: ["*.ci.example"]
"""


class Authority:
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.stop()
        user = run("id", "-un").stdout.decode().strip()
        cls.b.edit(lambda text: text + CONFIG.replace("KEY", cls.ca).replace("USER", user))
        cls.b.start()
        cls.issuer = cls.b.token("--policy", "issuer")
        cls.root = os.path.join(cls.dir, "root")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", cls.root + ".key", "-out", cls.root + ".crt",
            "-subj", "/CN=Root", "-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign", check=True)
        public = os.path.join(cls.dir, "ca.pem")
        with open(public, "wb") as f:
            f.write(cls.b.cli("key", "show", f"release/{cls.ca}", "--pem", check=True).stdout)
        extensions = os.path.join(cls.dir, "ca.ext")
        with open(extensions, "w") as f:
            f.write("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        cls.ca_cert = os.path.join(cls.dir, "ca.crt")
        run("openssl", "x509", "-new", "-force_pubkey", public, "-subj", "/O=Example/CN=Hardware CA", "-CA", cls.root + ".crt", "-CAkey", cls.root + ".key",
            "-extfile", extensions, "-days", "20", "-out", cls.ca_cert, check=True)
        cls.b.cli("key", "certificate", f"release/{cls.ca}", "--certificate", cls.ca_cert, check=True)

    def csr(self, *args, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        path = os.path.join(self.dir, "csr")
        run("openssl", "req", "-new", "-newkey", *kind, "-nodes", "-keyout", path + ".key", "-subj", "/CN=ignored", "-out", path, *args, check=True)
        with open(path) as f:
            return f.read()

    def issue(self, role, body, what="sign", token=None):
        return ask(self.b.socket, "POST", f"pki/{what}/{role}", token or self.issuer, body)

    def issued(self, role="servers", what="sign", **body):
        status, reply = self.issue(role, {"csr": self.csr(), "common_name": "a.ci.example", **body}, what)
        self.assertEqual(status, 200, reply)
        return reply["data"]

    def in_file(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text + "\n")
        return path

    def verify(self, pem, *args):
        return run("openssl", "verify", "-CAfile", self.root + ".crt", "-untrusted", self.ca_cert, *args, self.in_file("leaf.crt", pem))

    def text(self, pem):
        return run("openssl", "x509", "-noout", "-text", "-in", self.in_file("leaf.crt", pem), check=True).stdout.decode()

    def test_a_server(self):
        data = self.issued(alt_names="b.ci.example, exact.example", ip_sans="10.0.0.1,fd00::1", uri_sans="spiffe://ci.example/web", ttl="30m")
        self.assertEqual(self.verify(data["certificate"], "-purpose", "sslserver", "-verify_hostname", "b.ci.example").returncode, 0)
        text = self.text(data["certificate"])
        for part in ("DNS:a.ci.example, DNS:b.ci.example, DNS:exact.example", "IP Address:10.0.0.1", "IP Address:FD00:0:0:0:0:0:0:1", "URI:spiffe://ci.example/web",
                     "Subject: O = Example, CN = a.ci.example", "TLS Web Server Authentication, TLS Web Client Authentication", "CA:FALSE", "URI:http://ci.example/crl",
                     "Issuer: O = Example, CN = Hardware CA"):
            self.assertIn(part, text)
        self.assertNotIn("private_key", data)
        record = [line for line in self.b.audit(10).splitlines() if "ev=pki.sign" in line][-1]
        self.assertIn("secret=pki/servers", record)
        self.assertIn("certificate_" + data["serial_number"], record)
        self.assertIn("ver=1 ", record)
        shown = ask(self.b.socket, "GET", f"pki/cert/{data['serial_number']}")[1]["data"]
        self.assertEqual(shown, {"certificate": data["certificate"], "revocation_time": 0})

    def test_every_kind_of_key(self):
        for kind in (("rsa:2048",), ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), ("ed25519",)):
            status, reply = self.issue("servers", {"csr": self.csr(kind=kind), "common_name": "a.ci.example"})
            self.assertEqual(status, 200, reply)
            p = self.verify(reply["data"]["certificate"], "-x509_strict")
            self.assertEqual(p.returncode, 0, p.stderr)

    def test_issued_with_a_key(self):
        data = self.issued("code", "issue", csr=None, common_name="Release 1.0")
        self.assertEqual(self.verify(data["certificate"], "-purpose", "any").returncode, 0)
        self.assertIn("Code Signing", self.text(data["certificate"]))
        self.assertNotIn("DNS:", self.text(data["certificate"]))
        public = run("openssl", "pkey", "-pubout", "-in", self.in_file("leaf.key", data["private_key"]), check=True).stdout
        self.assertEqual(run("openssl", "x509", "-noout", "-pubkey", "-in", self.in_file("leaf.crt", data["certificate"]), check=True).stdout, public)

    def test_what_a_role_does_not_allow(self):
        csr = self.csr()
        for body, text in (({"common_name": "evil.example"}, "common name"), ({"common_name": "a.ci.example.evil"}, "common name"),
                           ({"common_name": "a.ci.example", "alt_names": "x.evil"}, "DNS name 2"), ({"common_name": "*.ci.example"}, "common name"),
                           ({"common_name": "*.ci.example", "exclude_cn_from_sans": True}, "common name"), ({"common_name": "x y.ci.example"}, "common name"),
                           ({"common_name": "admin/O=root.ci.example", "exclude_cn_from_sans": True}, "common name"),
                           ({"common_name": "a.ci.example", "exclude_cn_from_sans": True}, "besides its common name"),
                           ({"common_name": "a.ci.example", "alt_names": "-x.ci.example"}, "DNS name 2"), ({"common_name": "a.ci.example", "uri_sans": "http://x"}, "URI"),
                           ({"common_name": "a.ci.example", "ip_sans": "x"}, "address 1"), ({"common_name": "a.ci.example", "ttl": "3h"}, "at most 7200 s"),
                           ({}, "common_name"), ({"common_name": "a" * 65}, "common_name"), ({"common_name": "a.ci.example", "csr": "x"}, "csr"),
                           ({"common_name": "a.ci.example", "csr": self.csr(kind=("rsa:1024",))}, "too weak"), ({"common_name": "a\n.ci.example"}, "does not allow"),
                           ({"common_name": "a.ci.example", "alt_names": ",".join(["a.ci.example"] * 70)}, "at most 64")):
            status, reply = self.issue("servers", {"csr": csr, **body})
            self.assertEqual(status, 400, (body, reply))
            self.assertIn(text, reply["errors"][0])
        self.assertNotIn("evil", self.b.audit(40))
        self.assertEqual(self.issue("nothing", {"csr": csr, "common_name": "a.ci.example"})[0], 400)
        self.assertEqual(self.issue("code", {"csr": csr, "common_name": "Release 1", "ip_sans": "10.0.0.1"})[0], 400)
        self.assertEqual(self.issue("servers", {"csr": csr, "common_name": "a.ci.example"}, token=self.token)[0], 403)
        broken = csr.replace("A", "B", 3)
        self.assertEqual(self.issue("servers", {"csr": broken, "common_name": "a.ci.example"})[0], 400)

    def crl(self, pem=True):
        path = os.path.join(self.dir, "crl")
        run("curl", "-sS", "--unix-socket", self.b.socket, "-o", path, f"http://localhost/v1/pki/crl{'/pem' if pem else ''}", check=True)
        return path

    def test_revocation(self):
        good, bad = self.issued(), self.issued()
        for pem in (True, False):
            out = run("openssl", "crl", "-in", self.crl(pem), "-inform", "PEM" if pem else "DER", "-noout", "-text", "-CAfile", self.ca_cert, check=True)
            self.assertIn(b"verify OK", out.stderr)
        self.assertEqual(ask(self.b.socket, "POST", "pki/revoke", self.issuer, {"serial_number": bad["serial_number"]})[0], 403)
        status, reply = ask(self.b.operator_socket, "POST", "pki/revoke", None, {"serial_number": bad["serial_number"]})
        self.assertEqual(status, 200, reply)
        self.assertEqual(ask(self.b.operator_socket, "POST", "pki/revoke", None, {"serial_number": bad["serial_number"]})[1]["data"], reply["data"])
        self.assertEqual(ask(self.b.operator_socket, "POST", "pki/revoke", None, {"serial_number": "00:11"})[0], 400)
        crl = self.crl()
        self.assertEqual(self.verify(good["certificate"], "-crl_check", "-CRLfile", crl).returncode, 0)
        p = self.verify(bad["certificate"], "-crl_check", "-CRLfile", crl)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn(b"revoked", p.stderr)
        # across a restart, with a number that grows
        before = run("openssl", "crl", "-in", crl, "-noout", "-crlnumber", check=True).stdout
        self.b.stop(signal.SIGKILL)
        self.b.start()
        p = self.verify(bad["certificate"], "-crl_check", "-CRLfile", self.crl())
        self.assertIn(b"revoked", p.stderr)
        self.assertGreater(int(run("openssl", "crl", "-in", crl, "-noout", "-crlnumber", check=True).stdout.split(b"=")[1], 16), int(before.split(b"=")[1], 16))

    def test_serial_numbers_never_repeat(self):
        serials, ssh = [], []
        key = self.ssh_key("serial")
        for _ in range(3):
            for _ in range(5):
                serials.append(self.issued()["serial_number"])
                ssh.append(int(self.ssh_sign({"public_key": key, "valid_principals": "app-1"})[1]["data"]["serial_number"], 16))
            self.b.stop(signal.SIGKILL)
            self.b.start()
        self.assertEqual(len(set(serials)), 15)
        self.assertEqual(ssh, sorted(set(ssh)))

    def test_the_ca(self):
        out = run("curl", "-sS", "--unix-socket", self.b.socket, "http://localhost/v1/pki/ca/pem", check=True).stdout
        with open(self.ca_cert, "rb") as f:
            self.assertEqual(out.split(), f.read().split())
        p = run("curl", "-sS", "-D", "-", "-o", "/dev/null", "--unix-socket", self.b.socket, "http://localhost/v1/pki/ca", check=True)
        self.assertIn(b"Content-Type: application/pkix-cert", p.stdout)

    def test_hvac(self):
        client = hvac_client(self.b.socket, self.issuer)
        data = client.secrets.pki.sign_certificate(name="servers", csr=self.csr(), common_name="h.ci.example")["data"]
        self.assertEqual(self.verify(data["certificate"]).returncode, 0)
        data = client.secrets.pki.generate_certificate(name="servers", common_name="h.ci.example", extra_params={"ttl": "5m"})["data"]
        self.assertEqual(self.verify(data["certificate"]).returncode, 0)

    # ---- what must not be had

    def get_crl(self):
        s = connect(self.b.socket)
        s.sendall(b"GET /v1/pki/crl HTTP/1.1\r\nHost: x\r\n\r\n")
        return s

    def test_a_revocation_meanwhile(self):
        """A list that was being signed when something was revoked is not served."""
        bad = self.issued()
        self.revoke(self.issued()) # nothing is kept from before
        with Stopped(self.b):
            s = self.get_crl()
            time.sleep(0.2)
            self.assertEqual(self.revoke(bad), 200)
        self.assertIn(b"200 OK", s.recv(4096))
        s.close()
        p = self.verify(bad["certificate"], "-crl_check", "-CRLfile", self.crl())
        self.assertIn(b"revoked", p.stderr)

    def test_a_certificate_replaced_meanwhile(self):
        self.revoke(self.issued())
        with Stopped(self.b):
            s = self.get_crl()
            time.sleep(0.2)
            self.b.cli("key", "certificate", f"release/{self.ca}", "--certificate", self.ca_cert, check=True)
        self.assertIn(b"200 OK", s.recv(4096))
        s.close()
        run("openssl", "crl", "-in", self.crl(), "-noout", "-CAfile", self.ca_cert, check=True)

    def test_one_list_for_everybody(self):
        def counter():
            return sqlite3.connect(os.path.join(self.b.state, "store.db")).execute("SELECT value FROM counter WHERE name = 'crl'").fetchone()[0]

        self.crl()
        self.revoke(self.issued())
        before, records = counter(), self.b.audit(2000).count("ev=pki.crl")
        with Stopped(self.b):
            clients = [self.get_crl() for _ in range(200)]
            time.sleep(0.3)
            for s in clients[:50]:
                s.close() # who leaves does not take it from the others
        for s in clients[50:]:
            self.assertIn(b"200 OK", s.recv(4096))
            s.close()
        self.assertEqual((counter(), self.b.audit(2000).count("ev=pki.crl")), (before + 1, records + 1))

    def test_a_ca_key_signs_nothing_else(self):
        """Whoever may sign with all of release/ cannot sign a certificate of its own making."""
        for path, body in (("sign", {"input": "eA=="}), ("hmac", {"input": "eA=="}), ("verify", {"input": "eA==", "signature": "vault:v1:AAAA"})):
            self.assertEqual(self.post(f"{path}/release/{self.ca}", body)[0], 403)
        self.assertIn("CA's", self.b.audit(5).replace("_", " "))
        names = [k["name"] for k in ask(self.b.socket, "GET", "cotter/keys", self.token)[1]["data"]["keys"]]
        self.assertNotIn(f"release/{self.ca}", names)
        self.assertEqual(ask(self.b.operator_socket, "POST", f"transit/sign/release/{self.ca}", None, {"input": "eA=="})[0], 200)
        for name in ("pki/servers", "ssh/x"):
            self.assertIn(b"role", self.b.cli("key", "add", name).stderr)

    def test_certificates_that_expired(self):
        db = sqlite3.connect(os.path.join(self.b.state, "store.db"), timeout=10)

        def old():
            return db.execute("SELECT count(*) FROM certificate WHERE expires < ?", (int(time.time()) - 86400,)).fetchone()[0]

        serial = bytes.fromhex(self.issued()["serial_number"].replace(":", ""))
        db.execute("UPDATE certificate SET expires = 1000 WHERE serial = ?", (serial,))
        db.commit()
        revoked = self.issued()
        self.revoke(revoked)
        db.execute("UPDATE certificate SET expires = ? WHERE serial = ?", (int(time.time()) - 200000, bytes.fromhex(revoked["serial_number"].replace(":", ""))))
        db.commit()
        self.assertEqual(old(), 1)
        self.issued()
        self.assertEqual(old(), 1) # what was revoked is not forgotten by a clock that is a few days ahead
        db.execute("DELETE FROM certificate WHERE expires < ?", (int(time.time()) - 86400,))
        db.commit()
        before = db.execute("SELECT count(*) FROM certificate").fetchone()
        names = ",".join("a" * 60 + "." + "b" * 60 + "." + "c" * 60 + ".x%d.ci.example" % i for i in range(63))
        self.assertNotEqual(self.issue("servers", {"csr": self.csr(), "common_name": "a.ci.example", "alt_names": names})[0], 200)
        self.assertEqual(db.execute("SELECT count(*) FROM certificate").fetchone(), before)

    def revoke(self, data):
        return ask(self.b.operator_socket, "POST", "pki/revoke", None, {"serial_number": data["serial_number"]})[0]

    # ---- OpenSSH

    def ssh_key(self, name, kind="ed25519"):
        path = os.path.join(self.dir, name)
        if not os.path.exists(path):
            run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path, check=True)
        with open(path + ".pub") as f:
            return f.read()

    def ssh_sign(self, body, role="deploy", token=None):
        return ask(self.b.socket, "POST", f"ssh/sign/{role}", token or self.issuer, body)

    @staticmethod
    def weak_key():
        def string(data):
            return len(data).to_bytes(4, "big") + data

        return "ssh-rsa " + base64.b64encode(string(b"ssh-rsa") + string(b"\1\0\1") + string(b"\0" + b"\xff" * 8)).decode()

    def test_ssh_certificates(self):
        for kind in ("ed25519", "ecdsa", "rsa"):
            status, reply = self.ssh_sign({"public_key": self.ssh_key("user-" + kind, kind), "valid_principals": "app-1,app-2", "ttl": "5m", "key_id": "build/1"})
            self.assertEqual(status, 200, reply)
            with open(os.path.join(self.dir, f"user-{kind}-cert.pub"), "w") as f:
                f.write(reply["data"]["signed_key"])
            out = run("ssh-keygen", "-L", "-f", os.path.join(self.dir, f"user-{kind}-cert.pub"), check=True).stdout.decode()
            for part in ("user certificate", 'Key ID: "token/build/1"', "app-1\n", "app-2\n", "permit-pty", "permit-port-forwarding", "Critical Options: (none)",
                         f"Serial: {int(reply['data']['serial_number'], 16)}"):
                self.assertIn(part, out)
        for body, text in (({"valid_principals": "root2"}, "principals"), ({"valid_principals": "app-*"}, "wildcards"), ({"valid_principals": "app-\nroot"}, "wildcards"),
                           ({"valid_principals": "app-1 root"}, "wildcards"), ({"valid_principals": "app-1", "public_key": self.weak_key()}, "RSA from 2048"), ({"valid_principals": ""}, "valid_principals"), ({"valid_principals": "app-1,,"}, "valid_principals"),
                           ({"valid_principals": "app-1", "ttl": "2h"}, "at most 3600 s"), ({"valid_principals": "app-1", "cert_type": "host"}, "user certificates"),
                           ({"valid_principals": "app-1", "extensions": {"permit-X11-forwarding": ""}}, "extensions"), ({"valid_principals": "app-1", "public_key": "x"}, "public_key"),
                           ({"valid_principals": "app-1", "public_key": "ssh-ed25519 AAAA"}, "public_key"), ({"valid_principals": "app-1", "key_id": "a b"}, "key_id")):
            status, reply = self.ssh_sign({"public_key": self.ssh_key("user-ed25519"), **body})
            self.assertEqual(status, 400, (body, reply))
            self.assertIn(text, reply["errors"][0])
        self.assertEqual(self.ssh_sign({"public_key": self.ssh_key("user-ed25519"), "valid_principals": "a.ci.example"}, "hosts")[0], 403)
        status, reply = ask(self.b.operator_socket, "POST", "ssh/sign/hosts", None, {"public_key": self.ssh_key("user-ed25519"), "valid_principals": "a.ci.example"})
        self.assertEqual(status, 200, reply)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: starts an sshd that others can log in to")
    def test_a_real_sshd(self):
        os.makedirs("/run/sshd", exist_ok=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        host = os.path.join(self.dir, "host")
        self.ssh_key("host")
        ca = run("curl", "-sS", "--unix-socket", self.b.socket, "http://localhost/v1/ssh/public_key", check=True).stdout
        self.in_file("ca.pub", ca.decode())
        status, reply = ask(self.b.operator_socket, "POST", "ssh/sign/hosts", None, {"public_key": self.ssh_key("host"), "valid_principals": "a.ci.example"})
        self.in_file("host-cert.pub", reply["data"]["signed_key"])
        config = self.in_file("sshd_config", f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nHostCertificate {host}-cert.pub\nTrustedUserCAKeys {self.dir}/ca.pub\n"
                              f"AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUsePAM no\nPidFile none\n")
        sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (sshd.terminate(), sshd.wait()))
        wait_for("sshd", lambda: self.listens(port))
        known = self.in_file("known", "@cert-authority *.ci.example " + ca.decode())
        user = run("id", "-un").stdout.decode().strip()

        def log_in(principal):
            key = self.ssh_key("login")
            status, reply = self.ssh_sign({"public_key": key, "valid_principals": principal})
            self.assertEqual(status, 200, reply)
            self.in_file("login-cert.pub", reply["data"]["signed_key"])
            return run("ssh", "-F", "none", "-p", str(port), "-i", os.path.join(self.dir, "login"), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}",
                       "-o", "HostKeyAlias=a.ci.example", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", f"{user}@127.0.0.1", "echo in")
        p = log_in(user)
        self.assertEqual(p.stdout, b"in\n", p.stderr)
        self.assertNotEqual(log_in("app-1").returncode, 0)

    @staticmethod
    def listens(port):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False


class SoftHsmCase(Authority, SignCase):
    @classmethod
    def make_hardware(cls):
        if not cls.types:
            raise unittest.SkipTest("only the classes below")
        cls.hsm = cls.softhsm()


class SoftHsmEc(SoftHsmCase):
    ca = "ecdsa-p256"
    types = (ca,)

    def test_unread_lists_take_no_locked_memory(self):
        """Each list that a client does not read would be 16 KiB of the arena; what is asked ahead takes 1 MiB of a user at most."""
        for _ in range(200):
            self.revoke(self.issued())
        self.crl()
        before = self.b.status()["arena_used"]
        clients = [connect(self.b.socket) for _ in range(100)]
        for s in clients:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.setblocking(False)
        for _ in range(150):
            for s in clients:
                s.send(b"GET /v1/pki/crl/pem HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        used = self.b.status()["arena_used"]
        for s in clients:
            s.close()
        self.assertLess(used - before, 5 << 18)


class SoftHsmRsa(SoftHsmCase):
    ca = "rsa-2048"
    types = (ca,)


class SoftHsmEd25519(SoftHsmCase):
    ca = "ed25519"
    types = (ca,)

    def test_the_list_is_full(self):
        """Ed25519 takes the whole list into the hardware: what does not fit is not called revoked."""
        answers = [self.revoke(self.issued("code", "issue", csr=None, common_name="Release 1")) for _ in range(92)]
        self.assertIn(answers[-1], (413, 429, 400))
        self.assertGreater(answers.count(200), 60)
        run("openssl", "crl", "-in", self.crl(), "-noout", check=True)


class Tpm(Authority, SignCase):
    ca = "ecdsa-p256"
    types = (ca,)

    @classmethod
    def make_hardware(cls):
        cls.tpm = cls.swtpm()


if __name__ == "__main__":
    unittest.main()
