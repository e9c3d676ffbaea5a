"""What the audit log costs: sync: write beside the same broker without a log, sync: disk beside the disk's own group commit. 64 clients."""
import os
import time

from bench import VALUE, Bench, Load, get, interleave, ratio, row
import harness
from harness import BUILD, COTTERD, Broker, SlowDisk, SoftHSM

CLIENTS = 64
RECORD = 300  # bytes, as a GET's record has
MS = 400
SLOW_MS = 5


class Unlogged(Broker):
    """cotterd built without broker/audit.c (no_audit.c)."""

    def start(self, **kw):
        harness.COTTERD = os.path.join(BUILD, "tests", "bench_cotterd_no_audit")
        try:
            return super().start(**kw)
        finally:
            harness.COTTERD = COTTERD


def group_commits(path, more=0):
    """Records a second: as many as there are clients, then one fdatasync, again and again, in a file with room ahead."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.posix_fallocate(fd, 0, 8 << 20)
    n, record, began = 0, b"x" * RECORD * CLIENTS, time.monotonic()
    while time.monotonic() - began < MS / 1000:
        os.pwrite(fd, record, n % (4 << 20))
        os.fdatasync(fd)
        if more:
            time.sleep(more)
        n += len(record)
    per_s = n / RECORD / (time.monotonic() - began)
    os.close(fd)
    os.unlink(path)
    return per_s


def main():
    with Bench() as bench:
        load, candidates = bench.keep(Load()), {}
        for name, kind, sync, prefix in (("write", Broker, "write", []), ("none", Unlogged, "write", []), ("disk", Broker, "disk", []),
                                         ("slow", Broker, "disk", SlowDisk(bench.dir, SLOW_MS).prefix)):
            b = bench.keep(kind(bench.sub(name), hsm=SoftHSM(bench.sub(f"h-{name}")), edit=lambda t, s=sync: t.replace("sync: write", f"sync: {s}"))
                           .start(prefix=prefix))
            b.put("bench/secret", VALUE)
            ask = get("bench/secret", b.token("--policy", "admin", "--ttl", "1h"))
            candidates[name] = lambda b=b, ask=ask: load(b.socket, ask, connections=CLIENTS, ms=MS)["per_s"]
        candidates["commits"] = lambda: group_commits(os.path.join(bench.dir, "commits"))
        candidates["slow commits"] = lambda: group_commits(os.path.join(bench.dir, "commits"), SLOW_MS / 1000)
        f = interleave(candidates)
    row("audit-write", "audit sync: write, 64 clients, a second", ratio(f["write"], f["none"]), 0.85, "higher", f"{f['write'].median:,.0f}",
        f"the same broker without a log {f['none'].median:,.0f}")
    row("audit-disk", "audit sync: disk, 64 clients, a second", ratio(f["disk"], f["commits"]), 0.8, "higher", f"{f['disk'].median:,.0f}",
        f"64 records and fdatasync, over and over {f['commits'].median:,.0f}; by sync: write {f['write'].median:,.0f}")
    row("audit-disk-5ms", "the same, a disk of 5 ms a flush", ratio(f["slow"], f["slow commits"]), 0.8, "higher", f"{f['slow'].median:,.0f}",
        f"64 records and fdatasync, over and over {f['slow commits'].median:,.0f}")


if __name__ == "__main__":
    main()
