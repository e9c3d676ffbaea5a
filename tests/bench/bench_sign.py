"""Signatures through the job's PKCS#11 socket, beside the bare module and stock p11-kit server: rounds interleaved in one run."""
import os
import re
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from harness import COTTER, PIN, wait_for  # noqa: E402
from test_sign import SignCase  # noqa: E402

CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sign_client.py")
ROUNDS, COUNTS = 5, {"ec": 1500, "rsa": 400}


class Bench(SignCase):
    types = ("ecdsa-p256", "rsa-2048")

    @classmethod
    def make_hardware(cls):
        cls.hsm = cls.softhsm()


def worker(env, module, kind, pin, prefix=()):
    p = subprocess.run([*prefix, "/usr/bin/python3", WORKER, module, str(COUNTS[kind]), kind, *pin], env=env, capture_output=True, timeout=20)
    if p.returncode:
        raise SystemExit(p.stderr.decode())
    return float(p.stdout.split()[0])


def p11_kit_server(case, kind):
    path = os.path.join(case.dir, "p11.sock")
    env = {**case.b.env, "SOFTHSM2_CONF": case.hsm.conf}
    said = os.path.join(case.dir, "server.out")
    with open(said, "w") as f:  # a file: the server keeps it open
        subprocess.run(["p11-kit", "server", "-n", path, "--provider", SOFTHSM, "pkcs11:"], env=env, stdout=f, stderr=f, check=True)
    with open(said) as f:
        pid = int(re.search(r"P11_KIT_SERVER_PID=(\d+)", f.read())[1])
    try:
        return worker({**env, "P11_KIT_SERVER_ADDRESS": f"unix:path={path}"}, CLIENT, kind, [PIN])
    finally:
        os.kill(pid, 15)
        wait_for("its end", lambda: not os.path.exists(path))


def main():
    Bench.setUpClass()
    case, results = Bench(), {}
    try:
        for _ in range(ROUNDS):
            for kind in COUNTS:
                for name, measure in (("SoftHSM in the process", lambda: worker({**case.b.env, "SOFTHSM2_CONF": case.hsm.conf}, SOFTHSM, kind, [PIN])),
                                      ("p11-kit server", lambda: p11_kit_server(case, kind)),
                                      ("cotter run --keys", lambda: worker(case.b.env, CLIENT, kind, [], [COTTER, "run", "--policy", "signer", "--keys", "--"]))):
                    results.setdefault((kind, name), []).append(measure())
    finally:
        Bench.doClassCleanups()
    for (kind, name), times in results.items():
        best = statistics.median(times)
        print(f"{kind:4} {name:24} p50 {best:8.0f} us   {1e6 / best:8.0f}/s   {statistics.median(results[(kind, 'p11-kit server')]) / best:5.2f} x p11-kit server")


if __name__ == "__main__":
    main()
