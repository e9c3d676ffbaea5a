"""Signatures by transit, with a token of 5 ms, beside that token in the client's own process."""
from bench import Bench, Load, SlowToken, hardware_client, interleave, post, ratio, row
from harness import PIN, Broker, clean_env

SIGNER = "  signer:\n    - path: release/*\n      allow: [sign]\n"


def main():
    with Bench() as bench:
        hsm, load = SlowToken(bench.sub("h")), bench.keep(Load())
        b = bench.keep(Broker(bench.sub("b"), hsm=hsm, edit=lambda text: text + SIGNER).start())
        b.cli("key", "add", "release/key", "--type", "ecdsa-p256", check=True)
        ask = post("transit/sign/release/key", b.token("--policy", "signer"), {"input": "eA=="})
        env = clean_env(SOFTHSM2_CONF=hsm.conf, SLOW_TOKEN=hsm.lock)
        f = interleave({"1": lambda: load(b.socket, ask, count=100)["per_s"], "8": lambda: load(b.socket, ask, connections=8, count=100)["per_s"],
                        "bare": lambda: 1e6 / hardware_client(("bench_hsm", hsm.module), env, 100, "ec", PIN)})
    for n in ("1", "8"):
        row(f"transit-5ms-token-{n}", f"transit signatures a second, token of 5 ms, {n} client{'s' * (n != '1')}", ratio(f[n], f["bare"]), 0.97, "higher",
            f"{f[n].median:.1f}", f"bare token {f['bare'].median:.1f}")


if __name__ == "__main__":
    main()
