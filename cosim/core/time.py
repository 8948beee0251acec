"""Simulated time: int picoseconds, and the one place where units convert.

An `Instant` is a point on the simulated time line, a `Span` a distance between two of them; both are plain ints so that
ordering is exact and arithmetic costs nothing. `NEVER` (2**63 - 1) is later than every instant and the largest time that
a frame can carry.
"""

from __future__ import annotations

import re
from typing import TypeAlias

Instant: TypeAlias = int
Span: TypeAlias = int

NEVER: Instant = 2**63 - 1

_UNITS: dict[str, int] = {"ps": 1, "ns": 10**3, "us": 10**6, "µs": 10**6, "ms": 10**9, "s": 10**12}
_SPAN = re.compile(r"\s*(\d[\d_]*)(?:\.(\d+))?\s*(ps|ns|us|µs|ms|s)\s*\Z")


def ps(n: int) -> Span:
    """`n` picoseconds."""
    return n


def ns(n: int) -> Span:
    """`n` nanoseconds in picoseconds."""
    return n * 1_000


def us(n: int) -> Span:
    """`n` microseconds in picoseconds."""
    return n * 1_000_000


def ms(n: int) -> Span:
    """`n` milliseconds in picoseconds."""
    return n * 1_000_000_000


def seconds(n: int) -> Span:
    """`n` seconds in picoseconds."""
    return n * 1_000_000_000_000


def parse_span(text: str) -> Span:
    """Picoseconds of a text such as ``"5ns"``, ``"1.5 us"`` or ``"250ps"``.

    Raises:
        ValueError: not a number with one of the units ps, ns, us, ms, s; finer than a picosecond; or not below 2**63 - 1.
    """
    found = _SPAN.match(text)
    if found is None:
        raise ValueError(f"time must be a number with a unit (ps, ns, us, ms, s) such as '5ns', not {text!r}")
    whole, fraction, unit = found.groups()
    scale = _UNITS[unit]
    value = int(whole.replace("_", "")) * scale
    if fraction:
        numerator = int(fraction) * scale
        denominator = 10 ** len(fraction)
        if numerator % denominator:
            raise ValueError(f"time must be a whole number of picoseconds, not {text!r}")
        value += numerator // denominator
    if value >= NEVER:
        raise ValueError(f"time must be below 2**63 - 1 ps (about 106 days), not {text!r}")
    return value


def fmt(t: Instant) -> str:
    """The instant or span `t` with the largest unit that keeps it exact to three decimals, e.g. ``"1.234us"``."""
    if t >= NEVER:
        return "never"
    sign = "-" if t < 0 else ""
    magnitude = abs(t)
    for unit in ("s", "ms", "us", "ns"):
        scale = _UNITS[unit]
        if magnitude >= scale:
            whole, rest = divmod(magnitude, scale)
            decimals = f"{rest * 1000 // scale:03d}".rstrip("0")
            return f"{sign}{whole}{'.' + decimals if decimals else ''}{unit}"
    return f"{sign}{magnitude}ps"
