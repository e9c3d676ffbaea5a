"""Hardware that misbehaves: a SoftHSM behind a module that injects one fault, helpers that are sent garbage."""
import os
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

import test_sign
from harness import BUILD, COTTERD, PIN, Case, SoftHSM, run, wait_for
from peers import ask, connect, request

MODULE = os.path.join(BUILD, "tests", "libfault.so")


class FaultyHSM(SoftHSM):
    def uri(self, pin_source=True):
        return super().uri(pin_source).replace("/usr/lib/softhsm/libsofthsm2.so", MODULE)

    def init_args(self, name="hsm", pin_source=True):
        d = self.dir
        return super().init_args(name, pin_source) + ["--environment", f"{name}=FAULT_LOG={d}/log", "--environment", f"{name}=FAULT_ONCE={d}/once",
                                                      "--environment", f"{name}=FAULT_LOGIN={d}/crash",
                                                      "--environment", f"{name}=FAULT_GATE={d}/gate",
                                                      "--environment", f"{name}=FAULT_SESSIONS={d}/sessions",
                                                      "--writable", f"{name}={d}"]

    def once(self, rv, times=1):
        with open(os.path.join(self.dir, "once.new"), "w") as f:
            f.write(f"{rv:x} {times}")
        os.rename(self.file("once.new"), self.file("once"))

    def file(self, name):
        return os.path.join(self.dir, name)

    def logins(self):
        try:
            with open(os.path.join(self.dir, "log")) as f:
                return [int(line.split()[1], 16) for line in f]
        except FileNotFoundError:
            return []


class Faults(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = FaultyHSM(cls.sub("h"))
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        cls.b.put("fault/x", "v")

    def test_a_lost_session_is_opened_again(self):
        """CKR_SESSION_HANDLE_INVALID, CKR_DEVICE_REMOVED, CKR_USER_NOT_LOGGED_IN: one new session, one login, the answer."""
        for rv in (0xB3, 0x32, 0x101):
            before = len(self.hsm.logins())
            self.hsm.once(rv)
            self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v", hex(rv))
            self.assertEqual(self.hsm.logins()[before:], [0], hex(rv))
        before = len(self.hsm.logins())
        for _ in range(5):
            self.b.cli("get", "fault/x", check=True)
        self.assertEqual(len(self.hsm.logins()), before)  # one logged-in session, reused

    def test_other_failures_are_told(self):
        self.hsm.once(0x05)  # CKR_GENERAL_ERROR
        p = self.b.cli("get", "fault/x")
        self.assertEqual(p.returncode, 5)
        self.assertIn(b"CKR_GENERAL_ERROR", p.stderr)
        self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v")

    def test_a_module_that_crashes_costs_one_restart(self):
        restarts = self.b.status()["providers"][0]["restarts"]
        self.hsm.once(0xDEAD)
        self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v")
        self.assertEqual(self.b.status()["providers"][0]["restarts"], restarts + 1)

    def test_raw_point_is_retried_as_der_once(self):
        self.hsm.once(0x71)  # CKR_MECHANISM_PARAM_INVALID: this module wants the point wrapped
        self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v")
        self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v")

    def test_a_refused_pin_reaches_the_token_once(self):
        hsm = FaultyHSM(self.sub("pin"))
        b = self.broker("pinb", hsm=hsm, start=False)
        before = len(hsm.logins())
        hsm.set_pin("999999")
        for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            b.start(wait=False)
            wait_for("pin-needed", lambda: [p["state"] for p in b.status().get("providers", [])] == ["pin-needed"])
            for pid in b.children():
                os.kill(pid, signal.SIGKILL)
            wait_for("its restart", lambda: b.status()["providers"][0]["restarts"] == 1 and len(b.children()) == 1)
            b.cli("get", "a/b")
            b.cli("doctor")
            b.stop(sig)
        self.assertEqual(hsm.logins()[before:], [0xA0])
        # corrected, and an operator says: look again
        hsm.set_pin(PIN)
        b.start(wait=False)
        wait_for("pin-needed", lambda: [p["state"] for p in b.status().get("providers", [])] == ["pin-needed"])
        b.cli("unlock", "hsm", "--again", check=True)
        wait_for("unsealing", lambda: b.curl("sys/health")[0] == 200)
        self.assertEqual(hsm.logins()[before:], [0xA0, 0])

    def test_a_crash_while_logging_in_is_not_repeated(self):
        hsm = FaultyHSM(self.sub("crash"))
        b = self.broker("crashb", hsm=hsm, start=False)
        before = len(hsm.logins())
        with open(os.path.join(hsm.dir, "crash"), "w"):
            pass
        b.start(wait=False)
        wait_for("pin-needed", lambda: [p["state"] for p in b.status().get("providers", [])] == ["pin-needed"])
        self.assertIn("died while it logged in", b.status()["providers"][0]["problem"])
        # neither a crash of the idle helper nor a module that vanishes for a while lets it try again
        opened = lambda: b.status()["providers"][0]["operations"]
        wait_for("the next helper", lambda: opened() == 2)
        os.kill(b.children()[0], signal.SIGKILL)
        time.sleep(6)
        self.assertEqual(len(hsm.logins()) - before, 1)
        os.unlink(os.path.join(hsm.dir, "crash"))
        wait_for("the helper behind it", lambda: opened() == 3)
        b.cli("unlock", "hsm", stdin=PIN, check=True)
        wait_for("unsealing", lambda: b.curl("sys/health")[0] == 200)

    def test_a_pin_file_put_in_place_later(self):
        hsm = FaultyHSM(self.sub("late"))
        b = self.broker("lateb", hsm=hsm, start=False)
        os.unlink(hsm.pin_file)
        b.start(wait=False)
        wait_for("pin-needed", lambda: [p["state"] for p in b.status().get("providers", [])] == ["pin-needed"])
        with open(hsm.pin_file + ".new", "w") as f:
            f.write(PIN)
        os.rename(hsm.pin_file + ".new", hsm.pin_file)
        b.cli("unlock", "hsm", "--again", check=True)
        wait_for("unsealing", lambda: b.curl("sys/health")[0] == 200)

    def test_pin_from_a_systemd_credential(self):
        credentials = self.sub("cred")
        with open(os.path.join(credentials, "token-pin"), "w") as f:
            f.write(PIN)
        b = self.broker("credb", hsm=self.softhsm("credh"), start=False,
                        edit=lambda t: re.sub(r"pin-source=file:[^\"]*", "pin-source=credential:token-pin", t))
        b.start(prefix=("env", f"CREDENTIALS_DIRECTORY={credentials}"))
        b.put("cred/x", "v")
        self.assertEqual(b.cli("get", "cred/x", check=True).stdout, b"v")

    def test_helper_is_sent_garbage(self):
        keyd = os.path.join(BUILD, "broker", "cotter-keyd")
        for data in (b"", b"x", b"\0" * 1656, os.urandom(1656), os.urandom(3000), b"1dkC" + b"\xff" * 1652):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
            if pid == 0:
                os.dup2(far.fileno(), 3)
                os.execve(keyd, [keyd], {})
            far.close()
            if data:
                near.send(data)
            near.close()
            _, status = os.waitpid(pid, 0)
            self.assertTrue(os.WIFEXITED(status), (data[:8], status))
        self.assertEqual(run(keyd).returncode, 2)
        self.assertEqual(run(keyd, "--help").returncode, 0)

    def test_a_provider_that_becomes_ready_meanwhile(self):
        """The first starts when a secret is asked for, and is ready when the second, which was, has failed."""
        hsm, tpm = FaultyHSM(self.sub("meanwhile")), self.swtpm("meanwhilet")
        b = self.broker("meanwhileb", hsm=hsm, tpm=tpm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        self.assertEqual([p["name"] for p in b.status()["providers"]], ["hsm", "tpm"])
        b.put("fault/x", "v")
        tpm.process.send_signal(signal.SIGSTOP)
        try:
            for pid in b.children():
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if b"FAULT_ONCE" in f.read():
                        os.kill(pid, signal.SIGKILL)
            self.assertEqual(b.cli("get", "fault/x").stdout, b"v")
        finally:
            tpm.process.send_signal(signal.SIGCONT)

    def test_the_launcher_dies(self):
        """Without it no helper can be started again: the broker ends, and its service manager starts it anew."""
        b = self.broker("launch", hsm=self.softhsm("launchh"))
        out = subprocess.run(["pgrep", "-P", str(b.process.pid)], capture_output=True).stdout.split()
        self.assertEqual(len(out), 1)
        os.kill(int(out[0]), signal.SIGKILL)
        self.assertEqual(b.process.wait(10), 1)
        self.assertFalse(os.path.exists(b.socket))
        b.start()


class Gate:
    """While it is there signatures wait in the module; how many do is its size."""
    def __init__(self, hsm):
        self.path = hsm.file("gate")

    def __enter__(self):
        open(self.path, "w").close()
        return self

    def __exit__(self, *_):
        os.unlink(self.path)

    def size(self):
        return os.stat(self.path).st_size


class Together:
    """As many signatures as there are messages, asked for at once by jobs of their own."""
    def __init__(self, case, messages):
        self.case, self.got = case, {}
        self.threads = [threading.Thread(target=self.ask, args=(m,)) for m in messages]
        for t in self.threads:
            t.start()

    def ask(self, message):
        token = self.case.b.token("--policy", "signer")
        with connect(self.case.b.socket) as s:
            s.settimeout(60)
            self.got[message] = request(s, "POST", "transit/sign/release/ecdsa-p256", token, {"input": test_sign.b64(message)})

    def join(self):
        for t in self.threads:
            t.join()
        return self.got


class Signatures(test_sign.SignCase):
    types = ("ecdsa-p256", "rsa-2048")
    parallel = 1

    @classmethod
    def make_hardware(cls):
        cls.hsm = FaultyHSM(cls.sub("h"))

    def restart(self):
        self.b.stop()
        self.b.start()

    def valid(self, name, message, **body):
        status, reply = self.post("verify/release/" + name, {"input": test_sign.b64(message), "signature": self.sign(name, message, **body), **body})
        return (status, reply["data"]["valid"]) == (200, True)

    def test_what_was_begun_ahead_is_for_its_like_alone(self):
        """Keys and mechanisms in every order of two in a row, and then another."""
        hows = [("ecdsa-p256", {}), ("rsa-2048", {"signature_algorithm": "pkcs1v15"}), ("rsa-2048", {"signature_algorithm": "pss"}),
                ("rsa-2048", {"signature_algorithm": "pss", "salt_length": "hash"}), ("rsa-2048", {"signature_algorithm": "pss", "hash_algorithm": "sha2-512"}),
                ("ecdsa-p256", {"hash_algorithm": "sha1"})]
        for first in hows:
            for second in hows:
                for name, body in (first, first, first, second, first):
                    self.assertTrue(self.valid(name, os.urandom(20), **body), (first, second))

    def test_a_failure_between_the_halves(self):
        """Of a signature that was begun ahead, by each way in which a session ends."""
        for rv in (0xB3, 0x32, 0x101, 0x05, 0x91):
            for _ in range(3):
                self.assertTrue(self.valid("ecdsa-p256", b"m"))
            self.hsm.once(rv)
            self.assertTrue(self.valid("ecdsa-p256", b"m"), hex(rv))
            self.assertTrue(self.valid("ecdsa-p256", b"m"), hex(rv))

    def test_a_token_with_room_for_one_session(self):
        open(self.hsm.file("sessions"), "w").close()

        def room():
            os.unlink(self.hsm.file("sessions"))
            self.restart()
        self.addCleanup(room)
        self.restart()
        for _ in range(5):
            self.assertTrue(self.valid("ecdsa-p256", b"m"))
            self.assertTrue(self.valid("rsa-2048", b"m"))

    def test_a_key_that_was_deleted_signs_no_more(self):
        self.hsm.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "short", "--id", "dd", "--usage-sign")
        self.b.cli("key", "add", "release/short", "--provider", "hsm", "--ref", "pkcs11:object=short;type=private", check=True)
        for _ in range(3):
            self.assertTrue(self.valid("short", b"m"))
        self.hsm.tool("--delete-object", "--type", "privkey", "--id", "dd")
        time.sleep(1.1)  # what was begun ahead stands for a second
        status, reply = self.post("sign/release/short", {"input": test_sign.b64(b"m")})
        self.assertGreaterEqual(status, 400, reply)

    def test_a_ciphertext_that_is_none(self):
        """It is above the modulus. A login for each could be a prompt on a PIN pad for each."""
        opener = self.b.token("--policy", "opener")
        logins = len(self.hsm.logins())
        for _ in range(3):
            status, reply = self.post("decrypt/release/rsa-2048", {"ciphertext": "vault:v1:" + test_sign.b64(b"\xff" * 256)}, opener)
            self.assertEqual(status, 400, reply)
        self.assertEqual(len(self.hsm.logins()), logins)

    def gathered(self, gate):
        """Twice as many signatures as are allowed at once, and one: those wait at the gate, the others behind them."""
        together = Together(self, [b"%d" % i for i in range(2 * self.parallel + 1)])
        wait_for("signatures", lambda: gate.size() == self.parallel)
        wait_for("the rest", lambda: self.b.status()["providers"][0]["queued"] == 2 * self.parallel + 1)
        return together

    def test_as_many_at_once_as_are_allowed(self):
        self.assertTrue(self.valid("ecdsa-p256", b"m"))
        with Gate(self.hsm) as gate:
            together = self.gathered(gate)
            self.assertEqual(gate.size(), self.parallel)
        got = together.join()
        self.assertEqual({status for status, _ in got.values()}, {200}, got)
        for message, (_, reply) in got.items():
            self.assertTrue(self.post("verify/release/ecdsa-p256", {"input": test_sign.b64(message), "signature": reply["data"]["signature"]})[1]["data"]["valid"])

    def test_the_helper_dies_with_all_of_them(self):
        self.assertTrue(self.valid("ecdsa-p256", b"m"))
        with Gate(self.hsm) as gate:
            together = self.gathered(gate)
            for pid in self.b.children():
                os.kill(pid, signal.SIGKILL)
            wait_for("the same by another helper", lambda: gate.size() > self.parallel)
        got = together.join()
        self.assertEqual({status for status, _ in got.values()}, {200}, got)

    def test_others_beside_signatures(self):
        """A secret is opened, a key made, while signatures go on: what is done alone waits for them, and they for it."""
        self.b.put("fault/x", "v")
        done = threading.Event()
        bad = []

        def sign():
            token = self.b.token("--policy", "signer")
            while not done.is_set():
                status, reply = ask(self.b.socket, "POST", "transit/sign/release/ecdsa-p256", token, {"input": test_sign.b64(b"m")})
                if status != 200:
                    bad.append(reply)

        threads = [threading.Thread(target=sign) for _ in range(2 * self.parallel)]
        for t in threads:
            t.start()
        try:
            for i in range(5):
                self.assertEqual(self.b.cli("get", "fault/x", check=True).stdout, b"v")
                self.b.cli("key", "add", f"release/made{i}", "--type", "ecdsa-p256", check=True)
        finally:
            done.set()
            for t in threads:
                t.join()
        self.assertEqual(bad, [])


class ParallelSignatures(Signatures):
    parallel = 4

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.stop()
        cls.b.edit(lambda text: text.replace("    environment:", "    parallel: 4\n    environment:", 1).replace("unseal: cache 5m", "unseal: each-use"))
        cls.b.start()


    def test_one_that_the_helper_dies_of_twice(self):
        """Those beside it are made: each was tried again alone."""
        self.assertTrue(self.valid("ecdsa-p256", b"m"))
        with Gate(self.hsm) as gate:
            together = Together(self, [b"%d" % i for i in range(3)])
            wait_for("three signatures", lambda: gate.size() == 3)
            self.hsm.once(0xDEAD, 2)
            last = Together(self, [b"crashes"])
            wait_for("both", lambda: not os.path.exists(self.hsm.file("once")))
        got = list((together.join() | last.join()).values())
        self.assertEqual(sorted(status for status, _ in got), [200, 200, 200, 503], got)

    def test_all_of_them_hang(self):
        """Nobody waits for more than three helpers, whatever stands before him."""
        began = time.monotonic()
        with Gate(self.hsm):
            got = Together(self, [b"%d" % i for i in range(12)]).join()
        self.assertEqual({status for status, _ in got.values()}, {503}, got)
        self.assertLess(time.monotonic() - began, 60)
        wait_for("the next helper", lambda: self.post("sign/release/ecdsa-p256", {"input": test_sign.b64(b"m")})[0] == 200)

    def test_one_hangs_while_others_are_answered(self):
        """Those sent later overtake it, so that it is not one behind the others: it has twice its time, not four times."""
        self.assertTrue(self.valid("ecdsa-p256", b"m"))
        with Gate(self.hsm) as gate:
            together = Together(self, [b"%d" % i for i in range(3)])
            wait_for("three signatures", lambda: gate.size() == 3)
            self.hsm.once(0xBEEF)
            last = Together(self, [b"hangs"])
            wait_for("the one that hangs", lambda: not os.path.exists(self.hsm.file("once")))
        began = time.monotonic()
        self.assertEqual({status for status, _ in together.join().values()}, {200})
        while any(t.is_alive() for t in last.threads):
            self.assertTrue(self.valid("ecdsa-p256", b"m"))
        self.assertEqual(last.join()[b"hangs"][0], 200)  # by the next helper
        self.assertLess(time.monotonic() - began, 30)


class ParallelConfig(Case):
    def test_numbers_that_are_none(self):
        b = self.broker(hsm=self.softhsm(), start=False)
        for value in ("0", "17", "-1", "two", "01", "4294967297"):
            b.edit(lambda text: text.replace("    environment:", f"    parallel: {value}\n    environment:", 1))
            p = run(COTTERD, "--config", b.config, "--check")
            self.assertEqual(p.returncode, 1, (value, p))
            self.assertIn(b"expected a number from 1 to 16", p.stderr)
            b.edit(lambda text: text.replace(f"    parallel: {value}\n", ""))

    def test_the_most(self):
        """So many threads' frames have room in the helper's locked memory, and a PIN beside them."""
        b = self.broker("most", hsm=self.softhsm("mosth"), edit=lambda text: text.replace("    environment:", "    parallel: 16\n    environment:", 1))
        b.put("fault/x", "v")
        self.assertEqual(b.status()["providers"][0]["state"], "ready")

    def test_a_tpm(self):
        b = self.broker("tpm", hsm=self.softhsm("tpmh"), start=False)
        b.edit(lambda text: re.sub("uri: .*", "uri: tpm:swtpm:port=1\n    parallel: 2", text, count=1))
        p = run(COTTERD, "--config", b.config, "--check")
        self.assertEqual(p.returncode, 1, p)
        self.assertIn(b"parallel: a TPM does one thing at a time", p.stderr)


if __name__ == "__main__":
    unittest.main()
