"""The workloads by name, and the rows that each shows."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from cosim.bench.harness import FAST, Case
from cosim.errors import UsageError
from cosim.topo.placement import parse_workers

WORKLOADS = ("barrier", "pingpong", "fanout", "sparse", "mmio", "interrupts", "startup", "memory", "compute", "working")
"""W1 to W8, W1 with work, W6 with work."""


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
        nodes: instead of the workload's own sizes (PEs for "interrupts").
        workers: placements instead of its own.
        link: only rows of this link, or rows that are asked for by this link.
        operations: of each run; 0 is as many as fill the time.

    Raises:
        UsageError: no such workload; a placement or size that can't be.
    """
    short = {f"w{number}": full for number, full in enumerate(WORKLOADS, 1)}
    full = short.get(name.lower(), name.lower())
    if full not in WORKLOADS:
        raise UsageError(
            f"benchmark must be one of {', '.join(WORKLOADS)} (w1 to w{len(WORKLOADS)}) or all, not {name!r}",
            code="bench",
        )
    if nodes is not None and nodes < 2:
        raise UsageError(f"a workload must have at least 2 nodes, not {nodes}", code="bench")
    for text in workers:
        try:
            parse_workers(text)
        except ValueError as error:
            raise UsageError(f"--workers {error}", code="workers") from None
    module: Any = import_module(f"cosim.bench.{full}")
    kinds = [partial(module.case, kind=kind) for kind in getattr(module, "KINDS", ())] or [module.case]
    try:
        return [make(*row, operations) for row in _rows(module.ROWS, nodes, workers, link) for make in kinds]
    except ValueError as error:
        raise UsageError(str(error), code="bench") from None


def _rows(
    own: list[tuple[int, str, str]], nodes: int | None, workers: tuple[str, ...], link: str | None
) -> list[tuple[int, str, str]]:
    if not workers and nodes is None:
        return [row for row in own if link is None or row[2] in (link, "memory")] if link else list(own)
    sizes = [nodes] if nodes is not None else list(dict.fromkeys(size for size, _, _ in own))
    places = list(workers) if workers else list(dict.fromkeys(place for _, place, _ in own))
    links = [link] if link else [FAST]
    return [(size, place, one) for size in sizes for place in places for one in links]
