"""What a hub tells besides errors: progress and side records, the live view, and the report at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgpack

from cosim.core.codec import FrameType, encode
from cosim.core.time import NEVER
from cosim.run.hubfaults import Faults
from cosim.run.hubparts import gather, live_view

BYE_TIMEOUT_S = 3.0
QUERY_TIMEOUT_S = 0.5
REGISTERS_TIMEOUT_S = 2.0
"""For registers also workers at work are asked, which answer between two grants."""


class Telling(Faults):
    """Housekeeping, queries and farewell of a hub."""

    # -- housekeeping --------------------------------------------------------------------------------------------------

    def _horizon(self) -> int:
        """No later side record can have a time below it."""
        return min(min(a, b) for a, b in zip(self._next, self._arrival, strict=True))

    def _housekeeping(self, now: float) -> None:
        horizon = self._horizon()
        self._release_side(horizon)
        self.journal.flush()
        self._tell_refused()
        if len(self._ready) == len(self.names):
            shown = max(self._now) if horizon >= NEVER else horizon
            self.emit(["progress", shown, *self._figures(), self.frames])
        if len(self._ready) < len(self.names) and self._stop is None:
            self._check_join(now)
        for worker, since in self._granted_at.items():
            limit = self._foreign[worker].stall_s if worker in self._foreign else self._stall
            if limit and now - since > limit and worker not in self._stalled:
                self._stalled.add(worker)
                self.emit(["stall", worker, now - since, since, self._now[worker]])
        for number, (deadline, _missing, _found) in list(self._replies.items()):
            if now > deadline:
                self._reply(number)

    def _tell_refused(self) -> None:
        """Name the peers that the link has turned away."""
        for address, reason in self.link.refused_peers:
            self.emit(["refused", address, reason])
        self.link.refused_peers.clear()

    def _check_join(self, now: float) -> None:
        """Say who is late."""
        limits = {
            w: self._foreign[w].wait_s if w in self._foreign else self._join_timeout for w in range(len(self.names))
        }
        late = [w for w, limit in limits.items() if w not in self._ready and now - self._began > limit]
        if late:
            missing = [self.names[w] for w in late]
            self._error(
                "join-timeout",
                f"every worker must be ready within {limits[late[0]]:.0f} s; not ready: {', '.join(missing[:8])}",
                node=missing[0],
                sim_time_ps=0,
                where="start-up",
                next_step="see log.jsonl for what the worker printed; a slow machine needs a longer --join-limit",
                exit_code=4,
            )

    def _release_side(self, horizon: int) -> None:
        for records in self._side.take(horizon):
            self.emit(["side", records])

    # -- the live view -------------------------------------------------------------------------------------------------

    def _query(self, number: int, registers: int) -> None:
        present = self._ready - self._lost - self._foreign.keys()
        asked = present if registers else present - self._granted_at.keys()
        limit = REGISTERS_TIMEOUT_S if registers else QUERY_TIMEOUT_S
        self._replies[number] = (time.monotonic() + limit, set(asked), [])
        for worker in sorted(asked):
            self._send(worker, encode(FrameType.QUERY, number, registers))
        if not asked:
            self._reply(number)

    def _status(self, worker: int, number: int, packed: bytes) -> None:
        # Late for its own question, it is as good for the next one that waits for this worker.
        waiting = (number, *self._replies)
        number = next((n for n in waiting if n in self._replies and worker in self._replies[n][1]), -1)
        if number < 0:
            return
        _deadline, missing, found = self._replies[number]
        found.append(msgpack.unpackb(packed, strict_map_key=False))
        missing.discard(worker)
        if not missing:
            self._reply(number)

    def _reply(self, number: int) -> None:
        _deadline, _missing, found = self._replies.pop(number)
        now = time.monotonic()
        workers = [
            {**w._asdict(), "pid": self._pid.get(w.worker), "running_s": now - self._granted_at.get(w.worker, now)}
            for w in self.barrier.explain()
        ]
        self.emit(["reply", number, {"workers": workers, **live_view(found), "sim_time_ps": self._horizon()}])

    # -- the end -------------------------------------------------------------------------------------------------------

    def _farewell(self, reason: str) -> None:
        """BYE to every worker that can still answer; collect their final reports."""
        self.journal.flush()  # reports may be long in coming, and this process may be killed meanwhile
        deadline = time.monotonic() + BYE_TIMEOUT_S
        if not self._errors and reason not in ("stop", "error"):
            deadline += 60  # a good end is worth waiting for on a loaded machine
        while True:
            open_workers = [w for w in sorted(self._ready) if w not in self._lost and w not in self._finals]
            for worker in open_workers:
                if worker not in self._granted_at and worker not in self._said_bye:
                    self._said_bye.add(worker)
                    self._send(worker, encode(FrameType.BYE, reason, None))
            if not open_workers or time.monotonic() > deadline:
                return
            self._pulse(time.monotonic())
            if self.link.wait(50):
                self._take_commands()
            while (item := self.link.receive()) is not None:
                self._take(*item)

    def _final_reports(self) -> Mapping[int, Any]:
        """The final reports of the workers."""
        return self._finals

    def _report(self, reason: str) -> dict[str, Any]:
        self._tell_refused()
        found = gather(self._final_reports())
        self.messages += found.messages
        for side in found.sides:
            self._side.add(side)
        self._release_side(NEVER)
        complete = len(found.nodes) == len(self.plan.nodes)
        off = complete and all(n["off"] for n in found.nodes.values())
        if off and reason == "until":
            reason = "quiescent"  # the machine was off before that time
        return {
            "reason": reason,
            "off": off,
            "complete": complete,
            "sim_time_ps": self.plan.until if reason == "until" else found.end_time,
            "events": self.events,
            "grants": self.grants,
            "messages": self.messages,
            "frames": self.frames,
            "nodes": found.nodes,
            "registers": found.registers,
            "sent": found.sent,
            "work": found.work,
            "view": [w._asdict() for w in self.barrier.explain()],
        }
