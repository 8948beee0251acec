"""What a hub knows of its run, and what its parts (`hubfaults`, `hubview`, `hub`) share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cosim.core.barrier import Barrier
from cosim.core.bounds import Distances
from cosim.core.plan import Plan
from cosim.core.time import NEVER
from cosim.run.foreign import Foreign, foreign_nodes
from cosim.run.hubparts import HubLink, Journal, SideRecords

Emit = Callable[[list[Any]], None]


class HubState(ABC):
    """State of a run at the hub.

    Args:
        plan: the resolved plan; worker i hosts ``plan.groups[i]`` and is called ``w<i>``.
        link: the hub's end of the links to the workers.
        emit: takes events for the supervisor.
        journal: folder for the journals, or None.
        commands: takes the supervisor's pending commands; called when `link.wait` says that there are any.
        join_timeout_s: wall-clock limit for all workers to be ready.
        stall_s: wall-clock limit of one grant before the supervisor is asked to look at the worker; 0 is off.
        tokens: what the HELLO of each foreign node must show, by name.
    """

    passing: ClassVar[bool] = True
    """Whether its workers may grant each other: not those that are hubs, nor those that a host's hub has windows for."""

    def __init__(
        self,
        plan: Plan,
        link: HubLink,
        emit: Emit,
        *,
        journal: Path | None = None,
        commands: Callable[[], list[list[Any]]] = list,
        join_timeout_s: float = 60.0,
        stall_s: float = 30.0,
        tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self.link = link
        self.emit = emit
        self.commands = commands
        self.served = self._served()
        self.groups = [plan.groups[number] for number in self.served]
        self.journal = self._journal(journal)
        count = len(self.groups)
        distances = plan.distances()
        self._returns = distances.returns(plan.groups)
        self.names = [self._worker_name(group) for group in self.groups]
        self.barrier = self._barrier(distances)
        self._foreign = self._foreign_workers(tokens or {}, stall_s)
        self._identity = [self._called(worker).encode() for worker in range(count)]
        self._worker = {identity: worker for worker, identity in enumerate(self._identity)}
        self._usual = {name: worker for name, worker in self._worker.items() if worker not in self._foreign}
        self._pid: dict[int, int] = {}
        self._ready: set[int] = set()
        self._lost: set[int] = set()
        self._blobs: list[list[tuple[int, bytes]]] = [[] for _ in range(count)]
        self._arrival = [NEVER] * count
        self._next = [0] * count
        self._now = [0] * count
        self._granted_at: dict[int, float] = {}
        self._passes = self.passing and count > 1 and getattr(link, "passes", False)
        self._baton: int | None = None  # the worker that has it, as far as is known
        self._early: dict[
            int, deque[tuple[tuple[Any, ...], bytes, int, int]]
        ] = {}  # answers before those that they follow
        self._stalled: set[int] = set()
        self._side = SideRecords()
        self._finals: dict[int, Any] = {}
        self._replies: dict[int, tuple[float, set[int], list[Any]]] = {}
        self._said_bye: set[int] = set()
        self._stop: str | None = None
        self._errors = 0
        self.events = self.grants = self.messages = self.frames = 0
        self._began = time.monotonic()
        self._join_timeout = join_timeout_s
        self._stall = stall_s
        self._next_progress = 0.0

    # What differs between a hub that serves all workers, a host's, and the root over hosts:

    def _served(self) -> Sequence[int]:
        """Numbers in the plan of those that join here. The hub itself counts them from 0."""
        return range(len(self.plan.groups))

    def _barrier(self, distances: Distances) -> Barrier:
        until = NEVER if self.plan.until is None else self.plan.until
        return Barrier(distances.between(self.plan.groups), until=until, names=self.names)

    def _journal(self, folder: Path | None) -> Journal:
        return Journal(folder, len(self.groups))

    def _foreign_workers(self, tokens: Mapping[str, str], stall_s: float) -> dict[int, Foreign]:
        return foreign_nodes(self.plan, self._returns, tokens, stall_s)

    def _called(self, worker: int) -> str:
        """The name under which a worker connects."""
        number = self.served[worker]
        return f"w{number}" if worker not in self._foreign else self.names[worker]

    def _plan_of(self, worker: int) -> bytes:
        """What its WELCOME carries."""
        number = self.served[worker]
        distances = self.barrier.distances(worker) if self._passes else ()
        return self.plan.worker_plan(number, dict(self._returns[number]), distances).to_msgpack()

    def _figures(self) -> tuple[int, int, int]:
        """Events, grants and messages so far."""
        return self.events, self.grants, self.messages

    def _pulse(self, now: float) -> None:  # noqa: B027  most hubs have nothing to do there
        """Called again and again while the hub waits for final reports."""

    def _worker_name(self, group: tuple[int, ...]) -> str:
        names = [self.plan.nodes[node].name for node in group]
        return names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"

    def _end(self, reason: str) -> None:
        if self._stop is None:
            self._stop = reason

    # Of the hub at work, for its parts:

    @abstractmethod
    def _take(self, identity: bytes, data: bytes) -> None:
        """Account for a frame."""

    @abstractmethod
    def _take_commands(self) -> None:
        """Do what the supervisor asks."""

    @abstractmethod
    def _send(self, worker: int, frame: bytes) -> None:
        """Send to a worker; one that can't be reached is told to the supervisor."""
