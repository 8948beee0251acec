"""The hub: a blocking loop between workers and the supervisor; time barrier, router and journal of one host.

The loop never touches a message: it takes DONE frames, lets `cosim.core.barrier` decide who may run, and passes each batch on
as the opaque blob that it is. Everything that people look at (console text, log events, progress) goes to the supervisor as
plain lists through `emit`; commands of the supervisor come in through `command`. The hub's death ends the run.

Events for the supervisor (lists; first item the name):
    joined worker pid | running | progress sim_time events grants messages | side [records in order]
    unreachable worker text (to be answered by `lost`)
    error {code what where node sim_time_ps next_step traceback exit_code}
    stall worker seconds since sim_time (to be answered by `release` or `stalled`)
    reply number {view} | end {report}
Commands: stop reason | lost worker text | query number registers | release worker (a stall was excused) |
    stalled worker since {error} (it was not)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

from cosim.core.barrier import Barrier, Out, ProtocolViolation
from cosim.core.codec import LIMITS, VERSION, Frame, FrameType, WireError, decode, encode
from cosim.core.plan import Plan
from cosim.core.time import NEVER, fmt
from cosim.link.base import LinkClosed
from cosim.run.foreign import Refusal, foreign_nodes, frame_text
from cosim.run.hubparts import HubLink, Journal, SideRecords, gather, grant_frames, journal_error, live_view, place_of

PROGRESS_S = 0.1
BYE_TIMEOUT_S = 3.0
QUERY_TIMEOUT_S = 0.5
LAST_WORDS_S = 0.5

_OWN_FAULTS = ("bad-frame", "forged-source", "message-in-the-past", "bad-link")

_DONE = FrameType.DONE  # bound once: an attribute of an enum class costs a call each time

Emit = Callable[[list[Any]], None]


class Hub:
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

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the run is over, one way or another; the last event is ``end``."""
        try:
            while not self._finished():
                self._step()
            reason = self._stop or self._reason()
            self._farewell(reason)
            self._release_side(NEVER)
            self.emit(["end", self._report(reason)])
        finally:
            self.journal.close()

    def _finished(self) -> bool:
        return self._stop is not None or (len(self._ready) == len(self.names) and self.barrier.idle)

    def _reason(self) -> str:
        return "until" if self.barrier.reached_until else "quiescent"

    def _step(self) -> None:
        timeout = int(PROGRESS_S * 1000)
        if self.link.wait(timeout):
            self._take_commands()
        while (item := self.link.receive()) is not None:
            self._take(*item)
            if self._stop is None and not self._granted_at and self._ready:
                break  # all reports are in: another receive would only find nothing
        for identity in self.link.closed:
            if identity in self._worker:
                self.emit(["unreachable", self._worker[identity], "its connection ended"])
        self.link.closed.clear()
        for identity in self.link.twice:
            if (worker := self._worker.get(identity)) in self._foreign:
                self._fault(worker, "duplicate", f"a second connection came under the name {identity.decode()}")
        self.link.twice.clear()
        if self._stop is None:
            self._grant()
        now = time.monotonic()
        if self.journal.fault is not None and self._stop is None:
            self._error("run-dir", **journal_error(self.journal.fault, max(self._now)))
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_S
            self._housekeeping(now)

    def _take_commands(self) -> None:
        for command in self.commands():
            name, *args = command
            if name == "stop":
                self._end(args[0])
            elif name == "lost":
                self._last_words(args[0])
                self._lose(*args)
            elif name == "query":
                self._query(*args)
            elif name == "release":
                self._stalled.discard(args[0])
                if args[0] in self._granted_at:  # else it has answered meanwhile
                    self._granted_at[args[0]] = time.monotonic()
            elif name == "stalled":
                self._stalled.discard(args[0])
                if self._granted_at.get(args[0]) == args[1]:
                    self._error("worker-stalled", exit_code=4, **args[2])

    def _end(self, reason: str) -> None:
        if self._stop is None:
            self._stop = reason

    # -- frames --------------------------------------------------------------------------------------------------------

    def _take(self, identity: bytes, data: bytes) -> None:
        self.frames += 1
        worker = self._worker.get(identity)
        if worker is None:
            self._stranger(identity, data)
            return
        if worker in self._foreign and worker in self._lost:
            return  # one message says what it did
        shown = f"; {frame_text(data)}" if worker in self._foreign else ""
        try:
            frame = decode(data)
            self._handle(worker, frame, data)
        except WireError as error:
            self._fault(worker, "bad-frame", f"{error}{shown}")
        except ProtocolViolation as error:
            self._fault(error.worker, error.rule, f"{error.text}{shown}")
        except Refusal as error:
            self._refuse(identity, error.code, error.what)
            self._fault(worker, error.code, f"its HELLO was refused: {error.what}{shown}")

    def _stranger(self, identity: bytes, data: bytes) -> None:
        """A frame from somebody of another name; while a foreign node is awaited that is most likely it."""
        open_names = [f.name for f in self._foreign.values() if not f.joined]
        what = f"routing id must be the name of a node that is awaited ({', '.join(open_names) or 'none'}), not {identity!r}"
        self._refuse(identity, "unknown-name", what)
        for worker, foreign in self._foreign.items():
            if not foreign.joined:
                return self._fault(worker, "unknown-name", f"{what}; {frame_text(data)}")

    def _refuse(self, identity: bytes, code: str, what: str) -> None:
        with suppress(LinkClosed):
            self.link.send(identity, encode(FrameType.REFUSED, code, what))

    def _handle(self, worker: int, frame: Frame, data: bytes) -> None:
        if frame.type is _DONE:
            self._done(worker, frame.body, data)
        elif frame.type is FrameType.HELLO:
            self._hello(worker, frame.body)
        elif frame.type is FrameType.READY:
            self._set_ready(worker, *frame.body)
        elif frame.type is FrameType.LOG:
            if worker in self._foreign:
                self._foreign[worker].check_side(frame.body[0])
            self._side.add(frame.body[0])
        elif frame.type is FrameType.ERROR:
            self._model_error(worker, frame.body)
        elif frame.type is FrameType.BYE and worker in self._foreign:
            if worker not in self._said_bye:
                raise ProtocolViolation("order", "BYE must not come before the hub's", worker)
            final = self._finals[worker] = self._foreign[worker].final(frame.body[1])
            self.events += final[1]
        elif frame.type is FrameType.BYE:
            self._finals[worker] = msgpack.unpackb(frame.body[1], strict_map_key=False)
        elif frame.type is FrameType.STATUS and worker not in self._foreign:
            self._status(worker, *frame.body)
        else:
            raise WireError(f"a hub must not get {frame.type.name}")

    def _hello(self, worker: int, body: tuple[Any, ...]) -> None:
        version, name, _kind, pid, _options = body
        identity = self._identity[worker]
        if worker in self._foreign:
            self._pid[worker] = pid
            self._welcome(worker, self._foreign[worker].admit(body))
            return
        if version[:1] != VERSION[:1]:
            self.link.send(
                identity, encode(FrameType.REFUSED, "version", f"protocol version must be {VERSION}, not {version}")
            )
            return
        if worker in self._pid:
            self._fault(worker, "duplicate", f"a second HELLO came for {name}")
            return
        self._pid[worker] = pid
        self._welcome(worker, self.plan.worker_plan(worker, dict(self._returns[worker])).to_msgpack())

    def _welcome(self, worker: int, plan: bytes) -> None:
        self._send(worker, encode(FrameType.WELCOME, VERSION, plan, [LIMITS.max_frame, LIMITS.max_messages]))
        self.emit(["joined", worker, self._pid[worker]])

    def _set_ready(self, worker: int, next_event: int, next_out: int) -> None:
        if worker in self._foreign:
            self._foreign[worker].ready(next_event, next_out)
        self.barrier.ready(worker, next_event, next_out)
        self._next[worker] = next_event
        self._ready.add(worker)
        if len(self._ready) == len(self.names):
            self.emit(["running"])

    def _done(self, worker: int, body: tuple[Any, ...], data: bytes) -> None:
        seq, now, next_event, next_out, events, batches, side = body
        if worker in self._foreign:
            batches, events = self._foreign[worker].answered(body), 0
        if any(not 0 <= b[0] < len(self.names) or b[0] == worker for b in batches):
            raise WireError(
                f"a batch must be for another worker of 0..{len(self.names) - 1}, not {[b[0] for b in batches]}"
            )
        self.barrier.report(worker, seq, now, next_event, next_out, [Out(*b[:3]) for b in batches])
        self.journal.add(worker, b"D", data)
        self._granted_at.pop(worker, None)
        self._now[worker] = now
        self._next[worker] = next_event
        self.events += events
        for dst, arrival, _wake, blob in batches:
            self._blobs[dst].append((worker, blob))
            self._arrival[dst] = min(self._arrival[dst], arrival)
        if side is not None:
            self._side.add(side)

    def _grant(self) -> None:
        for worker, seq, bound in self.barrier.grants():
            if worker in self._foreign:
                self._foreign[worker].granted(self._blobs[worker])
            frames = grant_frames(seq, bound, self._blobs[worker], whole=worker in self._foreign)
            self._next[worker] = min(self._next[worker], self._arrival[worker])
            self._blobs[worker] = []
            self._arrival[worker] = NEVER
            self._granted_at[worker] = time.monotonic()
            self.grants += 1
            for frame in frames:
                self.journal.add(worker, b"G", frame)
                self._send(worker, frame)

    def _send(self, worker: int, frame: bytes) -> None:
        try:
            self.link.send(self._identity[worker], frame)
        except LinkClosed as error:
            # The supervisor knows how the process ended and answers with `lost`.
            self.emit(["unreachable", worker, str(error)])

    def _last_words(self, worker: int) -> None:
        """Take what a process that has ended had sent before: its report or its error says more than its end."""
        identity, deadline = self._identity[worker], time.monotonic() + LAST_WORDS_S
        while worker not in self._lost and worker not in self._finals:
            item = self.link.receive()
            if item is not None:
                self._take(*item)
            elif not self.link.joined(identity) or time.monotonic() > deadline:
                return

    # -- faults --------------------------------------------------------------------------------------------------------

    def _lose(self, worker: int, text: str) -> None:
        if worker in self._lost or worker in self._finals:
            return
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        if worker in self._ready:
            self.barrier.lost(worker)
        blocked = [w.name for w in self.barrier.explain() if worker in w.chain or w.limiter == worker]
        self._error(
            "worker-lost",
            f"worker process of {self._nodes_text(worker)} is gone: {text}; its last simulated time was {fmt(self._now[worker])}",
            node=self.plan.nodes[self.plan.groups[worker][0]].name,
            sim_time_ps=self._now[worker],
            where=f"worker w{worker}, pid {self._pid.get(worker, 'unknown')}",
            next_step="see log.jsonl and the journal in the run directory; waiting for it: "
            + (", ".join(blocked[:8]) or "nobody"),
            exit_code=4,
        )

    def _fault(self, worker: int, rule: str, text: str) -> None:
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        self._error(
            rule,
            f"{self._nodes_text(worker)} broke a rule of the protocol ({rule}): {text}",
            node=self.plan.nodes[self.plan.groups[worker][0]].name,
            sim_time_ps=self._now[worker],
            where=f"worker w{worker}",
            next_step="docs/attach.md explains the rule, `cosim conform` shows it to you alone"
            if worker in self._foreign
            else "docs/protocol.md explains the rule; a Python worker that breaks it is a fault of cosim: please report it",
            exit_code=4,
        )

    def _model_error(self, worker: int, body: tuple[Any, ...]) -> None:
        code, node, sim_time, what, text = body
        self._lost.add(worker)
        self._granted_at.pop(worker, None)
        self._error(
            code,
            f"model {node} failed at {fmt(sim_time)}: {what}",
            node=node,
            sim_time_ps=sim_time,
            where=place_of(text),
            next_step="its traceback is in log.jsonl (cosim logs NODE); mend the model, or report it if it is one of cosim's",
            traceback=text,
            exit_code=4 if worker in self._foreign else 5 if code in _OWN_FAULTS else 3,
        )

    def _error(self, code: str, what: str, *, exit_code: int, **fields: Any) -> None:
        self._errors += 1
        self.emit(["error", {"code": code, "what": what, "exit_code": exit_code, **fields}])
        self._end("error")

    def _nodes_text(self, worker: int) -> str:
        names = [self.plan.nodes[node].name for node in self.plan.groups[worker]]
        return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more nodes"

    # -- housekeeping --------------------------------------------------------------------------------------------------

    def _horizon(self) -> int:
        """No later side record can have a time below it."""
        return min(min(a, b) for a, b in zip(self._next, self._arrival, strict=True))

    def _housekeeping(self, now: float) -> None:
        horizon = self._horizon()
        self._release_side(horizon)
        self.journal.flush()
        if len(self._ready) == len(self.names):
            shown = max(self._now) if horizon >= NEVER else horizon
            self.emit(["progress", shown, self.events, self.grants, self.messages])
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
                next_step="see log.jsonl for what the worker printed; a slow machine needs a longer --join-timeout",
                exit_code=4,
            )

    def _release_side(self, horizon: int) -> None:
        for records in self._side.take(horizon):
            self.emit(["side", records])

    # -- the live view -------------------------------------------------------------------------------------------------

    def _query(self, number: int, registers: int) -> None:
        asked = {w for w in self._ready if w not in self._granted_at and w not in self._lost and w not in self._foreign}
        self._replies[number] = (time.monotonic() + QUERY_TIMEOUT_S, set(asked), [])
        for worker in sorted(asked):
            self._send(worker, encode(FrameType.QUERY, number, registers))
        if not asked:
            self._reply(number)

    def _status(self, worker: int, number: int, packed: bytes) -> None:
        entry = self._replies.get(number)
        if entry is None:
            return
        entry[2].append(msgpack.unpackb(packed, strict_map_key=False))
        entry[1].discard(worker)
        if not entry[1]:
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
        deadline = time.monotonic() + BYE_TIMEOUT_S
        if not self._errors and reason != "stop":
            deadline += 60  # a good end is worth waiting for on a loaded machine
        while True:
            open_workers = [w for w in sorted(self._ready) if w not in self._lost and w not in self._finals]
            for worker in open_workers:
                if worker not in self._granted_at and worker not in self._said_bye:
                    self._said_bye.add(worker)
                    self._send(worker, encode(FrameType.BYE, reason, None))
            if not open_workers or time.monotonic() > deadline:
                return
            if self.link.wait(50):
                self._take_commands()
            while (item := self.link.receive()) is not None:
                self._take(*item)

    def _report(self, reason: str) -> dict[str, Any]:
        found = gather(self._finals)
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
