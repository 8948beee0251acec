"""The figure of a sweep as SVG, written by hand: no plotting library, the same bytes for the same results.

Three panels side by side, one row per point: how long interrupts took from cause to acknowledge (every sample is a dot on a
logarithmic axis; the bar spans the middle half, the tick is the median), how often the target vCPU left the guest in between,
and how many of the hypervisor's exits were made by interrupts and by waiting for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from cosim.run.sweep import percentile

# Colours of Okabe and Ito's palette, told apart with any colour vision and in grey.
COLOURS = {"vsgi": "#d55e00", "vlpi": "#0072b2"}
REASON_COLOURS = ("#e8a27c", "#7fb3d6", "#8fcfb4", "#dfb7cf")
INK, QUIET, RULE, PAPER = "#222222", "#666666", "#dddddd", "#ffffff"
NAMES = {"vsgi": "SGI", "vlpi": "LPI"}
MAX_DOTS = 200
LINE, GAP, TOP = 26, 14, 84
LATENCY, BETWEEN, EXITS, PAD = 420, 150, 190, 34
LETTER, LEAST_LABEL = 7.4, 100
TICKS = tuple(m * 10**e for e in range(20) for m in (1, 2, 5))
"""Picoseconds; the last lies beyond any instant."""
UNITS = ((10**12, "s"), (10**9, "ms"), (10**6, "µs"), (10**3, "ns"), (1, "ps"))


class Distribution(NamedTuple):
    """Samples of one family in ps, sorted; how many came through list registers; exits of the target in between."""

    family: str
    spans: Sequence[int]
    by_list_register: int
    exits_between: int


class Series(NamedTuple):
    """One point: label, distributions, exits by reason (those shown), all exits, and a note such as "failed"."""

    label: str
    distributions: Sequence[Distribution]
    exits: dict[str, int]
    all_exits: int
    note: str = ""


def figure(title: str, series: Sequence[Series], footnote: Sequence[str]) -> str:
    """The SVG document; `footnote` lines go below the panels."""
    drawing = _Drawing()
    heights = [max(1, len(entry.distributions)) * LINE + GAP for entry in series]
    bottom = TOP + sum(heights)
    label = 16 + max([LEAST_LABEL, *(LETTER * len(entry.label) for entry in series)]) + 14
    width = label + LATENCY + BETWEEN + EXITS + 3 * PAD + 20
    left = (label, label + LATENCY + PAD, label + LATENCY + BETWEEN + 2 * PAD)
    drawing.text(16, 28, title, size=16, weight="600")
    heads = ("latency, cause to acknowledge", "exits in between", "exits for interrupts, of all")
    for x, head in zip(left, heads, strict=True):
        drawing.text(x, TOP - 14, head, weight="600")
    _legend(drawing, left[0], series)
    axis = _LogAxis([v for entry in series for d in entry.distributions for v in d.spans], left[0], LATENCY)
    _axis(drawing, axis, bottom)
    most = max((d.exits_between / len(d.spans) for entry in series for d in entry.distributions), default=0.0)
    reasons = list(dict.fromkeys(name for entry in series for name in entry.exits))
    total = max((sum(entry.exits.values()) for entry in series), default=0)
    y = TOP
    for entry, height in zip(series, heights, strict=True):
        _row(drawing, entry, y, axis, left, max(most, 1.0), max(total, 1), reasons)
        y += height
        drawing.line(16, y - GAP / 2, width - 16, y - GAP / 2, RULE)
    _reason_legend(drawing, left[2], bottom + 18, reasons)
    y = bottom + 58
    for line in footnote:
        drawing.text(16, y, line, size=11, fill=QUIET)
        y += 16
    return drawing.document(width, y + 6, title)


def _row(
    drawing: _Drawing, entry: Series, y: float, axis: _LogAxis, left: Sequence[float], most: float, total: int,
    reasons: Sequence[str],
) -> None:  # fmt: skip
    lines = max(1, len(entry.distributions))
    middle = y + lines * LINE / 2
    drawing.text(16, middle + (-2 if entry.note else 4), entry.label, weight="600")
    if entry.note:
        drawing.text(16, middle + 14, entry.note, size=11, fill="#b00020")
    if not entry.distributions:
        drawing.text(left[0], middle + 4, "no interrupts measured", fill=QUIET)
    for number, found in enumerate(entry.distributions):
        centre = y + number * LINE + LINE / 2
        _distribution(drawing, found, axis, centre)
        each = found.exits_between / len(found.spans)
        room = BETWEEN - 60
        if each:
            drawing.rect(left[1], centre - 6, room * each / most, 12, COLOURS.get(found.family, QUIET))
        drawing.text(left[1] + room * each / most + 6, centre + 4, f"{each:.3g}", size=11)
    x = left[2]
    for number, name in enumerate(reasons):
        length = (EXITS - 70) * entry.exits.get(name, 0) / total
        if length:
            drawing.rect(x, middle - 9, length, 18, REASON_COLOURS[number % len(REASON_COLOURS)])
        if length > 20:
            drawing.text(x + length / 2, middle + 4, str(entry.exits[name]), size=11, anchor="middle")
        x += length
    if entry.exits:
        drawing.text(x + 6, middle + 4, f"{sum(entry.exits.values())} of {entry.all_exits}", size=11)


def _distribution(drawing: _Drawing, found: Distribution, axis: _LogAxis, y: float) -> None:
    spans, colour = found.spans, COLOURS.get(found.family, QUIET)
    drawing.line(axis.at(spans[0]), y, axis.at(spans[-1]), y, colour)
    low, high = axis.at(percentile(spans, 25)), axis.at(percentile(spans, 75))
    drawing.rect(low, y - 5, max(high - low, 1.5), 10, colour, opacity=0.25)
    shown = (
        spans if len(spans) <= MAX_DOTS else [percentile(spans, 100 * (i + 0.5) / MAX_DOTS) for i in range(MAX_DOTS)]
    )
    for number, value in enumerate(shown):
        # Equal values would hide each other: dots step through five heights, in a fixed order.
        drawing.dot(axis.at(value), y + (0, 4, -4, 2, -2)[number % 5], colour)
    half = axis.at(percentile(spans, 50))
    drawing.line(half, y - 9, half, y + 9, INK, 2)
    way = (
        "by list register"
        if found.by_list_register == len(spans)
        else "direct"
        if not found.by_list_register
        else "mixed"
    )
    text = f"{short_time(percentile(spans, 50))} {way}"
    fits = axis.at(spans[-1]) + 10 + 6 * len(text) < axis.left + axis.width + PAD
    x = axis.at(spans[-1]) + 10 if fits else axis.at(spans[0]) - 10
    drawing.text(x, y + 4, text, size=11, anchor="start" if fits else "end")


class _LogAxis:
    """Picoseconds to x, with ticks at 1, 2 and 5 times powers of ten."""

    def __init__(self, values: Sequence[int], left: float, width: float) -> None:
        self.left, self.width = left, width
        low, high = (min(values), max(values)) if values else (1_000, 1_000_000)
        self.low = max(tick for tick in TICKS if tick <= max(1, low))
        self.high = min(tick for tick in TICKS if tick >= high and tick > self.low)
        self.ticks = [tick for tick in TICKS if self.low <= tick <= self.high]
        if len(self.ticks) > 9:
            self.ticks = [tick for tick in self.ticks if str(int(tick)).strip("0") == "1"]

    def at(self, value: float) -> float:
        span = math.log(self.high / self.low)
        return self.left + self.width * math.log(max(value, self.low) / self.low) / span


def short_time(ps: float) -> str:
    """Three significant digits with a unit: ``365 ns``, ``4.78 µs``."""
    scale, unit = next((s, u) for s, u in UNITS if ps >= s or s == 1)
    value = ps / scale
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def _axis(drawing: _Drawing, axis: _LogAxis, bottom: float) -> None:
    for tick in axis.ticks:
        x = axis.at(tick)
        drawing.line(x, TOP - 6, x, bottom - GAP / 2, RULE)
        drawing.text(x, bottom + 12, short_time(tick), size=11, fill=QUIET, anchor="middle")
    drawing.text(
        axis.left + axis.width / 2, bottom + 30, "simulated time, logarithmic", size=11, fill=QUIET, anchor="middle"
    )


def _legend(drawing: _Drawing, x: float, series: Sequence[Series]) -> None:
    present = {d.family for entry in series for d in entry.distributions}
    for family in (f for f in COLOURS if f in present):
        drawing.dot(x + 5, 46, COLOURS[family], 4)
        drawing.text(x + 14, 50, f"{NAMES[family]} of a guest", size=11)
        x += 110
    drawing.text(x, 50, "dot: one interrupt; tick: median; bar: middle half", size=11, fill=QUIET)


def _reason_legend(drawing: _Drawing, x: float, y: float, reasons: Sequence[str]) -> None:
    for number, name in enumerate(reasons):
        drawing.rect(x, y - 9, 10, 10, REASON_COLOURS[number % len(REASON_COLOURS)])
        drawing.text(x + 15, y, name, size=11, fill=QUIET)
        y += 15


class _Drawing:
    """Elements of an SVG in the order of drawing."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, size: int = 12, weight: str = "400", fill: str = INK, anchor: str = "start"
    ) -> None:  # fmt: skip
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> None:
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )

    def rect(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> None:
        extra = "" if opacity == 1 else f' fill-opacity="{opacity}"'
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"{extra}/>'
        )

    def dot(self, x: float, y: float, colour: str, radius: float = 2.5) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.7"/>')

    def document(self, width: float, height: float, title: str) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img" font-family="Helvetica, Arial, sans-serif">'
        )
        paper = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
        return "\n".join([head, f"<title>{escape(title)}</title>", paper, *self._parts, "</svg>", ""])
