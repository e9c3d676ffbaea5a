"""What only a TPM has: the bus, the pinned storage root key, PCR policy, three slots."""
import base64
import json
import os
import re
import shutil
import unittest

from harness import Case, run, wait_for


class Tpm(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tpm = cls.swtpm()
        cls.b = cls.broker(tpm=cls.tpm, start=False)

    def test_no_secret_on_the_bus(self):
        """A capture through tcti-pcap: the ephemeral point is there (so the search works), the ECDH result is not."""
        # the true result, by software: import a key whose scalar we know as the sealing key
        key = os.path.join(self.dir, "known.pem")
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key, check=True)
        parts = {x: os.path.join(self.dir, x) for x in ("srk.ctx", "k.pub", "k.priv", "k.ctx")}
        self.tpm.tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", parts["srk.ctx"])
        self.tpm.tool("tpm2_import", "-C", parts["srk.ctx"], "-G", "ecc", "-i", key, "-u", parts["k.pub"], "-r", parts["k.priv"],
                      "-a", "userwithauth|decrypt|noda")
        self.tpm.tool("tpm2_load", "-C", parts["srk.ctx"], "-u", parts["k.pub"], "-r", parts["k.priv"], "-c", parts["k.ctx"])
        self.tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", parts["k.ctx"], "0x81000020")
        listed = self.b.cli("key", "list", "tpm", check=True).stdout.decode()
        recipient = re.search(r"handle:0x81000020.*\n\s+(age1tag1\S+)", listed).group(1)
        capture = os.path.join(self.dir, "bus.pcap")
        config = os.path.join(self.dir, "pcap.yaml")
        with open(config, "w") as f:
            f.write(f"state_dir: {self.dir}\nseal:\n  recipients: [{recipient}]\nproviders:\n  tpm:\n    uri: \"tpm:pcap:{self.tpm.tcti}\"\n"
                    f"    environment: [\"TCTI_PCAP_FILE={capture}\"]\n    writable: [\"{self.dir}\"]\n"
                    f"    keys: [{{recipient: {recipient}, key: \"handle:0x81000020\"}}]\n")
        sealed = self.b.cli("seal", "-r", recipient, stdin="bus", check=True).stdout
        peer = base64.b64decode(re.search(rb"-> p256tag \S+ (\S+)\n", sealed).group(1) + b"==")
        self.assertEqual(self.b.cli("open", "--config", config, stdin=sealed, check=True).stdout, b"bus")
        peer_der = os.path.join(self.dir, "peer.der")
        with open(peer_der, "wb") as f:
            f.write(bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + peer)
        secret_x = run("openssl", "pkeyutl", "-derive", "-inkey", key, "-peerform", "DER", "-peerkey", peer_der, check=True).stdout
        self.assertEqual(len(secret_x), 32)
        with open(capture, "rb") as f:
            bus = f.read()
        self.assertGreater(len(bus), 1000)
        self.assertEqual(self.handles("handles-loaded-session"), [])
        # the control: a tool that does not encrypt shows both, so the search would find them
        point = os.path.join(self.dir, "point")
        with open(point, "wb") as f:
            f.write(bytes.fromhex("0044" "0020") + peer[1:33] + bytes.fromhex("0020") + peer[33:])
        control = os.path.join(self.dir, "control.pcap")
        env = dict(self.b.env, TPM2TOOLS_TCTI=f"pcap:{self.tpm.tcti}", TCTI_PCAP_FILE=control)
        run("tpm2_ecdhzgen", "-c", "0x81000020", "-u", point, "-o", os.path.join(self.dir, "z"), env=env, check=True)
        self.tpm.tool("true")  # flushes what the tool left
        with open(control, "rb") as f:
            seen = f.read()
        self.assertIn(secret_x, seen)
        self.assertIn(peer[1:33], seen)
        self.assertFalse(secret_x in bus or secret_x[:16] in bus, "the ECDH result crossed the bus in clear")
        self.assertFalse(peer[1:33] in bus, "the peer's point is a parameter, and encrypted too")

    def test_another_srk_is_refused(self):
        sealed = self.b.cli("seal", stdin="x", check=True).stdout
        with open(self.b.config) as f:
            text = f.read()
        name = re.search(r"srk_name: (\S+)", text).group(1)
        other = os.path.join(self.dir, "other.yaml")
        with open(other, "w") as f:
            f.write(text.replace(name, "000b" + "ab" * 32))
        p = self.b.cli("open", "--config", other, stdin=sealed)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"storage root key is not the enrolled one", p.stderr)

    def test_pcr_policy(self):
        tpm = self.swtpm("pcr")
        b = self.broker("pcrb", tpm=tpm, start=False, init_extra=["--pcrs", "sha256:16,23"])
        sealed = b.cli("seal", stdin="only in this state", check=True).stdout
        for _ in range(2):
            self.assertEqual(b.cli("open", stdin=sealed, check=True).stdout, b"only in this state")
        tpm.tool("tpm2_pcrextend", "23:sha256=" + "11" * 32)
        p = b.cli("open", stdin=sealed)
        self.assertEqual(p.returncode, 5, p.stderr)
        self.assertIn(b"PCRs are not what the key demands", p.stderr)
        tpm.tool("tpm2_pcrreset", "23")
        self.assertEqual(b.cli("open", stdin=sealed, check=True).stdout, b"only in this state")
        for bad in ("sha256:", "sha1:1", "sha256:24", "sha256:1,,2", "sha256:0,1,2,3,4,5,6,7,8"):
            p = b.cli("key", "make", "tpm", "--label", "bad", "--pcrs", bad)
            self.assertNotEqual(p.returncode, 0, bad)

    def test_a_signing_key_of_a_state(self):
        tpm = self.swtpm("pcrs")
        b = self.broker("pcrsb", tpm=tpm, edit=lambda text: text + "  signer:\n    - path: release/*\n      allow: [sign]\n")
        made = json.loads(b.cli("key", "make", "tpm", "--sign", "--label", "bound", "--pcrs", "sha256:23", "--json", check=True).stdout)
        path = os.path.join(b.state, "keys", "bound.pem")
        shutil.copy(made["key"], path)
        b.cli("key", "add", "release/bound", "--ref", path, check=True)
        token = b.token("--policy", "signer")
        sign = lambda: b.curl("transit/sign/release/bound", token=token, body=b'{"input":"eA=="}')
        for _ in range(2):
            self.assertEqual(sign()[0], 200)
        tpm.tool("tpm2_pcrextend", "23:sha256=" + "11" * 32)
        status, reply = sign()
        self.assertEqual(status, 503)
        self.assertIn("PCRs are not what the key demands", reply["errors"][0])
        tpm.tool("tpm2_pcrreset", "23")
        self.assertEqual(sign()[0], 200)

    def handles(self, what):
        env = dict(self.b.env, TPM2TOOLS_TCTI=self.tpm.tcti)
        return run("tpm2_getcap", what, env=env, check=True).stdout.decode().split()

    def test_nothing_is_left_in_the_tpm(self):
        for _ in range(5):
            sealed = self.b.cli("seal", stdin="x", check=True).stdout
            self.b.cli("open", stdin=sealed, check=True)
            self.b.cli("key", "make", "tpm", "--sign", "--label", f"s{_}", check=True)
        self.assertEqual(self.handles("handles-transient"), [])
        self.assertEqual(self.handles("handles-loaded-session"), [])

    def test_broker_survives_a_tpm_restart(self):
        tpm = self.swtpm("restart")
        b = self.broker("restartb", tpm=tpm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        b.put("a/b", "before")
        self.assertEqual(b.cli("get", "a/b", check=True).stdout, b"before")
        tpm.stop(9)
        p = b.cli("get", "a/b")
        self.assertEqual(p.returncode, 5, p.stderr)
        tpm.start()
        wait_for("the TPM", lambda: b.cli("get", "a/b").stdout == b"before")

    def test_key_file_garbage(self):
        bad = os.path.join(self.dir, "bad.pem")
        sealed = self.b.cli("seal", stdin="x", check=True).stdout
        with open(self.b.config) as f:
            text = f.read()
        pem = re.search(r"key: \"(\S+\.pem)\"", text).group(1)
        with open(pem, "rb") as f:
            good = f.read()
        config = os.path.join(self.dir, "badkey.yaml")
        with open(config, "w") as f:
            f.write(text.replace(pem, bad))
        for data in (b"", b"x" * 5000, good[:100], good.replace(b"BEGIN TSS2", b"BEGIN RSA"), good[:60] + b"AAAA" + good[64:],
                     b"-----BEGIN TSS2 PRIVATE KEY-----\nMIIB\n-----END TSS2 PRIVATE KEY-----\n"):
            with open(bad, "wb") as f:
                f.write(data)
            p = self.b.cli("open", "--config", config, stdin=sealed)
            self.assertIn(p.returncode, (1, 5), (data[:40], p.stderr))
            self.assertTrue(p.stderr)


if __name__ == "__main__":
    unittest.main()
