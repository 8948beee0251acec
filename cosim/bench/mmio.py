"""W5 register reads by a coroutine (`await bus.read64`), with bystanders. Operation: a read."""

from __future__ import annotations

from cosim.bench.harness import EVERYWHERE, Case, timed_case
from cosim.bench.plans import mmio

UNIT = "reads/s"
ROWS = [(19, w, k) for w, k in EVERYWHERE if w != "2"]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("mmio", UNIT, mmio, (nodes, workers, link), operations)
