"""
A store that grows: start to the first answer, memory with open connections, and a warm GET, among 1, 10,000 and 100,000 secrets. In memory:
what a disk takes to write 100,000 secrets is the disk's.
"""
import os
import resource
import socket
import time

from bench import VALUE, Bench, Load, get, growth, interleave, ratio, rss_mib, row
from harness import Broker, SoftHSM
from peers import Process, answer, connect, request

SIZES = {10000: (1000, 40, 50), 100000: (5000, 150, 150)}  # secrets: connections, MiB, ms
PER_PROCESS = 2500


def fill(b, have, n):
    with connect(b.operator_socket) as s:
        for i in range(have, n):
            status, reply = request(s, "POST", f"secret/data/fill/{i:06}", body={"data": {"value": VALUE}})
            assert status == 200, reply


def first_answer_ms(b, ask):
    """From its start to the whole answer of a GET."""
    if b.process.poll() is None:
        b.stop()
    os.path.exists(b.socket) and os.unlink(b.socket)
    began = time.monotonic()
    b.start(wait=False)
    while True:
        try:
            with connect(b.socket) as s:
                s.sendall(ask.encode())
                if answer(s)[0] == 200:
                    return (time.monotonic() - began) * 1000
        except OSError:
            pass
        time.sleep(0.0005)


held = []


def hold(path, ask, n):
    """Connections that asked once and stay open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(path)
        s.sendall(ask)
        assert answer(s)[0] == 200
        held.append(s)


def memory_mib(b, tokens, n):
    """With n connections open that asked once each."""
    holders = [Process(uid=uid) for uid in tokens]
    for holder, token in zip(holders, tokens.values()):
        holder.do(hold, b.socket, get("bench/secret", token).encode(), n // len(holders))
    out = rss_mib(b.process.pid)
    for holder in holders:
        holder.end()
    return out


def main():
    with Bench(memory=True) as bench:
        small, big = (bench.keep(Broker(bench.sub(name), hsm=SoftHSM(bench.sub(f"h{name}"))).start()) for name in ("small", "big"))
        load, points, have = bench.keep(Load()), [], 0
        for b in (small, big):
            b.put("bench/secret", VALUE)
        tokens = {b: {uid: b.token("--policy", "admin", "--ttl", "1h", "--uid", str(uid)) for uid in (4001, 4002)} for b in (small, big)}
        ask = {b: get("bench/secret", b.token("--policy", "admin", "--ttl", "1h")) for b in (small, big)}
        for n, (connections, mib, ms) in SIZES.items():
            start = time.monotonic()
            fill(big, have, n)
            print(f"{(n - have) / (time.monotonic() - start):,.0f} puts a second, one after the other, in memory")
            have = n
            f = interleave({"big": lambda: load(big.socket, ask[big], ms=200)["p50"], "small": lambda: load(small.socket, ask[small], ms=200)["p50"]})
            points += [[1, f["small"].median]] * (not points) + [[n, f["big"].median]]
            row(f"get-flat-{n}", f"warm GET, p50: {n:,} secrets beside 1", ratio(f["big"], f["small"]), 1.2, "lower", f"{f['big'].median:.1f} us",
                f"{f['small'].median:.1f} us")
            s = interleave({"big": lambda: first_answer_ms(big, ask[big]), "small": lambda: first_answer_ms(small, ask[small])}, rounds=5)
            more = sorted(a - c for a, c in zip(s["big"].values, s["small"].values))[2]
            row(f"start-{n}", f"start to the first answer, {n:,} secrets, above 1 (of {ms} ms)", max(more, 0) / ms, 1.0, "lower",
                f"{more:.1f} ms more ({s['big'].median:.0f} in all)", f"1 secret, the hardware's time in it {s['small'].median:.0f} ms")
            base, mine = memory_mib(small, tokens[small], 2), memory_mib(big, tokens[big], connections)
            row(f"memory-{n}", f"RSS, {n:,} secrets, {connections:,} connections (of {mib} MiB)", mine / mib, 1.0, "lower", f"{mine:.1f} MiB",
                f"1 secret, 2 connections {base:.1f} MiB")
        growth("secrets", "warm GET, by secrets", points)


if __name__ == "__main__":
    main()
