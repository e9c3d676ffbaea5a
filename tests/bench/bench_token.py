"""A token's check in one process, without a socket, and how it grows with tokens, policies and rules."""
import json
import os

from bench import Bench, growth, row
from harness import BUILD, run

ROUNDS = 7


def main():
    with Bench(memory=True) as bench:
        rounds = [json.loads(run(os.path.join(BUILD, "tests", "bench_token"), os.path.join(bench.dir, f"{i}.db"), check=True, timeout=100).stdout)
                  for i in range(ROUNDS)]
    best = {k: min(r[k] for r in rounds) for k in ("check", "check_8", "again_8", "hmac_9")}
    median = {k: sorted(r[k] for r in rounds)[ROUNDS // 2] for k in best}
    row("token-verify", "a token with 8 caveats: verify (of 10 us)", median["check_8"] / 10, 1.0, "lower",
        f"{median['check_8']:.2f} us (best {best['check_8']:.2f}); without caveats {median['check']:.2f}", f"9 bare HMAC-SHA256 {median['hmac_9']:.2f} us")
    row("token-verified", "a verified token's row, caveats and policy again (of 1 us)", median["again_8"], 1.0, "lower",
        f"{median['again_8']:.2f} us (best {best['again_8']:.2f})", "token_may, in place of parse and HMACs")
    for name, what in (("tokens", "token verify, by tokens"), ("policies", "policy check, by rules (256 a policy)"), ("rules", "policy check, by rules of its policy")):
        points = [[n, sorted(dict(r[name])[n] for r in rounds)[ROUNDS // 2]] for n, _ in rounds[0][name]]
        growth(f"{name}", what, points)
        row(f"token-flat-{name}", f"{what}: {points[-1][0]:,} beside {points[0][0]:,}", points[-1][1] / points[0][1], 1.2, "lower",
            f"{points[-1][1]:.2f} us", f"{points[0][1]:.2f} us")


if __name__ == "__main__":
    main()
