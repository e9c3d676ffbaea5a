"""age both ways: Debian's age, the age-encryption package, the plug-ins, large files in constant memory."""
import os
import unittest

from harness import BUILD, COTTER, Case, ROOT, clean_env, run

CLIENTS = os.path.join(ROOT, "tests", "clients")


class Age(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm, cls.tpm = cls.softhsm(), cls.swtpm()
        cls.b = cls.broker(hsm=cls.hsm, tpm=cls.tpm, start=False)
        cls.to_hsm, cls.to_tpm = cls.b.recipients()

    def path(self, name):
        return os.path.join(self.dir, name)

    def test_age_opens_ours_with_the_recovery_key(self):
        sealed = self.path("ours.age")
        for armor in ([], ["-a"]):
            self.b.cli("seal", "-p", "a/b", "-o", sealed, *armor, stdin="pure secret", check=True)
            self.assertEqual(run("age", "-d", "-i", self.b.recovery_key, sealed, check=True).stdout, b"pure secret")
            self.assertEqual(self.b.cli("open", "-i", self.b.recovery_key, sealed, check=True).stdout, b"pure secret")

    def test_npm_seals_and_each_hardware_opens(self):
        for recipient in (self.to_hsm, self.to_tpm):
            sealed = run("node", "seal.mjs", recipient, stdin="from typage", cwd=CLIENTS, check=True).stdout
            self.assertEqual(self.b.cli("open", stdin=sealed, check=True).stdout, b"from typage")

    def test_plugin_tag_and_plugin_cotter(self):
        """Debian's age 1.1.1 seals to tagged recipients and opens with the hardware."""
        for recipient in (self.to_hsm, self.to_tpm):
            sealed = run("age", "-r", recipient, "-r", self.b.recovery, stdin="x" * 100, env=self.b.env, check=True).stdout
            self.assertEqual(run("age", "-d", "-j", "cotter", stdin=sealed, env=self.b.env, check=True).stdout, b"x" * 100)
            self.assertEqual(self.b.cli("open", stdin=sealed, check=True).stdout, b"x" * 100)
        p = run("age", "-r", self.to_hsm[:-1] + ("p" if self.to_hsm[-1] == "q" else "q"), stdin="x", env=self.b.env)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn(b"checksum", p.stderr)
        other = run("age", "-r", self.b.recovery, stdin="x", env=self.b.env, check=True).stdout
        p = run("age", "-d", "-j", "cotter", stdin=other, env=self.b.env)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn(b"no identity matched", p.stderr)

    def test_plugin_garbage(self):
        for plugin, machine in (("age-plugin-tag", "recipient-v1"), ("age-plugin-cotter", "identity-v1")):
            exe = os.path.join(BUILD, "tools", plugin)
            for bad in (b"", b"\0" * 10000, b"-> done", b"-> " + b"x" * 100000 + b"\n", b"-> a\n!!!\n", b"-> recipient-stanza 99999999 x\n\n-> done\n\n"):
                p = run(exe, f"--age-plugin={machine}", stdin=bad, env=self.b.env)
                self.assertIn(p.returncode, (0, 1, 2), (plugin, bad[:20]))
            self.assertEqual(run(exe).returncode, 2)
            self.assertEqual(run(exe, "--help").returncode, 0)

    def test_seal_needs_no_broker_and_no_configuration(self):
        sealed = run(COTTER, "seal", "-r", self.to_hsm, stdin="x", env=clean_env(COTTER_CONFIG="/nonexistent"), check=True).stdout
        self.assertIn(b"-> p256tag ", sealed)

    def test_many_recipients(self):
        args = []
        for _ in range(15):
            key = run("age-keygen", check=True).stdout.decode()
            args += ["-r", key.split("public key: ")[1].split()[0]]
        sealed = self.b.cli("seal", *args, "-r", self.to_tpm, stdin="many", check=True).stdout
        self.assertEqual(self.b.cli("open", stdin=sealed, check=True).stdout, b"many")
        p = self.b.cli("seal", *args, *args, stdin="many")
        self.assertEqual(p.returncode, 2)

    def test_large_files_in_constant_memory(self):
        """200 MB through seal and open under a limit of 64 MiB of address space beyond what libraries map."""
        plain, sealed, back = self.path("big"), self.path("big.age"), self.path("big.out")
        run("sh", "-c", f"head -c 200000000 /dev/zero | openssl enc -aes-128-ctr -pass pass:x -pbkdf2 -out {plain} 2>/dev/null", check=True)
        kib = "unlimited" if os.environ.get("COTTER_SANITIZE") else "100000"  # the sanitizer maps terabytes
        limit = f"ulimit -v {kib}; exec \"$@\""
        run("sh", "-c", limit, "sh", COTTER, "seal", "-r", self.b.recovery, "-o", sealed, plain, check=True)
        run("sh", "-c", limit, "sh", COTTER, "open", "-i", self.b.recovery_key, "-o", back, sealed, check=True)
        run("cmp", plain, back, check=True)
        # a pipe is spooled, sealed; armor too
        run("sh", "-c", f"ulimit -v {kib}; cat {sealed} | {COTTER} open -i {self.b.recovery_key} | cmp - {plain}", check=True)
        for f in (plain, back):
            os.unlink(f)
        # truncated: nothing comes out, no file is left
        os.truncate(sealed, os.path.getsize(sealed) - 1)
        p = run(COTTER, "open", "-i", self.b.recovery_key, "-o", back, sealed)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"payload failure", p.stderr)
        self.assertFalse(os.path.exists(back) or os.path.exists(back + ".new"))

    def test_open_says_what_is_wrong(self):
        p = self.b.cli("open", "--path", "a/b", stdin=run("age", "-r", self.b.recovery, stdin="x", check=True).stdout)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"no match", p.stderr)
        bound = self.b.cli("seal", "-p", "a/b", stdin="x", check=True).stdout
        self.assertEqual(self.b.cli("open", "-p", "a/b", stdin=bound, check=True).stdout, b"x")
        p = self.b.cli("open", "-p", "a/c", stdin=bound)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"sealed for a/b", p.stderr)
        # the stanza cannot be edited or stripped
        at = bound.index(b"-> cotter/bind-v1")
        end = bound.index(b"\n---", at)
        p = self.b.cli("open", stdin=bound[:at] + bound[end + 1:])
        self.assertIn(b"HMAC failure", p.stderr)

    def test_hardware_absent(self):
        sealed = self.b.cli("seal", "-r", self.to_tpm, stdin="x", check=True).stdout
        both = self.b.cli("seal", "-r", self.to_tpm, "-r", self.to_hsm, stdin="x", check=True).stdout
        self.tpm.stop()
        try:
            p = self.b.cli("open", stdin=sealed)
            self.assertEqual(p.returncode, 5, p.stderr)
            self.assertIn(b"no TPM at", p.stderr)
            self.assertEqual(self.b.cli("open", stdin=both, check=True).stdout, b"x")
        finally:
            self.tpm.start()
        self.assertEqual(self.b.cli("open", stdin=sealed, check=True).stdout, b"x")


if __name__ == "__main__":
    unittest.main()
