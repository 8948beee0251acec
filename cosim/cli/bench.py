"""``cosim bench``: measure the runtime, beside a floor taken in the same invocation."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import click

_COLUMNS = ("name", "nodes", "workers", "link", "rate", "unit", "cpu_us", "floor_rate", "ratio", "load1")


def _duration(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 < value <= 3600:
        raise click.BadParameter(f"must be above 0 and at most 3600, not {value:g}")
    return value


@click.command()
@click.argument("name")
@click.option(
    "--nodes",
    type=click.IntRange(2, 4096),
    help="Nodes instead of the workload's own sizes (interrupts, working: PEs).",
)
@click.option(
    "--workers", multiple=True, help="Placement as in `cosim up` instead of the workload's own; may be repeated."
)
@click.option(
    "--link", type=click.Choice(["fast", "zmq"]), help="Of all rows between processes: by the main thread, or libzmq."
)
@click.option(
    "--repeat", default=5, show_default=True, type=click.IntRange(1), help="Runs of each row; medians are shown."
)
@click.option("--seconds", default=1.0, show_default=True, callback=_duration, help="About how long each run lasts.")
@click.option(
    "--operations",
    default=0,
    type=click.IntRange(0, 10**9),
    help="Of each run, instead of what fills --seconds. 0: what fills it.",
)
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
    """Measure one workload, or all of them, on this machine.

    \b
    NAME       and its operation
    barrier    w1  a step of all nodes, without messages
    pingpong   w2  a round trip between two nodes; the others wait
    fanout     w3  a message delivered, of one node to all others
    sparse     w4  a round trip, among ever more idle nodes
    mmio       w5  a register read by a coroutine
    interrupts w6  a virtual LPI, a virtual SGI taken by a guest
    startup    w7  a node started, joined and ended
    memory     w8  none: private memory of a worker
    compute        a step of all nodes, each 1 ms of work
    working        a virtual SGI, where each PE works
    all            one after the other

    Each row shows the rate, CPU microseconds per operation over all processes, and the rate of a raw pyzmq ping-pong that was
    measured between the runs of the row; `ratio` is rate over that floor, and alone may be compared from one day to another.
    docs/performance.md says what each column is.

    \b
    Examples:  cosim bench pingpong
               cosim bench barrier --nodes 19 --workers per-node --workers 2 --json
    """
    from cosim.bench.catalogue import WORKLOADS, cases, check
    from cosim.bench.harness import measure
    from cosim.errors import CosimError

    names = WORKLOADS if name == "all" else (name,)
    for workload in names:
        check(workload, nodes, workers)
    rows: list[dict[str, Any]] = []
    number, code = signal.SIGINT, 0

    def end(_number: int, _frame: Any) -> None:
        nonlocal number
        number = signal.SIGTERM
        signal.raise_signal(signal.SIGINT)  # ends a run as Ctrl-C does

    before = signal.signal(signal.SIGTERM, end)
    try:
        for workload in names:
            for case in cases(workload, nodes, workers, link, operations):
                if not rows and not as_json:
                    click.echo(_line(dict(zip(_COLUMNS, _COLUMNS, strict=True))))
                rows.append(measure(case, repeat, seconds))
                if not as_json:
                    click.echo(_line(rows[-1]))
    except KeyboardInterrupt:
        click.echo(f"interrupted by {number.name}", err=True)
        code = 128 + number
    except CosimError:
        if as_json and rows:
            click.echo(json.dumps(rows, indent=1))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    sys.exit(code)


def _line(row: dict[str, Any]) -> str:
    """One line of the table; further figures behind it."""
    widths = dict(zip(_COLUMNS, (16, 5, 8, 6, 9, 13, 9, 10, 8, 6), strict=True))
    cells = [f"{row[c]:<{w}}" if c in ("name", "unit") else f"{row[c]:>{w}}" for c, w in widths.items()]
    more = [f"{k} {v}" for k, v in row.items() if k not in _COLUMNS and k not in ("floor_unit", "runs")]
    return "  ".join([*cells, *more]).rstrip()
