"""Signing keys in hardware, by name: transit's sign and verify, versions, batches, grants and records. Checked by openssl and hvac."""
import base64
import collections
import hashlib
import json
import os
import signal
import threading
import time
import unittest

import hvac

from harness import PIN, SOFTHSM, Case, run, wait_for
from peers import Cgroup, Session, as_peer, ask, cgroups_missing, connect

POLICIES = """\
  signer:
    - path: release/*
      allow: [sign]
  reader:
    - path: release/*
      allow: [read]
  narrow:
    - path: release/ecdsa-p256
      allow: [sign]
  opener:
    - path: release/*
      allow: [decrypt]
"""
OPENSSL = {"sha1": "sha1", "sha2-224": "sha224", "sha2-256": "sha256", "sha2-384": "sha384", "sha2-512": "sha512"}


def b64(data):
    return base64.b64encode(data).decode()


class SignCase(Case):
    types = ()
    hsm = tpm = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.make_hardware()
        cls.b = cls.broker(hsm=cls.hsm, tpm=cls.tpm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false") + POLICIES)
        for kind in cls.types:
            cls.b.cli("key", "add", f"release/{kind}", "--type", kind, check=True)
        cls.token = cls.b.token("--policy", "signer")

    @classmethod
    def make_hardware(cls):
        raise unittest.SkipTest("only the classes below")

    def post(self, path, body, token=None):
        return ask(self.b.socket, "POST", f"transit/{path}", token or self.token, body)

    def key(self, name):
        """The public key in a file."""
        path = os.path.join(self.dir, name.replace("/", "-") + ".pem")
        with open(path, "wb") as f:
            f.write(self.b.cli("key", "show", f"release/{name}", "--pem", check=True).stdout)
        return path

    def openssl_verifies(self, name, message, signature, hash_name="sha2-256", options=()):
        files = {}
        for what, data in (("message", message), ("signature", signature)):
            files[what] = os.path.join(self.dir, what)
            with open(files[what], "wb") as f:
                f.write(data)
        if name == "ed25519":
            p = run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", self.key(name), "-rawin", "-in", files["message"], "-sigfile", files["signature"])
        else:
            p = run("openssl", "dgst", f"-{OPENSSL[hash_name]}", "-verify", self.key(name), *options, "-signature", files["signature"], files["message"])
        return p.returncode == 0

    def sign(self, name, message, suffix="", **body):
        status, reply = self.post(f"sign/release/{name}{suffix}", {"input": b64(message), **body})
        self.assertEqual(status, 200, reply)
        self.assertEqual(reply["data"]["signature"].split(":")[:2], ["vault", f"v{reply['data']['key_version']}"])
        return reply["data"]["signature"]

    def last(self, what="ev=sign"):
        return [line for line in self.b.audit(50).splitlines() if what in line][-1]


class Stopped:
    """Hardware that takes its time."""
    def __init__(self, b):
        self.pids = b.children()

    def __enter__(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


class Algorithms:
    def test_every_type_by_openssl(self):
        message = os.urandom(1000)
        for kind in self.types:
            for hash_name in (("sha2-256",) if kind == "ed25519" else self.hashes):
                signature = self.sign(kind, message, f"/{hash_name}", signature_algorithm="pkcs1v15")
                raw = base64.b64decode(signature.split(":")[2])
                self.assertTrue(self.openssl_verifies(kind, message, raw, hash_name), (kind, hash_name))
                self.assertFalse(self.openssl_verifies(kind, message + b"x", raw, hash_name), (kind, hash_name))
                for text, valid in ((message, True), (message + b"x", False)):
                    status, reply = self.post(f"verify/release/{kind}/{hash_name}", {"input": b64(text), "signature": signature, "signature_algorithm": "pkcs1v15"})
                    self.assertEqual((status, reply["data"]), (200, {"valid": valid}), (kind, hash_name))

    def test_pss(self):
        message = os.urandom(300)
        for kind in [k for k in self.types if k.startswith("rsa")]:
            for hash_name in ("sha2-256", "sha2-512"):
                options = ["-sigopt", "rsa_padding_mode:pss"]
                raw = base64.b64decode(self.sign(kind, message, hash_algorithm=hash_name).split(":")[2])
                self.assertTrue(self.openssl_verifies(kind, message, raw, hash_name, [*options, "-sigopt", "rsa_pss_saltlen:-2"]))
                status, reply = self.post(f"sign/release/{kind}/{hash_name}", {"input": b64(message), "salt_length": "hash"})
                if self.tpm:  # it chooses
                    self.assertIn(status, (200, 400))
                    continue
                raw = base64.b64decode(reply["data"]["signature"].split(":")[2])
                self.assertTrue(self.openssl_verifies(kind, message, raw, hash_name, [*options, "-sigopt", "rsa_pss_saltlen:-1"]))

    def test_prehashed_and_raw(self):
        message = b"release 1.0"
        digest = hashlib.sha256(message).digest()
        for kind in [k for k in self.types if k != "ed25519"]:
            raw = base64.b64decode(self.sign(kind, digest, prehashed=True, signature_algorithm="pkcs1v15").split(":")[2])
            self.assertTrue(self.openssl_verifies(kind, message, raw))
        for kind in [k for k in self.types if k.startswith("rsa")]:
            info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
            raw = base64.b64decode(self.sign(kind, info, "/none", prehashed=True, signature_algorithm="pkcs1v15").split(":")[2])
            self.assertTrue(self.openssl_verifies(kind, message, raw))
        self.assertIn("why=", self.last())

    def test_jws(self):
        raw = self.sign("ecdsa-p256", b"x", marshaling_algorithm="jws").split(":")[2]
        self.assertEqual(len(raw), 86)
        status, reply = self.post("verify/release/ecdsa-p256", {"input": b64(b"x"), "signature": f"vault:v1:{raw}", "marshaling_algorithm": "jws"})
        self.assertEqual(reply["data"], {"valid": True})

    def test_records(self):
        message = b"what was signed"
        self.sign("ecdsa-p256", message)
        record = self.last()
        self.assertIn("secret=release/ecdsa-p256 ver=1 ", record)
        self.assertIn(f"why=ecdsa_sha2-256_{hashlib.sha256(message).hexdigest()}", record)
        self.assertIn("result=granted", record)

    def test_grants(self):
        body = {"input": b64(b"x")}
        reader, narrow, secret = (self.b.token("--policy", p) for p in ("reader", "narrow", "writer"))
        self.assertEqual(self.post("sign/release/ecdsa-p256", body, narrow)[0], 200)
        self.assertEqual(self.post("sign/release/ecdsa-p256", body, reader)[0], 403)
        self.assertEqual(self.post("sign/release/ecdsa-p256", body, secret)[0], 403)
        self.assertEqual(self.post("sign/release/nothing", body, narrow)[0], 403)
        self.assertEqual(self.post("sign/release/nothing", body)[0], 400)
        self.assertEqual(ask(self.b.socket, "GET", "transit/keys/release/ecdsa-p256", reader)[0], 200)
        self.assertEqual(ask(self.b.socket, "GET", "transit/keys/release/ecdsa-p256", secret)[0], 403)
        once = self.b.cli("token", "narrow", "--uses", "1", "--op", "sign", token=self.token, check=True).stdout.decode().strip()
        # looking what it may use costs no use
        names = [k["name"] for k in ask(self.b.socket, "GET", "cotter/keys", once)[1]["data"]["keys"]]
        self.assertEqual(names, sorted(f"release/{k}" for k in self.types))
        self.assertEqual([self.post("sign/release/ecdsa-p256", body, once)[0] for _ in range(2)], [200, 403])
        self.assertEqual([k["name"] for k in ask(self.b.socket, "GET", "cotter/keys", narrow)[1]["data"]["keys"]], ["release/ecdsa-p256"])
        self.assertEqual(ask(self.b.socket, "GET", "cotter/keys", secret)[1]["data"]["keys"], [])
        for method, path, body in (("POST", "transit/keys/release/new", {}), ("DELETE", "transit/keys/release/ecdsa-p256", None),
                                   ("POST", "transit/keys/release/ecdsa-p256/rotate", {})):
            self.assertEqual(ask(self.b.socket, method, path, self.token, body)[0], 403, path)

    def test_batch(self):
        items = [{"input": b64(b"%d" % i)} for i in range(20)]
        status, reply = self.post("sign/release/ecdsa-p256", {"batch_input": items})
        self.assertEqual(status, 200, reply)
        results = reply["data"]["batch_results"]
        self.assertEqual(len(results), 20)
        for i, result in enumerate(results):
            self.assertTrue(self.openssl_verifies("ecdsa-p256", b"%d" % i, base64.b64decode(result["signature"].split(":")[2])))
        checks = [{**item, "signature": result["signature"]} for item, result in zip(items, results)]
        checks[3]["input"] = b64(b"x")
        status, reply = self.post("verify/release/ecdsa-p256", {"batch_input": checks})
        self.assertEqual([r["valid"] for r in reply["data"]["batch_results"]], [i != 3 for i in range(20)])
        # a bad item spoils no other; uses are counted one by one
        status, reply = self.post("sign/release/ecdsa-p256", {"batch_input": [items[0], {"input": "*"}, {}, items[1]]})
        self.assertEqual(status, 400)
        self.assertEqual(["signature" in r for r in reply["data"]["batch_results"]], [True, False, False, True])
        two = self.b.cli("token", "narrow", "--uses", "2", token=self.token, check=True).stdout.decode().strip()
        self.assertEqual(self.post("sign/release/ecdsa-p256", {"batch_input": items[:3]}, two)[0], 403)

    def test_encrypt_and_decrypt(self):
        opener = self.b.token("--policy", "opener")
        for plain in (b"", b"x", os.urandom(190)):
            status, reply = self.post("encrypt/release/rsa-2048", {"plaintext": b64(plain)}, opener)
            self.assertEqual(status, 200, reply)
            self.assertEqual(self.post("decrypt/release/rsa-2048", {"ciphertext": reply["data"]["ciphertext"]}, opener)[1]["data"], {"plaintext": b64(plain)})
            self.assertIn("why=oaep_ciphertext_sha2-256_", self.last("ev=decrypt"))
        # by openssl, with the public key alone
        source = os.path.join(self.dir, "plain")
        with open(source, "wb") as f:
            f.write(b"from outside")
        sealed = run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", self.key("rsa-2048"), "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt",
                     "rsa_oaep_md:sha256", "-in", source, check=True).stdout
        self.assertEqual(self.post("decrypt/release/rsa-2048", {"ciphertext": "vault:v1:" + b64(sealed)}, opener)[1]["data"], {"plaintext": b64(b"from outside")})
        # who may sign may not open
        self.assertEqual(self.post("decrypt/release/rsa-2048", {"ciphertext": "vault:v1:" + b64(sealed)})[0], 403)
        self.assertEqual(self.post("sign/release/rsa-2048", {"input": b64(b"x")}, opener)[0], 403)
        for name, body, text in (("rsa-2048", {"ciphertext": "vault:v1:" + b64(bytes(256))}, "cannot be decrypted"), ("rsa-2048", {"ciphertext": "vault:v1:AAAA"}, "length"),
                                 ("rsa-2048", {"ciphertext": "vault:v9:" + b64(sealed)}, "version"), ("rsa-2048", {}, "missing ciphertext"),
                                 ("ecdsa-p256", {"ciphertext": "vault:v1:AAAA"}, "takes an RSA key")):
            status, reply = self.post(f"decrypt/release/{name}", body, opener)
            self.assertEqual(status, 400, (body, reply))
            self.assertIn(text, reply["errors"][0])
        status, reply = self.post("encrypt/release/rsa-2048", {"plaintext": b64(bytes(191))}, opener)
        self.assertEqual((status, reply["errors"]), (400, ["at most 190 bytes can be encrypted with this key"]))
        items = [{"ciphertext": "vault:v1:" + b64(sealed)}, {"ciphertext": "vault:v1:" + b64(bytes(256))}, {"ciphertext": "vault:v1:" + b64(sealed)}]
        status, reply = self.post("decrypt/release/rsa-2048", {"batch_input": items}, opener)
        self.assertEqual((status, ["plaintext" in r for r in reply["data"]["batch_results"]]), (400, [True, False, True]))

    def test_rewrap(self):
        opener = self.b.token("--policy", "opener")
        self.b.cli("key", "add", "release/wrapped", "--type", "rsa-2048", check=True)
        old = self.post("encrypt/release/wrapped", {"plaintext": b64(b"x")}, opener)[1]["data"]["ciphertext"]
        self.b.cli("key", "rotate", "release/wrapped", check=True)
        status, reply = self.post("rewrap/release/wrapped", {"ciphertext": old}, opener)
        self.assertEqual((status, reply["data"]["key_version"]), (200, 2), reply)
        self.assertTrue(reply["data"]["ciphertext"].startswith("vault:v2:"))
        for text in (old, reply["data"]["ciphertext"]):
            self.assertEqual(self.post("decrypt/release/wrapped", {"ciphertext": text}, opener)[1]["data"], {"plaintext": b64(b"x")})

    def test_hmac(self):
        body = {"input": b64(b"x")}
        status, reply = self.post("hmac/release/ecdsa-p256", body)
        self.assertEqual(status, 200, reply)
        mac = reply["data"]["hmac"]
        self.assertEqual(len(base64.b64decode(mac.split(":")[2])), 32)
        self.assertEqual(self.post("hmac/release/ecdsa-p256/sha2-512", body)[1]["data"]["hmac"][:9], "vault:v1:")
        self.assertNotEqual(self.post("hmac/release/ecdsa-p384", body)[1]["data"]["hmac"] if "ecdsa-p384" in self.types else "", mac)
        for given, text, valid in ((mac, b"x", True), (mac, b"y", False), ("vault:v2:AAAA", b"x", False), ("vault:v1:AAAA", b"x", False)):
            self.assertEqual(self.post("verify/release/ecdsa-p256", {"input": b64(text), "hmac": given})[1]["data"], {"valid": valid})
        batch = {"batch_input": [body, {"input": "*"}, body]}
        status, reply = self.post("hmac/release/ecdsa-p256", batch)
        self.assertEqual((status, [r.get("hmac") for r in reply["data"]["batch_results"]]), (400, [mac, None, mac]))
        self.b.stop()
        self.b.start()
        self.assertEqual(self.post("hmac/release/ecdsa-p256", body)[1]["data"]["hmac"], mac)

    def test_bad_input(self):
        good = {"input": b64(b"x")}
        for path, body, text in (
                ("sign/release/ecdsa-p256", {}, "missing input"), ("sign/release/ecdsa-p256", {"input": "?"}, "base64"),
                ("sign/release/ecdsa-p256", {"input": 5}, "missing input"), ("sign/release/ecdsa-p256", {**good, "hash_algorithm": "md5"}, "unsupported hash"),
                ("sign/release/ecdsa-p256", {**good, "prehashed": True}, "not a digest"), ("sign/release/ecdsa-p256/none", good, "none needs"),
                ("sign/release/ecdsa-p256", {**good, "marshaling_algorithm": "x"}, "asn1 or jws"), ("sign/release/ecdsa-p256", {"batch_input": []}, "1 to 256"),
                ("sign/release/ecdsa-p256", {"batch_input": [good] * 257}, "1 to 256"), ("sign/release/ecdsa-p256", {**good, "key_version": 9}, "not of that version"),
                ("verify/release/ecdsa-p256", good, "missing signature"), ("verify/release/ecdsa-p256", {**good, "signature": "vault:v1:*"}, "base64"),
                ("verify/release/ecdsa-p256", {**good, "signature": "vault:vx:AAAA"}, "form vault:v1")):
            status, reply = self.post(path, body)
            self.assertEqual(status, 400, (path, body, reply))
            self.assertIn(text, reply["errors"][0])
        for signature in ("vault:v1:AAAA", "vault:v7:AAAA", "vault:v1:" + b64(bytes(72))):
            self.assertEqual(self.post("verify/release/ecdsa-p256", {**good, "signature": signature})[1]["data"], {"valid": False})

    def test_versions(self):
        name = "release/rotated"
        self.b.cli("key", "add", name, "--type", "ecdsa-p256", check=True)
        self.assertEqual(self.b.cli("key", "add", name).returncode, 1)
        old = self.sign("rotated", b"x")
        self.b.cli("key", "rotate", name, check=True)
        new = self.sign("rotated", b"x")
        self.assertTrue(old.startswith("vault:v1:") and new.startswith("vault:v2:"))
        for signature in (old, new):
            self.assertEqual(self.post(f"verify/{name}", {"input": b64(b"x"), "signature": signature})[1]["data"], {"valid": True})
        self.assertTrue(self.sign("rotated", b"x", key_version=1).startswith("vault:v1:"))
        key = json.loads(self.b.cli("key", "show", name, "--json", check=True).stdout)
        self.assertEqual((key["latest_version"], sorted(key["keys"])), (2, ["1", "2"]))
        # across a restart, and in whatever order the helper comes up
        self.b.stop(signal.SIGKILL)
        self.b.start()
        self.assertTrue(self.sign("rotated", b"x", key_version=1).startswith("vault:v1:"))
        self.b.cli("key", "remove", name, check=True)
        self.assertEqual(self.b.cli("key", "show", name).returncode, 4)

    def test_a_certificate(self):
        key = self.key("ecdsa-p256")
        other = os.path.join(self.dir, "other")
        for name, public in ((other, None), (os.path.join(self.dir, "own"), key)):
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key", "-out", name + ".crt",
                "-subj", "/CN=test", "-days", "2", check=True)
            if public:
                run("openssl", "x509", "-new", "-force_pubkey", public, "-subj", "/CN=own", "-CA", other + ".crt", "-CAkey", other + ".key", "-out", name + ".crt",
                    "-days", "1", check=True)
        p = self.b.cli("key", "certificate", "release/ecdsa-p256", "--certificate", other + ".crt")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"another key", p.stderr)
        chain = os.path.join(self.dir, "chain.pem")
        with open(chain, "wb") as f:
            for name in (os.path.join(self.dir, "own"), other):
                with open(name + ".crt", "rb") as c:
                    f.write(c.read())
        self.b.cli("key", "certificate", "release/ecdsa-p256", "--certificate", chain, check=True)
        shown = json.loads(self.b.cli("key", "show", "release/ecdsa-p256", "--json", check=True).stdout)
        with open(chain) as f:
            self.assertEqual(shown["keys"]["1"]["certificate_chain"].split(), f.read().split())

    def test_sealing_keys_do_nothing_else(self):
        ref = next(line.split()[-1] for line in self.b.cli("key", "list", check=True).stdout.decode().splitlines() if " seal " in line)
        provider = "hsm" if self.hsm else "tpm"
        p = self.b.cli("key", "add", "release/sealing", "--provider", provider, "--ref", ref)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"seals", p.stderr)

    def test_hvac(self):
        """hvac over the Unix socket by an adapter of its own."""
        client = hvac_client(self.b.socket, self.token)
        signed = client.secrets.transit.sign_data(name="release/ecdsa-p256", hash_input=b64(b"x"), hash_algorithm="sha2-384")
        checked = client.secrets.transit.verify_signed_data(name="release/ecdsa-p256", hash_input=b64(b"x"), signature=signed["data"]["signature"],
                                                           hash_algorithm="sha2-384")
        self.assertTrue(checked["data"]["valid"])
        operator = hvac_client(self.b.operator_socket, None)
        operator.secrets.transit.create_key(name="by-hvac", key_type="ecdsa-p256")
        operator.secrets.transit.rotate_key(name="by-hvac")
        self.assertEqual(operator.secrets.transit.read_key(name="by-hvac")["data"]["latest_version"], 2)
        self.assertIn("by-hvac", operator.secrets.transit.list_keys()["data"]["keys"])

    # ---- while the hardware works

    def behind(self, *calls):
        """Sends calls while the hardware stands still; then do() of each call is done. Their answers."""
        answers = [None] * len(calls)
        threads = [threading.Thread(target=lambda i=i, c=c: answers.__setitem__(i, c())) for i, c in enumerate(calls)]
        with Stopped(self.b):
            for t in threads:
                t.start()
                time.sleep(0.2)
        for t in threads:
            t.join()
        return answers

    def operator(self, method, path, body=None):
        return ask(self.b.operator_socket, method, f"transit/{path}", None, body)

    def test_a_key_removed_meanwhile(self):
        self.b.cli("key", "add", "release/gone", "--type", "ecdsa-p256", check=True)
        batch = {"batch_input": [{"input": b64(b"%d" % i)} for i in range(50)]}
        signed, removed = self.behind(lambda: self.post("sign/release/gone", batch), lambda: self.operator("DELETE", "keys/release/gone"))
        self.assertEqual((signed[0], removed[0]), (400, 204), signed)
        lines = self.b.audit(200).splitlines()
        last = max(i for i, line in enumerate(lines) if "ev=key.delete" in line)
        self.assertFalse([line for line in lines[last:] if "ev=sign" in line and "granted" in line])

    def test_versions_that_are_made_at_once(self):
        self.b.cli("key", "add", "release/race", "--type", "ecdsa-p256", check=True)
        answers = self.behind(*[lambda: self.operator("POST", "keys/release/race/rotate", {})] * 2)
        self.assertEqual([(status, reply["data"]["latest_version"]) for status, reply in answers], [(200, 2), (200, 3)])
        one, two = (reply["data"]["keys"]["2"]["public_key"] for _, reply in answers)
        self.assertEqual(one, two)
        rotated, removed = self.behind(lambda: self.operator("POST", "keys/release/race/rotate", {}), lambda: self.operator("DELETE", "keys/release/race"))
        self.assertEqual((rotated[0], removed[0]), (400, 204), rotated)
        self.assertEqual(self.operator("GET", "keys/release/race")[0], 404)
        first, second = self.behind(*[lambda: self.operator("POST", "keys/release/twice", {})] * 2)
        self.assertEqual((first[0], second[0]), (200, 400), second)
        self.b.cli("key", "remove", "release/twice", check=True)

    def test_who_leaves_has_used(self):
        token = self.b.token("--policy", "signer", "--uses", "2")
        with Stopped(self.b):
            s = connect(self.b.socket)
            body = b'{"input":"eA=="}'
            s.sendall(b"POST /v1/transit/sign/release/ecdsa-p256 HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s" % (token.encode(), len(body), body))
            time.sleep(0.2)
            s.close()
            time.sleep(0.2)
        self.assertIn("the_client_left", self.b.audit(5))
        self.assertEqual([self.post("sign/release/ecdsa-p256", {"input": b64(b"x")}, token)[0] for _ in range(2)], [200, 403])

    def test_uses_count_each_time(self):
        token = self.b.token("--policy", "signer", "--uses", "3")
        batch = {"batch_input": [{"input": b64(b"%d" % i)} for i in range(4)]}
        self.assertEqual(self.post("hmac/release/ecdsa-p256", batch, token)[0], 403)
        self.assertIn(f"of_sha2-256_{hashlib.sha256(b'2').hexdigest()}", self.last("result=granted why=hmac"))
        self.assertEqual(self.post("hmac/release/ecdsa-p256", {"input": b64(b"x")}, token)[0], 403)
        token = self.b.token("--policy", "opener", "--uses", "3")
        bad = {"ciphertext": "vault:v1:" + b64(bytes(256))}
        self.assertEqual([self.post("decrypt/release/rsa-2048", bad, token)[0] for _ in range(4)], [400, 400, 400, 403])
        token = self.b.token("--policy", "opener", "--uses", "3")
        self.assertEqual(self.post("decrypt/release/rsa-2048", {"batch_input": [bad] * 5}, token)[0], 403)
        lines = [line for line in self.b.audit(20).splitlines() if "ev=decrypt" in line]
        self.assertFalse([line for line in lines[-4:] if "granted" in line], lines)

    @unittest.skipIf(cgroups_missing(), cgroups_missing())
    def test_one_job_does_not_starve_another(self):
        def request(data):
            s = connect(self.b.socket)
            body = json.dumps({"input": b64(data)}).encode()
            s.sendall(b"POST /v1/transit/sign/release/ecdsa-p256 HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s"
                      % (self.token.encode(), len(body), body))
            return s

        def another():
            sockets = [request(b"another %d" % i) for i in range(5)]
            return [s.recv(4096)[9:12] for s in sockets]

        other = Cgroup()
        self.addCleanup(other.remove)
        with Stopped(self.b):
            greedy = [request(b"greedy %d" % i) for i in range(300)]
            time.sleep(0.3)
            answers = []
            t = threading.Thread(target=lambda: answers.append(as_peer(another, cgroup=other)))
            t.start()
            time.sleep(0.7)
        t.join()
        self.assertEqual(answers, [[b"200"] * 5])
        # of one job so many may wait
        self.assertEqual(collections.Counter(s.recv(4096)[9:12] for s in greedy), {b"200": 256, b"429": 44})
        for s in greedy:
            s.close()
        digests = {hashlib.sha256(b"another %d" % i).hexdigest() for i in range(5)}
        order = [any(d in line for d in digests) for line in self.b.audit(400).splitlines() if "ev=sign" in line and "result=granted" in line][-261:]
        self.assertEqual(order.count(True), 5)
        # in turns: one of theirs, one of ours
        self.assertLess(max(i for i, theirs in enumerate(order) if theirs), 20)

    def test_names_that_are_words(self):
        for name in ("release/k/sha2-256", "release/none", "sha1", "release/k/rotate", "release/ecdsa-p256/rotate", "release/ecdsa-p256/config"):
            self.assertIn(b"choose another", self.b.cli("key", "add", name).stderr, name)
        self.assertEqual(self.b.cli("key", "remove", "release/none-of-that-name").returncode, 4)

    def test_one_operation_for_policy_and_caveat(self):
        """Where get or sign will do, a policy's sign and a caveat's get are not enough."""
        narrow = self.b.cli("token", "narrow", "--op", "get", token=self.token, check=True).stdout.decode().strip()
        signature = self.sign("ecdsa-p256", b"x")
        self.assertEqual(self.post("verify/release/ecdsa-p256", {"input": b64(b"x"), "signature": signature}, narrow)[0], 403)
        self.assertEqual(self.post("verify/release/ecdsa-p256", {"input": b64(b"x"), "signature": signature})[0], 200)

    def test_the_helper_dies(self):
        for pid in self.b.children():
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.post("sign/release/ecdsa-p256", {"input": b64(b"x")})[0], 200)
        with Session(self.b.socket) as s:
            for _ in range(20):
                self.assertEqual(s.request("POST", "transit/sign/release/ecdsa-p256", self.token, {"input": b64(b"x")})[0], 200)


def hvac_client(path, token):
    import requests
    import urllib3
    import socket as sockets

    class Connection(urllib3.connection.HTTPConnection):
        def connect(self):
            self.sock = sockets.socket(sockets.AF_UNIX)
            self.sock.connect(path)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

        def _new_conn(self):
            return Connection("localhost")

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection(self, url, proxies=None):
            return Pool("localhost")

    session = requests.Session()
    session.mount("http://", Adapter())
    return hvac.Client(url="http://localhost", token=token, session=session)


class SoftHsm(Algorithms, SignCase):
    def test_hardware_that_fails_is_not_a_bad_ciphertext(self):
        opener = self.b.token("--policy", "opener")
        self.hsm.tool("--keypairgen", "--key-type", "rsa:2048", "--label", "lost", "--id", "cc", "--usage-decrypt")
        self.b.cli("key", "add", "release/lost", "--provider", "hsm", "--ref", "pkcs11:object=lost;type=private", check=True)
        item = {"ciphertext": self.post("encrypt/release/lost", {"plaintext": b64(b"x")}, opener)[1]["data"]["ciphertext"]}
        self.assertEqual(self.post("decrypt/release/lost", item, opener)[0], 200)
        self.hsm.tool("--delete-object", "--type", "privkey", "--id", "cc")
        for body in (item, {"batch_input": [item, item]}):
            self.assertEqual(self.post("decrypt/release/lost", body, opener)[0], 404)
        self.assertNotIn("granted", self.last("ev=decrypt"))
        self.b.cli("key", "remove", "release/lost", check=True)

    def test_another_key_of_that_label(self):
        """A reference that comes to fit another key signs nothing under the old name."""
        self.hsm.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "old", "--id", "aa", "--usage-sign")
        self.b.cli("key", "add", "release/old", "--provider", "hsm", "--ref", "pkcs11:object=old;type=private", check=True)
        self.assertEqual(self.post("sign/release/old", {"input": b64(b"x")})[0], 200)
        self.b.stop()
        self.hsm.tool("--delete-object", "--type", "privkey", "--id", "aa")
        self.hsm.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "old", "--id", "bb", "--usage-sign")
        self.b.start()
        self.assertEqual(self.post("sign/release/old", {"input": b64(b"x")})[0], 404)
        self.b.stop()
        self.hsm.tool("--delete-object", "--type", "privkey", "--id", "bb")
        self.hsm.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "old", "--id", "aa", "--usage-sign")
        self.b.start()
        status, reply = self.post("sign/release/old", {"input": b64(b"x")})
        self.assertEqual(status, 503, reply)
        self.assertIn("by another key", reply["errors"][0])
        self.b.cli("key", "remove", "release/old", check=True)

    def test_a_reference_to_several_keys(self):
        """By one that another name has, too, that one's rules would not hold."""
        for key_id in ("e1", "e2"):
            self.hsm.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "twin", "--id", key_id, "--usage-sign")
        p = self.b.cli("key", "add", "release/twin", "--provider", "hsm", "--ref", "pkcs11:object=twin;type=private")
        self.assertEqual((p.returncode, b"more than one private key" in p.stderr), (1, True), p)
        self.b.cli("key", "add", "release/twin", "--provider", "hsm", "--ref", "pkcs11:object=twin;id=%e2;type=private", check=True)
        self.assertEqual(self.post("sign/release/twin", {"input": b64(b"x")})[0], 200)
        self.b.cli("key", "remove", "release/twin", check=True)

    def asked_meanwhile(self, what):
        """The statuses of what four clients ask for while that is done."""
        done, out = threading.Event(), collections.Counter()

        def ask_on():
            while not done.is_set():
                out[self.post("sign/release/ecdsa-p256", {"input": b64(b"x")})[0]] += 1

        threads = [threading.Thread(target=ask_on) for _ in range(4)]
        for t in threads:
            t.start()
        try:
            what(out)
        finally:
            done.set()
            for t in threads:
                t.join()
        return out

    def test_a_token_that_is_away_while_many_ask(self):
        away = self.hsm.tokens + ".away"

        def leave(out):
            os.rename(self.hsm.tokens, away)
            try:
                wait_for("a refusal", lambda: out[503])
                time.sleep(1.5)  # a look that finds nothing
            finally:
                os.rename(away, self.hsm.tokens)
            before = out[200]
            wait_for("the token", lambda: out[200] > before + 10)

        self.assertEqual(set(self.asked_meanwhile(leave)), {200, 503})

    def test_a_login_anew_while_many_ask(self):
        run("pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", "000000", "-O", env=self.hsm.env)
        out = self.asked_meanwhile(lambda _: self.b.cli("unlock", "hsm", "--again", check=True))
        self.assertEqual(set(out), {200})
        self.b.cli("key", "list", "hsm", check=True)

    def test_a_wrong_pin_by_another_program(self):
        """The token's counter keeps cotter's commands from giving it a PIN by themselves; an operator has them do it."""
        run("pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", "000000", "-O", env=self.hsm.env)
        p = self.b.cli("key", "list", "hsm")
        self.assertEqual((p.returncode, b"--again" in p.stderr), (5, True), p)
        self.assertIn(b"needs no PIN", self.b.cli("unlock", "hsm", stdin=PIN).stderr)
        self.b.cli("unlock", "hsm", "--again", check=True)
        self.b.cli("key", "list", "hsm", check=True)
        self.assertEqual(self.post("sign/release/ecdsa-p256", {"input": b64(b"x")})[0], 200)

    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "ed25519")
    hashes = tuple(OPENSSL)

    @classmethod
    def make_hardware(cls):
        cls.hsm = cls.softhsm()


class Tpm(Algorithms, SignCase):
    types = ("ecdsa-p256", "ecdsa-p384", "rsa-2048")
    hashes = ("sha1", "sha2-256", "sha2-384", "sha2-512")

    @classmethod
    def make_hardware(cls):
        cls.tpm = cls.swtpm()


if __name__ == "__main__":
    unittest.main()
