"""A topology over a grid of parameters: one run per point, several at a time, each in a directory of its own.

A sweep can be stopped and started again: a point is kept when its directory holds the result of a run that came to its end and
whose plan (machine, parameters, tests, seed, limit) is the one that the point has now. Its `run_all` works under asyncio and trio.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from cosim.core.plan import Plan
from cosim.errors import UsageError

MANIFEST = "sweep.json"
POINTS = "points"
FINISHED = ("passed", "failed")
KILL_AFTER_S = 10.0


@dataclass(frozen=True)
class Options:
    """What all points share, as given to `cosim up`."""

    topology: str
    workers: str = "0"
    tests: tuple[str, ...] = ()
    seed: int | None = None
    until: str | None = None
    allow_models: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """For the command line of `cosim up`, without parameters and directory."""
        found = [self.topology, "--workers", self.workers]
        found += [part for name in self.tests for part in ("--test", name)]
        found += [part for name in self.allow_models for part in ("--allow-models", name)]
        found += ["--seed", str(self.seed)] if self.seed is not None else []
        return found + (["--until", self.until] if self.until is not None else [])


@dataclass
class Point:
    """One combination of parameter values, as texts, and what became of it."""

    sets: dict[str, str]
    directory: Path
    plan: Plan | None = None
    types: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    kept: bool = False
    errors: str = ""

    @property
    def label(self) -> str:
        """``gic_version=4.1 vcpus=8``."""
        return " ".join(f"{name}={value}" for name, value in self.sets.items())

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of its result.json, None if there is none."""
        return _json(self.directory / "result.json")

    def finished(self) -> bool:
        """Whether its directory has the result of this very plan."""
        result, plan = self.result, _json(self.directory / "plan.json")
        if result is None or plan is None or self.plan is None or result.get("status") not in FINISHED:
            return False
        return _essence(plan) == _essence(json.loads(json.dumps(self.plan.to_dict())))


def _essence(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name != "groups"}  # placement changes no result


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def parse_grid(pairs: Sequence[str]) -> dict[str, list[str]]:
    """``NAME=a,b,c`` texts as {name: values}; values in the order given, each once.

    Raises:
        UsageError: another form, a name twice, or no value.
    """
    grid: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, values = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"--set must be NAME=VALUE,VALUE..., not {pair!r}", code="set",
                             next_step="for example --set gic_version=3,4.0,4.1")  # fmt: skip
        if name in grid:
            raise UsageError(f"--set {name} must be given once, with all its values, not twice", code="set",
                             next_step=f"--set {name}={','.join(grid[name])},{values}")  # fmt: skip
        grid[name] = list(dict.fromkeys(value.strip() for value in values.split(",")))
    if not grid:
        raise UsageError("a sweep must have at least one --set NAME=VALUE,VALUE...", code="set",
                         next_step="for example --set gic_version=3,4.0,4.1; a single run is `cosim up`")  # fmt: skip
    return grid


def points_of(grid: Mapping[str, Sequence[str]], out: Path) -> list[Point]:
    """All combinations, the first name slowest, each with its directory below `out`."""
    points = []
    for values in product(*grid.values()):
        sets = dict(zip(grid, values, strict=True))
        name = ",".join(f"{k}={v or 'none'}" for k, v in sets.items())
        safe = "".join(c if c.isalnum() or c in "._-=," else "_" for c in name)
        points.append(Point(sets, out / POINTS / safe))
    return points


def prepare(options: Options, grid: Mapping[str, Sequence[str]], out: Path) -> list[Point]:
    """The points, each with its plan; `out` is made.

    Raises:
        TopologyErrors: a point's topology or parameters are wrong; nothing was started.
        UsageError: `out` has something in it that is no sweep.
    """
    from cosim.topo.find import find_topology
    from cosim.topo.load import load
    from cosim.topo.resolve import resolve

    points = points_of(grid, out)
    source = find_topology(options.topology)
    for point in points:
        resolved = resolve(
            load(source),
            sets=point.sets,
            tests=options.tests,
            seed=options.seed,
            workers=options.workers,
            until=options.until,
            allow_models=options.allow_models,
        )
        point.plan, point.types = resolved.plan, resolved.types
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise UsageError(f"--out must be new, empty, or the directory of an earlier sweep, not {out}", code="out",
                         next_step="name another one")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    manifest = {"topology": options.topology, "sets": {name: list(values) for name, values in grid.items()}}
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return points


def default_jobs(workers: str) -> int:
    """Runs at a time, so that each worker process has a core."""
    cores = len(os.sched_getaffinity(0))
    each = int(workers) if workers.isdigit() else cores
    return max(1, cores // max(1, each))


class Sweep:
    """Runs points; `stopped` is the signal that ended it early, None if none did."""

    def __init__(
        self, options: Options, points: Sequence[Point], jobs: int, tell: Callable[[Point, float], None]
    ) -> None:
        self.options = options
        self.points = points
        self.jobs = jobs
        self.tell = tell
        self.stopped: int | None = None
        self._children: set[anyio.abc.Process] = set()

    async def run_all(self, fresh: bool = False) -> None:
        """Run every point that is not finished, all of them if `fresh`; `tell(point, seconds)` hears of each."""
        limiter = anyio.CapacityLimiter(self.jobs)
        async with anyio.create_task_group() as group:
            group.start_soon(self._signals)
            async with anyio.create_task_group() as runs:
                for point in self.points:
                    if not fresh and point.finished():
                        point.kept, point.exit_code = True, exit_code_of(point.result or {})
                        self.tell(point, 0.0)
                    else:
                        runs.start_soon(self._run, point, limiter)
            group.cancel_scope.cancel()

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                self.stopped = int(number)
                for child in list(self._children):
                    child.send_signal(signal.SIGTERM)

    async def _run(self, point: Point, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            if self.stopped is not None:
                return
            begin = time.monotonic()
            shutil.rmtree(point.directory, ignore_errors=True)
            sets = [part for name, value in point.sets.items() for part in ("--set", f"{name}={value}")]
            argv = ["up", *self.options.arguments(), *sets, "--run-dir", str(point.directory), "--quiet"]
            argv += ["--parent", str(os.getpid())]  # kill -9 of the sweep leaves no run behind
            child = await anyio.open_process(
                [sys.executable, "-m", "cosim", *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C comes to it through this process alone, once
            )
            self._children.add(child)
            try:
                assert child.stderr is not None
                words = b"".join([part async for part in child.stderr])
                point.exit_code = await child.wait()
                point.errors = words.decode(errors="replace").strip()
            finally:
                self._children.discard(child)
                if child.returncode is None:
                    child.kill()
                with anyio.CancelScope(shield=True), anyio.move_on_after(KILL_AFTER_S):
                    await child.aclose()
            self.tell(point, time.monotonic() - begin)


def exit_code_of(result: Mapping[str, Any]) -> int:
    """The exit code of a finished run: 0 or 1."""
    return 0 if result.get("status") == "passed" else 1


def worst(points: Sequence[Point], stopped: int | None) -> int:
    """The sweep's exit code: 128 + the signal that stopped it, else the largest of its points'."""
    if stopped is not None:
        return 128 + stopped
    return max((point.exit_code or 0 for point in points), default=0)


def samples(point: Point) -> dict[str, list[int]]:
    """Latencies in ps by family, sorted, from the run's latencies.csv."""
    found: dict[str, list[int]] = {}
    try:
        lines = (point.directory / "latencies.csv").read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        family, cause, acknowledge, *_ = line.split(",")
        found.setdefault(family, []).append(int(acknowledge) - int(cause))
    return {family: sorted(spans) for family, spans in found.items()}


_DURATION = re.compile(r"(duration\s*= )\d+( us)")


def guest_text(point: Point) -> str:
    """What the guests printed, all consoles but the host's, one after the other by name; measured durations are left out."""
    files = sorted((point.directory / "console").glob("*.log"))
    text = "".join(f"{file.stem}\n{file.read_text()}" for file in files if file.stem != "host")
    return _DURATION.sub(r"\1*\2", text)


def percentile(spans: Sequence[int], percent: float) -> int:
    """Nearest rank of sorted spans."""
    return spans[max(0, math.ceil(len(spans) * percent / 100) - 1)]
