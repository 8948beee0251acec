"""``cosim bench``: measure the runtime, beside a floor taken in the same invocation."""

from __future__ import annotations

import json
from typing import Any

import click

_COLUMNS = ("name", "nodes", "workers", "link", "rate", "unit", "cpu_us", "floor_rate", "ratio", "load1")


@click.command()
@click.argument("name")
@click.option(
    "--nodes", type=click.IntRange(2, 4096), help="Nodes instead of the workload's own sizes (interrupts: PEs)."
)
@click.option(
    "--workers", multiple=True, help="Placement as in `cosim up` instead of the workload's own; may be repeated."
)
@click.option("--link", type=click.Choice(["fast", "zmq"]), help="Between processes: by the main thread, or libzmq.")
@click.option(
    "--repeat", default=5, show_default=True, type=click.IntRange(1), help="Runs of each row; medians are shown."
)
@click.option("--seconds", default=1.0, show_default=True, help="About how long each run lasts.")
@click.option("--operations", default=0, type=click.IntRange(0), help="Of each run, instead of what fills --seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def bench(
    name: str,
    nodes: int | None,
    workers: tuple[str, ...],
    link: str | None,
    repeat: int,
    seconds: float,
    operations: int,
    as_json: bool,
) -> None:
    """Measure NAME: barrier, pingpong, fanout, sparse, mmio, interrupts, startup, memory (w1 to w8), compute, working, all.

    Each row shows the rate, CPU microseconds per operation over all processes, and the rate of a raw pyzmq ping-pong that was
    measured between the runs of the row; `ratio` is rate over that floor, and alone may be compared from one day to another.

    \b
    Examples:  cosim bench pingpong
               cosim bench barrier --nodes 19 --workers per-node --workers 2 --json
    """
    from cosim.bench.catalogue import WORKLOADS, cases
    from cosim.bench.harness import measure

    rows: list[dict[str, Any]] = []
    names = WORKLOADS if name == "all" else (name,)
    if not as_json:
        click.echo(_line(dict(zip(_COLUMNS, _COLUMNS, strict=True))))
    for workload in names:
        for case in cases(workload, nodes, workers, link, operations):
            row = measure(case, repeat, seconds)
            rows.append(row)
            if not as_json:
                click.echo(_line(row))
    if as_json:
        click.echo(json.dumps(rows, indent=1))


def _line(row: dict[str, Any]) -> str:
    """One line of the table; further figures behind it."""
    widths = dict(zip(_COLUMNS, (16, 5, 8, 6, 9, 13, 9, 10, 8, 6), strict=True))
    cells = [f"{row[c]:<{w}}" if c in ("name", "unit") else f"{row[c]:>{w}}" for c, w in widths.items()]
    more = [f"{k} {v}" for k, v in row.items() if k not in _COLUMNS and k not in ("floor_unit", "runs")]
    return "  ".join([*cells, *more]).rstrip()
