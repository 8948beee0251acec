"""W2 ping-pong between two nodes, with bystanders that wait for messages which never come. Operation: a round trip."""

from __future__ import annotations

from cosim.bench.harness import FAST, IN_PROCESS, LIBZMQ, MEMORY, PER_NODE, Case, timed_case
from cosim.bench.plans import pingpong

UNIT = "round trips/s"
ROWS = [
    (2, PER_NODE, LIBZMQ),
    (256, PER_NODE, LIBZMQ),
    (2, PER_NODE, FAST),
    (19, PER_NODE, FAST),
    (256, PER_NODE, FAST),
    (19, "2", FAST),
    (19, IN_PROCESS, MEMORY),
]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


def case(nodes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row."""
    return timed_case("pingpong", UNIT, pingpong, (nodes, workers, link), operations)
