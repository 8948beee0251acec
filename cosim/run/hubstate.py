"""What a hub knows of its run, and what its parts (`hubfaults`, `hubview`, `hub`) share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cosim.core.barrier import Barrier
from cosim.core.plan import Plan
from cosim.core.time import NEVER
from cosim.run.foreign import foreign_nodes
from cosim.run.hubparts import HubLink, Journal, SideRecords

Emit = Callable[[list[Any]], None]


class HubState:
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
        self.journal = Journal(journal, len(plan.groups))
        count = len(plan.groups)
        distances = plan.distances()
        self._returns = distances.returns(plan.groups)
        self.names = [self._worker_name(group) for group in plan.groups]
        until = NEVER if plan.until is None else plan.until
        self.barrier = Barrier(distances.between(plan.groups), until=until, names=self.names)
        self._foreign = foreign_nodes(plan, self._returns, tokens or {}, stall_s)
        self._identity = [f"w{w}".encode() if w not in self._foreign else self.names[w].encode() for w in range(count)]
        self._worker = {identity: worker for worker, identity in enumerate(self._identity)}
        self._pid: dict[int, int] = {}
        self._ready: set[int] = set()
        self._lost: set[int] = set()
        self._blobs: list[list[tuple[int, bytes]]] = [[] for _ in range(count)]
        self._arrival = [NEVER] * count
        self._next = [0] * count
        self._now = [0] * count
        self._granted_at: dict[int, float] = {}
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

    def _worker_name(self, group: tuple[int, ...]) -> str:
        names = [self.plan.nodes[node].name for node in group]
        return names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"

    def _end(self, reason: str) -> None:
        if self._stop is None:
            self._stop = reason

    def _take(self, identity: bytes, data: bytes) -> None:
        raise NotImplementedError

    def _take_commands(self) -> None:
        raise NotImplementedError

    def _send(self, worker: int, frame: bytes) -> None:
        raise NotImplementedError
