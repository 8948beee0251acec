"""W8 memory of a worker: private and proportional set size in MiB (smaps_rollup of proc(5)), once all workers are ready.

`rate` is the median private memory of a worker and the floor that of an interpreter that has imported pyzmq and msgpack and
nothing else, so that `ratio` says what a worker costs above the least. `cpu_us` is the CPU time of a worker so far.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from cosim.bench.cpu import process_cpu
from cosim.bench.harness import EXEC, FAST, FORK, PER_NODE, Case, Reading, run_plan
from cosim.bench.plans import endless, place
from cosim.run.supervisor import Supervisor

KINDS = (FORK, EXEC)
"""How workers start; the row of the first has the plain name."""
UNIT = "MiB/worker"
OF_PROCESSES = "memory per worker"
ROWS = [(24, PER_NODE, FAST)]
"""(nodes, workers, link) of the rows shown when nothing is asked for."""

_BARE = 'import msgpack, zmq; context = zmq.Context(); print(flush=True); __import__("sys").stdin.read()'


def set_sizes(pid: int) -> tuple[float, float]:
    """(private, proportional) MiB of a process; raises OSError when it is gone."""
    private = proportional = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            private += int(rest.split()[0])
        elif name == "Pss":
            proportional = int(rest.split()[0])
    return private / 1024, proportional / 1024


def bare() -> float:
    """Private MiB of an interpreter with pyzmq and msgpack."""
    with subprocess.Popen([sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        return set_sizes(child.pid)[0]


async def _look(supervisor: Supervisor) -> list[tuple[float, float, float]]:
    view = await supervisor.view()
    pids = [worker["pid"] for worker in view["workers"] if worker["pid"]]
    return [(*set_sizes(pid), process_cpu(pid)) for pid in pids]


def case(nodes: int, workers: str, link: str, operations: int = 0, kind: str = FORK) -> Case:
    """One row; the number of operations is that of the workers."""

    def run(case: Case) -> Reading:
        plan = place(endless(nodes), workers)
        found: list[tuple[float, float, float]] = run_plan(plan, workers, case.link, probe=_look, start=kind).probed
        private, proportional, cpu = zip(*found, strict=True)
        extra = {"pss": statistics.median(proportional), "private_max": max(private), "private_total": sum(private)}
        return Reading(statistics.median(private), statistics.median(cpu), extra=extra)

    return Case(
        "memory" if kind == FORK else f"memory-{kind}",
        nodes,
        workers,
        link,
        UNIT,
        run,
        nodes,
        floor=bare,
        floor_unit="MiB of a bare interpreter",
    )
