"""The virtual PKCS#11 token of a job, used by the tools that people have; what they signed is verified by openssl or by themselves."""
import concurrent.futures
import hashlib
import os
import random
import re
import signal
import socket
import struct
import time
import unittest
import zipfile

import agents
from agents import MODULE, KeysCase, Rpc, Sshd, array, der_ecdsa, message, u32, u64
from harness import COTTER, run, wait_for
from peers import Cgroup, Process, as_peer, cgroups_missing

TOOL = f"pkcs11-tool --module {MODULE}"
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
ENGINE = f"""openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = /usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so
MODULE_PATH = {MODULE}
init = 0
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
"""
CKR_OK, CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_NOT_SUPPORTED, CKR_FUNCTION_REJECTED = 0, 7, 0x11, 0x13, 0x54, 0x200
CKR_NOT_INITIALIZED, CKR_MECHANISM_PARAM_INVALID, CKR_DEVICE_REMOVED = 0x190, 0x71, 0x32


def portable_executable():
    """A PE32+ file with one section, which does nothing."""
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", 0x20b, 14, 0, 512, 0, 0, 0x1000, 0x1000, 0x140000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, 0,
                           0x2000, 512, 0, 3, 0, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    section = struct.pack("<8sIIIIIIHHI", b".text", 1, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    head = dos + b"PE\0\0" + coff + optional + bytes(16 * 8) + section
    return head.ljust(512, b"\0") + b"\xc3".ljust(512, b"\0")


def uri(kind):
    return f"pkcs11:token=cotter;object=release/{kind};type=private"


def connects(path):
    """Whether whoever listens there answers."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        try:
            s.connect(path)
            s.sendall(b"\0")
            return s.recv(1) == b"\0"
        except OSError:
            return False


class Clients:
    """Over any hardware."""

    def key_id(self, kind):
        der = run("openssl", "pkey", "-pubin", "-in", self.key(kind), "-outform", "DER", check=True).stdout
        return hashlib.sha256(der).hexdigest()[:40]

    def test_pkcs11_tool_lists(self):
        text = self.shell(f"{TOOL} --list-slots; {TOOL} -O; {TOOL} -M")
        self.assertEqual(text.count("Slot "), 1)
        self.assertIn("PIN pad present", text)
        self.assertNotIn("login required", text)
        for kind in self.types:
            self.assertEqual(text.count(f"label:      release/{kind}\n"), 0 if kind == "ed25519" else 3)
            self.assertEqual(text.count(f"ID:         {self.key_id(kind)}\n"), 0 if kind == "ed25519" else 3)
        self.assertIn("never extractable", text)
        self.assertIn("RSA-PKCS-PSS", text)

    def test_pkcs11_tool_signs(self):
        data = self.read(self.message)
        digest = hashlib.sha256(data).digest()
        self.write("digest", digest)
        self.write("info", SHA256_INFO + digest)
        pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", f"rsa_pss_saltlen:{-2 if self.tpm else -1}"]
        cases = (("rsa-2048", "RSA-PKCS", "info", "", "sha2-256", ()), ("rsa-2048", "SHA256-RSA-PKCS", self.message, "", "sha2-256", ()),
                 ("rsa-2048", "RSA-PKCS-PSS", "digest", "--hash-algorithm SHA256 --mgf MGF1-SHA256 --salt-len -1", "sha2-256", pss),
                 ("ecdsa-p256", "ECDSA", "digest", "--signature-format openssl", "sha2-256", ()),
                 ("ecdsa-p256", "ECDSA-SHA1", self.message, "--signature-format openssl", "sha1", ()),
                 ("ecdsa-p384", "ECDSA", "digest", "--signature-format openssl", "sha2-256", ()))
        script = []
        for i, (kind, mechanism, source, options, _, _) in enumerate(cases):
            key = self.key_id(kind)
            for form, text in (("plain", key), ("colons", ":".join(re.findall("..", key)))):
                script.append(f"{TOOL} --sign -m {mechanism} --id {text} {options} -i {source} -o pt-{i}-{form}")
        self.shell("\n".join(script))
        for i, (kind, mechanism, _, _, hash_name, options) in enumerate(cases):
            for form in ("plain", "colons"):
                self.assertTrue(self.openssl_verifies(kind, data, self.read(f"pt-{i}-{form}"), hash_name, options), (kind, mechanism, form))

    def test_pkcs11_tool_tests_itself(self):
        text = self.shell(f"{TOOL} --login --pin 0000 --test")
        self.assertIn("No errors", text)
        self.assertNotIn("ERR", text)
        self.assertIn("all 4 signature functions seem to work", text)

    def test_openssl(self):
        self.write("engine.cnf", ENGINE)
        kinds = [k for k in self.types if k in ("rsa-2048", "ecdsa-p256")]
        script = ["export OPENSSL_CONF=$PWD/engine.cnf",
                  "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=leaf -out os-leaf.csr"]
        for kind in kinds:
            engine = "-engine pkcs11 -keyform engine"
            script += [f"openssl dgst {engine} -sha256 -sign '{uri(kind)}' -out os-{kind}.sig release.txt",
                       f"openssl cms -sign -binary -nodetach {engine} -inkey '{uri(kind)}' -signer {kind}.crt -in release.txt -outform DER -out os-{kind}.cms",
                       f"openssl req -new {engine} -key '{uri(kind)}' -subj /CN=asks -out os-{kind}.csr",
                       f"openssl req -new -x509 {engine} -key '{uri(kind)}' -subj /CN=own -extensions authority -out os-{kind}.ca",
                       f"openssl x509 -req -in os-leaf.csr -engine pkcs11 -CAkeyform engine -CAkey '{uri(kind)}' -CA os-{kind}.ca -set_serial 7 "
                       f"-out os-{kind}.leaf"]
        script.append(f"openssl dgst -engine pkcs11 -keyform engine -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1 -sign '{uri('rsa-2048')}' "
                      "-out os-pss.sig release.txt")
        self.shell("\n".join(script))
        data = self.read(self.message)
        for kind in kinds:
            self.assertTrue(self.openssl_verifies(kind, data, self.read(f"os-{kind}.sig")))
            p = run("openssl", "cms", "-verify", "-binary", "-CAfile", self.ca, "-inform", "DER", "-in", self.path(f"os-{kind}.cms"), check=True)
            self.assertEqual(p.stdout, data)
            run("openssl", "req", "-verify", "-noout", "-in", self.path(f"os-{kind}.csr"), check=True)
            run("openssl", "verify", "-CAfile", self.path(f"os-{kind}.ca"), self.path(f"os-{kind}.leaf"), check=True)
        self.assertTrue(self.openssl_verifies("rsa-2048", data, self.read("os-pss.sig"), options=["-sigopt", "rsa_padding_mode:pss"]))

    def test_decrypts(self):
        plain = self.write("plain", b"opened in the hardware")
        sealed = self.path("sealed")
        for hash_name in ("sha256", "sha1"):
            run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", self.key("rsa-2048"), "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt",
                f"rsa_oaep_md:{hash_name}", "-in", plain, "-out", sealed, check=True)
            p = self.in_job("pkcs11-tool", "--module", MODULE, "--decrypt", "-m", "RSA-PKCS-OAEP", "--hash-algorithm", hash_name.upper().replace("SHA1", "SHA-1"),
                            "--mgf", f"MGF1-{hash_name.upper()}", "--input-file", sealed, "--output-file", self.path("opened"), policy="opener")
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertEqual(self.read("opened"), b"opened in the hardware")

    def test_both_dialects(self):
        """p11-kit since 0.25.6 writes mechanisms in another way, and hashes ECDSA's and PSS's messages in the token."""
        job = self.job()
        data = self.read(self.message)
        digest = hashlib.sha256(data).digest()
        for version in (2, 0):
            ec, pss, hashed = job.do(sign_by_hand, job.pkcs11, version, data)
            self.assertTrue(self.openssl_verifies("ecdsa-p256", data, der_ecdsa(ec)), version)
            self.assertTrue(self.openssl_verifies("ecdsa-p256", data, der_ecdsa(hashed)), version)
            self.assertTrue(self.openssl_verifies("rsa-2048", data, pss, options=["-sigopt", "rsa_padding_mode:pss"]), version)
        self.assertIn(digest.hex(), self.last())

    def test_the_broker_dies_and_comes_back(self):
        job = self.job()
        client = Process(cgroup=job)
        try:
            data = os.urandom(100)
            client.do(hold, job.pkcs11)
            self.assertEqual(client.do(sign_held, data)[0], CKR_OK)
            self.b.stop(signal.SIGKILL)
            self.assertNotEqual(client.do(sign_held, data)[0], CKR_OK)
            self.b.start()
            rv, raw = client.do(sign_held, data)
            self.assertEqual(rv, CKR_OK)
            self.assertTrue(self.openssl_verifies("ecdsa-p256", data, der_ecdsa(raw)))
        finally:
            client.end()


    def test_the_hardware_is_away_for_a_while(self):
        """Helper, agent and the job's session live on; the next signature is made when it is back."""
        job = self.job()
        client = Process(cgroup=job)
        data = os.urandom(100)
        try:
            client.do(hold, job.pkcs11)
            for _ in range(2):
                self.assertEqual(client.do(sign_held, data)[0], CKR_OK)
                self.take_away()
                try:
                    client.do(sign_held, data)  # perhaps begun ahead
                    self.assertEqual([client.do(sign_held, data)[0] for _ in range(3)], [CKR_DEVICE_REMOVED] * 3)
                    self.assertEqual(self.b.status()["providers"][0]["state"], "absent")
                finally:
                    self.put_back()
                time.sleep(1.1)  # no oftener is it looked for
                rv, raw = client.do(sign_held, data)
                self.assertEqual(rv, CKR_OK)
                self.assertTrue(self.openssl_verifies("ecdsa-p256", data, der_ecdsa(raw)))
            self.assertEqual(self.b.status()["providers"][0]["state"], "ready")
        finally:
            client.end()


class SoftHsm(Clients, KeysCase):
    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "ed25519")

    @classmethod
    def make_hardware(cls):
        cls.hsm = cls.softhsm()

    def take_away(self):
        """The nearest to a card pulled out."""
        os.rename(self.hsm.tokens, self.hsm.tokens + ".away")

    def put_back(self):
        os.rename(self.hsm.tokens + ".away", self.hsm.tokens)

    def test_osslsigncode(self):
        self.write("setup.exe", portable_executable())
        for kind in ("rsa-3072", "ecdsa-p256"):
            self.shell(f"osslsigncode sign -pkcs11engine /usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so -pkcs11module {MODULE} -key '{uri(kind)}' "
                       f"-certs {kind}.crt -h sha256 -n Setup -in setup.exe -out {kind}.exe")
            p = run("osslsigncode", "verify", "-CAfile", self.ca, "-in", self.path(f"{kind}.exe"))
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
            self.assertIn(b"Signature verification: ok", p.stdout)
            spoilt = bytearray(self.read(f"{kind}.exe"))
            spoilt[600] ^= 1
            self.assertNotEqual(run("osslsigncode", "verify", "-CAfile", self.ca, "-in", self.write("spoilt.exe", bytes(spoilt))).returncode, 0)

    def test_p11tool(self):
        text = self.shell(f"p11tool --provider {MODULE} --list-all; p11tool --provider {MODULE} --login --batch --list-privkeys")
        for kind in ("ecdsa-p256", "rsa-2048"):
            self.assertEqual(text.count(f"Label: release/{kind}\n"), 4)
        self.assertNotIn("ed25519", text)
        text = self.shell("\n".join(f"p11tool --provider {MODULE} --login --batch --test-sign '{uri(kind)}'" for kind in self.types if kind != "ed25519"))
        self.assertEqual(text.count("Verifying against public key in the token... ok"), 4)

    def test_ssh(self):
        sshd = Sshd(self.sub("sshd"))
        self.addCleanup(sshd.stop)
        keys = {line.split()[2]: line for line in self.shell(f"ssh-keygen -D {MODULE}").splitlines() if line.startswith(("ssh-", "ecdsa-"))}
        self.assertEqual(sorted(keys), sorted(f"release/{kind}" for kind in self.types if kind != "ed25519"))
        for name, line in keys.items():
            sshd.authorize(line)
            p = self.in_job("env", "-u", "SSH_AUTH_SOCK", *sshd.ssh("-o", "BatchMode=yes", "-o", f"PKCS11Provider={MODULE}"), "echo far side")
            self.assertEqual(p.stdout, b"far side\n", (name, p.stderr))
        self.assertIn("Accepted publickey", open(sshd.log).read())

    def test_openssh_agent(self):
        """One that loads the module; it asks nobody for a PIN."""
        self.shell(f"""
            unset SSH_AUTH_SOCK
            eval "$(ssh-agent -P '/usr/lib/*')" >/dev/null
            SSH_ASKPASS=/bin/true SSH_ASKPASS_REQUIRE=force ssh-add -s {MODULE}
            ssh-add -L >loaded.pub
            sed -i -n '/ecdsa-p384/p' loaded.pub
            ssh-keygen -Y sign -n file -f loaded.pub release.txt
            kill $SSH_AGENT_PID
            """)
        self.write("signers", b"release@example.org " + self.read("loaded.pub"))
        verify = ("ssh-keygen", "-Y", "verify", "-n", "file", "-f", self.path("signers"), "-I", "release@example.org", "-s", self.path("release.txt.sig"))
        self.assertEqual(run(*verify, stdin=self.read("release.txt")).returncode, 0)

    def test_jarsigner(self):
        with zipfile.ZipFile(self.path("plain.jar"), "w") as z:
            z.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n\n")
            z.writestr("release.txt", "release 1.0\n")
        self.write("java.cfg", f"name = cotter\nlibrary = {MODULE}\nslotListIndex = 0\n")
        signer = 'jarsigner -keystore NONE -storetype PKCS11 -storepass "" -providerClass sun.security.pkcs11.SunPKCS11 -providerArg java.cfg'
        cases = (("rsa-2048", ""), ("rsa-2048", "-sigalg RSASSA-PSS"), ("ecdsa-p384", ""))
        self.shell("\n".join(f"{signer} {options} -signedjar signed-{i}.jar plain.jar release/{kind}" for i, (kind, options) in enumerate(cases)))
        for i in range(len(cases)):
            p = run("jarsigner", "-verify", self.path(f"signed-{i}.jar"))
            self.assertEqual(p.returncode, 0, p.stdout)
            self.assertIn(b"jar verified.", p.stdout)

    def test_gpg(self):
        home = self.sub("gnupg")
        os.chmod(home, 0o700)
        pinentry = self.write("pinentry", '#!/bin/sh\necho OK\nwhile read -r line; do\n\t[ "$line" != GETPIN ] || echo "D 0000"\n\techo OK\ndone\n')
        os.chmod(pinentry, 0o700)
        self.write("gnupg/gpg-agent.conf", f"scdaemon-program /usr/bin/gnupg-pkcs11-scd\npinentry-program {pinentry}\n")
        self.write("gnupg/gnupg-pkcs11-scd.conf", f"providers cotter\nprovider-cotter-library {MODULE}\nprovider-cotter-allow-protected-auth\n")
        self.write("gnupg/key", "%no-protection\nKey-Type: RSA\nKey-Grip: GRIP\nKey-Usage: sign\nName-Real: Release\nExpire-Date: 0\n%commit\n")
        before = len(self.signatures())
        text = self.shell(f"""
            gpg-connect-agent 'SCD SERIALNO' 'LEARN --sendinfo' /bye | tee learned
            grip=$(sed -n 's/^S KEYPAIRINFO \\([0-9A-F]*\\) .*{self.key_id('rsa-2048').upper()}$/\\1/p' learned)
            sed -i "s/GRIP/$grip/" gnupg/key
            gpg --batch --no-tty --generate-key gnupg/key
            gpg --batch --yes --detach-sign --output release.gpg release.txt
            gpg --export --output public.gpg
            gpgconf --kill all
            """, env={"GNUPGHOME": home})
        self.assertRegex(text, "S SERIALNO D276[0-9A-F]+")
        self.assertEqual(len(self.signatures()), before + 3)  # the key's own, its revocation, the file's
        other = self.sub("verifier")
        os.chmod(other, 0o700)
        env = {**self.b.env, "GNUPGHOME": other}
        run("gpg", "--batch", "--import", self.path("public.gpg"), env=env, check=True)
        run("gpg", "--batch", "--verify", self.path("release.gpg"), self.message, env=env, check=True)
        self.assertNotEqual(run("gpg", "--batch", "--verify", self.path("release.gpg"), self.ca, env=env).returncode, 0)

    def test_two_hundred_jobs(self):
        """In parallel, with one token."""
        before, key = len(self.signatures()), self.key_id("ecdsa-p256")

        def job(i):
            digest = hashlib.sha256(b"%d" % i).digest()
            self.write(f"digest-{i}", digest)
            return self.in_job("pkcs11-tool", "--module", MODULE, "--sign", "-m", "ECDSA", "--id", key, "--signature-format", "openssl",
                               "-i", f"digest-{i}", "-o", f"parallel-{i}", token=self.token)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            for i, p in enumerate(pool.map(job, range(200))):
                self.assertEqual(p.returncode, 0, (i, p.stderr))
        for i in range(200):
            self.assertTrue(self.openssl_verifies("ecdsa-p256", b"%d" % i, self.read(f"parallel-{i}")), i)
        lines = self.signatures()[before:]
        self.assertEqual(len(lines), 200)
        for i in range(200):
            self.assertEqual(sum(hashlib.sha256(b"%d" % i).hexdigest() in line for line in lines), 1)

    def test_only_granted_keys_are_there(self):
        text = self.in_job("bash", "-c", f"{TOOL} -O; ssh-add -L", policy="narrow").stdout.decode()
        # names, not words: a serial or a point may hold any digits
        self.assertEqual(set(re.findall(r"release/\S+", text)), {"release/ecdsa-p256"})
        self.assertEqual(text.count("Private Key Object"), 1)
        self.assertEqual(len(re.findall("^(?:ssh|ecdsa)-", text, re.M)), 1)
        for policy in ("reader", "writer"):
            p = self.in_job("true", policy=policy)
            self.assertEqual(p.returncode, 1)
            self.assertIn(b"may use no key", p.stderr)

    def test_what_a_job_without_keys_ends_with(self):
        self.assertEqual(self.in_job("true", token="cot1_none").returncode, 3)
        self.assertEqual(self.in_job("true", token=self.token, env={"COTTER_SOCKET": self.path("no.sock")}).returncode, 6)

    def test_the_id_of_a_key(self):
        key_id = re.search(rb"  id ([0-9a-f]{40})$", self.b.cli("key", "show", "release/rsa-2048", check=True).stdout, re.M)[1].decode()
        self.shell(f"{TOOL} --sign -m SHA256-RSA-PKCS --id {key_id} -i {self.message} -o by-id")
        self.assertTrue(self.openssl_verifies("rsa-2048", self.read(self.message), self.read("by-id")))

    def test_the_grant_is_checked_at_each_signature(self):
        token = self.b.token("--policy", "signer")
        job = self.job(token=token)
        client = Process(cgroup=job)
        try:
            client.do(hold, job.pkcs11)
            self.assertEqual(client.do(sign_held, b"x")[0], CKR_OK)
            self.b.cli("token", "revoke", self.b.cli("token", "show", token=token, check=True).stdout.split()[1].decode(), check=True)
            self.assertEqual(client.do(sign_held, b"x")[0], CKR_FUNCTION_REJECTED)
            self.assertIn("result=denied", self.last("ev=sign"))
        finally:
            client.end()

    def test_uses_are_counted(self):
        once = self.b.cli("token", "narrow", "--uses", "2", "--op", "sign", token=self.token, check=True).stdout.decode().strip()
        job = self.job(token=once)
        self.assertEqual([rv for rv, _ in job.do(sign_often, job.pkcs11, 3)], [CKR_OK, CKR_OK, CKR_FUNCTION_REJECTED])

    def test_a_job_that_was_ended(self):
        job = self.job()
        client = Process(cgroup=job)
        try:
            client.do(hold, job.pkcs11)
            rv, _ = client.do(sign_held, b"ended")
            self.assertEqual(rv, CKR_OK)
            self.b.cli("job", "end", re.search(r" job=([0-9a-f]+) ", self.last()).group(1), check=True)
            self.assertEqual(client.do(sign_held, b"ended")[0], CKR_FUNCTION_REJECTED)
        finally:
            client.end()

    def test_secrets_are_refused(self):
        job = self.job()
        refused = job.do(ask_for_secrets, job.pkcs11)
        self.assertEqual(len(refused), 4)
        self.assertEqual(set(refused.values()), {CKR_ATTRIBUTE_SENSITIVE})

    def test_the_token_stays_with_the_agent(self):
        token = self.b.token("--policy", "signer")
        job = self.job(token=token)
        self.assertNotIn("COTTER_TOKEN", job.env)
        with open(f"/proc/{job.agent}/cmdline", "rb") as f:
            self.assertNotIn(token.encode(), f.read())
        try:
            with open(f"/proc/{job.agent}/environ", "rb") as f:
                self.assertEqual(os.geteuid(), 0)
                self.assertNotIn(token.encode(), f.read())
        except PermissionError:
            self.assertNotEqual(os.geteuid(), 0)  # it is not dumpable: its own uid may not even look

    def test_one_record_each(self):
        before = len(self.signatures())
        data = self.read(self.message)
        key = self.key_id("rsa-2048")
        self.shell(f"{TOOL} --sign -m SHA256-RSA-PKCS --id {key} -i release.txt -o record; {TOOL} -O; p11tool --provider {MODULE} --list-all")
        lines = self.signatures()[before:]
        self.assertEqual(len(lines), 1)
        self.assertIn("secret=release/rsa-2048 ver=1 ", lines[0])
        self.assertIn(f"why=pkcs1v15_sha2-256_{hashlib.sha256(data).hexdigest()}", lines[0])
        job = re.search(r" job=([0-9a-f]{16}) ", lines[0]).group(1)
        self.assertEqual(sum(f"ev=job.start job={job} " in line for line in self.b.audit(1000).splitlines()), 1)

    def test_others_are_turned_away(self):
        if why := cgroups_missing():
            raise unittest.SkipTest(why)
        job = self.job()
        self.assertTrue(job.do(connects, job.pkcs11))
        self.assertFalse(connects(job.pkcs11))
        other = Cgroup()
        self.addCleanup(other.remove)
        for path in (job.pkcs11, job.ssh):
            self.assertFalse(as_peer(connects, path, cgroup=other))
            self.assertFalse(as_peer(connects, path, uid=1234, cgroup=job))
        # the directory's mode is not all that keeps another uid out
        os.chmod(job.dir, 0o711)
        os.chmod(job.pkcs11, 0o666)
        self.assertFalse(as_peer(connects, job.pkcs11, uid=1234, cgroup=job))
        self.assertTrue(job.do(connects, job.pkcs11))

    def test_the_agent_ends_with_its_job(self):
        for _ in range(5):
            job = self.job()
            pid = job.agent
            os.kill(pid, 0)
            job.end()
            wait_for("the agent's end", lambda: not os.path.exists(f"/proc/{pid}/exe") or not os.path.exists(f"/proc/{pid}/cwd"))
            wait_for("the directory's end", lambda: not os.path.exists(job.dir), 5)
        directory = self.in_job("sh", "-c", "dirname $SSH_AUTH_SOCK").stdout.decode().strip()
        wait_for("the directory's end", lambda: not os.path.exists(directory), 5)

    def test_an_agent_by_hand(self):
        """It lets go of whoever started it, as a shell's $(…) needs, and goes with its leader."""
        script = f"""
            eval "$({COTTER} agent --leader $$)"
            {TOOL} -O 2>/dev/null | grep -c Private
            dirname "$SSH_AUTH_SOCK"
            """
        p = run("bash", "-euc", script, env={**self.b.env, "COTTER_TOKEN": self.token}, timeout=20)
        self.assertEqual(p.returncode, 0, p.stderr)
        count, directory = p.stdout.decode().split()
        self.assertEqual(count, "4")
        wait_for("the directory's end", lambda: not os.path.exists(directory), 5)

    def test_another_user(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("--user needs root")
        os.chmod(self.dir, 0o711)
        os.chmod(self.b.dir, 0o711)
        script = f'id -un; stat -c %U "$(dirname "$SSH_AUTH_SOCK")"; {TOOL} --sign -m ECDSA -i digest-of-user; dirname "$SSH_AUTH_SOCK" >&2'
        digest = hashlib.sha256(b"x").digest()
        os.chmod(self.write("digest-of-user", digest), 0o644)
        p = run(COTTER, "run", "--policy", "narrow", "--user", "daemon", "--keys", "--", "sh", "-c", script, env=self.b.env, cwd=self.dir)
        self.assertEqual(p.stdout[:14], b"daemon\ndaemon\n", p.stderr)
        self.assertTrue(self.openssl_verifies("ecdsa-p256", b"x", der_ecdsa(p.stdout[14:])))
        self.assertIn(" uid=1 ", self.last())
        directory = p.stderr.decode().split()[-1]
        wait_for("the directory's end", lambda: not os.path.exists(directory), 5)

    def test_what_did_not_start_leaves_nothing(self):
        before = set(os.listdir("/tmp"))
        for command, policy in (("true", "reader"), ("/nowhere/to/be/found", "signer"), ("true", "no-such-policy")):
            self.assertNotEqual(self.in_job(command, policy=policy).returncode, 0)
        wait_for("the directories' end", lambda: not [n for n in set(os.listdir("/tmp")) - before if n.startswith("cotter-") and self.is_empty(n)], 5)

    @staticmethod
    def is_empty(name):
        try:
            return not os.listdir(os.path.join("/tmp", name))
        except OSError:
            return False

    def test_random(self):
        job = self.job()
        one, two = job.do(some_random, job.pkcs11, 32), job.do(some_random, job.pkcs11, 32)
        self.assertEqual((len(one), len(two)), (32, 32))
        self.assertNotEqual(one, two)

    def test_hostile_bytes(self):
        job = self.job()
        pid = job.agent
        before = resident_peak(pid)
        answers = ("closed", CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_VALUE_INVALID, CKR_NOT_INITIALIZED, CKR_NOT_SUPPORTED, CKR_MECHANISM_PARAM_INVALID)
        for name, result in job.do(attack_rpc, job.pkcs11).items():
            self.assertIn(result, answers, name)
        self.assertEqual(job.do(mutate, job.pkcs11, 1000, 7), 1000)
        if not os.environ.get("COTTER_SANITIZE"):  # it keeps what was freed
            self.assertLess(resident_peak(pid) - before, 8 << 10)
        self.assertEqual(job.agent, pid)
        self.assertEqual(job.do(sign_often, job.pkcs11, 1)[0][0], CKR_OK)

    def test_many_connections(self):
        """More than it has room for; the idle ones do not keep it from the others once they are gone."""
        job = self.job()
        self.assertGreaterEqual(job.do(connect_many, job.pkcs11, 100), 60)
        self.assertEqual(job.do(sign_often, job.pkcs11, 1)[0][0], CKR_OK)


class Tpm(Clients, KeysCase):
    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048")

    @classmethod
    def make_hardware(cls):
        cls.tpm = cls.swtpm()

    def take_away(self):
        self.tpm.stop(9)

    def put_back(self):
        self.tpm.start()


# ---- what runs in the job -----------------------------------------------------------------------------------------------------

held = {}


def sign_by_hand(path, version, data):
    """By the wire: ECDSA of a digest, PSS and ECDSA of the message."""
    with Rpc(path, version) as c:
        c.log_in()
        ec, rsa = c.find("release/ecdsa-p256")[0], c.find("release/rsa-2048")[0]
        out = (c.sign(ec, hashlib.sha256(data).digest(), agents.CKM_ECDSA),
               c.sign(rsa, data, agents.CKM_SHA256_RSA_PKCS_PSS, agents.CKM_SHA256, agents.CKG_MGF1_SHA256, 32),
               c.sign(ec, data, agents.CKM_ECDSA_SHA256))
    assert [rv for rv, _ in out] == [0, 0, 0], out
    return [signature for _, signature in out]


def hold(path):
    """A connection, logged in, that stays."""
    held["rpc"] = Rpc(path, timeout=40).log_in()
    held["key"] = held["rpc"].find("release/ecdsa-p256")[0]


def sign_held(data):
    return held["rpc"].sign(held["key"], data, agents.CKM_ECDSA_SHA256)


def sign_often(path, n):
    with Rpc(path) as c:
        c.log_in()
        key = c.find("release/ecdsa-p256")[0]
        return [c.sign(key, b"x", agents.CKM_ECDSA_SHA256) for _ in range(n)]


def ask_for_secrets(path):
    with Rpc(path) as c:
        c.log_in()
        return {(name, kind): c.attribute(c.find(name)[0], kind) for name in ("release/rsa-2048", "release/ecdsa-p256")
                for kind in (agents.CKA_VALUE, agents.CKA_PRIVATE_EXPONENT)}


def some_random(path, n):
    with Rpc(path) as c:
        c.log_in()
        return c.good(agents.GENERATE_RANDOM, "ufy", u64(c.session), u32(n))[5:]


def resident_peak(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


def try_raw(path, data, log_in=True):
    """The error's number, or how the connection went."""
    with Rpc(path, timeout=5) as c:
        if log_in:
            c.log_in()
        try:
            return c.raw(data)[0]
        except (EOFError, ConnectionError):
            return "closed"
        except TimeoutError:
            return "waits"


def attack_rpc(path):
    nested = (u32(agents.CKA_WRAP_TEMPLATE) + b"\1" + u32(8) + u32(1)) * 4000
    find = message(agents.FIND_OBJECTS_INIT, "uaA", u64(1) + u32(1) + nested)
    out = {
        "a header of 4 GiB": try_raw(path, struct.pack(">III", 1, 0, 0xffffffff)),
        "options of 4 GiB": try_raw(path, struct.pack(">III", 1, 0xffffffff, 0)),
        "lengths that overflow": try_raw(path, struct.pack(">III", 1, 0xffffffff, 0x2d)),
        "nested templates": try_raw(path, find),
        "2.6 MB of them": try_raw(path, struct.pack(">III", 1, 0, 2600000) + bytes(60000)),
        "2 GiB of random": try_raw(path, message(agents.GENERATE_RANDOM, "ufy", u64(1) + u32(0x7ffffff0))),
        "4 GiB of attributes": try_raw(path, message(agents.GET_ATTRIBUTE_VALUE, "uufA", u64(1) + u64(2) + u32(0xffffffff))),
        "2 GiB for an attribute": try_raw(path, message(agents.FIND_OBJECTS_INIT, "uaA", u64(1) + u32(1) + u32(3) + b"\1" + u32(8) + u32(0x7fffffff))),
        "an unknown call": try_raw(path, message(99, "u", u64(1))),
        "call 0": try_raw(path, message(0, "")),
        "no call": try_raw(path, struct.pack(">III", 1, 0, 0)),
        "another signature": try_raw(path, message(agents.OPEN_SESSION, "uuu", u64(1) * 3)),
        "bytes behind": try_raw(path, message(agents.OPEN_SESSION, "uu", u64(1) + u64(4) + b"x")),
        "code 0": try_raw(path, message(agents.OPEN_SESSION, "uu", u64(1) + u64(4), code=0)),
        "before C_Initialize": try_raw(path, message(agents.OPEN_SESSION, "uu", u64(1) + u64(4)), log_in=False),
        "short PSS parameters": try_raw(path, message(agents.SIGN_INIT, "uMu", u64(1) + u32(agents.CKM_SHA256_RSA_PKCS_PSS) + b"\1" + u64(1))),
    }
    # each beginning of a message, then the end of the connection
    whole = message(agents.SIGN, "uayfy", u64(1) + array(bytes(32)) + u32(512))
    for n in range(len(whole)):
        with Rpc(path) as c:
            c.s.sendall(whole[:n])
    return out


def mutate(path, n, seed):
    """A conversation that was valid, spoilt in n ways; each connection comes to an end of some kind."""
    rng = random.Random(seed)
    with Rpc(path) as c:
        c.log_in()
        key = c.find("release/ecdsa-p256")[0]
        c.attribute(key, agents.CKA_LABEL)
        c.call(agents.SIGN_INIT, "uMu", u64(c.session), c.mechanism(agents.CKM_ECDSA), u64(key))
        recorded = b"".join(c.sent)
    for _ in range(n):
        data = bytearray(recorded)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[at] = rng.randrange(256)
            elif how == 1:
                data[at:at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\1\0\0"))
            elif how == 2:
                del data[at:at + rng.randint(1, 16)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(path)
            try:
                s.sendall(bytes([rng.choice((0, 1, 2, 255))]) + data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except ConnectionError:
                pass
    return n


def connect_many(path, n):
    open_ones = []
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(path)
            s.sendall(b"\0")
        except OSError:
            pass
        open_ones.append(s)
    time.sleep(0.5)
    answered = 0
    for s in open_ones:
        try:
            answered += s.recv(1) == b"\0"
        except OSError:
            pass
        s.close()
    return answered


if __name__ == "__main__":
    unittest.main()
