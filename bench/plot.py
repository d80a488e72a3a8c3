#!/usr/bin/env python3
"""Draws the figures of `cob bench servers --json FILE` as an SVG: cob beside plain Linux, a pair of bars a case.

    cob bench servers --json servers.json && bench/plot.py servers.json > servers.svg

Bars are requests (or connections) a second, each pair scaled to the larger of the two; the ratio stands behind it.
Standard library alone.
"""
import json
import sys
from html import escape

BAR, GAP, LABEL, WIDTH = 14, 16, 190, 460


def cases(figures):
    """Names of the cases with a rate on both sides, hog cases last."""
    names = [k.removesuffix("_cob_per_s") for k in figures if k.endswith("_cob_per_s")]
    names = [n for n in names if f"{n}_linux_per_s" in figures]
    return sorted(names, key=lambda n: (n.endswith("_hog"), n))


def bar(y, value, most, colour, text):
    length = WIDTH * value / most if most else 0
    return (f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
            f'<text x="{LABEL + length + 6:.1f}" y="{y + BAR - 3}">{escape(text)}</text>')


def draw(figures):
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
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 190}" height="{y}" '
            f'font-family="sans-serif" font-size="12">{head}{"".join(rows)}</svg>')


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    figures = {}
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            figures.update(json.load(file))
    if not cases(figures):
        sys.exit("plot.py: no case with both sides in " + ", ".join(sys.argv[1:]))
    print(draw(figures))


if __name__ == "__main__":
    main()
