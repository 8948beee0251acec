"""W1 with a millisecond of CPU time in each step of each node: what a second worker is good for. Operation: a step of all."""

from __future__ import annotations

from cosim.bench.harness import FAST, Case, timed_case
from cosim.bench.plans import compute

UNIT = "steps/s"
ROWS = [(8, "1", FAST), (8, "2", FAST)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("compute", UNIT, compute, (nodes, workers, link), operations)
