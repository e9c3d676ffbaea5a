"""Cold GET beside the provider's bare ECDH; 1,000 different cold secrets at eight clients; one secret that eight ask for at once."""

from bench import VALUE, Bench, Load, SlowToken, get, hardware_client, interleave, ratio, row
from harness import PIN, SOFTHSM, Broker, SoftHSM, Swtpm, clean_env
from peers import connect, request

SECRETS = 1000
AT_ONCE = 20  # secrets that eight clients ask for at once


def each_use(text):
    return text.replace("unseal: cache 5m", "unseal: each-use")


def fill(b, n):
    with connect(b.operator_socket) as s:
        for i in range(n):
            status, reply = request(s, "POST", f"secret/data/bench/{i:05}", body={"data": {"value": VALUE}})
            assert status == 200, reply


def provider(b):
    return b.status()["providers"][0]


def one(bench, load):
    """Beside the bare ECDH, both providers in the same rounds."""
    hsm, tpm, other = SoftHSM(bench.sub("h")), bench.keep(Swtpm(bench.sub("t"))), bench.keep(Swtpm(bench.sub("o")))
    candidates = {}
    for name, kw in (("softhsm", {"hsm": hsm}), ("swtpm", {"tpm": tpm})):
        b = bench.keep(Broker(bench.sub(name), edit=each_use, **kw).start())
        b.put("bench/secret", VALUE)
        ask = get("bench/secret", b.token("--policy", "admin", "--ttl", "1h"))
        candidates[name] = lambda b=b, ask=ask: load(b.socket, ask, count=200)["p50"]
    candidates["softhsm bare"] = lambda: hardware_client(("bench_hsm", SOFTHSM), clean_env(SOFTHSM2_CONF=hsm.conf), 200, "ecdh", PIN)
    candidates["swtpm bare"] = lambda: hardware_client(("bench_tpm", other.tcti), clean_env(), 200, "ecdh")
    f = interleave(candidates)
    for name in ("softhsm", "swtpm"):
        row(f"get-cold-{name}", f"cold GET, {name}, p50", ratio(f[name], f[f"{name} bare"]), 1.1, "lower",
            f"{f[name].median:.0f} us (best {f[name].low:.0f})", f"bare ECDH {f[f'{name} bare'].median:.0f} us (best {f[f'{name} bare'].low:.0f})")


def many(bench, load):
    hsm = SlowToken(bench.sub("s"))
    b = bench.keep(Broker(bench.sub("slow"), hsm=hsm, edit=each_use).start())
    fill(b, SECRETS)
    ask, env = get("bench/#####", b.token("--policy", "admin", "--ttl", "1h")), clean_env(SOFTHSM2_CONF=hsm.conf, SLOW_TOKEN=hsm.lock)

    def all_of_them():
        before = provider(b)["operations"]
        seconds = load(b.socket, ask, connections=8, count=SECRETS)["s"]
        assert provider(b)["operations"] - before == SECRETS
        return seconds

    f = interleave({"cotter": all_of_them, "bare": lambda: hardware_client(("bench_hsm", hsm.module), env, 200, "ecdh", PIN) * SECRETS / 1e6}, rounds=3)
    row("cold-many-busy", f"{SECRETS:,} cold secrets, 8 clients: share of the time that a token of 5 ms is busy", ratio(f["bare"], f["cotter"]), 0.95,
        "higher", f"{f['cotter'].median:.2f} s", f"{SECRETS:,} of the bare token's {f['bare'].median:.2f} s")


def at_once(bench, load):
    b = bench.keep(Broker(bench.sub("once"), hsm=SlowToken(bench.sub("c"))).start())
    fill(b, AT_ONCE)
    token, before = b.token("--policy", "admin", "--ttl", "1h"), provider(b)["operations"]
    for i in range(AT_ONCE):
        load(b.socket, get(f"bench/{i:05}", token), connections=8, count=8)
    done = provider(b)["operations"] - before
    row("cold-duplicates", "one cold secret, asked for by 8 at once: operations of the hardware", done / AT_ONCE, 1.0, "lower", f"{done} operations",
        f"{AT_ONCE} secrets")


def main():
    with Bench() as bench:
        load = bench.keep(Load())
        one(bench, load)
        many(bench, load)
        at_once(bench, load)


if __name__ == "__main__":
    main()
