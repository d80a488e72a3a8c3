#!/usr/bin/env python3
"""Draws figures of `cob bench` as an SVG.

    plot.py servers.json > servers.svg              cob beside plain Linux, a pair of bars a case
    plot.py --latency histogram.json > latency.svg  round trips of cob bench messages --histogram FILE
    plot.py --sizes messages.json > sizes.svg       cob beside its peers, by size: cob bench messages --peers --json FILE
    plot.py --connections connections.json > connections.svg    rates, and latency against load: cob bench connections --json FILE
    plot.py --angel model.json > model.svg          p99 against load, a scheme a line: cob-sim angel --suite --json FILE

Bars are requests (or connections) a second, each pair scaled to the larger of the two; the ratio stands behind it.
Several files of one kind are taken together. Standard library alone.
"""
import json
import math
import re
import sys
from html import escape

BAR, GAP, LABEL, WIDTH = 14, 16, 190, 460
COLOURS = ["#1b7f5c", "#3b6fb6", "#c2571a", "#8a4fa3", "#b8860b", "#d1495b", "#2a9d8f", "#6c757d", "#7a5230", "#4059ad",
           "#97a30b", "#333333"]


def cases(figures):
    """Names of the cases with a rate on both sides, hog cases last."""
    names = [k.removesuffix("_cob_per_s") for k in figures if k.endswith("_cob_per_s")]
    names = [n for n in names if f"{n}_linux_per_s" in figures]
    return sorted(names, key=lambda n: (n.endswith("_hog"), n))


def bar(y, value, most, colour, text):
    length = WIDTH * value / most if most else 0
    return (f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
            f'<text x="{LABEL + length + 6:.1f}" y="{y + BAR - 3}">{escape(text)}</text>')


def document(width, height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="12">{"".join(parts)}</svg>')


def draw_servers(figures):
    rows, y = [], 40
    for name in cases(figures):
        cob, linux = figures[f"{name}_cob_per_s"], figures[f"{name}_linux_per_s"]
        ratio = figures.get(f"{name}_ratio", cob / linux if linux else 0)
        rounds = figures.get(f"{name}_rounds", 0)
        note = f"{cob:,.0f}/s   {ratio:.2f}x" + ("" if rounds else "   (disturbed)")
        rows.append(f'<text x="{LABEL - 8}" y="{y + BAR + 3}" text-anchor="end">{escape(name)}</text>')
        rows.append(bar(y, cob, max(cob, linux), "#1b7f5c", note))
        rows.append(bar(y + BAR + 1, linux, max(cob, linux), "#9aa0a6", f"{linux:,.0f}/s"))
        y += 2 * BAR + GAP
    head = '<text x="10" y="20" font-weight="bold">cob (green) beside plain Linux (grey), same two cores</text>'
    return document(LABEL + WIDTH + 190, y, [head, *rows])


def short(value):
    """1500 -> 1.5k, 0.1 as it is."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


class Chart:
    """One pair of logarithmic axes with lines in it, `left` pixels from the page's edge."""
    HEIGHT, TOP = 300, 50

    def __init__(self, left, width, title, x_name, xs, ys, x_ticks=None):
        self.left, self.width = left, width
        self.x0, self.x1 = math.log10(min(xs)), math.log10(max(xs))
        self.y0, self.y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        self.y1 = max(self.y1, self.y0 + 1)
        bottom = self.TOP + self.HEIGHT
        self.parts = [f'<text x="{left}" y="{self.TOP - 14}" font-weight="bold">{escape(title)}</text>',
                      f'<text x="{left + width / 2:.0f}" y="{bottom + 34}" text-anchor="middle">{escape(x_name)}</text>']
        for power in range(self.y0, self.y1 + 1):
            y = self.y(10 ** power)
            self.parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>'
                              f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(10 ** power)}</text>')
        if x_ticks is None:
            x_ticks = {10 ** p * m: short(10 ** p * m) for p in range(math.floor(self.x0), math.ceil(self.x1) + 1)
                       for m in (1, 2, 5)}
        for value, name in x_ticks.items():
            if self.x0 - 1e-9 <= math.log10(value) <= self.x1 + 1e-9:
                self.parts.append(f'<path d="M{self.x(value):.1f} {self.TOP}v{self.HEIGHT}" stroke="#eee"/>'
                                  f'<text x="{self.x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{name}</text>')

    def x(self, value):
        return self.left + self.width * (math.log10(value) - self.x0) / ((self.x1 - self.x0) or 1)

    def y(self, value):
        return self.TOP + self.HEIGHT * (self.y1 - math.log10(value)) / (self.y1 - self.y0)

    def line(self, points, colour, thick, marks=False):
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        if marks:
            self.parts += [f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{thick + 1}" fill="{colour}"/>'
                           for x, y in points]


def legend(left, entries):
    """[(colour, text)] below each other."""
    return [f'<rect x="{left}" y="{Chart.TOP + 18 * i}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{left + 18}" y="{Chart.TOP + 10 + 18 * i}">{escape(text)}</text>'
            for i, (colour, text) in enumerate(entries)]


def draw_latency(histograms):
    """Of each kind of round trip the share that took longer than x."""
    names = {"line": "raw line (floor)", "bare": "bare ring", "rpc": "typed, deadline, continuation"}
    curves = {}
    for key in names:
        counts = histograms.get(key, [])
        total, left, points = sum(c for _, c in counts), sum(c for _, c in counts), []
        for ns, count in counts:
            points.append((ns, left / total))
            left -= count
        if points:
            curves[key] = points
    if not curves:
        sys.exit("plot.py: none of line, bare, rpc in the histograms")
    everything = [p for points in curves.values() for p in points]
    chart = Chart(70, 560, "64 B round trip: the share that takes at least so long", "nanoseconds",
                  [x for x, _ in everything], [y for _, y in everything])
    entries = []
    for (key, points), colour in zip(curves.items(), ["#9aa0a6", "#3b6fb6", "#1b7f5c"]):
        chart.line(points, colour, 2)
        median = next(ns for ns, share in reversed(points) if share >= 0.5)
        tail = next(ns for ns, share in reversed(points) if share >= 0.01)
        entries.append((colour, f"{names[key]}: p50 {median}, p99 {tail} ns"))
    return document(960, 410, chart.parts + legend(650, entries))


def draw_sizes(figures):
    """Two charts: round trips and one-way rates by size, cob thick."""
    found = {}
    for key, value in figures.items():
        match = re.fullmatch(r"(cob|peer_(\w+?))_(\d+)_(rtt_p50_ns|per_s)", key)
        if match and value > 0:
            found.setdefault(match[2] or "cob", {}).setdefault(match[4], {})[int(match[3])] = value
    if "cob" not in found:
        sys.exit("plot.py: no sizes of cob in the figures")
    sizes = sorted({s for kinds in found.values() for points in kinds.values() for s in points})
    ticks = {s: f"{s} B" if s < 1024 else f"{s >> 10} KiB" if s < 1 << 20 else f"{s >> 20} MiB" for s in sizes}
    names = ["cob"] + sorted(n for n in found if n != "cob")
    parts, left = [], 60
    for kind, title in (("rtt_p50_ns", "round trip, median, ns (lower is better)"),
                        ("per_s", "one-way messages a second (higher is better)")):
        values = [v for kinds in found.values() for v in kinds.get(kind, {}).values()]
        chart = Chart(left, 340, title, "bytes of a message", sizes, values, ticks)
        for name, colour in reversed(list(zip(names, COLOURS))):
            chart.line(sorted(found[name].get(kind, {}).items()), colour, 4 if name == "cob" else 1.5, marks=True)
        parts += chart.parts
        left += 430
    return document(left + 110, 410, parts + legend(left - 40, [(c, n) for n, c in zip(names, COLOURS)]))


def draw_connections(figures):
    """A bar a case and side, scaled to the case's largest; below, p50 (thin) and p99 against the load of the open loops."""
    sides = [s for s in ("cob", "inside", "tap", "wire", "xdp", "linux_shared", "linux_reuseport", "linux_affinity", "linux_hermes", "linux_wire")
             if any(k.endswith(f"_{s}_per_s") for k in figures)]
    found = {}
    for key, value in figures.items():
        match = re.fullmatch(r"(\w+?)_(" + "|".join(sides or ["-"]) + ")_per_s", key)
        if match:
            found.setdefault(match[1], {})[match[2]] = value
    if not found:
        sys.exit("plot.py: no rates of connections in the figures")
    colours = dict(zip(sides, COLOURS))
    rows, y = ['<text x="10" y="20" font-weight="bold">Connections (keepalive: requests) a second, same two cores</text>'], 40
    for name in sorted((n for n in found if "_load" not in n), key=lambda n: (n.endswith("_hog"), n)):
        rates = found[name]
        rows.append(f'<text x="{LABEL - 8}" y="{y + BAR - 3}" text-anchor="end">{escape(name)}</text>')
        for side in (s for s in sides if s in rates):
            note = "" if figures.get(f"{name}_rounds", 1) else "   (disturbed)"
            rows.append(bar(y, rates[side], max(rates.values()), colours[side], f"{rates[side]:,.0f}/s{note}"))
            y += BAR + 1
        y += GAP
    loads = {}
    for name in found:
        if re.fullmatch(r"conn_load\d+", name):
            for side in found[name]:
                points = [figures.get(f"{name}_{side}_{k}", 0) for k in ("offered_per_s", "p50_us", "p99_us")]
                if min(points) > 0:
                    loads.setdefault(side, []).append(points)
    entries = [(colours[s], s) for s in sides]
    if not loads:
        return document(LABEL + WIDTH + 330, max(y, 60 + 18 * len(entries)), rows + legend(LABEL + WIDTH + 150, entries))
    every = [p for points in loads.values() for p in points]
    chart = Chart(70, WIDTH + LABEL - 70, "latency from the intended start, us: p99 (thick) and p50 against load",
                  "connections offered a second", [p[0] for p in every], [v for p in every for v in p[1:]])
    for side, points in loads.items():
        points.sort()
        chart.line([(p[0], p[1]) for p in points], colours[side], 1, marks=True)
        chart.line([(p[0], p[2]) for p in points], colours[side], 3, marks=True)
    return document(LABEL + WIDTH + 330, y + 410, rows + legend(LABEL + WIDTH + 150, entries) +
                    [f'<g transform="translate(0 {y})">{"".join(chart.parts)}</g>'])


def draw_angel(figures):
    """p99 against load by case, Angel thick; 64 kernels."""
    schemes = ["angel", "ideal", "hash", "reuseport", "affinity", "hermes", "choices"]
    found = {}
    for key, value in figures.items():
        match = re.fullmatch(r"(\w+?_\w+?)_k64_(" + "|".join(schemes) + r")_l(\d+)_p99_us", key)
        if match and value > 0:
            found.setdefault(match[1], {}).setdefault(match[2], []).append((int(match[3]), value))
    shown = [c for c in ("exponential_even", "exponential_skew16", "bimodal_even", "bimodal_skew16") if c in found]
    if not shown:
        sys.exit("plot.py: no case of the model in the figures")
    parts, left = [], 60
    for case in shown:
        points = found[case]
        every = [p for line in points.values() for p in line]
        chart = Chart(left, 240, case.replace("_", ", ") + ": p99, us", "load, percent", [p[0] for p in every],
                      [p[1] for p in every], {n: str(n) for n in (50, 60, 70, 80, 90)})
        for scheme, colour in reversed(list(zip(schemes, COLOURS))):
            if scheme in points:
                chart.line(sorted(points[scheme]), colour, 4 if scheme == "angel" else 1.5, marks=True)
        parts += chart.parts
        left += 310
    return document(left + 110, 410, parts + legend(left - 40, list(zip(COLOURS, schemes))))


def main():
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    kind = words.pop(0) if words[0].startswith("--") else "--servers"
    draw = {"--servers": draw_servers, "--latency": draw_latency, "--sizes": draw_sizes,
            "--connections": draw_connections, "--angel": draw_angel}.get(kind)
    if draw is None or not words:
        sys.exit(__doc__.strip())
    figures = {}
    for path in words:
        with open(path, encoding="utf-8") as file:
            figures.update(json.load(file))
    if kind == "--servers" and not cases(figures):
        sys.exit("plot.py: no case with both sides in " + ", ".join(words))
    print(draw(figures))


if __name__ == "__main__":
    main()
