"""Warm GET beside the bare echo server: one client, 64 clients, a connection each; and what caveats cost on a connection."""
from bench import VALUE, Bench, Echo, Load, get, interleave, ratio, row
from harness import Broker, SoftHSM

CAVEATS = ("op in get,list", "path under bench/", "time < 2100-01-01T00:00:00Z", "uid = 0", "gid = 0", "op = get", "path = bench/secret",
           "time < 2090-01-01T00:00:00Z")
MS = 400


def main():
    with Bench() as bench:
        b = bench.keep(Broker(bench.dir, hsm=SoftHSM(bench.dir)).start())
        echo, load = bench.keep(Echo(bench.dir)), bench.keep(Load())
        b.put("bench/secret", VALUE)
        token = b.token("--policy", "admin", "--ttl", "1h")
        narrow = b.cli("token", "narrow", *(x for c in CAVEATS for x in ("-c", c)), token=token, check=True).stdout.decode().strip()

        def cotter(what, token=token, **kw):
            return lambda: load(b.socket, get("bench/secret", token), ms=MS, **kw)[what]

        def bare(what, **kw):
            return lambda: load(echo.socket, Echo.request, reply=Echo.reply, ms=MS, **kw)[what]

        f = interleave({"1": cotter("p50"), "echo 1": bare("p50"), "64": cotter("per_s", connections=64), "echo 64": bare("per_s", connections=64),
                        "close": cotter("p50", close=True), "echo close": bare("p50", close=True),
                        "narrow": cotter("per_s", token=narrow, connections=64)})
    row("get-warm", "warm GET, one client, p50", ratio(f["1"], f["echo 1"]), 1.5, "lower",
        f"{f['1'].median:.1f} us (best {f['1'].low:.1f})", f"bare echo {f['echo 1'].median:.1f} us (best {f['echo 1'].low:.1f})")
    row("get-warm-64", "warm GET, 64 clients, a second", ratio(f["64"], f["echo 64"]), 0.6, "higher",
        f"{f['64'].median:,.0f} (best {f['64'].high:,.0f})", f"bare echo {f['echo 64'].median:,.0f} (best {f['echo 64'].high:,.0f})")
    row("get-connect", "connect, warm GET, close, p50", ratio(f["close"], f["echo close"]), 1.6, "lower",
        f"{f['close'].median:.1f} us (best {f['close'].low:.1f})", f"bare, SO_PEERCRED {f['echo close'].median:.1f} us (best {f['echo close'].low:.1f})")
    more = sorted(1e6 / a - 1e6 / c for a, c in zip(f["narrow"].values, f["64"].values))[len(f["64"].values) // 2]
    row("token-seen-again", "a token with 8 caveats on its connection, above one without", more, 1.0, "lower",
        f"{more:.2f} us more a request, 64 clients", "the same GET, no caveat")


if __name__ == "__main__":
    main()
