"""cosim beside HELICS, mosaik and SimPy: the same workload, interleaved, medians and spread.

Every round runs each system once and measures the floor once, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cosim.bench.catalogue import cases
from cosim.bench.floor import Floor
from cosim.bench.harness import FAST, LIBZMQ, PILOT, calibrated
from cosim.errors import CosimError

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 180
HELICS, MOSAIK, SIMPY = "helics_peer", "mosaik_peer", "simpy_peer"
WORKLOADS = (("barrier", 19), ("pingpong", 2), ("pingpong", 19), ("fanout", 19), ("mmio", 19))
"""(workload, nodes). mmio is compared with SimPy alone: the others have no bus."""


class Figure(NamedTuple):
    """What one run gave: operations per second, CPU microseconds of all processes per operation."""

    rate: float
    cpu_us: float


Runner = Callable[[], Figure]


@dataclass
class System:
    """One row: its name, how to run it once, what it gave, and why it gave nothing."""

    name: str
    make: Callable[[float], Runner]
    ours: bool = False
    figures: list[Figure] = field(default_factory=list)
    fault: str = ""


def peer(module: str, workload: str, nodes: int, variant: str = "") -> Callable[[float], Runner]:
    """Runs a script of `benchmarks.peers`, with as many operations as take about so many seconds."""
    per_round = nodes - 1 if workload == "fanout" else 1

    def once(rounds: int) -> Figure:
        words = [sys.executable, "-m", f"benchmarks.peers.{module}", workload, str(nodes), str(rounds)]
        done = subprocess.run(
            words + (["--variant", variant] if variant else []),
            cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        try:
            found = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise RuntimeError(last[-200:]) from None
        return Figure(found["rate"], found["cpu_us"])

    def make(seconds: float) -> Runner:
        rounds = PILOT
        for share in (0.25, 1.0):
            rounds = max(PILOT, int(once(rounds).rate / per_round * seconds * share))
        return lambda: once(rounds)

    return make


def cosim(workload: str, nodes: int, workers: str, link: str = FAST) -> Callable[[float], Runner]:
    """Runs a case of `cosim.bench`."""

    def make(seconds: float) -> Runner:
        (case,) = cases(workload, nodes, (workers,), link)
        case = calibrated(case, seconds)

        def once() -> Figure:
            found = case.run(case)
            return Figure(found.rate, found.cpu_s * 1e6)

        return once

    return make


def systems(workload: str, nodes: int) -> list[System]:
    """The rows of one workload."""
    rows = [
        System("cosim, process per node, libzmq", cosim(workload, nodes, "per-node", LIBZMQ), True),
        System("cosim, process per node", cosim(workload, nodes, "per-node"), True),
        System("cosim, 2 workers, libzmq", cosim(workload, nodes, "2", LIBZMQ), True),
        System("cosim, 2 workers", cosim(workload, nodes, "2"), True),
        System("cosim, one process", cosim(workload, nodes, "0"), True),
    ]
    if workload != "mmio":
        rows += [System(f"HELICS, {core}", peer(HELICS, workload, nodes, core)) for core in ("tcp", "zmq", "zmq_ss")]
        rows += [System(f"mosaik, {how}", peer(MOSAIK, workload, nodes, how)) for how in ("remote", "inproc")]
    return [*rows, System("SimPy, one process", peer(SIMPY, workload, nodes))]


def compare(workload: str, nodes: int, repeat: int, seconds: float) -> dict[str, Any]:
    """One table: {workload, nodes, floor, rows: [{system, ours, rate, rate_min, rate_max, cpu_us, ratio, fault}]}."""
    rows, floors = systems(workload, nodes), []
    runners: list[tuple[System, Runner]] = []
    for row in rows:
        _say(f"{workload} {nodes}: trial of {row.name}")
        try:
            runners.append((row, row.make(seconds)))
        except (CosimError, RuntimeError, subprocess.TimeoutExpired) as error:
            row.fault = str(error)
    with Floor() as floor:
        for turn in range(repeat):
            floors.append(floor.rate())
            for row, run in runners:
                _say(f"{workload} {nodes}: {row.name}, {turn + 1} of {repeat}")
                try:
                    row.figures.append(run())
                except (CosimError, RuntimeError, subprocess.TimeoutExpired) as error:
                    row.fault = str(error)
    middle = statistics.median(floors)
    return {"workload": workload, "nodes": nodes, "floor": middle, "rows": [_entry(row, middle) for row in rows]}


def _entry(row: System, floor: float) -> dict[str, Any]:
    rates = [f.rate for f in row.figures]
    if not rates:
        return {"system": row.name, "ours": row.ours, "rate": None, "fault": row.fault}
    return {
        "system": row.name,
        "ours": row.ours,
        "rate": statistics.median(rates),
        "rate_min": min(rates),
        "rate_max": max(rates),
        "runs": len(rates),
        "cpu_us": statistics.median(f.cpu_us for f in row.figures),
        "ratio": statistics.median(rates) / floor,
        "fault": row.fault,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
