"""
Signatures through a job's PKCS#11 socket, at one and at eight clients (a job each), beside what they are measured by, in rounds
that are interleaved: SoftHSM in the client's process and behind stock p11-kit server; a token of 5 ms a signature in the client's
process; bare ESYS at a swtpm. And what no server can be better than here, stock p11-kit server with a token that takes as long.
"""
import os
import re
import statistics
import subprocess

import bench
from harness import BUILD, COTTER, PIN, SOFTHSM, run, wait_for
from test_sign import SignCase

CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
SIGN, TPM_SIGN = (os.path.join(BUILD, "tests", name) for name in ("bench_hsm", "bench_tpm"))
IN_A_JOB = (COTTER, "run", "--policy", "signer", "--keys", "--")
ROUNDS = bench.ROUNDS


class Bench(SignCase):
    types = ("ecdsa-p256", "rsa-2048")

    def served(self, _us):
        """What p11-kit server is given: as bare()."""
        return self.bare()


class SoftHSMBench(Bench):
    @classmethod
    def make_hardware(cls):
        cls.hsm = cls.softhsm()

    def bare(self):
        return [SIGN, SOFTHSM], {**self.b.env, "SOFTHSM2_CONF": self.hsm.conf}, [PIN]


class ParallelBench(SoftHSMBench):
    """Of RSA two at once are more than one, with two processors; of P-256 the threads cost more than they give."""
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.stop()
        cls.b.edit(lambda text: text.replace("    environment:", "    parallel: 2\n    environment:", 1))
        cls.b.start()


class SlowBench(SoftHSMBench):
    @classmethod
    def make_hardware(cls):
        cls.hsm = bench.SlowToken(cls.sub("h"))

    def bare(self):
        return [SIGN, self.hsm.module], {**self.b.env, "SOFTHSM2_CONF": self.hsm.conf, "SLOW_TOKEN": self.hsm.lock}, [PIN]


class TpmBench(Bench):
    """p11-kit server is given a token that takes as long as the TPM: what the way to a server and back costs, whatever stands behind it."""

    @classmethod
    def make_hardware(cls):
        cls.tpm = cls.swtpm()
        cls.other = cls.swtpm("other")  # one speaks with one at a time
        cls.token_as_slow = bench.SlowToken(cls.sub("h"))
        for n, kind in enumerate(("EC:prime256v1", "rsa:2048")):
            run("pkcs11-tool", "--module", SOFTHSM, "-l", "-p", PIN, "-k", "--key-type", kind, "--id", f"{n:02}", "--usage-sign",
                env=cls.token_as_slow.env, check=True)

    def bare(self):
        return [TPM_SIGN, self.other.tcti], self.b.env, []

    def served(self, us):
        hsm = self.token_as_slow
        return [SIGN, hsm.module], {**self.b.env, "SOFTHSM2_CONF": hsm.conf, "SLOW_TOKEN": hsm.lock, "SLOW_TOKEN_US": f"{us:.0f}"}, [PIN]


def measure(command, env, tail, kind, count, n, prefix=()):
    """(median us of one, signatures a second of all) of n clients that begin together."""
    while True:
        clients = [subprocess.Popen([*prefix, *command, str(count), kind, *tail], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL) for _ in range(n)]
        ready = [c.stdout.readline() == b"ready\n" for c in clients]
        if all(ready):
            break
        for c, good in zip(clients, ready):  # SoftHSM sometimes shows nothing to those that log in at the same time
            c.communicate()
            if not good and c.returncode != 2:
                raise SystemExit(f"{command}: status {c.returncode}")
    for c in clients:
        c.stdin.write(b"\n")
        c.stdin.flush()
    out = [[float(x) for x in c.communicate(timeout=120)[0].split()] for c in clients]
    return statistics.median(o[0] for o in out), n * count / (max(o[2] for o in out) - min(o[1] for o in out))


def p11_kit_server(case, kind, count, n, us):
    path, said = os.path.join(case.dir, "p11.sock"), os.path.join(case.dir, "server.out")
    command, env, _ = case.served(us)
    with open(said, "w") as f:  # a file: the server keeps it open
        subprocess.run(["p11-kit", "server", "-n", path, "--provider", command[1], "pkcs11:"], env=env, stdout=f, stderr=f, check=True)
    with open(said) as f:
        pid = int(re.search(r"P11_KIT_SERVER_PID=(\d+)", f.read())[1])
    try:
        return measure([SIGN, CLIENT], {**env, "P11_KIT_SERVER_ADDRESS": f"unix:path={path}"}, [PIN], kind, count, n)
    finally:
        os.kill(pid, 15)
        wait_for("its end", lambda: not os.path.exists(path))


def compare(case, kind, count, n):
    """Medians of {who: (us, a second)}."""
    rounds = {}
    command, env, tail = case.bare()
    tpm = isinstance(case, TpmBench)
    for _ in range(ROUNDS):
        rounds.setdefault("bare", []).append(measure(command, env, tail, kind, count, 1 if tpm else n))
        us = rounds["bare"][-1][0]
        if tpm:
            rounds.setdefault("as slow, bare", []).append(measure(*case.served(us), kind, count, n))
        rounds.setdefault("as slow, p11-kit" if tpm else "p11-kit server", []).append(p11_kit_server(case, kind, count, n, us))
        rounds.setdefault("cotter", []).append(measure([SIGN, CLIENT], case.b.env, [], kind, count, n, IN_A_JOB))
    return {who: tuple(statistics.median(x[i] for x in r) for i in (0, 1)) for who, r in rounds.items()}


# hardware, key, signatures of each client at one and at eight, beside what, target
PLAN = (("softhsm", SoftHSMBench, "ec", (2000, 600), "p11-kit server", 1.0), ("softhsm", ParallelBench, "rsa", (300, 100), "p11-kit server", 1.2),
        ("5ms-token", SlowBench, "ec", (60, 15), "bare", {1: 0.97, 8: 0.99}), ("swtpm", TpmBench, "ec", (100, 20), "bare", 0.95),
        ("swtpm", TpmBench, "rsa", (50, 10), "bare", 0.95))


def main():
    cases = {}
    try:
        for hardware, kind_of, kind, counts, beside, target in PLAN:
            if kind_of not in cases:
                kind_of.setUpClass()
                cases[kind_of] = kind_of()
            for n, count in zip((1, 8), counts):
                rows = compare(cases[kind_of], kind, count, n)
                for who, (us, per_s) in rows.items():
                    print(f"{hardware:10} {kind:4} {n:7}  {who:16} {us:8.0f} us {per_s:8.0f} a second", flush=True)
                bench.row(f"sign-{hardware}-{kind}-{n}", f"PKCS#11 signatures a second, {hardware}, {kind}, {n} client{'s' * (n > 1)}",
                          rows["cotter"][1] / rows[beside][1], target[n] if isinstance(target, dict) else target, "higher",
                          f"{rows['cotter'][1]:,.0f}", f"{beside} {rows[beside][1]:,.0f}")
    finally:
        for kind_of in cases:
            kind_of.doClassCleanups()


if __name__ == "__main__":
    main()
