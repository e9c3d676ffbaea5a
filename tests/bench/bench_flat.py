"""Memory over many requests: COTTER_BENCH_REQUESTS of them, by default a million (the issue's ten million: 10000000)."""
import os

from bench import VALUE, Bench, Load, get, rss_mib, row
from harness import Broker, SoftHSM

REQUESTS = int(os.environ.get("COTTER_BENCH_REQUESTS", "1000000"))


def main():
    with Bench() as bench:
        b, load = bench.keep(Broker(bench.dir, hsm=SoftHSM(bench.dir)).start()), bench.keep(Load())
        b.put("bench/secret", VALUE)
        ask = get("bench/secret", b.token("--policy", "admin", "--ttl", "2h"))
        load(b.socket, ask, connections=64, count=REQUESTS // 20)
        before = rss_mib(b.process.pid)
        out = load(b.socket, ask, connections=64, count=REQUESTS)
        after = rss_mib(b.process.pid)
    row("memory-flat", f"RSS after {REQUESTS:,} requests beside before", after / before, 1.02, "lower", f"{after:.2f} MiB, {out['per_s']:,.0f} a second",
        f"{before:.2f} MiB")


if __name__ == "__main__":
    main()
