"""Jobs: what ten thousand at once take, and what they cost a GET. In memory: what the disk takes for each is the disk's."""
import subprocess
import time

from bench import VALUE, Bench, Load, get, growth, interleave, ratio, rss_mib, row
from harness import Broker, SoftHSM, wait_for
from peers import ask, connect, request

JOBS = (1, 100, 10000)  # LIMIT_JOBS is 16,384


def start_jobs(b, leader, n):
    with connect(b.operator_socket) as s:
        for _ in range(n):
            status, reply = request(s, "POST", "cotter/jobs", body={"policies": ["release"], "leader": leader.pid})
            assert status == 200, reply
    return reply["auth"]["client_token"]


def main():
    with Bench(memory=True) as bench:
        load, leader, candidates = bench.keep(Load()), subprocess.Popen(["sleep", "3600"]), {}
        for n in JOBS:
            b = bench.keep(Broker(bench.sub(str(n)), hsm=SoftHSM(bench.sub(f"h{n}"))).start())
            b.put("bench/secret", VALUE)
            read, before, start = get("bench/secret", b.token("--policy", "admin", "--ttl", "1h")), rss_mib(b.process.pid), time.monotonic()
            last = start_jobs(b, leader, n)
            print(f"{n} jobs: {n / (time.monotonic() - start):.0f} started a second, RSS {before:.1f} -> {rss_mib(b.process.pid):.1f} MiB")
            candidates[n] = lambda b=b, read=read: load(b.socket, read, ms=300)["p50"]
        f = interleave(candidates)
        few, many = f[JOBS[0]], f[JOBS[-1]]
        growth("jobs", "warm GET, by jobs", [[n, f[n].median] for n in JOBS])
        row("get-flat-jobs", f"warm GET, p50: {JOBS[-1]:,} jobs beside {JOBS[0]}", ratio(many, few), 1.2, "lower", f"{many.median:.1f} us", f"{few.median:.1f} us")
        b.stop()
        start = time.monotonic()
        b.start()
        print(f"restart with them: {(time.monotonic() - start) * 1000:.0f} ms to unsealed (the check polls every 50 ms)")
        assert b.status()["jobs"] == n
        leader.kill()
        leader.wait()
        start = time.monotonic()
        wait_for("their ends", lambda: b.status()["jobs"] == 0, 120)
        print(f"all end at once: {(time.monotonic() - start) * 1000:.0f} ms")
        assert ask(b.socket, "GET", "auth/token/lookup-self", last)[0] == 403


if __name__ == "__main__":
    main()
