"""The hub: a blocking loop between workers and the supervisor; time barrier, router and journal of one host.

The loop never touches a message: it takes DONE frames, lets `cosim.core.barrier` decide who may run, and passes each batch on
as the opaque blob that it is. Everything that people look at (console text, log events, progress) goes to the supervisor as
plain lists through `emit`; commands of the supervisor come in through `command`. The hub's death ends the run.

Events for the supervisor (lists; first item the name):
    joined worker pid | running | progress sim_time events grants messages frames | side [records in order]
    unreachable worker text (to be answered by `lost`)
    error {code what where node sim_time_ps next_step traceback exit_code}
    stall worker seconds since sim_time (to be answered by `release` or `stalled`)
    reply number {view} | end {report}
Commands: stop reason | lost worker text | query number registers | release worker (a stall was excused) |
    stalled worker since {error} (it was not) | placed (the engine has started the hosts: the join limit counts from here)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgpack

from cosim.core.barrier import ProtocolViolation
from cosim.core.codec import (
    LIMITS,
    PASSED_PREFIX,
    PREFIX_SIZE,
    QUICK_SIZE,
    VERSION,
    Frame,
    FrameType,
    WireError,
    decode,
    encode,
    quick_done,
    quick_own,
)
from cosim.core.time import NEVER
from cosim.link.base import LinkClosed
from cosim.run.foreign import Refusal, frame_text
from cosim.run.hubparts import grant_frames, journal_error
from cosim.run.hubview import Telling

_LEAD = FrameType.LEAD  # bound once: an attribute of an enum class costs a call each time

EARLY_FRAMES = 1 << 20
"""Answers of one worker that may come before those of the workers that had the baton before it."""
PROGRESS_S = 0.1
PROGRESS_MS = 100
STEP_FRAMES = 10_000
"""Frames after which the hub sees to its other duties, however many are there: a peer may send faster than they are read."""


class Hub(Telling):
    """A hub at work: frames in, grants out; see `HubState` for its arguments."""

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the run is over, one way or another; the last event is ``end``."""
        try:
            while self._granted_at or not self._finished():
                self._step()
                if self._stop is not None:
                    break
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
        link = self.link
        if link.wait(PROGRESS_MS):
            self._take_commands()
        receive, usual = link.receive, self._usual
        for _ in range(STEP_FRAMES):
            item = receive()
            if item is None:
                break
            identity, data = item
            worker = usual.get(identity)
            body = quick_done(data) if worker is not None and self._baton is None else None
            if worker is None or body is None:
                self._take(identity, data)
            else:
                self.frames += 1
                try:
                    self._done(worker, body, data)
                except ProtocolViolation as error:
                    self._fault(error.worker, error.rule, error.text)
            if not self._granted_at and self._stop is None and self._ready:
                break  # all reports are in: another receive would only find nothing
        if link.closed or link.twice:
            self._connections()
        if self._stop is None:
            self._grant()
        now = time.monotonic()
        if self.journal.fault is not None and self._stop is None:
            self._error("run-dir", **journal_error(self.journal.fault, max(self._now)))
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_S
            self._housekeeping(now)

    def _connections(self) -> None:
        """What the link says of those that went, or came twice."""
        for identity in self.link.closed:
            if identity in self._worker:
                self.emit(["unreachable", self._worker[identity], "its connection ended"])
        self.link.closed.clear()
        for identity in self.link.twice:
            if (worker := self._worker.get(identity)) in self._foreign:
                self._fault(worker, "duplicate", f"a second connection came under the name {identity.decode()}")
        self.link.twice.clear()

    def _take_commands(self) -> None:
        for command in self.commands():
            name, *args = command
            if name == "stop":
                self._end(args[0])
            elif name == "lost":
                self._last_words(args[0])
                self._lose(*args)
            elif name == "placed":
                self._began = time.monotonic()
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

    # -- frames --------------------------------------------------------------------------------------------------------

    def _take(self, identity: bytes, data: bytes) -> None:
        self.frames += 1
        worker = self._worker.get(identity)
        if worker is None:
            self._stranger(identity, data)
            return
        if worker in self._foreign and worker in self._lost:
            return  # one message says what it did
        try:
            passed, to, body = -1, -1, None
            if worker not in self._foreign:
                if data[:PREFIX_SIZE] == PASSED_PREFIX:
                    to, passed, data = quick_own(data) or decode(data).body
                body = quick_done(data)
            if body is None:
                frame = decode(data)
                body = frame.body if frame.type is FrameType.DONE else None
                if body is None and to >= 0:
                    raise WireError(f"a PASSED must carry a DONE, not {frame.type.name}")
            if body is None:
                self._handle(worker, frame, data)
            elif self._baton is None and passed < 0:
                self._done(worker, body, data)
            else:
                self._step_taken(worker, body, data, to, passed)
        except WireError as error:
            self._fault(worker, "bad-frame", f"{error}{self._shown(worker, data)}")
        except ProtocolViolation as error:
            self._fault(error.worker, error.rule, f"{error.text}{self._shown(worker, data)}")
        except Refusal as error:
            self._refuse(identity, error.code, error.what)
            self._fault(worker, error.code, f"its HELLO was refused: {error.what}{self._shown(worker, data)}")

    def _shown(self, worker: int, data: bytes) -> str:
        """What a foreign node sent, for the message that blames it."""
        return f"; {frame_text(data)}" if worker in self._foreign else ""

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
        if frame.type is FrameType.HELLO:
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
        self._welcome(worker, self._plan_of(worker))

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
        self.barrier.report(worker, seq, now, next_event, next_out, batches)
        self.journal.add(worker, b"D", data)
        self._granted_at.pop(worker, None)
        self._now[worker] = now
        self._next[worker] = next_event
        self.events += events
        if batches:
            self._route(worker, batches)
        if side is not None:
            self._side.add(side)

    def _step_taken(self, worker: int, body: tuple[Any, ...], data: bytes, to: int, passed: int) -> None:
        """An answer while a worker has the baton: they come in any order, and are taken in that in which the baton went round.

        `passed` is the bound of the grant that the worker made itself, to worker `to`; -1 if it gave the baton back.
        """
        if worker != self._baton:
            early = self._early.setdefault(worker, deque())
            if self._baton is None or len(early) >= EARLY_FRAMES:
                raise ProtocolViolation("order", "an answer must not come from a worker that was not granted", worker)
            early.append((body, data, to, passed))
            return
        while True:
            if passed < 0:
                self._done(worker, body, data)
                self._baton = None
                break
            self._baton = worker = self._pass(worker, body, data, to, passed)
            waiting = self._early.get(worker)
            if worker in self._lost or not waiting:
                break  # of a lost one the rest is missing: what others did after it waits for ever
            body, data, to, passed = waiting.popleft()

    def _pass(self, worker: int, body: tuple[Any, ...], data: bytes, to: int, bound: int) -> int:
        """Take the answer of a worker that has made the next grant itself, that of `to`; returns `to`."""
        batches = body[5]
        if not 0 <= to < len(self.names) or to == worker or to in self._foreign or len(batches) > 1:
            text = "the baton must go to one of cosim's own workers, from one that has sent to no more than one"
            raise ProtocolViolation("order", text, worker)
        inputs, arrival = self.barrier.inputs(to), self._arrival[to]
        self._done(worker, body, data)
        lost = to in self._lost  # it has this grant all the same, and may have failed in it
        try:
            seq = self.barrier.granted(to) + 1 if lost else self.barrier.passed(to, bound, inputs)
        except ProtocolViolation as error:
            raise ProtocolViolation(error.rule, error.text, worker) from None
        kept = self._blobs[to]
        self._blobs[to] = [kept.pop()] if batches and batches[0][0] == to else []
        for frame in self._note_grant(to, seq, bound):
            self.journal.add(to, b"G", frame)
        self._blobs[to], self._arrival[to] = kept, arrival
        if lost:
            del self._granted_at[to]
        return to

    def _route(self, worker: int, batches: Sequence[tuple[int, int, int, bytes]]) -> None:
        """Keep what a worker sent for those who get it."""
        for dst, arrival, _wake, blob in batches:
            self._blobs[dst].append((worker, blob))
            if arrival < self._arrival[dst]:
                self._arrival[dst] = arrival

    def _grant(self) -> None:
        if self._baton is not None:
            return
        grants = self.barrier.grants()
        if not grants:
            return
        for worker, seq, bound in grants:
            frames = self._note_grant(worker, seq, bound)
            sent = frames
            if self._passes and worker not in self._foreign and len(frames[-1]) <= QUICK_SIZE:
                quiet = self.barrier.quiet(worker)
                if quiet is not None:
                    self._baton = worker
                    sent = [*frames[:-1], encode(_LEAD, *quiet, frames[-1])]
            for frame in sent:
                self._send(worker, frame)
            for frame in frames:
                self.journal.add(worker, b"G", frame)

    def _note_grant(self, worker: int, seq: int, bound: int) -> list[bytes]:
        """Note a grant; its frames."""
        blobs, whole = self._blobs[worker], False
        if worker in self._foreign:
            self._foreign[worker].granted(blobs)
            whole = self._foreign[worker].whole
        if blobs:
            self._blobs[worker] = []
            if self._arrival[worker] < self._next[worker]:
                self._next[worker] = self._arrival[worker]
            self._arrival[worker] = NEVER
        self._granted_at[worker] = time.monotonic()
        self.grants += 1
        return grant_frames(seq, bound, blobs, whole=whole)

    def _send(self, worker: int, frame: bytes) -> None:
        try:
            self.link.send(self._identity[worker], frame)
        except LinkClosed as error:
            # The supervisor knows how the process ended and answers with `lost`.
            self.emit(["unreachable", worker, str(error)])
