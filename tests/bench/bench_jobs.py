"""Tokens and jobs: what a check costs, mints a second, and what ten thousand jobs at once take. Adds to bench.json."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "integration"))
import results  # noqa: E402
from harness import BUILD, Broker, SoftHSM, run, wait_for  # noqa: E402
from peers import ask, connect, request  # noqa: E402

JOBS = 10000
directory = tempfile.mkdtemp(prefix="cot.", dir="/tmp")
started = []


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


try:
    out = run(os.path.join(BUILD, "tests", "bench_token"), os.path.join(directory, "store.db"), "10000", check=True, timeout=300)
    token = json.loads(out.stdout)
    print(f"check, no caveat     {token['check_us']:8.2f} us")
    print(f"check, 8 caveats     {token['check_8_caveats_us']:8.2f} us  ({token['check_8_then_us']:.2f} us among {token['tokens']} tokens)")
    print(f"mint, on disk        {token['mint_us']:8.1f} us  ({1e6 / token['mint_us']:.0f} a second)")
    b = Broker(directory, hsm=SoftHSM(directory))
    started.append(b.start())
    before = rss(b.process.pid)
    with connect(b.operator_socket) as s:
        start = time.monotonic()
        for i in range(2000):
            assert request(s, "POST", "auth/token/create", body={"policies": ["release"]})[0] == 200
        mints = 2000 / (time.monotonic() - start)
        leader = subprocess.Popen(["sleep", "3600"])
        start, middle = time.monotonic(), rss(b.process.pid)
        for i in range(JOBS):
            status, reply = request(s, "POST", "cotter/jobs", body={"policies": ["release"], "leader": leader.pid})
            assert status == 200, reply
        seconds = time.monotonic() - start
    last = reply["auth"]["client_token"]
    full = rss(b.process.pid)
    print(f"mints over the socket{mints:8.0f} a second")
    print(f"jobs started         {JOBS / seconds:8.0f} a second, {JOBS} held: RSS {before:.1f} -> {full:.1f} MiB ({(full - middle) * 1024 * 1024 / JOBS:.0f} bytes a job)")
    b.stop()
    start = time.monotonic()
    b.start()
    print(f"restart with them    {(time.monotonic() - start) * 1000:8.0f} ms to unsealed (the check polls every 50 ms)")
    assert b.status()["jobs"] == JOBS
    leader.kill()
    leader.wait()
    start = time.monotonic()
    wait_for("their ends", lambda: b.status()["jobs"] == 0, 120)
    print(f"all end at once      {(time.monotonic() - start) * 1000:8.0f} ms")
    assert ask(b.socket, "GET", "auth/token/lookup-self", last)[0] == 403
finally:
    for x in reversed(started):
        x.stop()
    shutil.rmtree(directory, ignore_errors=True)

results.add({"token-check-8-caveats": {"ratio": round(token["check_8_caveats_us"] / 10, 3), "target": 1.0, "better": "lower"},
             "token-check-flat": {"ratio": round(token["check_8_then_us"] / token["check_8_caveats_us"], 3), "target": 1.2, "better": "lower"}})
