"""A client that floods, beside one that asks now and then: the other's p99, and the same with the bare echo server."""
from bench import VALUE, Bench, Echo, Load, get, interleave, ratio, row
from harness import Broker, SoftHSM

FLOODER, OTHER = 4001, 4002
MS = 400


def main():
    with Bench() as bench:
        b, echo = bench.keep(Broker(bench.dir, hsm=SoftHSM(bench.dir)).start()), bench.keep(Echo(bench.dir))
        b.put("bench/secret", VALUE)
        flooder, other = bench.keep(Load(FLOODER)), bench.keep(Load(OTHER))
        theirs, ours = (get("bench/secret", b.token("--policy", "admin", "--ttl", "1h", "--uid", str(uid))) for uid in (FLOODER, OTHER))

        def p99(socket, ask, flood=None, **kw):
            def measure():
                if flood:
                    flooder.start(socket, flood, connections=64, ms=MS + 100, **kw)
                out = other(socket, ask, ms=MS, **kw)["p99"]
                if flood:
                    flooder.result()
                return out
            return measure

        f = interleave({"quiet": p99(b.socket, ours), "flood": p99(b.socket, ours, theirs),
                        "bare quiet": p99(echo.socket, Echo.request, reply=Echo.reply),
                        "bare flood": p99(echo.socket, Echo.request, Echo.request, reply=Echo.reply)})
    row("flood-p99", "another's warm GET while one floods with 64 connections, p99", ratio(f["flood"], f["quiet"]), 3.0, "lower",
        f"{f['flood'].median:.0f} us, quiet {f['quiet'].median:.0f}",
        f"bare echo {f['bare flood'].median:.0f} us, quiet {f['bare quiet'].median:.0f}: {ratio(f['bare flood'], f['bare quiet']):.1f}")


if __name__ == "__main__":
    main()
