"""What the peers' scripts share: arguments, clocks between the first and the last measured operation, the closing line."""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import dataclass

from cosim.bench.cpu import process_cpu

WARM_UP = 10
"""As in `cosim.bench.plans`: one operation in so many is not measured, at the start."""


@dataclass
class Clocks:
    """Wall and CPU clocks (ns) of one process at the first and the last measured operation."""

    first: int
    last: int
    began: int = 0
    ended: int = 0
    began_cpu: int = 0
    ended_cpu: int = 0

    @classmethod
    def of(cls, operations: int) -> Clocks:
        """Those of a workload of so many operations."""
        return cls(max(1, operations // WARM_UP), operations)

    def note(self, number: int) -> None:
        """Note the clocks when operation `number` is the first or the last."""
        if number == self.first:
            self.began, self.began_cpu = time.monotonic_ns(), time.process_time_ns()
        elif number == self.last:
            self.ended, self.ended_cpu = time.monotonic_ns(), time.process_time_ns()

    def as_list(self) -> list[int]:
        """For another process."""
        return [self.began, self.ended, self.began_cpu, self.ended_cpu]


class Sampler:
    """CPU time of other processes (a broker, this one) while something runs, as a slope over the measured time."""

    def __init__(self, pids: list[int], own: bool = False) -> None:
        self.pids = pids
        self.own = own
        self._samples: list[tuple[int, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._body, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _body(self) -> None:
        while not self._stop.wait(0.1):
            cpu = sum(process_cpu(pid) for pid in self.pids) + (time.process_time() if self.own else 0.0)
            self._samples.append((time.monotonic_ns(), cpu))

    def between(self, began: int, ended: int) -> float:
        """CPU seconds used in that time, by the slope of the samples that lie in it."""
        inside = [s for s in self._samples if began <= s[0] <= ended]
        if len(inside) < 2 or inside[-1][0] == inside[0][0]:
            return 0.0
        (t0, c0), (t1, c1) = inside[0], inside[-1]
        return (c1 - c0) / (t1 - t0) * (ended - began)


def arguments(workloads: tuple[str, ...], variants: tuple[str, ...] = ()) -> argparse.Namespace:
    """WORKLOAD NODES OPERATIONS [--variant V]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("nodes", type=int)
    parser.add_argument("operations", type=int, help="steps or round trips")
    if variants:
        parser.add_argument("--variant", choices=variants, default=variants[0])
    return parser.parse_args()


def report(clocks: list[list[int]], rounds: int, per_round: int = 1, more_cpu: float | Sampler = 0.0) -> None:
    """Print rate (operations/s) and cpu_us per operation from the clocks of every process that took part."""
    began, ended = min(c[0] for c in clocks), max(c[1] for c in clocks)
    cpu = sum(c[3] - c[2] for c in clocks) / 1e9
    cpu += more_cpu.between(began, ended) if isinstance(more_cpu, Sampler) else more_cpu
    operations = (rounds - max(1, rounds // WARM_UP)) * per_round
    print(json.dumps({"rate": operations / (ended - began) * 1e9, "cpu_us": cpu / operations * 1e6}), flush=True)
