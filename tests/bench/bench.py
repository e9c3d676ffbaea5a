"""
What the benchmarks share: rounds that are interleaved, the client and the bare server, rows in bench.json and series in bench-growth.json,
both in the build directory.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "integration"))
from harness import BUILD, SOFTHSM, SoftHSM  # noqa: E402

ROUNDS = 7
ROWS = os.path.join(BUILD, "bench.json")
GROWTH = os.path.join(BUILD, "bench-growth.json")
PEERS = os.path.join(BUILD, "bench-peers.json")
MACHINE = os.path.join(BUILD, "bench-machine.json")
LOAD = os.path.join(BUILD, "tests", "bench_load")
VALUE = "x" * 230  # an answer's data is 250 bytes with it


class Figure:
    """Of one candidate in all rounds."""

    def __init__(self, values):
        self.values = values
        self.median, self.low, self.high = statistics.median(values), min(values), max(values)


def interleave(candidates, rounds=ROUNDS):
    """{name: Figure} of {name: function that measures once}. One round before is not counted."""
    values = {name: [] for name in candidates}
    for i in range(rounds + 1):
        for name, measure in candidates.items():
            value = measure()
            if i:
                values[name].append(value)
    return {name: Figure(v) for name, v in values.items()}


def ratio(over, under):
    """The median of what each round says: a slow moment of the machine is in both."""
    return statistics.median(a / b for a, b in zip(over.values, under.values))


def read(path):
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return json.load(f)


def write(path, what):
    with open(path, "w") as f:
        json.dump(what, f, indent=1)


def row(name, what, ratio, target, better, cotter="", beside=""):
    """One row of the table. cotter, beside: the figures themselves, for people."""
    write(ROWS, {**read(ROWS), name: {"ratio": round(ratio, 3), "target": target, "better": better, "what": what, "cotter": cotter, "beside": beside}})
    print(f"{name:28} {ratio:8.2f}  (target {target}, {better} is better)  {what}: {cotter}; {beside}", flush=True)


def growth(name, what, points):
    """A line of the plot: [[n, microseconds]]."""
    write(GROWTH, {**read(GROWTH), name: {"what": what, "points": points}})
    print(f"{name}: " + "  ".join(f"{n:,}: {us:.2f} us" for n, us in points), flush=True)


def get(path, token):
    return f"GET /v1/secret/data/{path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\n\r\n"


def post(path, token, body):
    data = json.dumps(body)
    return f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\nContent-Length: {len(data)}\r\n\r\n{data}"


class Load:
    """The client, a process of its own."""

    def __init__(self, user=None):
        self.process = subprocess.Popen([LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **({"user": user, "group": user} if user else {}))

    def start(self, socket, request, connections=1, count=0, ms=0, close=False, reply=0):
        self.process.stdin.write(f"{socket} {connections} {count} {ms} {'close' if close else 'keep'} {reply} {request.encode().hex()}\n")
        self.process.stdin.flush()

    def result(self, refused=False):
        out = json.loads(self.process.stdout.readline())
        if out["refused"] and not refused:
            raise SystemExit(f"{out['refused']} of {out['n']} requests were refused")
        return out

    def __call__(self, *args, **kw):
        self.start(*args, **kw)
        return self.result()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Echo:
    """The bare server: 64 bytes in, 256 out."""
    request, reply = "x" * 64, 256

    def __init__(self, directory):
        self.socket = os.path.join(directory, "echo.sock")
        self.process = subprocess.Popen([LOAD, "echo", self.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        os.chmod(self.socket, 0o777)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class SlowToken(SoftHSM):
    """One that takes 5 ms an operation (slow_token.c)."""
    seconds = 0.005
    module = os.path.join(BUILD, "tests", "libslow_token.so")

    def init_args(self, name="hsm", **kw):
        args = [a.replace(SOFTHSM, self.module) for a in super().init_args(name, **kw)]
        return args + ["--environment", f"{name}=SLOW_TOKEN={self.lock}", "--readable", f"{name}={os.path.dirname(self.module)}"]

    @property
    def lock(self):
        return os.path.join(self.tokens, "slow")


def hardware_client(command, env, count, kind, *tail):
    """Median microseconds of bench_hsm or bench_tpm."""
    p = subprocess.Popen([os.path.join(BUILD, "tests", command[0]), command[1], str(count), kind, *tail], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if p.stdout.readline() != b"ready\n":
        raise SystemExit(f"{command}: status {p.wait()}")
    return float(p.communicate(b"\n", timeout=120)[0].split()[0])


class Bench:
    """A temporary directory, and what was started in it is stopped."""

    def __init__(self, memory=False):
        self.dir = tempfile.mkdtemp(prefix="cot.", dir="/dev/shm" if memory else "/tmp")
        os.chmod(self.dir, 0o755)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for x in reversed(self.started):
            x.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def sub(self, name):
        path = os.path.join(self.dir, name)
        os.makedirs(path)
        return path

    def keep(self, x):
        self.started.append(x)
        return x


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024
