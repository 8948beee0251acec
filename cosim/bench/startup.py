"""W7 start-up and stop of many workers. Operation: a node that is started, joins, is ready, and ends; rate by wall time.

`up_s` and `up_cpu_s` are wall and CPU seconds of all processes until the last one is ready, `stop_s` the wall time from the
order to end until every process is gone and the run directory is whole.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cosim.bench.cpu import process_cpu
from cosim.bench.harness import EXEC, FAST, FORK, PER_NODE, Case, Reading, cpu_of_all, run_plan
from cosim.bench.plans import endless, place
from cosim.run.supervisor import Supervisor

KINDS = (FORK, EXEC)
"""How workers start; the row of the first has the plain name."""
UNIT = "nodes/s"
OF_PROCESSES = "start-up"
ROWS = [(24, PER_NODE, FAST), (512, PER_NODE, FAST)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""


@dataclass
class _Seen:
    """Clocks when all workers were ready: the time, CPU seconds of the children that live, of this process and of ended ones."""

    at: float
    children: float
    others: float


async def _look(supervisor: Supervisor) -> _Seen:
    children = sum(process_cpu(child.pid) for child in supervisor.children)
    return _Seen(time.monotonic(), children, cpu_of_all())


def case(nodes: int, workers: str, link: str, operations: int = 0, kind: str = FORK) -> Case:
    """One row; the number of operations is that of the nodes."""

    def run(case: Case) -> Reading:
        before = cpu_of_all()
        sample = run_plan(place(endless(nodes), workers), workers, case.link, probe=_look, start=kind)
        seen: _Seen = sample.probed
        end = time.monotonic()
        return Reading(
            rate=nodes / sample.total_s,
            cpu_s=sample.total_cpu_s / nodes,
            extra={
                "up_s": sample.running_s,
                "up_cpu_s": seen.children + seen.others - before,
                "stop_s": end - seen.at,
                "cpu_s": sample.total_cpu_s,
            },
        )

    return Case("startup" if kind == FORK else f"startup-{kind}", nodes, workers, link, UNIT, run, nodes)
