"""W1 barrier: every node steps, there are no messages; latencies let a node step once per grant. Operation: a step of all."""

from __future__ import annotations

from cosim.bench.harness import EVERYWHERE, LIBZMQ, Case, timed_case
from cosim.bench.plans import barrier

UNIT = "steps/s"
ROWS = [*((19, w, k) for w, k in EVERYWHERE), (19, "2", LIBZMQ)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("barrier", UNIT, barrier, (nodes, workers, link), operations)
