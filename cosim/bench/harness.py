"""Run a plan, and say what it cost: rates, CPU time of all processes, and the floor beside them.

What counts as CPU time: that of the workers between the first and the last measured operation, as their timed nodes note it,
and that of hub and supervisor over the same time, sampled while they run. Workloads without timed nodes are charged with all
that their processes used.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from cosim.bench.cpu import process_cpu
from cosim.bench.floor import Floor
from cosim.bench.models import BEGAN, BEGAN_CPU, ENDED, ENDED_CPU
from cosim.bench.plans import first_measured, place
from cosim.core.plan import Plan
from cosim.errors import CosimError, Interrupted
from cosim.run.crew import Limits
from cosim.run.rundir import RunDir
from cosim.run.supervisor import Supervisor

IN_PROCESS = "0"
PER_NODE = "per-node"
FORK, EXEC = "fork", "exec"
FAST, LIBZMQ, MEMORY = "fast", "zmq", "memory"
FRAMES_OF_A_LIFE = 5
"""HELLO, READY, BYE, the first grant of each worker (its nodes' start) and the answer: no part of the work."""
MIN_ROUNDS = 10
PILOT = 200
"""Operations of the first trial of a case."""
PING_PONG = "raw pyzmq PAIR ping-pong, round trips/s"

EVERYWHERE = ((PER_NODE, LIBZMQ), (PER_NODE, FAST), ("2", FAST), (IN_PROCESS, MEMORY))
"""(workers, link): a process per node by both links, packed on two, all in one."""

Probe = Callable[[Supervisor], Any]


@dataclass
class Sample:
    """One run as measured; times in seconds. `grants` leaves out the first of each worker, `frames` are grants and
    answers; `probed` is what the probe returned."""

    result: dict[str, Any]
    grants: int
    frames: int
    window_s: float
    window_cpu_s: float
    total_s: float
    total_cpu_s: float
    running_s: float
    probed: Any = None


@dataclass
class Reading:
    """What one repetition of a case gives: operations per second, CPU seconds per operation, and further figures that are
    equal in all repetitions or are shown as their median."""

    rate: float
    cpu_s: float
    digest: str | None = None
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One row: a workload at one size, placement and link. `run(case)` measures it once; with `operations` 0 it is found out
    how many fill the time asked for. `floor` replaces the ping-pong as what the rate is compared with."""

    name: str
    nodes: int
    workers: str
    link: str
    unit: str
    run: Callable[[Case], Reading]
    operations: int = 0
    floor: Callable[[], float] | None = None
    floor_unit: str = PING_PONG


class _Meter:
    """CPU time of hub and supervisor while they run, as a slope between two samples."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._hub = next((child.pid for child in supervisor.children if child.name == "hub"), None)
        self._samples: list[tuple[float, float]] = []
        self._own = 0.0

    def sample(self) -> None:
        """Take a sample; what taking it costs is left out."""
        before = time.process_time()
        cpu = before - self._own + (process_cpu(self._hub) if self._hub is not None else 0.0)
        self._samples.append((time.monotonic(), cpu))
        self._own += time.process_time() - before

    def slope(self) -> float:
        """CPU seconds per second; 0 if the run was too short for two samples."""
        if len(self._samples) < 2:
            return 0.0
        (begin, used), (end, more) = self._samples[0], self._samples[-1]
        return (more - used) / (end - begin) if end > begin else 0.0


def cpu_of_all() -> float:
    """CPU seconds of this process and of every child that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def collect() -> None:
    """Collect garbage; a signal waits for its end, since Python ignores what is raised in callbacks of the collector."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        gc.collect()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_plan(plan: Plan, workers: str, link: str = FAST, probe: Probe | None = None, start: str = FORK) -> Sample:
    """Run `plan` (which has its groups) to its end.

    Args:
        workers: "0" is all in this process; anything else starts a process per group.
        start: "fork" or "exec" of worker processes.
        probe: async; called with the supervisor once all workers run; the run is ended when it returns.

    Raises:
        CosimError: the first error of a run that failed.
    """
    gc.unfreeze()  # what the worker of an earlier run froze
    collect()
    cpu, began = cpu_of_all(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as folder:
        supervisor, meter, probed = anyio.run(
            _supervise, plan, workers == IN_PROCESS, (link, start), Path(folder), probe
        )
    total, total_cpu = time.monotonic() - began, cpu_of_all() - cpu
    outcome = supervisor.outcome
    if outcome.errors:
        raise outcome.errors[0]
    report = outcome.report or {}
    grants: int = report.get("grants", 0)
    window, window_cpu = _window(plan, report.get("nodes", {}))
    if workers != IN_PROCESS:
        window_cpu += meter.slope() * window
    return Sample(
        result=supervisor.result or {},
        grants=grants - len(plan.groups),
        frames=report.get("frames", 0) + grants - FRAMES_OF_A_LIFE * len(plan.groups),
        window_s=window,
        window_cpu_s=window_cpu,
        total_s=total,
        total_cpu_s=total_cpu,
        running_s=supervisor.running_after_s or 0.0,
        probed=probed,
    )


async def _supervise(
    plan: Plan, in_process: bool, how: tuple[str, str], folder: Path, probe: Probe | None
) -> tuple[Supervisor, _Meter, Any]:
    link, start = how
    directory = RunDir.create(plan.name, folder / "run")
    supervisor = Supervisor(
        plan,
        directory,
        in_process=in_process,
        limits=Limits(),
        link=link if link != MEMORY else FAST,
        start=start,
    )
    meter = _Meter(supervisor)
    probed = None
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.supervise)
        async for event in supervisor.events:
            if event.kind == "started":
                meter = _Meter(supervisor)
                if probe is not None:
                    probed = await probe(supervisor)
                    await supervisor.stop(Interrupted("the benchmark has seen enough", signum=15))
            if event.kind in ("started", "progress"):
                meter.sample()
        await supervisor.done.wait()
        supervisor.events.close()
    return supervisor, meter, probed


def _window(plan: Plan, nodes: dict[str, Any]) -> tuple[float, float]:
    """Seconds from the first to the last measured operation, and the CPU seconds of the workers in between."""
    began, ended, cpu = [], [], 0.0
    for group in plan.groups:
        notes = [nodes.get(plan.nodes[node].name, {}).get("counters", {}) for node in group]
        timed = [n for n in notes if BEGAN in n and ENDED in n]
        if timed:
            began.append(min(n[BEGAN] for n in timed))
            ended.append(max(n[ENDED] for n in timed))
            cpu += (max(n[ENDED_CPU] for n in timed) - min(n[BEGAN_CPU] for n in timed)) / 1e9
    return ((max(ended) - min(began)) / 1e9, cpu) if began else (0.0, 0.0)


def reading(sample: Sample, rounds: int, per_round: int = 1) -> Reading:
    """The reading of a workload with timed nodes that ran `rounds` rounds of `per_round` operations each. Grants and frames
    are shown per round of the whole run."""
    measured = (rounds - first_measured(rounds)) * per_round
    return Reading(
        rate=measured / sample.window_s,
        cpu_s=sample.window_cpu_s / measured,
        digest=sample.result["digest"],
        extra={
            "grants_per_round": sample.grants / rounds,
            "frames_per_round": sample.frames / rounds,
        },
    )


def calibrated(case: Case, seconds: float) -> Case:
    """The case with as many operations as take about `seconds`, by two trials; as it is if it says how many."""
    if case.operations:
        return case
    operations = PILOT
    for share in (0.25, 1.0):
        rate = case.run(replace(case, operations=operations)).rate
        operations = max(PILOT, int(rate * seconds * share))
    return replace(case, operations=operations)


def timed_case(
    name: str,
    unit: str,
    build: Callable[[int, int], Plan],
    place_at: tuple[int, str, str],
    operations: int,
    fan: bool = False,
) -> Case:
    """A case of a workload with timed nodes.

    Args:
        build: the plan of so many nodes and rounds.
        place_at: nodes, workers, link.
        operations: rounds of each run; 0: as many as fill the time.
        fan: each round has an operation for each node but the first.
    """
    nodes, workers, link = place_at
    per_round = nodes - 1 if fan else 1

    def run(case: Case) -> Reading:
        rounds = max(MIN_ROUNDS, case.operations // per_round)
        plan = place(build(nodes, rounds), workers)
        return reading(run_plan(plan, workers, case.link), rounds, per_round)

    return Case(name, nodes, workers, MEMORY if workers == IN_PROCESS else link, unit, run, operations)


def measure(case: Case, repeat: int, seconds: float = 1.0) -> dict[str, Any]:
    """One row: medians of `repeat` runs of about `seconds` each, every one between two measurements of the floor.

    Raises:
        CosimError: a run failed, or repetitions of one case gave different digests.
    """
    case = calibrated(case, seconds)
    if case.floor is not None:
        return _row(case, [case.run(case) for _ in range(repeat)], [case.floor() for _ in range(repeat)])
    readings, floors = [], []
    with Floor() as floor:
        for _ in range(repeat):
            floors.append(floor.rate())
            readings.append(case.run(case))
        floors.append(floor.rate())
    return _row(case, readings, floors)


def _row(case: Case, readings: list[Reading], floors: list[float]) -> dict[str, Any]:
    digests = {r.digest for r in readings}
    if len(digests) != 1:
        raise CosimError(
            f"runs of {case.name} on {case.workers} must have one digest, not {sorted(map(str, digests))}",
            code="bench",
            next_step="this is a fault of cosim: please report it",
        )
    rates = [r.rate for r in readings]
    rate, floor = statistics.median(rates), statistics.median(floors)
    return {
        "name": case.name,
        "nodes": case.nodes,
        "workers": case.workers,
        "link": case.link,
        "rate": _short(rate),
        "unit": case.unit,
        "cpu_us": _short(statistics.median(r.cpu_s for r in readings) * 1e6),
        "floor_rate": _short(floor),
        "floor_unit": case.floor_unit,
        "ratio": _short(rate / floor),
        "load1": round(os.getloadavg()[0], 2),
        "runs": len(readings),
        "rate_min": _short(min(rates)),
        "rate_max": _short(max(rates)),
        **{name: _short(statistics.median(r.extra[name] for r in readings)) for name in readings[0].extra},
    }


def _short(value: float) -> float:
    """Four significant figures: no measurement here has more."""
    return float(f"{value:.4g}")
