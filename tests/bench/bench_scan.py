"""cotter scan for 100 values beside ripgrep for the same fixed strings, over the same tree: this one's sources and build, eight times."""
import json
import os
import shutil
import subprocess
import time

from bench import Bench, interleave, ratio, row
from harness import BUILD, COTTER, ROOT, clean_env, run

COPIES = 8
MASK = os.path.join(BUILD, "tests", "bench_mask")


def make_tree(path):
    """Returns its bytes."""
    size = 0
    names = run("git", "ls-files", cwd=ROOT, check=True).stdout.decode().split()
    programs = [os.path.relpath(os.path.join(BUILD, p), ROOT) for p in ("broker/cotterd", "tools/cotter", "tests/bench_token")]
    for i in range(COPIES):
        for name in names + programs:
            to = os.path.join(path, str(i), name)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            if os.path.isfile(os.path.join(ROOT, name)):
                shutil.copyfile(os.path.join(ROOT, name), to)
                size += os.path.getsize(to)
    return size


def timed(*command):
    def measure():
        start = time.monotonic()
        status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_env()).returncode
        if status not in (0, 1):  # 1: rg found nothing, cotter something
            raise SystemExit(f"{command}: status {status}")
        return time.monotonic() - start
    return measure


def main():
    if not shutil.which("rg"):
        print("ripgrep is not installed: nothing to measure cotter scan beside")
        return
    with Bench(memory=True) as bench:
        tree, values, lines = bench.sub("tree"), os.path.join(bench.dir, "values.json"), os.path.join(bench.dir, "values")
        size = make_tree(tree)
        secrets = run(MASK, "100", "secrets", "-", check=True).stdout.decode()
        with open(lines, "w") as f:
            f.write(secrets)
        with open(values, "w") as f:
            json.dump(secrets.split(), f)
        f = interleave({"cotter": timed(COTTER, "scan", "--values-file", values, "--no-rules", "--no-archives", tree),
                        "rg": timed("rg", "-uuu", "-a", "-F", "-f", lines, tree)})
    row("scan-rg", f"cotter scan, 100 values, {size / 1e6:.0f} MB", ratio(f["cotter"], f["rg"]), 1.0, "lower",
        f"{f['cotter'].median * 1000:.0f} ms, every disguise ({size / f['cotter'].median / 1e9:.2f} GB/s)",
        f"rg -uuu -a -F, the plain values alone {f['rg'].median * 1000:.0f} ms")


if __name__ == "__main__":
    main()
