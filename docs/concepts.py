#!/usr/bin/env python3
"""Writes concepts.svg to standard output: the path from the annotation to Prometheus. `tests/offline/docs.rs` keeps both alike."""

WIDTH, HEIGHT = 880, 330
# Name, second line, x, y, width.
BOXES = {
    "user": ("you", "kubectl annotate", 20, 30, 150),
    "api": ("API server", "calls the webhook", 250, 30, 170),
    "webhook": ("gwmon webhook", "answers with a JSON Patch", 500, 30, 190),
    "pod": ("pod", "", 250, 150, 190),
    "controller": ("gwmon controller", "applies", 500, 150, 150),
    "service": ("Service", "ServiceMonitor", 700, 150, 160),
    "prometheus": ("Prometheus", "selects, then scrapes", 700, 260, 160),
    "gateway": ("gateway", "", 258, 200, 72),
    "exporter": ("exporter", "", 362, 200, 72),
}
# From, to, label.
ARROWS = [
    ((170, 50), (250, 50), "1"),
    ((420, 44), (500, 44), "1, 2"),
    ((500, 60), (420, 60), ""),
    ((335, 76), (335, 150), "2"),
    ((440, 172), (500, 172), "3"),
    ((650, 172), (700, 172), "3"),
    ((780, 196), (780, 260), "4"),
    ((330, 216), (362, 216), "UDP"),
    ((700, 283), (434, 226), "4"),
]


def box(name, second, x, y, width, height):
    middle = x + width / 2
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    yield f'<text x="{middle:g}" y="{y + 19}">{name}</text>'
    if second:
        yield f'<text class="second" x="{middle:g}" y="{y + 36}">{second}</text>'


def main():
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="From the annotation to Prometheus">')
    print("<style>rect{fill:#f6f8fa;stroke:#57606a}text{font:14px sans-serif;text-anchor:middle;fill:#24292f}.second{font-size:12px;fill:#57606a}")
    print(".label{font-size:12px;fill:#0969da}path{stroke:#0969da;fill:none;marker-end:url(#head)}</style>")
    print('<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#0969da;stroke:none;marker-end:none"/></marker>')
    print(f'<rect x="0" y="0" width="{WIDTH}" height="{HEIGHT}" style="fill:#fff;stroke:none"/>')
    for key, (name, second, x, y, width) in BOXES.items():
        height = {"pod": 100, "gateway": 32, "exporter": 32}.get(key, 46)
        print("\n".join(box(name, second, x, y, width, height)))
    for (x1, y1), (x2, y2), label in ARROWS:
        print(f'<path d="M{x1} {y1}L{x2} {y2}"/>')
        if label:
            print(f'<text class="label" x="{(x1 + x2) / 2 + (12 if x1 == x2 else 0):g}" y="{(y1 + y2) / 2 - 5:g}">{label}</text>')
    print("</svg>")


if __name__ == "__main__":
    main()
