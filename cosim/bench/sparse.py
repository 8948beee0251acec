"""W4 sparse: a ping-pong among growing numbers of nodes whose next event is far away. Operation: a round trip."""

from __future__ import annotations

from cosim.bench.harness import FAST, PER_NODE, Case, timed_case
from cosim.bench.plans import sparse

UNIT = "round trips/s"
ROWS = [(n, PER_NODE, FAST) for n in (4, 16, 64, 256)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("sparse", UNIT, sparse, (nodes, workers, link), operations)
