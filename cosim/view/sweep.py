"""The results of a sweep as rows, CSV, Markdown and a table for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cosim.core.time import fmt
from cosim.run.sweep import Point, guest_text, percentile, samples
from cosim.view.figure import Distribution, Series
from cosim.view.text import grid

FAMILIES = ("vsgi", "vlpi")
NAMES = {"vsgi": "SGI", "vlpi": "LPI"}
COUNTERS = {
    "exits": ("hypervisor.exits",),
    "exits_sgi_trap": ("hypervisor.exits_sgi_trap",),
    "exits_irq": ("hypervisor.exits_irq",),
    "exits_wfx": ("hypervisor.exits_wfx",),
    "sgir_writes": ("its*.sgir_writes",),
    "lr_injections": ("hypervisor.lr_injections",),
    "host_lpis": ("hypervisor.host_lpis",),
    "vsgi_delivered": ("redistributor*.vsgi_delivered",),
    "vlpi_delivered": ("redistributor*.vlpi_delivered",),
    "doorbells": ("redistributor*.doorbells",),
}
"""Columns that are sums of counters: NODE* stands for all nodes of that name with a number."""
REASONS = {"exits_wfx": "WFI", "exits_irq": "IRQ", "exits_sgi_trap": "SGI register"}
_SHOWN = ("exits", "exits_wfx", "exits_irq", "exits_sgi_trap", "sgir_writes", "lr_injections", "host_lpis", "doorbells")

Row = dict[str, Any]


def total(counters: Mapping[str, int], patterns: Sequence[str]) -> int:
    """The sum of the counters that match ``NODE*.COUNTER``."""
    found = 0
    for pattern in patterns:
        node, _, counter = pattern.partition(".")
        if not node.endswith("*"):
            found += counters.get(pattern, 0)
            continue
        for name, value in counters.items():
            owner, _, what = name.partition(".")
            if what == counter and owner.rstrip("0123456789") == node[:-1]:
                found += value
    return found


def rows_of(points: Sequence[Point]) -> list[Row]:
    """One row a point: parameters, status, counters, and per family counts, paths, exits in between and latencies in ps."""
    texts: dict[str, str] = {}
    rows = []
    for point in points:
        result = point.result or {}
        row: Row = {**point.sets, "status": result.get("status", "not run"), "exit_code": point.exit_code}
        counters = result.get("counters", {})
        row.update({name: total(counters, patterns) if counters else None for name, patterns in COUNTERS.items()})
        spans = samples(point)
        for family in FAMILIES:
            path = result.get("paths", {}).get(family, {})
            found = spans.get(family, [])
            row[f"{family}_count"] = len(found)
            row.update({f"{family}_{key}": path.get(key) for key in ("direct", "lr", "exits_between")})
            for key, value in _quantiles(found).items():
                row[f"{family}_{key}_ps"] = value
        text = guest_text(point)
        row["guest_text"] = texts.setdefault(text, chr(ord("A") + min(len(texts), 25))) if text else ""
        row.update({key: result.get(key) for key in ("sim_time_ps", "wall_s", "digest")})
        rows.append(row)
    return rows


def _quantiles(spans: Sequence[int]) -> dict[str, int | None]:
    if not spans:
        return dict.fromkeys(("min", "p50", "p99", "max"))
    return {"min": spans[0], "p50": percentile(spans, 50), "p99": percentile(spans, 99), "max": spans[-1]}


def timing_of(points: Sequence[Point], docs: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(parameter, values, what it is) of the timing parameters that the latencies rest on; `docs` by parameter."""
    found = []
    for name, kind in (points[0].types if points else {}).items():
        if kind != "span" and not name.endswith(("_per_ns", "_per_us")):
            continue
        values = [point.plan.parameters[name] for point in points if point.plan is not None]
        texts = dict.fromkeys(fmt(value) if kind == "span" else str(value) for value in values)
        found.append((name, ", ".join(texts), docs.get(name, "")))
    return found


def failures(points: Sequence[Point]) -> list[str]:
    """One line per point that did not pass: its values, how it ended and why."""
    lines = []
    for point in points:
        if point.exit_code == 0:
            continue
        if point.exit_code is None:
            lines.append(f"{point.label}: not run")
            continue
        result = point.result or {}
        bad = [f"{t['name']} {t['status']}: {t['detail']}" for t in result.get("tests", []) if t["status"] != "passed"]
        why = "; ".join(bad) or (point.errors.splitlines() or ["no result"])[0]
        lines.append(f"{point.label}: exit {point.exit_code}; {why}")
    return lines


def csv_text(rows: Sequence[Row]) -> str:
    """All columns; times in picoseconds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return out.getvalue()


def columns(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table that people read; `names` are the swept parameters."""
    head = [*names, "status"]
    for family in FAMILIES:
        head += [f"{NAMES[family]}s", "direct", "by LR", "exits between", "p50", "p99"]
    head += [name.replace("_", " ") for name in _SHOWN]
    body = []
    for row in rows:
        cells = [str(row[name]) or "none" for name in names] + [str(row["status"])]
        for family in FAMILIES:
            cells += [_cell(row[f"{family}_{key}"]) for key in ("count", "direct", "lr", "exits_between")]
            cells += [_time(row[f"{family}_{key}_ps"]) for key in ("p50", "p99")]
        body.append(cells + [_cell(row[name]) for name in _SHOWN])
    return head, body


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _time(value: int | None) -> str:
    return "-" if value is None else time_text(value)


def time_text(ps: int) -> str:
    """Three significant digits: ``365 ns``, ``4.78 us``."""
    value, unit = next((ps / scale, u) for scale, u in ((10**12, "s"), (10**9, "ms"), (10**6, "us"), (10**3, "ns"), (1, "ps"))
                       if ps >= scale or scale == 1)  # fmt: skip
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    """For a terminal: one line a point and family, so that it fits in 120 columns."""
    result = grid()
    for name in (*names, "status", "interrupts"):
        result.add_column(name, no_wrap=True)
    for name in ("direct", "by LR", "exits between", "p50", "p99", "exits"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("text")
    for row in rows:
        first = True
        for family in FAMILIES:
            count = row[f"{family}_count"]
            if not count and not (first and family == FAMILIES[-1]):
                continue
            left = [Text(str(row[name]) or "none") for name in names] + [Text(str(row["status"]))]
            result.add_row(
                *(left if first else [""] * len(left)),
                f"{count} {NAMES[family]}" if count else "none",
                *(_cell(row[f"{family}_{key}"]) for key in ("direct", "lr", "exits_between")),
                *(_time(row[f"{family}_{key}_ps"]) for key in ("p50", "p99")),
                _cell(row["exits"]) if first else "",
                row["guest_text"] if first else "",
            )
            first = False
    return result


def markdown(topology: str, points: Sequence[Point], rows: Sequence[Row], docs: Mapping[str, str], figure: str) -> str:
    """results.md: the figure, the table, the guests' text, the points that failed, the timing parameters."""
    names = list(points[0].sets)
    head, body = columns(rows, names)
    lines = [f"# {topology}: {' x '.join(names)}", "", f"![Latencies and exits]({figure})", ""]
    lines += _md_table(head, body)
    lines += [
        "",
        "SGIs and LPIs: taken by guests. By LR: through a list register. Exits between: exits of the target vCPU between an "
        "interrupt's cause and its acknowledge. p50, p99: from the cause (the sender's SGI register write; the endpoint's MSI "
        "write) to the acknowledge, in simulated time.",
        "",
        text_line(rows),
        "",
    ]
    failed = failures(points)
    if failed:
        lines += ["## Points that did not pass", "", *(f"- {line}" for line in failed), ""]
    lines += ["## Timing parameters", "", "Latencies are sums of these, as events of the machine add them up:", ""]
    lines += _md_table(["parameter", "value", "what"], [list(entry) for entry in timing_of(points, docs)])
    return "\n".join(lines) + "\n"


def text_line(rows: Sequence[Row]) -> str:
    """Whether guests printed the same everywhere."""
    groups: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        if row["guest_text"]:
            groups.setdefault(row["guest_text"], []).append(str(number))
    if not groups:
        return "No guest printed anything."
    if len(groups) == 1:
        return "The guests print the same text at all points (measured durations aside)."
    parts = "; ".join(
        f"{letter}: {'point' if len(numbers) == 1 else 'points'} {', '.join(numbers)}"
        for letter, numbers in groups.items()
    )
    return f"The guests print {len(groups)} different texts ({parts})."


def _md_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *body)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def series_of(points: Sequence[Point], rows: Sequence[Row]) -> list[Series]:
    """For the figure: per point its distributions, exits in between, and exits by reason."""
    varied = [name for name in points[0].sets if len({point.sets[name] for point in points}) > 1] if points else []
    series = []
    for point, row in zip(points, rows, strict=True):
        label = ", ".join(f"{name} {point.sets[name] or 'none'}" for name in varied or point.sets)
        spans = samples(point)
        shown = [
            Distribution(family, spans[family], row[f"{family}_lr"] or 0, row[f"{family}_exits_between"] or 0)
            for family in FAMILIES
            if spans.get(family)
        ]
        exits = {text: row[name] or 0 for name, text in REASONS.items()}
        series.append(
            Series(label, shown, exits, row["exits"] or 0, "" if point.exit_code == 0 else str(row["status"]))
        )
    return series
