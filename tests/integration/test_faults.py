"""Hardware that misbehaves: a SoftHSM behind a module that injects one fault, helpers that are sent garbage."""
import os
import re
import signal
import socket
import subprocess
import time
import unittest

from harness import BUILD, PIN, Case, SoftHSM, run, wait_for

MODULE = os.path.join(BUILD, "tests", "libfault.so")


class FaultyHSM(SoftHSM):
    def uri(self, pin_source=True):
        return super().uri(pin_source).replace("/usr/lib/softhsm/libsofthsm2.so", MODULE)

    def init_args(self, name="hsm", pin_source=True):
        d = self.dir
        return super().init_args(name, pin_source) + ["--environment", f"{name}=FAULT_LOG={d}/log", "--environment", f"{name}=FAULT_ONCE={d}/once",
                                                      "--environment", f"{name}=FAULT_LOGIN={d}/crash",
                                                      "--writable", f"{name}={d}"]

    def once(self, rv):
        with open(os.path.join(self.dir, "once"), "w") as f:
            f.write(f"{rv:x}")

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

    def test_the_launcher_dies(self):
        """Without it no helper can be started again: the broker ends, and its service manager starts it anew."""
        b = self.broker("launch", hsm=self.softhsm("launchh"))
        out = subprocess.run(["pgrep", "-P", str(b.process.pid)], capture_output=True).stdout.split()
        self.assertEqual(len(out), 1)
        os.kill(int(out[0]), signal.SIGKILL)
        self.assertEqual(b.process.wait(10), 1)
        self.assertFalse(os.path.exists(b.socket))
        b.start()


if __name__ == "__main__":
    unittest.main()
