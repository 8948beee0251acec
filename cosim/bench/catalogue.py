"""The workloads by name, and the rows that each shows."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any

from cosim.bench.harness import FAST, Case
from cosim.errors import TopologyError, UsageError
from cosim.topo.placement import parse_workers

WORKLOADS = ("barrier", "pingpong", "fanout", "sparse", "mmio", "interrupts", "startup", "memory", "compute", "working")
"""W1 to W8, W1 with work, W6 with work."""
NUMBERED = 8
"""So many have a number."""


def cases(
    name: str,
    nodes: int | None = None,
    workers: tuple[str, ...] = (),
    link: str | None = None,
    operations: int = 0,
) -> list[Case]:
    """The rows of one workload: its own, or those that are asked for.

    Args:
        name: of `WORKLOADS`, or w1 to w8.
        nodes: instead of the workload's own sizes (PEs for "interrupts" and "working").
        workers: placements instead of its own.
        link: of all rows, instead of each row's own; one process has none.
        operations: of each run; 0 is as many as fill the time.

    Raises:
        UsageError: no such workload; a placement or size that can't be.
    """
    module = check(name, nodes, workers)
    kinds = [partial(module.case, kind=kind) for kind in getattr(module, "KINDS", ())] or [module.case]
    try:
        made = [make(*row, operations) for row in _rows(module.ROWS, nodes, workers, link) for make in kinds]
    except (ValueError, TopologyError) as error:
        what = str(error).removeprefix(f"--set pes={nodes}: ")
        raise UsageError(what if nodes is None else f"--nodes {nodes} (PEs): {what}", code="bench") from None
    return [c if not c.workers.isdigit() else replace(c, workers=str(min(int(c.workers), c.nodes))) for c in made]


def check(name: str, nodes: int | None = None, workers: tuple[str, ...] = ()) -> Any:
    """The module of a workload, if it is one, and can be placed so; without what takes time.

    Raises:
        UsageError: no such workload; a placement or size that can't be.
    """
    short = {f"w{number}": full for number, full in enumerate(WORKLOADS[:NUMBERED], 1)}
    full = short.get(name.lower(), name.lower())
    if full not in WORKLOADS:
        close = get_close_matches(full, WORKLOADS, 1)
        raise UsageError(
            f"benchmark must be one of {', '.join(WORKLOADS)} (w1 to w{NUMBERED}) or all, not {name!r}",
            code="bench",
            next_step=f"did you mean {close[0]}?" if close else "`cosim bench --help` says what each measures",
        )
    if nodes is not None and nodes < 2:
        raise UsageError(f"a workload must have at least 2 nodes, not {nodes}", code="bench")
    module: Any = import_module(f"cosim.bench.{full}")
    for text in workers:
        try:
            number = parse_workers(text)
        except ValueError as error:
            raise UsageError(f"--workers {error}", code="workers") from None
        if number == 0 and (of_processes := getattr(module, "OF_PROCESSES", "")):
            raise UsageError(
                f"{of_processes} must be measured of processes, not of --workers 0",
                code="bench",
                next_step="name a number of processes, or per-node",
            )
    return module


def _rows(
    own: list[tuple[int, str, str]], nodes: int | None, workers: tuple[str, ...], link: str | None
) -> list[tuple[int, str, str]]:
    if not workers and nodes is None and link is None:
        return list(own)
    sizes = [nodes] if nodes is not None else list(dict.fromkeys(size for size, _, _ in own))
    places = list(workers) if workers else list(dict.fromkeys(place for _, place, _ in own))
    pairs = [(size, place) for size in sizes for place in places]
    if not workers and nodes is None:
        pairs = list(dict.fromkeys((size, place) for size, place, _ in own))
    return [(size, place, link or FAST) for size, place in pairs]
