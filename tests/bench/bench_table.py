"""After the others: the table of ratios, and the plots of what they found, bench.svg and bench-growth.svg in the build directory."""
import math
import os
import time
from html import escape

from bench import BUILD, GROWTH, MACHINE, PEERS, ROWS, read

INK, PAPER, OURS, THEIRS = "#1a1a1a", "#ffffff", "#b5492a", "#9aa3ad"
COLOURS = ("#b5492a", "#2a6fb5", "#3a8a4f", "#8a5fb0", "#a08020")


def table(rows, machine):
    print(f"{machine.get('text', '')}; load {machine.get('load', ['?'])[0]} when it began ({machine.get('began', '?')}), "
          f"{os.getloadavg()[0]:.2f} at the end ({time.strftime('%H:%M')})")
    print(f"\n{'':6} {'ratio':>8} {'target':>8}  {'name':24} what: cotter; beside")
    for name, r in rows.items():
        met = r["ratio"] <= r["target"] if r["better"] == "lower" else r["ratio"] >= r["target"]
        sign = "<=" if r["better"] == "lower" else ">="
        print(f"{'' if met else 'MISSED':6} {r['ratio']:8.2f} {sign}{r['target']:6}  {name:24} {r['what']}: {r['cotter']}; {r['beside']}")


def svg(width, height, parts):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
                      f'font-family="sans-serif" font-size="13" fill="{INK}">', f'<rect width="{width}" height="{height}" fill="{PAPER}"/>', *parts, "</svg>\n"])


def text(x, y, what, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(what)}</text>'


def bars(peers):
    """Milliseconds of whole processes, shortest first."""
    rows = peers["secret"] + peers["sign"]
    width, left, step = 760, 330, 26
    scale = (width - left - 90) / max(ms for _, ms, _ in rows)
    parts = [text(12, 24, "A secret, or a signature, by one command: milliseconds of the whole process (median)", 'font-weight="bold"')]
    for i, (name, ms, _) in enumerate(rows):
        y = 44 + i * step + (14 if i >= len(peers["secret"]) else 0)
        parts += [text(left - 10, y + 13, name, 'text-anchor="end"'),
                  f'<rect x="{left}" y="{y}" width="{max(ms * scale, 1):.1f}" height="18" fill="{OURS if "cotter" in name else THEIRS}"/>',
                  text(left + ms * scale + 6, y + 13, f"{ms:.1f}")]
    return svg(width, 70 + len(rows) * step, parts)


def lines(series):
    """Microseconds over a count, both logarithmic."""
    width, height, left, top, right, bottom = 760, 420, 60, 50, 500, 370
    points = [p for s in series.values() for p in s["points"]]
    low, high = math.floor(math.log10(min(us for _, us in points))), math.ceil(math.log10(max(us for _, us in points)))
    x = lambda n: left + (right - left) * math.log10(n) / 5
    y = lambda us: bottom - (bottom - top) * (math.log10(us) - low) / max(high - low, 1)
    parts = [text(12, 24, "Cost as the work grows: microseconds of one, over how many there are", 'font-weight="bold"')]
    for e in range(6):
        parts += [f'<path d="M{x(10 ** e):.1f} {top}V{bottom}" stroke="#ddd"/>', text(x(10 ** e), bottom + 20, f"{10 ** e:,}", 'text-anchor="middle"')]
    for e in range(low, high + 1):
        parts += [f'<path d="M{left} {y(10 ** e):.1f}H{right}" stroke="#ddd"/>', text(left - 8, y(10 ** e) + 4, f"{10.0 ** e:g}", 'text-anchor="end"')]
    for i, (s, colour) in enumerate(zip(series.values(), COLOURS)):
        path = " ".join(f"{'L' if k else 'M'}{x(n):.1f} {y(us):.1f}" for k, (n, us) in enumerate(s["points"]))
        parts += [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
                  *(f'<circle cx="{x(n):.1f}" cy="{y(us):.1f}" r="3" fill="{colour}"/>' for n, us in s["points"]),
                  f'<rect x="{right + 14}" y="{top + i * 24}" width="12" height="12" fill="{colour}"/>',
                  text(right + 32, top + 11 + i * 24, s["what"], 'font-size="12"')]
    return svg(width, height, parts)


def main():
    rows = read(ROWS)
    if not rows:
        raise SystemExit("nothing was measured")
    table(rows, read(MACHINE))
    peers, growth = read(PEERS), read(GROWTH)
    if peers:
        print("\nmilliseconds of whole processes, median (best):")
        for name, ms, best in peers["secret"] + peers["sign"]:
            print(f"{ms:10.2f} ({best:.2f})  {name}")
        for name in peers["missing"]:
            print(f"{'-':>10}  {name}: not installed, or does not work here")
    for name, what, draw in (("bench.svg", peers, bars), ("bench-growth.svg", growth, lines)):
        if what:
            with open(os.path.join(BUILD, name), "w") as f:
                f.write(draw(what))


if __name__ == "__main__":
    main()
