"""The root hub: a hub whose workers are the hubs of hosts.

Time barrier, routing, side records and the end of a run are those of every hub. What is its own: a host is admitted once, by its
incarnation; it must be heard from within `silence_s`, whatever its workers do; its reports are those of many workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cosim.core.codec import VERSION, Frame, FrameType, WireError, encode
from cosim.core.plan import Plan
from cosim.core.time import fmt
from cosim.run.foreign import Foreign
from cosim.run.hostview import merge_waits
from cosim.run.hostwire import HEARTBEAT, RECEIVED, error_fields, pack_welcome, unpack_beat, unpack_reports
from cosim.run.hub import Hub
from cosim.run.hubparts import HubLink, Journal, live_view
from cosim.run.hubview import REGISTERS_TIMEOUT_S

HEARTBEAT_S = 0.5
QUERY_TIMEOUT_S = 1.2
HOST_BYE_S = 5.0
"""For the final reports of a run that failed: a host waits three seconds for its workers'."""
LOST_BYE_S = 0.5
"""The same once a host was lost: its silence has cost seconds already, and what a worker that computes would report is not whole
without the lost host's. Journals are written by the hosts before they wait for anybody."""
NODES_SHOWN = 40


class RootHub(Hub):
    """The root hub at work.

    Args:
        plan: the whole plan, with `hosts`.
        link, emit, others: as of every hub; see `cosim.run.hubstate`.
        orders: what each host must know besides its plan (limits, link, start), the same for all.
        silence_s: how long a host that has joined may be silent.
        stall_s: as the hosts' hubs use it.
        incarnations: by host, the number that its HELLO must show.
        placing_s: how long the engine may take until it has placed the hosts (command ``placed``); the limit for all to be ready
            counts from then on.
    """

    passing = False

    def __init__(
        self,
        plan: Plan,
        link: HubLink,
        emit: Callable[[list[Any]], None],
        *,
        orders: Mapping[str, Any],
        silence_s: float = 3.0,
        incarnations: Mapping[str, int] | None = None,
        placing_s: float = 0.0,
        **others: Any,
    ) -> None:
        self.whole = plan
        self._hosts = plan.hosts
        self._orders = dict(orders)
        groups = tuple(
            tuple(sorted(node for worker in host.workers for node in plan.groups[worker])) for host in plan.hosts
        )
        others["stall_s"] = 0.0  # a host that computes sends heartbeats; a worker that stalls is its host's to see
        super().__init__(plan._replace(groups=groups, hosts=()), link, emit, **others)
        self._usual = {}  # every frame of a host is looked at: it is a sign of life
        self._began += placing_s
        self.silence_s = silence_s
        self._incarnations = dict(incarnations or {})
        self._heard: dict[int, float] = {}
        self._beating: set[int] = (
            set()
        )  # before its first heartbeat a host works out its distances; the join limit stands
        self._looked = time.monotonic()
        self._next_beat = 0.0
        self._seen: dict[int, tuple[int, int, int]] = {}  # events, grants, messages by host
        self._ahead: dict[int, list[Any]] = {}  # by host: batches that came before their DONE
        self._answered: dict[int, int] = {}  # sequence number of each host's last answer
        self.sent = 0
        self._worker_finals: list[Any] = []
        self._waits: dict[int, dict[int, list[dict[str, Any]]]] = {}  # by query, by host

    # -- where it differs from the hub of a run on one machine ---------------------------------------------------------

    def _worker_name(self, group: tuple[int, ...]) -> str:
        return self._hosts[self.plan.groups.index(group)].name

    def _journal(self, folder: Path | None) -> Journal:
        return Journal(None, 0)  # each host keeps those of its workers

    def _foreign_workers(self, tokens: Mapping[str, str], stall_s: float) -> dict[int, Foreign]:
        return {}  # foreign nodes are their hosts'

    def _called(self, worker: int) -> str:
        return self._hosts[worker].name

    def _plan_of(self, worker: int) -> bytes:
        part = self.whole.host_part(worker)
        return pack_welcome({**self._orders, "plan": part.to_dict(), "host": worker})

    def _figures(self) -> tuple[int, int, int]:
        events, grants, messages = (sum(figures) for figures in zip((0, 0, 0), *self._seen.values(), strict=True))
        return events, grants, messages

    # -- frames --------------------------------------------------------------------------------------------------------

    def _take(self, identity: bytes, data: bytes) -> None:
        worker = self._worker.get(identity)
        if worker in self._heard:
            self._heard[worker] = time.monotonic()
        super()._take(identity, data)

    def _stranger(self, identity: bytes, data: bytes) -> None:
        awaited = ", ".join(host.name for host in self._hosts)
        what = f"name must be that of a host of this run ({awaited}), not {identity!r}"
        self._refuse(identity, "unknown-name", what)
        self.emit(["refused", identity.decode(errors="backslashreplace"), what])

    def _hello(self, worker: int, body: tuple[Any, ...]) -> None:
        version, name, kind, pid, options = body
        wanted = self._incarnations.get(name)
        if version[:1] != VERSION[:1]:
            return self._turn_away(worker, "version", f"protocol version must be {VERSION}, not {version}")
        if kind != "host" or name != self._hosts[worker].name:
            return self._turn_away(
                worker, "unknown-name", f"HELLO must be of host {self._hosts[worker].name}, not {kind} {name}"
            )
        if wanted is not None and options.get("incarnation") != wanted:
            what = (
                f"incarnation of {name} must be {wanted}, not {options.get('incarnation')!r}: it belongs to another run"
            )
            return self._turn_away(worker, "incarnation", what)
        if worker in self._pid:
            return self._turn_away(worker, "duplicate", f"{name} has joined already: a second HELLO must not come")
        self._pid[worker] = pid
        self._heard[worker] = time.monotonic()
        self._welcome(worker, self._plan_of(worker))
        self.emit(["host", name, {"pid": pid, **{k: str(options.get(k, "")) for k in ("machine", "folder")}}])

    def _turn_away(self, worker: int, code: str, what: str) -> None:
        self._refuse(self._identity[worker], code, what)
        self.emit(["refused", self._hosts[worker].name, what])

    def _model_error(self, worker: int, body: tuple[Any, ...]) -> None:
        """A host's ERROR: of a model or a process there; the host lives and will still report."""
        code, node, sim_time, what, text = body
        fields = error_fields(text)
        self._error(code, what, node=node or None, sim_time_ps=sim_time, **fields)

    def _status(self, worker: int, number: int, packed: bytes) -> None:
        if number == HEARTBEAT:
            return self._beat(worker, packed)
        reports, last = unpack_reports(packed)
        entry = self._replies.get(number)
        if entry is None:
            return
        entry[2].extend(reports)
        if last is not None:
            self._waits.setdefault(number, {})[worker] = last["waits"]
            entry[1].discard(worker)
            if not entry[1]:
                self._reply(number)

    def _beat(self, worker: int, packed: bytes) -> None:
        seq, horizon, now, events, grants, messages = unpack_beat(packed)
        self._beating.add(worker)
        self._seen[worker] = events, grants, messages
        if worker in self._granted_at and seq == self._answered.get(worker, 0) + 1:
            # All below its horizon has been executed there, and its side records were sent before this.
            self._next[worker] = max(self._next[worker], horizon)
            self._now[worker] = max(self._now[worker], min(now, horizon))

    def _done(self, worker: int, body: tuple[Any, ...], data: bytes) -> None:
        seq, now, next_event, next_out, events, batches, side = body
        if not seq:  # too much for one frame: it belongs to the answer that follows
            if worker not in self._granted_at:
                raise WireError("DONE of sequence number 0 must come before the answer to a grant, and none is out")
            self._ahead.setdefault(worker, []).extend(batches)
            return
        batches = [*self._ahead.pop(worker, ()), *batches]
        super()._done(worker, (seq, now, next_event, next_out, events, batches, side), data)
        self._answered[worker] = body[0]

    def _handle(self, worker: int, frame: Frame, data: bytes) -> None:
        if frame.type is FrameType.BYE:
            reports, last = unpack_reports(frame.body[1])
            self._worker_finals += reports
            if last is not None:
                self._finals[worker] = last
                self._seen[worker] = last["events"], last["grants"], 0
                self._send(worker, encode(FrameType.BYE, RECEIVED, None))
        else:
            super()._handle(worker, frame, data)

    def _send(self, worker: int, frame: bytes) -> None:
        self.sent += 1
        super()._send(worker, frame)

    # -- hosts that are silent -----------------------------------------------------------------------------------------

    def _housekeeping(self, now: float) -> None:
        self._pulse(now)
        super()._housekeeping(now)

    def _pulse(self, now: float) -> None:
        """Send heartbeats when they are due, and see which host has been silent for too long."""
        gap, self._looked = now - self._looked, now
        if gap > 1.0:  # this process was held up, and what came meanwhile was not read
            for worker in self._heard:
                self._heard[worker] += gap
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_S
            for worker in self._present():
                self._send(worker, encode(FrameType.QUERY, HEARTBEAT, 0))
        for worker in self._present():
            silent = now - self._heard[worker]
            if worker in self._beating and silent > self.silence_s:
                self._lose(
                    worker,
                    f"nothing was heard of it for {silent:.1f} s, and a host must be heard within {self.silence_s:g} s",
                )

    def _present(self) -> list[int]:
        return [worker for worker in sorted(self._heard) if worker not in self._lost and worker not in self._finals]

    def _lose(self, worker: int, text: str) -> None:
        if not self._strike(worker):
            return
        host = self._hosts[worker]
        names = [self.plan.nodes[node].name for node in self.groups[worker]]
        more = f" and {len(names) - NODES_SHOWN} more" if len(names) > NODES_SHOWN else ""
        place = f" ({host.address})" if host.address else ""
        self._error(
            "host-lost",
            f"host {host.name}{place} is gone with its nodes {', '.join(names[:NODES_SHOWN])}{more}: {text}; its last simulated "
            f"time was {fmt(self._now[worker])}",
            node=names[0],
            sim_time_ps=self._now[worker],
            where=f"host {host.name}{place}, pid {self._pid.get(worker, 'unknown')}",
            next_step="see its log in hosts/ of the run directory; if it was only slow, give it a longer --host-limit",
            exit_code=4,
        )

    # -- views and the end ---------------------------------------------------------------------------------------------

    def _query(self, number: int, registers: int) -> None:
        asked = set(self._present()) & self._ready
        limit = QUERY_TIMEOUT_S + (REGISTERS_TIMEOUT_S if registers else 0)  # hosts wait for their workers
        self._replies[number] = (time.monotonic() + limit, set(asked), [])
        for worker in sorted(asked):
            self._send(worker, encode(FrameType.QUERY, number, registers))
        if not asked:
            self._reply(number)

    def _reply(self, number: int) -> None:
        _deadline, _missing, found = self._replies.pop(number)
        waits = merge_waits(self.whole, self.barrier.explain(), self._waits.pop(number, {}))
        self.emit(["reply", number, {"workers": waits, **live_view(found), "sim_time_ps": self._horizon()}])

    def _farewell(self, reason: str) -> None:
        """BYE to every host, also to one that computes; collect the final reports of its workers."""
        began, limit = time.monotonic(), HOST_BYE_S
        if not self._errors and reason not in ("stop", "error"):
            limit += 60  # a good end is worth waiting for on a loaded machine
        for worker in self._present():
            self._send(worker, encode(FrameType.BYE, reason, None))
        while self._present() and time.monotonic() - began < (LOST_BYE_S if self._lost else limit):
            self._pulse(time.monotonic())
            if self.link.wait(50):
                self._take_commands()
            while (item := self.link.receive()) is not None:
                self._take(*item)
            if self.link.closed:
                self._connections()

    def _final_reports(self) -> Mapping[int, Any]:
        return dict(enumerate(self._worker_finals))

    def _report(self, reason: str) -> dict[str, Any]:
        report = super()._report(reason)
        waits = {worker: last["waits"] for worker, last in self._finals.items()}
        rounds = self.grants
        report["events"], report["grants"], _ = self._figures()
        report["view"] = merge_waits(self.whole, self.barrier.explain(), waits)
        report["hosts"] = {"grants": rounds, "frames_up": self.frames, "frames_down": self.sent}
        return report
