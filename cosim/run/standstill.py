"""A run in one process (``--workers 0``): whether a model holds the worker's thread in one event for ever.

Such a run may take minutes for one grant and be well: what counts is whether events are finished. The thread is looked at from
another one of the process, without any effect on it; a call into C that keeps the interpreter's lock is seen by nobody.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from cosim.core.kernel import Kernel
from cosim.core.time import fmt
from cosim.node.worker import Worker

_ASLEEP = 0.01
"""A thread that has used no more than this part of a limit slept through it."""
_STARVED = 0.5
"""Nor is it one if it has waited for a CPU for this part of the limit."""


class Look(NamedTuple):
    """A worker's thread at one moment: what it has done, CPU seconds used and waited for, and the line where it is."""

    node: str
    now: int
    done: list[tuple[int, int]]
    cpu_s: float
    waited_s: float
    place: str


def look(worker: Worker, thread: threading.Thread) -> Look | None:
    """Look at a worker's thread; None when it is not in an event."""
    kernel: Kernel | None = getattr(worker, "kernel", None)  # not there before the worker has joined
    current = None if kernel is None else kernel.current
    if kernel is None or current is None or thread.ident is None or not thread.is_alive():
        return None
    cpu = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    frame = sys._current_frames().get(thread.ident)
    return Look(current.name, kernel.now, kernel.work(), cpu, _waited(thread), _place(frame))


def _waited(thread: threading.Thread) -> float:
    """Seconds that a thread has waited for a CPU; 0 where the kernel does not count them."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _place(frame: FrameType | None) -> str:
    """``file:line`` where a thread is."""
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Standstill:
    """Judges the grants that take long, by worker.

    Args:
        limit_s: wall-clock limit of one event in seconds.
        free: nodes for which it does not hold.
    """

    def __init__(self, limit_s: float, free: Sequence[str] = ()) -> None:
        self._limit = limit_s
        self._free = frozenset(free)
        self._last: dict[int, Look] = {}

    def judge(self, worker: int, now: Look | None) -> dict[str, Any] | None:
        """The error if nothing was finished since the last look, at least a limit ago, and the machine is not to blame."""
        before = self._last.pop(worker, None)
        if now is None:
            return None
        self._last[worker] = now
        if before is None or before[:3] != now[:3] or now.node in self._free:
            return None
        cpu, waited = now.cpu_s - before.cpu_s, now.waited_s - before.waited_s
        slept = cpu <= _ASLEEP * self._limit and waited < _STARVED * self._limit
        if cpu < self._limit * 0.9 and not slept:
            self._last[worker] = before  # a loaded machine: it gets the rest of its time
            return None
        return {
            "what": f"{now.node} must end each of its events within {self._limit:.0f} s, and is still in one of "
            f"{fmt(now.now)} of simulated time ({cpu:.1f} s of CPU since the last look)",
            "node": now.node,
            "sim_time_ps": now.now,
            "where": f"{now.place}, pid {os.getpid()}",
            "next_step": "look at that line: a loop that never ends, or a call that waits; a longer limit is --stall-limit, 0 "
            f"switches it off; --no-limit {now.node} does so for it alone",
        }
