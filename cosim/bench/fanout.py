"""W3 fan-out: one node sends each of the others a message in each step. Operation: a delivery."""

from __future__ import annotations

from cosim.bench.harness import EVERYWHERE, LIBZMQ, Case, timed_case
from cosim.bench.plans import fanout

UNIT = "deliveries/s"
ROWS = [*((19, w, k) for w, k in EVERYWHERE), (19, "2", LIBZMQ)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("fanout", UNIT, fanout, (nodes, workers, link), operations, fan=True)
