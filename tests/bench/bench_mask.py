"""Masking, GB/s, of a build's log: the kernel in memory beside memcpy (and Hyperscan, where it is), cotter mask beside a bare relay."""
import json
import os
import subprocess
import time

from bench import Bench, interleave, ratio, row
from harness import BUILD, COTTER, ROOT, clean_env, run

MASK = os.path.join(BUILD, "tests", "bench_mask")
LOG = 128 << 20


def make_log(path):
    """What a compiler's log looks like: its commands, and sources as it quotes them."""
    with open(os.path.join(BUILD, "compile_commands.json"), "rb") as f:
        text = f.read()
    for name in run("git", "ls-files", "broker", "tools", "common", cwd=ROOT, check=True).stdout.decode().split():
        with open(os.path.join(ROOT, name), "rb") as f:
            text += f.read()
    with open(path, "wb") as f:
        f.write((text * (LOG // len(text) + 1))[:LOG])


def in_memory(n, way, log):
    def measure():
        return float(run(MASK, str(n), way, log, check=True).stdout)
    return measure


def filtered(command, log):
    def measure():
        with open(log, "rb") as f:
            start = time.monotonic()
            subprocess.run(command, stdin=f, stdout=subprocess.DEVNULL, check=True, env=clean_env())
            return LOG / (time.monotonic() - start) / 1e9
    return measure


def main():
    with Bench(memory=True) as bench:
        log, candidates = os.path.join(bench.dir, "log"), {}
        make_log(log)
        hyperscan = run(MASK, "1", "hyperscan", log).returncode == 0
        candidates["memcpy"] = in_memory(0, "memcpy", log)
        candidates["relay"] = filtered([MASK, "relay"], log)
        for n in (100, 500):
            values = os.path.join(bench.dir, f"{n}.json")
            with open(values, "w") as f:
                json.dump(run(MASK, str(n), "secrets", "-", check=True).stdout.decode().split(), f)
            candidates[f"kernel {n}"] = in_memory(n, "kernel", log)
            candidates[f"cotter {n}"] = filtered([COTTER, "mask", "--values-file", values], log)
            if hyperscan:
                candidates[f"hyperscan {n}"] = in_memory(n, "hyperscan", log)
        f = interleave(candidates)
    for n, target in ((100, 1.0), (500, 1.0)):
        k, c = f[f"kernel {n}"], f[f"cotter {n}"]
        row(f"mask-kernel-{n}", f"masking in memory, {n} secrets (GB/s)", k.median, target, "higher", f"{k.median:.2f} GB/s (best {k.high:.2f})",
            f"memcpy {f['memcpy'].median:.1f} GB/s" + (f", Hyperscan, the plain values alone {f[f'hyperscan {n}'].median:.2f}" if hyperscan else ""))
        row(f"mask-cotter-{n}", f"cotter mask, file to /dev/null, {n} secrets (GB/s)", c.median, target, "higher",
            f"{c.median:.2f} GB/s (best {c.high:.2f}), {ratio(c, f['relay']):.2f} of the relay", f"read() and write() {f['relay'].median:.2f} GB/s")


if __name__ == "__main__":
    main()
