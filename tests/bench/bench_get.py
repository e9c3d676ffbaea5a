"""Warm and cold GET, SoftHSM and swtpm, beside a bare round trip and the hardware's own ECDH. Prints a table of ratios and
writes bench.json into the build directory."""
import json
import os
import subprocess
import sys
import tempfile
import shutil

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "integration"))
import results  # noqa: E402
from harness import BUILD, Broker, SoftHSM, Swtpm, run  # noqa: E402

directory = tempfile.mkdtemp(prefix="cot.", dir="/tmp")
started = []
lines = []
try:
    tpm = {kind: None for kind in ("warm", "cold")}
    for name in ("softhsm", "swtpm"):
        for kind, unseal in (("warm", "cache 5m"), ("cold", "each-use")):
            sub = os.path.join(directory, f"{name}-{kind}")
            os.makedirs(sub)
            hardware = SoftHSM(sub) if name == "softhsm" else Swtpm(sub)
            if name == "swtpm":
                started.append(hardware)
            b = Broker(sub, **{"hsm" if name == "softhsm" else "tpm": hardware},
                       edit=lambda t, u=unseal: t.replace("unseal: cache 5m", f"unseal: {u}"))
            started.append(b.start())
            b.put("bench/secret", "x" * 230)  # the reply's data is about 250 bytes
            lines.append(f"{name}-{kind} {b.socket} bench/secret {b.token('--policy', 'admin', '--ttl', '1h')}")
    out = run(os.path.join(BUILD, "tests", "bench_get_client"), stdin="\n".join(lines) + "\n", check=True, timeout=540).stdout.decode()
finally:
    for x in reversed(started):
        x.stop()
    shutil.rmtree(directory, ignore_errors=True)

rows = {r["label"]: r for r in map(json.loads, out.splitlines())}
echo = rows["echo"]["p50_us"]
print(f"{'what':14} {'p50 us':>9} {'best':>9} {'per s':>9} {'x echo':>8}")
result = {}
for label, r in rows.items():
    print(f"{label:14} {r['p50_us']:9.1f} {r['p50_best_us']:9.1f} {r['per_s']:9.0f} {r['p50_us'] / echo:8.2f}")
    if label.endswith("warm"):
        result[f"get-{label}"] = {"ratio": round(r["p50_us"] / echo, 3), "target": 1.5, "better": "lower"}
results.add(result)
