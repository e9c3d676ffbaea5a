"""cotterd over its sockets, once with SoftHSM, once with swtpm, once with both: KV, tokens, store, audit, attacks."""
import base64
import concurrent.futures
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import unittest

from harness import COTTER, COTTERD, PIN, Case, ROOT, clean_env, run, wait_for
from peers import Session, connect

CLIENTS = os.path.join(ROOT, "tests", "clients")
DENIED = {"errors": ["permission denied"]}


class Kv:
    """The main job; every provider must do the same (mixed into the classes below)."""

    def test_write_read_list_delete(self):
        b, t = self.b, self.admin
        self.assertEqual(b.curl("secret/data/kv/none", token=t), (404, {"errors": []}))
        status, reply = b.curl("secret/data/kv/one", "-X", "POST", token=t, body=b'{"data":{"user":"u","n":7,"deep":{"a":[1,null]}}}')
        self.assertEqual((status, reply["data"]["version"]), (200, 1))
        status, reply = b.curl("secret/data/kv/one", token=t)
        self.assertEqual((status, reply["data"]["data"]), (200, {"user": "u", "n": 7, "deep": {"a": [1, None]}}))
        self.assertEqual(set(reply), {"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"})
        status, reply = b.curl("secret/data/kv/one", "-X", "PUT", token=t, body=b'{"data":{"user":"v"},"options":{"cas":1}}')
        self.assertEqual((status, reply["data"]["version"]), (200, 2))
        status, reply = b.curl("secret/data/kv/one", "-X", "PUT", token=t, body=b'{"data":{"user":"w"},"options":{"cas":1}}')
        self.assertEqual(status, 400)
        self.assertIn("check-and-set", reply["errors"][0])
        self.assertEqual(b.curl("secret/data/kv/one?version=1", token=t)[1]["data"]["data"]["user"], "u")
        b.curl("secret/data/kv/folder/two", "-X", "POST", token=t, body=b'{"data":{}}')
        self.assertEqual(b.curl("secret/metadata/kv", "-X", "LIST", token=t)[1]["data"]["keys"], ["folder/", "one"])
        self.assertEqual(b.curl("secret/metadata/kv/?list=true", token=t)[1]["data"]["keys"], ["folder/", "one"])
        self.assertEqual(b.curl("secret/metadata/nothing?list=true", token=t), (404, {"errors": []}))
        self.assertEqual(b.curl("secret/data/kv/one", "-X", "DELETE", token=t)[0], 204)
        status, reply = b.curl("secret/data/kv/one", token=t)
        self.assertEqual((status, reply["data"]["data"]), (404, None))
        self.assertTrue(reply["data"]["metadata"]["deletion_time"])
        self.assertEqual(b.curl("secret/data/kv/one?version=1", token=t)[0], 200)
        self.assertEqual(b.curl("secret/metadata/kv/one", token=t)[1]["data"]["current_version"], 2)
        self.assertEqual(b.curl("secret/metadata/kv/one", "-X", "DELETE", token=t)[0], 204)
        self.assertEqual(b.curl("secret/data/kv/one?version=1", token=t)[0], 404)

    def test_ten_versions_are_kept(self):
        for i in range(12):
            self.b.put("versions/v", f"value {i + 1}")
        self.assertEqual(self.b.cli("get", "versions/v", "--version", "3", check=True).stdout, b"value 3")
        self.assertEqual(self.b.cli("get", "versions/v", "--version", "2").returncode, 4)
        self.assertEqual(self.b.cli("get", "versions/v", check=True).stdout, b"value 12")

    def test_sealed_elsewhere(self):
        b = self.b
        plain = os.path.join(self.dir, f"{self.id()}.age")
        b.cli("seal", "-o", plain, stdin="raw bytes\n", check=True)
        b.cli("put", "sealed/raw", "--sealed", plain, check=True)
        self.assertEqual(b.cli("get", "sealed/raw", check=True).stdout, b"raw bytes\n")
        b.cli("seal", "-a", "-o", plain, stdin='{"a":"b"}', check=True)
        b.cli("put", "sealed/json", "--sealed", plain, check=True)
        self.assertEqual(b.cli("get", "sealed/json#a", check=True).stdout, b"b")
        b.cli("seal", "-o", plain, stdin=b"\xff\xfe\0", check=True)
        b.cli("put", "sealed/binary", "--sealed", plain, check=True)
        self.assertEqual(base64.b64decode(b.cli("get", "sealed/binary#value_base64", check=True).stdout), b"\xff\xfe\0")
        # another's file, another's path, another's version, not sealed to us: not taken
        b.cli("seal", "-p", "sealed/other", "-o", plain, stdin="x", check=True)
        self.assertEqual(b.cli("put", "sealed/mine", "--sealed", plain).returncode, 1)
        b.cli("seal", "-p", "sealed/mine", "--version", "2", "-o", plain, stdin="x", check=True)
        self.assertEqual(b.cli("put", "sealed/mine", "--sealed", plain).returncode, 1)
        b.cli("seal", "-p", "sealed/mine", "--version", "1", "-o", plain, stdin="x", check=True)
        self.assertEqual(b.cli("put", "sealed/mine", "--sealed", plain).returncode, 0)
        run("age", "-r", b.recovery, "-o", plain, stdin="x", check=True)
        p = b.cli("put", "sealed/nomatch", "--sealed", plain)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"no match", p.stderr)
        with open(os.path.join(ROOT, "tests", "data", "age-vectors", "armor_scrypt"), "rb") as f:
            passphrase = f.read().partition(b"\n\n")[2]
        with open(plain, "wb") as f:
            f.write(passphrase)
        p = b.cli("put", "sealed/pw", "--sealed", plain)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"passphrase", p.stderr)
        self.assertEqual(b.cli("get", "sealed/nomatch").returncode, 4)

    def test_hostile_sealed_files(self):
        b = self.b
        good = b.cli("seal", stdin="x", check=True).stdout
        stanza = re.search(rb"-> p256tag \S+ \S+\n\S+\n", good).group(0)
        head, mac = good.split(b"\n--- ")
        many = b"age-encryption.org/v1\n" + stanza * 33 + b"---" + good.split(b"---")[1]
        three = b"age-encryption.org/v1\n" + re.sub(rb"\n(\S)", rb"\nB", stanza) * 3 + b"---" + good.split(b"---", 1)[1]
        for kind in (b"ssh-rsa", b"piv-p256", b"mlkem768p256tag"):
            mixed = good.replace(b"-> p256tag", b"-> " + kind + b" x\n\n-> p256tag", 1)
            status, reply = b.curl("cotter/sealed/hostile/x", token=self.admin,
                                   body=json.dumps({"sealed": base64.b64encode(mixed).decode()}).encode())
            self.assertEqual((status, kind.decode() in reply["errors"][0]), (400, True))
        for data in (b"", b"garbage", good[:-1], good[:50], good + b"x", many, three, b"\0" * 70000, good.replace(b"\n", b"\r\n"),
                     b"age-encryption.org/v1\n-> X25519 a\n", head.replace(b"p256tag", b"p256tah") + b"\n--- " + mac):
            status, reply = b.curl("cotter/sealed/hostile/x", token=self.admin,
                                   body=json.dumps({"sealed": base64.b64encode(data).decode()}).encode())
            self.assertEqual(status, 400, (data[:60], reply))
            self.assertTrue(reply["errors"][0])
        self.assertEqual(b.curl("secret/data/hostile/x", token=self.admin)[0], 404)

    def test_recovery_key_opens_the_store(self):
        """age alone opens what the broker stored: no lock-in."""
        self.b.put("lockin/x", "still mine")
        db = sqlite3.connect(f"file:{self.b.state}/store.db?mode=ro", uri=True)
        sealed = db.execute("SELECT sealed FROM version WHERE path = 'lockin/x'").fetchone()[0]
        db.close()
        out = run("age", "-d", "-i", self.b.recovery_key, stdin=sealed, check=True).stdout
        self.assertEqual(json.loads(out), {"value": "still mine"})
        self.assertNotIn(b"still mine", sealed)

    def test_each_caveat_holds_and_refuses(self):
        b = self.b
        b.put("release/a", "A")
        b.put("releases/b", "B")

        def get(token, path="release/a"):
            return b.cli("get", path, token=token).returncode

        def narrowed(*caveats):
            args = [x for c in caveats for x in ("-c", c)]
            return b.cli("token", "narrow", *args, stdin=self.admin, check=True).stdout.decode().strip()

        self.assertEqual(get(narrowed("op = get")), 0)
        self.assertEqual(get(narrowed("op = put")), 3)
        self.assertEqual(get(narrowed("op in put,get")), 0)
        self.assertEqual(get(narrowed("op in put,list")), 3)
        self.assertEqual(get(narrowed("path = release/a")), 0)
        self.assertEqual(get(narrowed("path = release/b")), 3)
        self.assertEqual(get(narrowed("path under release/")), 0)
        self.assertEqual(get(narrowed("path under release/"), "releases/b"), 3)
        self.assertEqual(get(narrowed("time < 2999-01-01T00:00:00Z")), 0)
        self.assertEqual(get(narrowed("time < 2020-01-01T00:00:00Z")), 3)
        self.assertEqual(get(narrowed(f"uid = {os.geteuid()}")), 0)
        self.assertEqual(get(narrowed("uid = 4000000000")), 3)
        self.assertEqual(get(narrowed(f"gid = {os.getegid()}")), 0)
        self.assertEqual(get(narrowed("gid = 4000000000")), 3)
        self.assertEqual(get(narrowed("path = release/a", "path = releases/b")), 3)  # contradictions deny
        two = narrowed("uses <= 2")
        self.assertEqual([get(two) for _ in range(4)], [0, 0, 3, 3])
        self.assertEqual(get(self.admin), 0)  # its own uses are not counted there
        # unknown and malformed ones, made by a library that does not know our words
        for bad in ("colour = red", "op=get", "uid = 01", "uid = -1", "uid = 4294967296", "time < tomorrow", "uses <= 1 ", "op = ", "path under release"):
            token = run("/usr/bin/python3", "narrow.py", bad, stdin=self.admin, cwd=CLIENTS, check=True).stdout.decode()
            self.assertEqual(get(token), 3, bad)
            self.assertNotEqual(b.cli("token", "narrow", "-c", bad, stdin=self.admin).returncode, 0, bad)

    def test_third_party_libraries_narrow(self):
        self.b.put("release/n", "N")
        # the same caveats on the same token would make the same token: their order differs
        for narrow, caveats in ((("/usr/bin/python3", "narrow.py"), ("op = get", "path under release/")),
                                (("node", "narrow.mjs"), ("path under release/", "op = get"))):
            token = run(*narrow, *caveats, stdin=self.admin, cwd=CLIENTS, check=True).stdout.decode()
            again = run(*narrow, "uses <= 1", stdin=token, cwd=CLIENTS, check=True).stdout.decode()
            self.assertEqual(self.b.cli("get", "release/n", token=token).stdout, b"N", narrow)
            self.assertEqual(self.b.cli("put", "release/n", stdin="x", token=token).returncode, 3, narrow)
            self.assertEqual([self.b.cli("get", "release/n", token=again).returncode for _ in range(2)], [0, 3], narrow)

    def test_forged_tokens_are_refused(self):
        b = self.b
        b.put("release/f", "F")
        token = b.cli("token", "narrow", "-c", "op = put", "-c", "path = x/y", stdin=self.admin, check=True).stdout.decode().strip()
        raw = base64.urlsafe_b64decode(token[5:] + "==")

        def text(data):
            return "cot1_" + base64.urlsafe_b64encode(bytes(data)).decode().rstrip("=")

        first, second = b"\x02\x08op = put\x00", b"\x02\x0apath = x/y\x00"
        self.assertIn(first + second, raw)
        forged = [raw.replace(first, b""), raw.replace(second, b""), raw.replace(first + second, b""), raw.replace(first + second, second + first),
                  raw.replace(first, first + first), raw.replace(b"op = put", b"op = get"), raw + b"\0", b"\x01" + raw[1:], b""]
        forged += [raw[:i] for i in range(0, len(raw), 3)]
        flips = [bytes(raw[:i // 8]) + bytes([raw[i // 8] ^ 1 << i % 8]) + bytes(raw[i // 8 + 1:]) for i in range(0, len(raw) * 8, 5)]
        with Session(b.socket) as s:
            for data in forged + flips:
                self.assertEqual(s.request("GET", "secret/data/release/f", text(data)), (403, DENIED), data)
        for text_form in ("", "x", self.admin[5:], "cot2_" + self.admin[5:], self.admin + "=", self.admin + "A", "cot1_" + "A" * 1500):
            self.assertEqual(b.curl("secret/data/release/f", token=text_form or None), (403, DENIED), text_form[:20])

    def test_policies(self):
        b = self.b
        b.put("release/p", "P")
        b.put("build/linux/token", "L")
        release, writer = b.token("--policy", "release"), b.token("--policy", "writer")
        self.assertEqual(b.cli("get", "release/p", token=release).returncode, 0)
        self.assertEqual(b.cli("list", "release", token=release).returncode, 0)
        self.assertEqual(b.cli("put", "release/p", stdin="x", token=release).returncode, 3)
        self.assertEqual(b.cli("get", "build/linux/token", token=release).returncode, 3)
        self.assertEqual(b.cli("get", "build/linux/token", token=writer).returncode, 0)
        self.assertEqual(b.cli("put", "build/mac/token", stdin="x", token=writer).returncode, 0)
        self.assertEqual(b.cli("put", "build/mac/arm/token", stdin="x", token=writer).returncode, 3)
        self.assertEqual(b.curl("secret/data/release/absent", token=writer)[0], 403)  # absent or not, no right is 403
        self.assertEqual(b.curl("secret/data/release/absent", token=release)[0], 404)

    def test_uses_exact_under_64_racing_clients(self):
        self.b.put("release/race", "R")
        for uses_args, caveat in ((["--uses", "5"], None), ([], "uses <= 5")):
            token = self.b.token("--policy", "admin", *uses_args)
            if caveat:
                token = self.b.cli("token", "narrow", "-c", caveat, stdin=token, check=True).stdout.decode().strip()
            barrier = threading.Barrier(64)
            request = f"GET /v1/secret/data/release/race HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Vault-Token: {token}\r\n\r\n".encode()

            def one(_):
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.b.socket)
                    barrier.wait()
                    s.sendall(request)
                    return s.recv(12)[9:12]
            with concurrent.futures.ThreadPoolExecutor(64) as pool:
                results = list(pool.map(one, range(64)))
            self.assertEqual((results.count(b"200"), results.count(b"403")), (5, 59))

    def test_lookup_self_and_create(self):
        b = self.b
        token = b.token("--policy", "release", "--policy", "writer", "--ttl", "10m")
        status, reply = b.curl("auth/token/lookup-self", token=token)
        self.assertEqual((status, reply["data"]["policies"], reply["data"]["id"]), (200, ["release", "writer"], token))
        self.assertTrue(590 <= reply["data"]["ttl"] <= 600)
        status, reply = b.curl("auth/token/create", token=token, body=b'{"policies":["release"],"ttl":"5m"}')
        self.assertEqual((status, reply["auth"]["policies"]), (200, ["release"]))
        child = reply["auth"]["client_token"]
        self.assertEqual(b.curl("auth/token/lookup-self", token=child)[0], 200)
        self.assertEqual(b.curl("auth/token/create", token=token, body=b'{"policies":["admin"]}'), (403, DENIED))
        narrow = b.cli("token", "narrow", "-c", "op = get", stdin=token, check=True).stdout.decode().strip()
        self.assertEqual(b.curl("auth/token/create", token=narrow, body=b'{"policies":["release"],"ttl":"1m"}'), (403, DENIED))
        for body in (b'{"policies":["nosuch"]}', b'{"policies":[]}', b'{"policies":["release"],"ttl":"forever"}', b'{"policies":["release"],"num_uses":-1}'):
            self.assertEqual(b.curl("auth/token/create", socket_path=b.operator_socket, body=body)[0], 400, body)

    def test_run_gives_secrets_to_the_command_alone(self):
        b = self.b
        b.cli("put", "release/run", "--data", "-", stdin='{"a":"one","b":"two words"}', check=True)
        token = b.cli("token", "narrow", "-c", "path under release/", stdin=self.admin, check=True).stdout.decode().strip()
        p = b.cli("run", "--no-mask", "--env", "A=release/run#a", "--env", "B=release/run#b", "--", "sh", "-c", 'printf "%s|%s|%s" "$A" "$B" "$COTTER_TOKEN"; exit 42', token=token)
        self.assertEqual((p.returncode, p.stdout), (42, b"one|two words|"))
        p = b.cli("run", "--env", "A=release/run#nosuch", "--", "true", token=token)
        self.assertEqual(p.returncode, 4)
        p = b.cli("run", "--env", "A=other/x", "--", "touch", os.path.join(self.dir, "ran"), token=token)
        self.assertEqual(p.returncode, 3)
        self.assertFalse(os.path.exists(os.path.join(self.dir, "ran")))
        p = b.cli("run", "--", "sh", "-c", "kill -TERM $$", token=token)
        self.assertEqual(p.returncode, -15)

    def test_survives_restart_and_kill(self):
        b = self.b
        b.put("restart/x", "before")
        token = b.token("--policy", "admin", "--uses", "2")
        caveat = b.cli("token", "narrow", "-c", "uses <= 1", stdin=b.token("--policy", "admin"), check=True).stdout.decode().strip()
        self.assertEqual(b.cli("get", "restart/x", token=token).returncode, 0)
        self.assertEqual(b.cli("get", "restart/x", token=caveat).returncode, 0)
        for sig in (signal.SIGKILL, signal.SIGTERM):
            b.stop(sig)
            b.start()
            self.assertEqual(b.cli("get", "restart/x", check=True).stdout, b"before")
            self.assertEqual(b.cli("get", "restart/x", token=caveat).returncode, 3)
        self.assertEqual([b.cli("get", "restart/x", token=token).returncode for _ in range(2)], [0, 3])
        self.assertIn("numbered without a gap", b.audit())

    def test_helper_killed(self):
        b = self.b
        b.put("helper/x", "1")
        for pid in b.children():
            os.kill(pid, signal.SIGKILL)
        wait_for("the helpers", lambda: all(p["state"] == "ready" for p in b.status().get("providers", [])))
        b.put("helper/y", "2")
        self.assertEqual(b.cli("get", "helper/y", check=True).stdout, b"2")


class KvSoftHSM(Kv, Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm)
        cls.admin = cls.b.token("--policy", "admin")

    def test_token_removed_and_put_back(self):
        """SoftHSM's token directory moved away is the nearest to a card pulled out."""
        b = self.b
        b.put("card/x", "1")
        away = self.hsm.tokens + ".away"
        os.rename(self.hsm.tokens, away)
        for pid in b.children():
            os.kill(pid, signal.SIGKILL)
        p = b.cli("get", "card/x")
        self.assertEqual(p.returncode, 5, p.stderr)
        self.assertEqual(b.cli("status").returncode, 0)  # the store itself stays open
        os.rename(away, self.hsm.tokens)
        wait_for("the token", lambda: b.cli("get", "card/x").stdout == b"1", 30)


class KvSwtpm(Kv, Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b = cls.broker(tpm=cls.swtpm(), edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        cls.admin = cls.b.token("--policy", "admin")


class Robust(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm, cls.tpm = cls.softhsm(), cls.swtpm()
        cls.b = cls.broker(hsm=cls.hsm, tpm=cls.tpm)
        cls.admin = cls.b.token("--policy", "admin")
        cls.b.put("robust/x", "value")

    def alive(self):
        self.assertEqual(self.b.cli("get", "robust/x", token=self.admin).stdout, b"value")

    def ticks(self):
        with open(f"/proc/{self.b.process.pid}/stat") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))

    def test_requests_that_are_not_http(self):
        auth = f"X-Vault-Token: {self.admin}\r\n".encode()
        get = b"GET /v1/secret/data/robust/x HTTP/1.1\r\nHost: x\r\n"
        cases = [
            (b"\0" * 100 + b"\r\n\r\n", b"400"), (b"GET\r\n\r\n", b"400"), (b"GET / HTTP/2.0\r\n\r\n", b"400"),
            (get + auth + auth + b"\r\n", b"400"), (get + auth.replace(b"\r\n", b"\n") + b"\n\n\r\n\r\n", b"400"),
            (get + auth + b" folded\r\n\r\n", b"400"), (get + b"X-Vault-Token: " + self.admin.encode() + b"\0junk\r\n\r\n", b"400"),
            (get + auth + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", b"400"), (get + auth + b"Content-Length: +1\r\n\r\nx", b"400"),
            (get + auth + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"), (get + auth + b": x\r\n\r\n", b"400"),
            (get.replace(b"robust/x", b"robust%2fx") + auth + b"\r\n", b"400"), (get.replace(b"robust/x", b"../robust/x") + auth + b"\r\n", b"400"),
            (get.replace(b"robust/x", b"robust//x") + auth + b"\r\n", b"400"), (get.replace(b"robust/x", b"a" * 600) + auth + b"\r\n", b"400"),
            (get + b"A: " + b"x" * 9000 + b"\r\n\r\n", b"413"), (get + auth + b"Content-Length: 99999999\r\n\r\n", b"413"),
            (get + b"A: b\r\n" * 100 + b"\r\n", b"413"), (b"BREW /v1/secret/data/robust/x HTTP/1.1\r\n\r\n", b"405"),
            (b"POST /v1/secret/data/robust/x HTTP/1.1\r\n" + auth + b"Content-Length: 3\r\n\r\n{x}", b"400"),
            (b"POST /v1/secret/data/robust/x HTTP/1.1\r\n" + auth + b"Content-Length: 2000\r\n\r\n" + b"[" * 2000, b"400"),
            (b"POST /v1/secret/data/robust/x HTTP/1.1\r\n" + auth + b"Content-Length: 33\r\n\r\n{\"data\":{\"a\":\"1\"},\"data\":{\"b\":1}}", b"400"),
            (b"GET /v1/sys/nothing HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"), (b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
            (b"POST /v1/sys/health HTTP/1.1\r\nConnection: close\r\n\r\n", b"405"),
        ]
        for data, want in cases:
            reply = self.b.raw(data, timeout=3)
            self.assertTrue(reply.startswith(b"HTTP/1.1 " + want), (data[:80], reply[:80]))
        self.assertEqual(self.b.cli("get", "robust/x", "--json", token=self.admin).stdout.count(b'"version":1'), 1, "something was written")
        self.alive()

    def test_byte_at_a_time_and_pipelined(self):
        request = f"GET /v1/secret/data/robust/x HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.admin}\r\n\r\n".encode()
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.b.socket)
            for i in range(len(request)):
                s.sendall(request[i:i + 1])
            self.assertIn(b"200 OK", s.recv(4096))
        out = self.b.raw(request * 20 + request.replace(b"Host", b"Connection: close\r\nHost"), timeout=10)
        self.assertEqual(out.count(b"HTTP/1.1 200 OK"), 21)

    def pipelined(self, b, request, n, half):
        """How many answers come to n requests that are sent without waiting; half: the client says that these were all."""
        answers = []

        def read(s):
            tail, seen, line = b"", 0, b"HTTP/1.1 200"
            while seen < n and (chunk := s.recv(1 << 20)):
                seen += (tail + chunk).count(line)
                tail = (tail + chunk)[1 - len(line):]
            answers.append(seen)

        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(b.socket)
            reader = threading.Thread(target=read, args=(s,))
            reader.start()
            s.sendall(request * n)
            if half:
                s.shutdown(socket.SHUT_WR)
            reader.join()
        return answers[0]

    def test_much_is_pipelined(self):
        """More than the broker reads at once, or keeps; and the end of it behind, while others ask, too."""
        disk = self.broker("pipelined", edit=lambda text: text.replace("sync: write", "sync: disk"), hsm=self.softhsm("pipelined-h"))
        disk.put("robust/x", "v")
        for b, token in ((self.b, self.admin), (disk, disk.token("--policy", "admin"))):
            request = f"GET /v1/secret/data/robust/x HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\n\r\n".encode()
            for n, half in ((4000, False), (100, True), (4000, True)):
                self.assertEqual(self.pipelined(b, request, n, half), n)
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                self.assertEqual(list(pool.map(lambda _: self.pipelined(b, request, 300, True), range(12))), [300] * 12)
        disk.stop()

    def test_slow_clients_are_cut_and_others_served(self):
        slow = []
        for _ in range(200):
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.b.socket)
            s.sendall(b"GET /v1/sys/hea")
            slow.append(s)
        self.alive()
        slow[0].settimeout(10)
        self.assertEqual(slow[0].recv(100), b"", "a request that never ends must be cut")
        for s in slow:
            s.close()

    def test_a_thousand_clients(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        request = f"GET /v1/secret/data/robust/x HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.admin}\r\n\r\n".encode()
        clients = []
        for _ in range(1000):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(20)
            s.connect(self.b.socket)
            clients.append(s)
        for s in clients:
            s.sendall(request)
        for s in clients:
            self.assertIn(b"200 OK", s.recv(4096))
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.alive()

    def test_answers_that_nothing_follows(self):
        """What is ready behind answers may be the ends of their connections alone: they leave all the same."""
        self.b.put("end/x", "v")
        token = self.b.token("--policy", "admin")
        get = f"GET /v1/secret/data/end/x HTTP/1.1\r\nX-Vault-Token: {token}\r\n\r\n".encode()
        for n in (5, 8, 15, 40):
            conns = [connect(self.b.socket) for _ in range(n)]
            os.kill(self.b.process.pid, signal.SIGSTOP)
            for s in conns:
                s.sendall(get)
                s.shutdown(socket.SHUT_WR)
            os.kill(self.b.process.pid, signal.SIGCONT)
            for s in conns:
                with s, s.makefile("rb") as f:
                    self.assertIn(b"200 OK", f.readline(), n)

    def test_what_was_sent_ahead_when_no_room_is_left_for_it(self):
        """What is not complete has filled the user's part of the arena: whole requests are answered all the same, each that is recorded."""
        self.b.put("ahead/x", "v")
        token = self.b.token("--policy", "admin")
        self.b.cli("get", "ahead/x", token=token, check=True)
        get = f"GET /v1/secret/data/ahead/x HTTP/1.1\r\nX-Vault-Token: {token}\r\n\r\n".encode()
        half = f"POST /v1/secret/data/ahead/y HTTP/1.1\r\nX-Vault-Token: {token}\r\nContent-Length: 64000\r\n\r\n".encode() + b"{" * 60000
        conns = []
        for n in [len(half)] * 20 + [2000] * 40:
            s = connect(self.b.socket)
            s.sendall(half[:n])
            conns.append(s)
        before = self.b.audit(10**6).count("ev=get")
        self.b.put("ahead/cold", "v")  # whose reader waits for the hardware with the others behind it
        for ask in (get, get, get.replace(b"ahead/x", b"ahead/cold")):
            with connect(self.b.socket) as s, s.makefile("rb") as f:
                s.sendall(ask * 20 + get[:40])
                s.shutdown(socket.SHUT_WR)
                self.assertEqual(f.read().count(b"HTTP/1.1 200 "), 20)
        self.assertEqual(self.b.audit(10**6).count("ev=get") - before, 60)
        # half of one is refused aloud; and a byte out of band is no reason to look again and again
        with connect(self.b.socket) as s, s.makefile("rb") as f:
            s.sendall(half)
            self.assertIn(b" 429 ", f.readline())
        with connect(self.b.socket) as s:
            s.sendall(get)
            s.recv(65536)
            s.send(b"!", socket.MSG_OOB)
            ticks = self.ticks()
            time.sleep(1)
            self.assertLess(self.ticks() - ticks, os.sysconf("SC_CLK_TCK") / 2)
        for s in conns:
            s.close()

    def test_clients_that_read_nothing_lose_their_place(self):
        """Also with another request behind the one whose answer they do not read."""
        self.b.put("ahead/large", "B" * 60000)
        token = self.b.token("--policy", "admin")
        body = json.dumps({"secrets": [{"path": "ahead/large"}] * 8})
        ask = f"POST /v1/cotter/read HTTP/1.1\r\nX-Vault-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        before = self.b.status()["arena_used"]
        conns = [connect(self.b.socket) for _ in range(8)]
        for i, s in enumerate(conns):
            s.sendall(ask * (1 + i % 2))
        wait_for("the answers", lambda: self.b.status()["arena_used"] > before + (1 << 20))
        wait_for("their end", lambda: self.b.status()["arena_used"] < before + (1 << 18), seconds=20)
        for s in conns:
            s.close()

    def test_descriptors_sent_along_do_not_pile_up(self):
        pid = self.b.process.pid
        before = len(os.listdir(f"/proc/{pid}/fd")) if os.geteuid() == 0 else 0
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.b.socket)
            for _ in range(20):
                socket.send_fds(s, [b"GET /v1/sys/health HTTP/1.1\r\n\r\n"], [0] * 100)
                s.recv(4096)
            if os.geteuid() == 0:
                self.assertLessEqual(len(os.listdir(f"/proc/{pid}/fd")), before + 2)
        self.alive()

    def test_hardware_work_blocks_nobody(self):
        """While the TPM is stopped in the middle of an operation, other clients are served; then the operation is cut."""
        b = self.broker("slow", tpm=self.swtpm("slowt"), edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        token = b.token("--policy", "admin")
        b.put("slow/x", "v")
        tpm = b.tpm.process
        tpm.send_signal(signal.SIGSTOP)
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                stuck = pool.submit(b.curl, "secret/data/slow/x", token=token)
                time.sleep(0.3)
                for _ in range(20):
                    self.assertEqual(b.curl("sys/health")[0], 200)
                    self.assertEqual(b.curl("secret/metadata/slow/x", token=token)[0], 200)
                self.assertFalse(stuck.done())
                # a hang is cut by the deadline, the helper killed and started again
                self.assertEqual(stuck.result(60)[0], 503)
        finally:
            tpm.send_signal(signal.SIGCONT)
        wait_for("recovery", lambda: b.curl("secret/data/slow/x", token=token)[0] == 200, 60)

    def test_no_broker_and_status_codes(self):
        env = dict(self.b.env, COTTER_SOCKET="/nonexistent/cotter.sock")
        self.assertEqual(run(COTTER, "get", "a/b", env=env).returncode, 6)
        self.assertEqual(self.b.cli("get").returncode, 2)
        self.assertEqual(self.b.cli("get", "nope/nope").returncode, 4)
        self.assertEqual(self.b.cli("nosuch").returncode, 2)
        self.assertEqual(self.b.cli("--help").returncode, 0)
        out = self.b.cli("--help").stdout.decode()
        for command in re.findall(r"^  cotter (\w+)", out, re.M):
            p = self.b.cli(command, "--help")
            self.assertEqual((p.returncode, p.stderr), (0, b""), command)
        self.assertEqual(self.b.curl("sys/seal-status")[1]["sealed"], False)
        self.assertEqual(self.b.curl("cotter/status", token=self.admin), (403, DENIED))
        for args in (["list", "--json"], ["status", "--json"], ["key", "list", "--json"], ["audit", "--json"], ["doctor", "--json"]):
            p = self.b.cli(*args, check=True)
            for line in p.stdout.splitlines():
                json.loads(line)

    def test_a_value_never_stands_in_argv(self):
        p = self.b.cli("put", "a/b", "s3cret")
        self.assertEqual(p.returncode, 2)
        p = self.b.cli("token", "narrow", "-c", "op = get", self.admin)
        self.assertEqual(p.returncode, 2)

    def test_no_secret_in_logs(self):
        canary = "CANARY-" + base64.b32encode(os.urandom(15)).decode()
        self.b.put("canary/x", canary)
        token = self.b.token("--policy", "admin")
        self.b.curl("secret/data/canary/x", token=token)
        self.b.curl(f"secret/data/{canary}%20", token=token)
        self.b.curl("secret/data/canary/x", "-X", "POST", token=token, body=b'{"data":' + canary.encode())
        self.b.curl("cotter/unlock", socket_path=self.b.operator_socket, body=json.dumps({"provider": canary, "pin": canary}).encode())
        for name in (self.b.log, os.path.join(self.b.state, "audit.log"), os.path.join(self.b.state, "store.db"), os.path.join(self.b.state, "store.db-wal")):
            with open(name, "rb") as f:
                data = f.read()
            self.assertNotIn(canary.encode(), data, name)
            self.assertNotIn(token[20:].encode(), data, name)
            self.assertNotIn(PIN.encode() + b"\n", data, name)

    def test_memory_is_not_readable_and_helpers_are_bare(self):
        pids = self.b.children()
        self.assertEqual(len(pids), 2)
        if os.geteuid() != 0:
            # the same uid, and still nothing to see
            for pid in (*pids, self.b.process.pid):
                for name in ("environ", "mem", "maps"):
                    with self.assertRaises(PermissionError):
                        open(f"/proc/{pid}/{name}", "rb").read()
                with self.assertRaises(PermissionError):
                    os.listdir(f"/proc/{pid}/fd")
            return
        for pid in pids:
            with open(f"/proc/{pid}/environ", "rb") as f:
                env = f.read()
            for part in filter(None, env.split(b"\0")):
                self.assertTrue(part.startswith((b"SOFTHSM2_CONF=", b"P11_KIT_NO_USER_CONFIG=", b"LC_ALL=")), part)
            fds = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
            targets = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in fds}
            self.assertTrue(all(targets[fd] == "/dev/null" for fd in ((0, 1) if os.environ.get("COTTER_SANITIZE") else (0, 1, 2))), targets)
            self.assertTrue(targets[3].startswith("socket:"), targets)
            with open(f"/proc/{pid}/status") as f:
                status = f.read()
            self.assertIn("NoNewPrivs:\t1", status)
            if not os.environ.get("COTTER_SANITIZE"):
                self.assertIn("Seccomp:\t2", status)

    def test_plaintext_gone_after_the_cache_expires(self):
        if os.geteuid() != 0 or os.environ.get("COTTER_SANITIZE"):
            self.skipTest("searching another process's memory needs root")
        b = self.broker("mem", hsm=self.softhsm("memh"), edit=lambda t: t.replace("unseal: cache 5m", "unseal: cache 1s"))
        canary = "MEM-" + base64.b32encode(os.urandom(15)).decode()
        b.put("mem/x", canary)
        token = b.token("--policy", "admin")
        for _ in range(20):
            self.assertEqual(b.cli("get", "mem/x", token=token).stdout.decode(), canary)
        with socket.socket(socket.AF_UNIX) as s:  # a request cut off half way leaves no token behind
            s.connect(b.socket)
            s.sendall(f"GET /v1/secret/data/mem/x HTTP/1.1\r\nX-Vault-Token: {token}\r\n".encode())
            time.sleep(0.2)
        time.sleep(3)
        found = 0
        with open(f"/proc/{b.process.pid}/maps") as maps, open(f"/proc/{b.process.pid}/mem", "rb", 0) as mem:
            for line in maps:
                span, perms = line.split()[:2]
                start, end = (int(x, 16) for x in span.split("-"))
                if "r" not in perms or "[v" in line:
                    continue
                try:
                    mem.seek(start)
                    data = mem.read(end - start)
                except OSError:
                    continue  # the arena itself: not even root reads it
                found += data.count(canary.encode()) + data.count(token[12:].encode())
                self.assertGreater(len(data), 0)
        self.assertEqual(found, 0)


class Attacks(Case):
    """What a review of the broker found once, each kept from coming back."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use") +
                           "  limited:\n    - path: limited/*\n      allow: [get, put, delete]\n")
        cls.admin = cls.b.token("--policy", "admin")
        cls.b.put("attack/x", "value")

    def request(self, path, method="GET", token=None, body=b"", extra=b""):
        head = f"{method} /v1/{path} HTTP/1.1\r\nHost: x\r\n".encode() + extra
        if token:
            head += f"X-Vault-Token: {token}\r\n".encode()
        return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    def helper(self):
        wait_for("the helper", lambda: len(self.b.children()) == 1)
        return self.b.children()[0]

    def alive(self):
        wait_for("the broker", lambda: self.b.cli("get", "attack/x", token=self.admin).stdout == b"value", 30)

    def test_helper_dies_before_it_is_asked(self):
        self.b.process.send_signal(signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.b.socket)
            s.sendall(self.request("secret/data/attack/x", token=self.admin))
            os.kill(self.helper(), signal.SIGKILL)
            time.sleep(0.2)
            self.b.process.send_signal(signal.SIGCONT)
            self.assertIn(b" 200 ", s.recv(4096))  # a crash costs one restart: the operation is tried once more
        self.alive()

    def test_a_hung_helper_is_killed(self):
        pid = self.helper()
        os.kill(pid, signal.SIGSTOP)
        status, _ = self.b.curl("secret/data/attack/x", token=self.admin)
        self.assertIn(status, (200, 503))

        def gone():
            try:
                with open(f"/proc/{pid}/stat") as f:
                    return f.read().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                return True
        wait_for("its end", gone)
        self.alive()

    def test_incomplete_bodies_do_not_fill_the_arena(self):
        conns = []
        for _ in range(400):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.5)
            s.connect(self.b.socket)
            s.sendall(self.request("sys/leader") + b"POST /v1/secret/data/a/b HTTP/1.1\r\nContent-Length: 290000\r\n\r\n")
            try:
                s.sendall(b"x" * 7000)
            except OSError:
                pass
            conns.append(s)
        self.assertLess(self.b.status()["arena_used"], 3 << 20)
        self.alive()
        time.sleep(6)  # past the deadline of a request
        self.assertLess(self.b.status()["connections"], 50)
        for s in conns:
            s.close()

    def test_the_sandbox_holds_for_every_thread(self):
        if os.environ.get("COTTER_SANITIZE"):
            self.skipTest("no seccomp under the sanitizers")
        tasks = os.listdir(f"/proc/{self.b.process.pid}/task")
        self.assertGreater(len(tasks), 1)
        for task in tasks:
            with open(f"/proc/{self.b.process.pid}/task/{task}/status") as f:
                self.assertIn("Seccomp:\t2", f.read())

    def test_a_folder_pattern_is_not_the_secret_of_that_name(self):
        self.b.put("limited", "not yours")
        self.b.put("limited/x", "yours")
        token = self.b.token("--policy", "limited")
        self.assertEqual(self.b.curl("secret/data/limited/x", token=token)[0], 200)
        for method in ("GET", "DELETE"):
            self.assertEqual(self.b.curl("secret/data/limited", "-X", method, token=token), (403, DENIED))

    def test_purged_and_written_anew_while_the_hardware_works(self):
        self.b.put("attack/purge", "OLD")
        os.kill(self.helper(), signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.b.socket)
            s.sendall(self.request("secret/data/attack/purge", token=self.admin))
            time.sleep(0.3)
            self.b.curl("secret/metadata/attack/purge", "-X", "DELETE", token=self.admin)
            self.b.put("attack/purge", "NEW")
            os.kill(self.helper(), signal.SIGCONT)
            self.assertNotIn(b"OLD", s.recv(4096))
        self.assertEqual(self.b.cli("get", "attack/purge", check=True).stdout, b"NEW")

    def test_one_token_does_not_take_every_place(self):
        token = self.b.token("--policy", "limited")
        statuses = [self.b.curl("auth/token/create", token=token, body=b'{"ttl":"1m"}')[0] for _ in range(70)]
        self.assertEqual((statuses.count(200), statuses[-1]), (64, 429))
        self.b.token("--policy", "limited")

    def test_out_of_descriptors(self):
        b = self.broker("fds", hsm=self.hsm, start=False)
        b.start(prefix=("prlimit", "--nofile=100:100"))
        conns = []
        for _ in range(150):
            s = socket.socket(socket.AF_UNIX)
            s.connect(b.socket)
            conns.append(s)
        time.sleep(0.5)

        def ticks():
            with open(f"/proc/{b.process.pid}/stat") as f:
                return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        before = ticks()
        time.sleep(1)
        after = ticks()
        self.assertLess(after - before, 50, "it spins")
        self.assertEqual(b.cli("status").returncode, 0)  # operators keep their places
        for s in conns:
            s.close()
        b.put("fds/x", "v")
        token = b.token("--policy", "admin")
        self.assertEqual(b.cli("get", "fds/x", token=token, check=True).stdout, b"v")
        b.stop()

    def test_pipelined_behind_the_hardware(self):
        get = self.request("secret/data/attack/x", token=self.admin)
        out = self.b.raw(get + get + self.request("secret/data/attack/x", token=self.admin, extra=b"Connection: close\r\n"), timeout=10)
        self.assertEqual(out.count(b"HTTP/1.1 200 OK"), 3)

    def test_half_closed_clients_get_their_answer(self):
        out = self.b.raw(self.request("secret/data/attack/x", token=self.admin), timeout=10, shutdown=True)
        self.assertIn(b" 200 ", out)

    def test_a_wrong_pin_while_logged_in_is_not_offered(self):
        self.b.cli("unlock", "hsm", stdin="000000")
        os.kill(self.helper(), signal.SIGKILL)
        self.alive()

    def test_gone_clients_leave_the_hardware_alone(self):
        os.kill(self.helper(), signal.SIGSTOP)
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.b.socket)
                s.sendall(self.request("secret/data/attack/x", token=self.admin))
                time.sleep(0.005)
        time.sleep(0.3)
        queued = self.b.status()["providers"][0]["queued"]
        os.kill(self.helper(), signal.SIGCONT)
        self.assertLessEqual(queued, 2)  # what lies with the helper
        self.alive()

    def test_paths_at_the_limit(self):
        longest = "/".join(["a" * 127] * 4)
        self.assertEqual(len(longest), 511)
        for path, want in ((longest + "b", 200), (longest + "bc", 400), (longest + "bcd", 400)):
            status, _ = self.b.curl(f"secret/data/{path}", "-X", "POST", token=self.admin, body=b'{"data":{}}')
            self.assertEqual(status, want, len(path))

    def test_head_has_no_body(self):
        out = self.b.raw(self.request("sys/nothing", "HEAD") + self.request("sys/health", "HEAD", extra=b"Connection: close\r\n"))
        self.assertEqual(out.count(b"HTTP/1.1 "), 2)
        self.assertNotIn(b"{", out)
        status = self.b.raw(self.request("secret/metadata/attack/none", "DELETE", token=self.admin, extra=b"Connection: close\r\n"))
        self.assertTrue(status.startswith(b"HTTP/1.1 204 ") and b"Content-Length" not in status)

    def test_a_large_body_from_whom_may_not_write(self):
        big = os.path.join(self.dir, "big.age")
        self.b.cli("seal", "-o", big, stdin=b"x" * 60000, check=True)
        token = self.b.cli("token", "narrow", "-c", "op = get", stdin=self.admin, check=True).stdout.decode().strip()
        denied = self.b.status()["denied"]
        self.assertEqual(self.b.cli("put", "attack/big", "--sealed", big, token=token).returncode, 3)
        self.assertEqual(self.b.curl("cotter/sealed/attack/big", token=token, body=b'{"sealed":"' + b"A" * 80000 + b'"}')[0], 403)
        self.assertEqual(self.b.status()["denied"], denied + 2)
        self.assertEqual(self.b.cli("put", "attack/big", "--sealed", big, token=self.admin).returncode, 0)
        self.assertEqual(self.b.cli("get", "attack/big", token=self.admin).stdout, b"x" * 60000)
        self.b.cli("seal", "-o", big, stdin=b'{"a":"' + b"x" * 70000 + b'"}', check=True)
        self.assertEqual(self.b.cli("put", "attack/big", "--sealed", big, token=self.admin).returncode, 1)

    def test_looking_up_is_no_use(self):
        token = self.b.token("--policy", "admin", "--uses", "1")
        for _ in range(3):
            self.assertEqual(self.b.curl("auth/token/lookup-self", token=token)[0], 200)
        self.assertEqual([self.b.cli("get", "attack/x", token=token).returncode for _ in range(2)], [0, 3])


class Store(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()

    def sql(self, b, script):
        return run("sqlite3", os.path.join(b.state, "store.db"), stdin=script, check=True).stdout.decode()

    def test_swapped_blobs_are_refused_and_audited(self):
        """With the broker running and after a restart."""
        b = self.broker("swap", hsm=self.hsm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        for name in ("a", "b", "c"):
            b.put(f"swap/{name}", f"value of {name}")
        self.sql(b, "CREATE TEMP TABLE t AS SELECT sealed FROM version WHERE path='swap/a';"
                    "UPDATE version SET sealed=(SELECT sealed FROM version WHERE path='swap/b') WHERE path='swap/a';"
                    "UPDATE version SET sealed=(SELECT sealed FROM t) WHERE path='swap/b';")
        for _ in range(2):
            for name in ("a", "b"):
                p = b.cli("get", f"swap/{name}")
                self.assertEqual((p.returncode, p.stdout), (1, b""), p.stderr)
                self.assertIn(b"not what cotter wrote", p.stderr)
            self.assertEqual(b.cli("get", "swap/c", check=True).stdout, b"value of c")
            b.stop()
            b.start()
        log = b.audit()
        for name in ("a", "b"):
            self.assertRegex(log, rf"ev=get .*secret=swap/{name} .*result=failed why=\S*not_what_cotter_wrote")

    def test_an_old_row_put_back_is_refused(self):
        b = self.broker("old", hsm=self.hsm)
        b.put("old/x", "first")
        b.put("old/y", "other")
        old = self.sql(b, ".dump secret\n.dump version\n")
        inserts = "\n".join(line for line in old.splitlines() if line.startswith("INSERT") and "old/x" in line)
        b.put("old/x", "second")
        self.sql(b, f"DELETE FROM secret WHERE path='old/x'; DELETE FROM version WHERE path='old/x';\n{inserts}\n")
        p = b.cli("get", "old/x")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn(b"not as cotter left it", p.stderr)
        b.stop()
        b.start(wait=False)
        wait_for("the refusal", lambda: "not as cotter left it" in json.dumps(b.status()))
        self.assertEqual(b.curl("sys/health")[0], 503)
        self.assertIn("ev=store.tampered", b.audit())

    def test_rows_by_another_hand(self):
        b = self.broker("hand", hsm=self.hsm, edit=lambda t: t.replace("unseal: cache 5m", "unseal: each-use"))
        b.put("hand/x", "X")
        token = b.token("--policy", "release")
        self.sql(b, "UPDATE version SET deleted=1 WHERE path='hand/x';")
        self.assertEqual(b.cli("get", "hand/x").returncode, 1)
        self.sql(b, "UPDATE version SET deleted=0 WHERE path='hand/x'; UPDATE token SET policies='admin';")
        used = b.cli("token", "narrow", "-c", "uses <= 1", stdin=b.token("--policy", "admin"), check=True).stdout.decode().strip()
        self.assertEqual(b.cli("get", "hand/x", token=used).returncode, 0)
        self.sql(b, "UPDATE token_use SET used=0;")
        self.assertEqual(b.cli("get", "hand/x", token=used).returncode, 3)
        self.assertEqual(b.cli("get", "hand/x", check=True).stdout, b"X")
        b.stop()
        b.start()
        self.assertEqual(b.cli("get", "hand/x", token=token).returncode, 3)  # the row was not ours any more: no row
        # renamed away: not a plain "not found"
        self.sql(b, "UPDATE secret SET path='hand/zzz' WHERE path='hand/x'; UPDATE version SET path='hand/zzz' WHERE path='hand/x';")
        p = b.cli("get", "hand/x")
        self.assertIn(b"not as cotter left it", p.stderr)
        self.assertNotEqual(b.cli("put", "hand/x", stdin="mine").returncode, 0)
        b.stop()
        for damage in (b"\0" * 100, b"garbage"):
            with open(os.path.join(b.state, "store.db"), "r+b") as f:
                f.write(damage)
            b.start(wait=False)
            self.assertEqual(b.process.wait(20), 1, damage)

    def test_kill_during_writes_loses_nothing(self):
        b = self.broker("kill", hsm=self.hsm)
        token = b.token("--policy", "admin", "--ttl", "1h")
        acknowledged = {}
        for round_number in range(6):
            stop = time.monotonic() + 0.4 + 0.13 * round_number

            def write(thread):
                n = 0
                try:
                    with socket.socket(socket.AF_UNIX) as s:
                        s.settimeout(5)
                        s.connect(b.socket)
                        while True:
                            n += 1
                            path, value = f"kill/{round_number}-{thread}-{n % 7}", f"{round_number}.{thread}.{n}"
                            body = json.dumps({"data": {"v": value}}).encode()
                            s.sendall(f"POST /v1/secret/data/{path} HTTP/1.1\r\nX-Vault-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                            if b"200 OK" not in s.recv(4096):
                                return
                            acknowledged[path] = value
                except OSError:
                    return
            threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
            for t in threads:
                t.start()
            time.sleep(max(0, stop - time.monotonic()))
            b.stop(signal.SIGKILL)
            for t in threads:
                t.join()
            b.start()
        self.assertGreater(len(acknowledged), 50)
        for path, value in acknowledged.items():
            got = json.loads(b.cli("get", path, "--json", check=True).stdout)["data"]["v"]
            # the write in flight at the kill may be there without its acknowledgement: never less than what was said
            self.assertGreaterEqual(int(got.split(".")[2]), int(value.split(".")[2]), path)
        self.assertIn("numbered without a gap", b.audit())


class Audit(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hsm = cls.softhsm()

    def test_records_and_tampering(self):
        b = self.broker("rec", hsm=self.hsm)
        b.put("rec/x", "v")
        b.cli("get", "rec/x", check=True)
        b.cli("get", "rec/none")
        log = b.audit()
        self.assertRegex(log, r"ev=put .*secret=rec/x ver=1 tok=- result=granted")
        self.assertRegex(log, r"ev=get .*secret=rec/none .*result=failed")
        self.assertTrue(all(len(line) <= 1024 for line in log.splitlines()))
        root = re.search(r"root ([0-9a-f]{64})", log).group(1)
        self.assertEqual(b.status()["audit_root"][:16], root[:16])
        path = os.path.join(b.state, "audit.log")
        with open(path) as f:
            text = f.read()
        copy = os.path.join(self.dir, "copy.log")
        lines = text.splitlines(True)
        for broken in (lines[:2] + lines[3:], lines[:1] + lines[2:3] + lines[1:2] + lines[3:], lines[1:]):
            with open(copy, "w") as f:
                f.write("".join(broken))
            self.assertEqual(b.cli("audit", "--file", copy).returncode, 1)
        with open(copy, "w") as f:
            f.write(text.replace("rec/none", "rec/noon"))
        changed = b.cli("audit", "--file", copy, check=True).stdout.decode()
        self.assertNotIn(root, changed)  # in place, unmissed by the sequence: the root tells
        # a torn last line is cut off at the next start, and said so
        b.stop(signal.SIGKILL)
        with open(path, "a") as f:
            f.write("seq=99 torn")
        b.start()
        self.assertIn("ev=audit.recovered", b.audit())

    def test_a_rotation_cut_off_half_way(self):
        """The segment was renamed away and the next one was not made, or is empty: the tree goes on."""
        b = self.broker("rot", hsm=self.hsm)
        b.put("rot/x", "v")
        current = os.path.join(b.state, "audit.log")
        for n in range(2):
            b.stop()
            with open(current) as f:
                size = len(f.readlines()) - 1
                f.seek(0)
                first = int(re.search(r"size=(\d+)", f.readline()).group(1))
            os.rename(current, os.path.join(b.state, f"audit.{n:06d}.log"))
            if n:
                open(current, "w").close()
            b.start()
            with open(current) as f:
                header = f.readline()
                record = f.readline()
            self.assertIn(f"index={n + 1} size={first + size} ", header)
            self.assertTrue(record.startswith(f"seq={first + size} "), record)
        self.assertIn("numbered without a gap", b.audit())

    def test_rfc6962_root(self):
        """The tree hash, computed here from the records alone."""
        import hashlib
        b = self.broker("tree", hsm=self.hsm)
        for i in range(9):
            b.put(f"tree/{i}", "v")
        out = b.audit().splitlines()
        records, root = out[:-1], re.search(r"root ([0-9a-f]{64})", out[-1]).group(1)

        def tree(leaves):
            if len(leaves) == 1:
                return hashlib.sha256(b"\0" + leaves[0]).digest()
            k = 1
            while k * 2 < len(leaves):
                k *= 2
            return hashlib.sha256(b"\1" + tree(leaves[:k]) + tree(leaves[k:])).digest()
        self.assertEqual(tree([r.encode() for r in records]).hex(), root)

    def test_full_disk_grants_nothing(self):
        """RLIMIT_FSIZE is the disk that is full, for whoever may not mount one."""
        for sync in ("write", "disk"):
            b = self.broker(f"full-{sync}", hsm=self.hsm, start=False, edit=lambda t: t.replace("sync: write", f"sync: {sync}"))
            b.start()
            b.put("full/x", "v")
            token = b.token("--policy", "admin")
            self.assertEqual(b.curl("secret/data/full/x", token=token)[0], 200)
            size = os.path.getsize(os.path.join(b.state, "audit.log"))
            run("prlimit", f"--pid={b.process.pid}", f"--fsize={size + 150}:", check=True)
            replies = [b.curl("secret/data/full/x", token=token) for _ in range(5)]
            self.assertEqual(replies[-1][0], 503, replies)
            self.assertIn("audit log", replies[-1][1]["errors"][0])
            self.assertEqual(b.curl("sys/health")[0], 200)
            run("prlimit", f"--pid={b.process.pid}", "--fsize=unlimited:", check=True)
            self.assertEqual(b.curl("secret/data/full/x", token=token)[0], 200)
            granted = b.audit().count("ev=get")
            self.assertGreaterEqual(granted, 2)
            b.stop()

    def test_disk_that_fills_while_many_ask(self):
        """Records are written together: of those that do not fit any more none is answered, and no answer is without its record."""
        for sync in ("write", "disk"):
            b = self.broker(f"fills-{sync}", hsm=self.hsm, edit=lambda t: t.replace("sync: write", f"sync: {sync}"))
            b.put("full/y", "kept-secret")
            token = b.token("--policy", "admin")
            self.assertEqual(b.curl("secret/data/full/y", token=token)[0], 200)
            ask = f"GET /v1/secret/data/full/y HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\n\r\n".encode()
            log = os.path.join(b.state, "audit.log")
            granted, refused = 1, 0
            for room in (150, 700, 1500, 2900):
                run("prlimit", f"--pid={b.process.pid}", f"--fsize={os.path.getsize(log) + room}:", check=True)
                sockets = [connect(b.socket) for _ in range(24)]
                for s in sockets:
                    s.sendall(ask * 2)  # the second is read with the first
                    s.shutdown(socket.SHUT_WR)
                for s in sockets:
                    with s, s.makefile("rb") as f:
                        said = f.read()
                    granted += said.count(b"HTTP/1.1 200 ")
                    refused += said.count(b"HTTP/1.1 503 ")
                    self.assertEqual(said.count(b"kept-secret"), said.count(b"HTTP/1.1 200 "), said)
                    self.assertIn(said.count(b"HTTP/1.1 "), (1, 2), said)
                run("prlimit", f"--pid={b.process.pid}", "--fsize=unlimited:", check=True)
                self.assertEqual(b.curl("secret/data/full/y", token=token)[0], 200)
                granted += 1
            self.assertGreater(refused, 20)
            self.assertEqual(sum("ev=get" in line and "result=granted" in line for line in b.audit().splitlines()), granted, sync)
            b.stop()

    def test_sync_disk(self):
        b = self.broker("disk", hsm=self.hsm, edit=lambda t: t.replace("sync: write", "sync: disk"))
        token = b.token("--policy", "admin")
        b.put("disk/x", "v")
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: b.curl("secret/data/disk/x", token=token)[0], range(64)))
        self.assertEqual(results, [200] * 64)


class Pin(Case):
    def test_sealed_until_unlocked(self):
        hsm = self.softhsm("nopin")
        b = self.broker("nopinb", hsm=hsm, pin_source=False, start=False)
        b.start(wait=False)
        wait_for("the sealed broker", lambda: b.curl("sys/health")[0] == 503)
        wait_for("the reason", lambda: "unlock" in json.dumps(b.curl("sys/seal-status")[1]))
        p = b.cli("get", "a/b")
        self.assertEqual(p.returncode, 5)
        self.assertIn(b"cotter unlock", p.stderr)
        self.assertEqual(b.cli("status").returncode, 5)
        # there is nowhere to keep an answer yet: what is told while sealed is told as it is
        for method, path, status in (("GET", "cotter/status", 200), ("POST", "cotter/unlock", 400), ("POST", "auth/token/create", 503), ("GET", "sys/seal-status", 200)):
            reply = b.curl(path, "-X", method, "-H", "X-Vault-Wrap-TTL: 60", socket_path=b.operator_socket)
            self.assertEqual((reply[0], reply[1].get("wrap_info")), (status, None), path)
        self.assertEqual(b.cli("unlock", "hsm", stdin="000000").returncode, 5)
        self.assertEqual(b.cli("unlock", "nosuch", stdin="x").returncode, 1)
        b.cli("unlock", "hsm", stdin=PIN + "\n", check=True)
        wait_for("unsealing", lambda: b.curl("sys/health")[0] == 200)
        b.put("a/b", "v")
        self.assertEqual(b.cli("get", "a/b", check=True).stdout, b"v")

    def test_a_refused_pin_is_never_offered_again(self):
        """Counted where the token itself counts: in the calls that reach C_Login."""
        hsm = self.softhsm("wrong")
        b = self.broker("wrongb", hsm=hsm, start=False)
        hsm.set_pin("999999")
        for _ in range(3):
            b.start(wait=False)
            wait_for("pin-needed", lambda: [p["state"] for p in b.status().get("providers", [])] == ["pin-needed"])
            time.sleep(0.5)
            b.stop()
        with open(b.log) as f:
            log = f.read()
        self.assertEqual(log.count("pin-needed: login: CKR_PIN_INCORRECT"), 1, log)
        self.assertGreaterEqual(log.count("not tried again") + log.count("wrong PIN was given before"), 2, log)
        p = b.cli("doctor")
        self.assertEqual(p.returncode, 5)
        self.assertNotIn(b"CKR_PIN_INCORRECT", p.stdout)
        # an operator acts
        hsm.set_pin(PIN)
        b.start(wait=False)
        wait_for("the broker", lambda: b.curl("sys/health")[0] == 503)
        b.cli("unlock", "hsm", stdin=PIN, check=True)
        wait_for("unsealing", lambda: b.curl("sys/health")[0] == 200)
        b.stop()
        b.start()


class Config(Case):
    def test_each_error_has_file_line_and_expectation(self):
        b = self.broker("cfg", hsm=self.softhsm(), start=False)
        with open(b.config) as f:
            good = f.read()
        line_of = {text.strip(): n + 1 for n, text in enumerate(good.splitlines())}
        bad = os.path.join(self.dir, "bad.yaml")
        cases = [
            (good.replace("unseal:", "unsael:"), "unknown key 'unsael'"), (good.replace("cache 5m", "cache forever"), "expected"),
            (good.replace("cache 5m", "[1, 2]"), "expected a single value, found a list"), (good + "unseal: each-use\n", "stands here twice"),
            (good.replace("sync: write", "sync: maybe"), "expected 'write' or 'disk'"), (good.replace("allow: [get, put", "allow: [get, fly"), "expected read, create"),
            (good.replace("seal:\n  recipients", "seal:\n  recipient"), "unknown key 'recipient'"), (good.replace("age1tag1", "age1tug1"), "expected"),
            ("", "empty"), ("- a\n", "expected a mapping"), ("a: [", "not YAML"), (good.replace("pkcs11:", "pkcs12:", 1), "expected pkcs11:"),
            (good.replace("path: \"*\"", "path: \"../*\""), "expected a path pattern"), ("[" * 5000, ""), ("a: &x [*x]\n", ""),
            (good.replace("state_dir: \"/", "state_dir: \""), "absolute path"), (good.replace("operators:\n  - ", "operators:\n  - x"), "uid"),
            ("\0", ""), (good.replace("SOFTHSM2_CONF=", "LD_PRELOAD="), "not allowed"),
        ]
        for text, want in cases:
            with open(bad, "w") as f:
                f.write(text)
            p = run(COTTERD, "--check", "--config", bad)
            self.assertEqual(p.returncode, 1, (want, p.stdout))
            self.assertIn(want, p.stderr.decode())
            self.assertRegex(p.stderr.decode(), r"bad\.yaml(:\d+)?: ")
        p = run(COTTERD, "--check", "--config", bad.replace("bad", "absent"))
        self.assertEqual(p.returncode, 1)
        with open(bad, "w") as f:
            f.write(good.replace("unseal:", "unsael:"))
        number = next(n for t, n in line_of.items() if t.startswith("unseal:"))
        self.assertIn(f"bad.yaml:{number}:", run(COTTERD, "--check", "--config", bad).stderr.decode())
        self.assertEqual(run(COTTERD, "--check", "--config", b.config).returncode, 0)
        os.chmod(bad, 0o666)
        self.assertIn(b"writable by others", run(COTTERD, "--check", "--config", bad).stderr)

    def test_an_init_that_failed_can_be_repeated(self):
        hsm, tpm = self.softhsm("again"), self.swtpm("againt")
        base = os.path.join(self.dir, "againd")
        os.mkdir(base)
        args = ["--dir", f"{base}/etc", "--state-dir", f"{base}/state", "--socket", f"{base}/run/s", "--provider", f"tpm=tpm:{tpm.tcti}"]
        for bad in (["--unseal", "cache 5x"], ["--operator", "65534"], ["--operator", "me"], ["--recovery", "age1x"], ["--readable", "tpm=x"],
                    ["--provider", f"hsm={hsm.uri().replace('token=', 'token=no')}"]):
            self.assertNotEqual(run(COTTER, "init", *args, *bad).returncode, 0, bad)
        run(COTTER, "init", *args, check=True)
        p = run(COTTER, "init", *args)
        self.assertIn(b"is there already", p.stderr)

    def test_output_files(self):
        b = self.broker("out", hsm=self.softhsm("outh"), start=False)
        out = os.path.join(self.dir, "plain")
        sealed = b.cli("seal", stdin="x", check=True).stdout
        for name in (out, out + ".new"):
            with open(name, "w") as f:
                f.write("mine")
            os.chmod(name, 0o666)
        b.cli("open", "-o", out, stdin=sealed, check=True)
        self.assertEqual(os.stat(out).st_mode & 0o777, 0o600)
        with open(out + ".new") as f:
            self.assertEqual(f.read(), "mine")
        b.cli("open", "-o", "/dev/null", stdin=sealed, check=True)
        self.assertTrue(os.path.exists("/dev/null") and not os.path.isfile("/dev/null"))

    def test_provider_mistakes_are_told(self):
        hsm = self.softhsm("mist")
        b = self.broker("mistb", hsm=hsm, start=False)
        sealed = b.cli("seal", stdin="x", check=True).stdout
        with open(b.config) as f:
            good = f.read()
        bad = os.path.join(self.dir, "prov.yaml")
        for old, new, want in ((f"token={hsm.label}", "token=nosuch", "no token fits"), ("libsofthsm2.so", "libnosuch.so", "libnosuch"),
                               ("module-path=", "module-name=nosuch&x-module-path=", "p11-kit has no module"), ("id=%", "id=%00%", "has no private key"),
                               ("pin-source=file:", "pin-source=file:/nonexistent", "cannot read the PIN file"),
                               ("pin-source=file:", "pin-value=1234&pin-source=file:", "pin-value puts the PIN")):
            with open(bad, "w") as f:
                f.write(good.replace(old, new))
            p = b.cli("open", "--config", bad, stdin=sealed)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(want, p.stderr.decode(), (old, new))
        with open(bad, "w") as f:
            f.write(good.replace("module-path=/usr/lib/softhsm/libsofthsm2.so", "module-name=softhsm2"))
        self.assertEqual(b.cli("open", "--config", bad, stdin=sealed, check=True).stdout, b"x")


if __name__ == "__main__":
    unittest.main()
