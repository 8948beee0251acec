"""A worker: an OS process (or a thread, with ``--workers 0``) that hosts nodes and does what the hub grants.

Life: HELLO, WELCOME with the plan of its nodes, READY, then GRANT and DONE in turn until BYE. QUERY may come between grants.
A grant may come with the baton (LEAD, or PASS from another worker): then this one may make the next (PASS, PASSED).
A model that raises ends the worker with an ERROR frame that names node, simulated time and cause.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import msgpack

from cosim.core.baton import Quiet
from cosim.core.codec import (
    DONE_PREFIX,
    GRANT_PREFIX,
    LEAD_PREFIX,
    PASS_PREFIX,
    PREFIX_SIZE,
    VERSION,
    Frame,
    FrameType,
    WireError,
    decode,
    encode,
    pack,
    pack_records,
    quick_grant,
    quick_own,
    quick_records,
    unpack_records,
)
from cosim.core.kernel import MAX_EVENTS_PER_GRANT, Kernel, LinkEnd, ModelFault, Report
from cosim.core.message import KINDS, RecordTuple
from cosim.core.plan import WorkerPlan
from cosim.core.time import NEVER
from cosim.link.base import LinkClosed
from cosim.node.node import Node

# Bound once: an attribute of an enum class costs a call each time.
_PASSED = FrameType.PASSED

JOIN_TIMEOUT_MS = 120_000
SIDE_BYTES = 4 << 20
"""Most bytes of side records in one frame: far below what a frame may have."""
GC_THRESHOLD = (10_000, 10, 10)
"""Models make few cycles and keep much: at the interpreter's 700 a tenth of a long run goes into looking for them."""
HURRY_S = 0.001
"""Wall-clock time after which a grant ends if messages to other workers wait: some times what a grant costs."""
PASS_S = 0.0002
"""Wall-clock time of a grant above which the next one is left to the hub, so that others may work at the same time."""
PASS_BYTES, PASS_RECORDS = 16_384, 1_024
"""Largest blob that goes to another worker directly, and most messages in it."""
BLOB_RECORDS = 16_384
"""Most messages in one blob: below what a receiver takes."""
NOTHING = pack_records([])
_WIDEST = 1 << 64


class Socket(Protocol):
    """What a worker needs of its link."""

    def receive(self, timeout_ms: int | None = None) -> bytes | None: ...

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None: ...


class Refused(Exception):
    """The hub refused this worker, or never answered."""


def load_model(path: str) -> type[Node]:
    """The class that ``"package.module:Class"`` names; the launcher has checked the path against what is allowed."""
    module, _, name = path.partition(":")
    __import__(module)
    found = getattr(sys.modules[module], name)
    if not (isinstance(found, type) and issubclass(found, Node)):
        raise TypeError(f"{path} must be a subclass of cosim.api.Node")
    return found


def _packed(side: list[Any]) -> list[bytes]:
    """Side records as msgpack, in order, in parts of at most `SIDE_BYTES` (or of one record)."""
    packed: bytes = msgpack.packb(side, use_bin_type=True, default=str)
    if len(packed) <= SIDE_BYTES or len(side) == 1:
        return [packed]
    half = len(side) // 2
    return _packed(side[:half]) + _packed(side[half:])


def _saturated(value: Any) -> Any:
    """A counter in a live view: of one that does not fit in 64 bits, the run says so at its end."""
    return min(max(value, -_WIDEST // 2), _WIDEST - 1) if isinstance(value, int) else 0


def _brief(value: Any) -> str:
    text = hex(value) if isinstance(value, int) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _traceback() -> str:
    """The traceback of the exception being handled; of what a model raised in set-up, not of the fault made of it."""
    import traceback  # with what it imports, 3 ms of a start that has no error to show

    error = sys.exc_info()[1]
    assert error is not None, "called in an except clause"
    return "".join(traceback.format_exception(error.__cause__ or error))


class Worker:
    """The nodes of one worker and their kernel; `serve` runs the protocol."""

    def __init__(self, socket: Socket, name: str) -> None:
        self.socket = socket
        self.name = name
        self.nodes: list[Node] = []
        self.kernel: Kernel
        self._worker_of: dict[int, int] = {}
        self._reach: dict[int, int] = {}
        self._ends: dict[int, LinkEnd] = {}
        self._seq = 0
        self._until = 0.0  # when the grant at work has taken long
        self._hurry = self._late
        # Of a link whose workers reach each other.
        self._pass_on: Callable[[str, bytes], bool] | None = getattr(socket, "pass_on", None)
        self._send_soon: Callable[[bytes], None] = getattr(socket, "send_soon", socket.send)

    def serve(self) -> int:
        """Run to the end; returns the exit status: 0 after BYE, 3 when a model failed, 4 when the link or the hub failed."""
        try:
            self._join()
        except ModelFault as fault:
            return self._fail(fault, _traceback())
        except Refused as refused:
            sys.stderr.write(f"{self.name}: {refused}\n")
            return 4
        try:
            return self._loop()
        except WireError as error:
            self.socket.send(encode(FrameType.ERROR, "bad-frame", self.name, self.kernel.now, str(error), ""))
            return 4

    def _join(self) -> None:
        self.socket.send(encode(FrameType.HELLO, VERSION, self.name, "python", os.getpid(), {}))
        data = self.socket.receive(JOIN_TIMEOUT_MS)
        if data is None:
            raise Refused(
                f"no WELCOME from the hub within {JOIN_TIMEOUT_MS // 1000} s; is another worker called {self.name}?"
            )
        frame = decode(data)
        if frame.type is not FrameType.WELCOME:
            raise Refused(f"the hub refused this worker: {frame.body}")
        self._build(WorkerPlan.from_msgpack(frame.body[1]))
        self.socket.send(encode(FrameType.READY, *self.kernel.initial()))

    def _build(self, plan: WorkerPlan) -> None:
        self._worker_of = plan.worker_of
        self._reach = plan.reach
        for node in plan.nodes:
            try:
                self.nodes.append(load_model(node.model)(node, plan.seed))
            except Exception as error:
                raise ModelFault(node.name, 0, f"{type(error).__name__}: {error}", "model-load") from error
        ends = {k.id: LinkEnd(k.src, k.dst, k.latency, plan.worker_of[k.dst]) for k in plan.links}
        self._ends = ends
        self.kernel = Kernel(plan.worker, self.nodes, ends, plan.reactions, plan.returns)
        for step in ("connect", "setup", "boot"):
            for model in self.nodes:
                try:
                    if step == "connect":
                        model.connect(self.kernel, plan.links, plan.names)
                    else:
                        getattr(model, step)()
                except Exception as error:
                    raise ModelFault(model.name, 0, f"{type(error).__name__}: {error}", "model-setup") from error
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)

    def _loop(self) -> int:
        receive = self.socket.receive
        while True:
            data = receive()
            if data is None:
                continue
            prefix = data[:PREFIX_SIZE]
            if prefix == LEAD_PREFIX:
                *quiet, data = quick_own(data) or decode(data).body
                status = self._grant(data, Quiet(*quiet))
            elif prefix == PASS_PREFIX:
                *quiet, bound, worker, blob = quick_own(data) or decode(data).body
                status = self._execute(self._seq + 1, bound, ((worker, blob),), Quiet(*quiet))
            elif prefix == GRANT_PREFIX:
                status = self._grant(data, None)
            else:
                status = self._other(decode(data))
            if status >= 0:
                return status

    def _other(self, frame: Frame) -> int:
        """A frame that is no grant; returns the exit status, -1 to go on."""
        if frame.type is FrameType.QUERY:
            self.socket.send(encode(FrameType.STATUS, frame.body[0], self._status(frame.body[1])))
            return -1
        if frame.type is not FrameType.BYE:
            raise WireError(f"a worker must get GRANT, QUERY or BYE, not {frame.type.name}")
        fault = self._unfit_counter()
        if fault is not None:
            return self._fail(fault, "")
        self.socket.send(encode(FrameType.BYE, frame.body[0], self._final()))
        for node in self.nodes:
            node.stop()
        return 0

    def _grant(self, data: bytes, quiet: Quiet | None) -> int:
        """Execute a GRANT frame; returns the exit status, -1 to go on."""
        body = quick_grant(data)
        if body is None:
            frame = decode(data)
            if frame.type is not FrameType.GRANT:
                raise WireError(f"a LEAD must carry a GRANT, not {frame.type.name}")
            body = frame.body
        seq, bound, batches = body
        return self._execute(seq, bound, batches, quiet)

    def _execute(self, seq: int, bound: int, batches: tuple[tuple[int, bytes], ...], quiet: Quiet | None) -> int:
        """Execute a grant and answer. With `quiet` it comes with the baton: see `cosim.core.baton`."""
        if seq:  # else it only delivers
            self._seq += 1
        if seq not in (0, self._seq):
            raise WireError(f"GRANT must have sequence number {self._seq}, not {seq}")
        kernel = self.kernel
        try:
            for worker, blob in batches:
                records = quick_records(blob)
                kernel.take(unpack_records(blob) if records is None else records, worker, self._worker_of)
            if not seq:
                return -1
            self._until = monotonic() + HURRY_S
            report = kernel.grant(bound, MAX_EVENTS_PER_GRANT, self._hurry)
            # Passed on first: the next one works while this one answers.
            to, passed, packed = self._passed(quiet, report) if quiet is not None else (-1, -1, None)
            done = self._done(seq, report, packed)
        except ModelFault as fault:
            return self._fail(fault, _traceback())
        except (WireError, LinkClosed):
            raise
        except Exception as error:
            node = kernel.current
            name, now = (node.name, kernel.now) if node is not None else (self.name, kernel.now)
            wrapped = ModelFault(name, now, f"{type(error).__name__}: {error}")
            return self._fail(wrapped, _traceback())
        if passed < 0:
            self.socket.send(done)
        else:
            self._send_soon(encode(_PASSED, to, passed, done))
        return -1

    def _late(self) -> bool:
        """Whether the grant at work has taken so long that what it has sent must not wait for its end."""
        return monotonic() > self._until

    def _passed(self, quiet: Quiet, report: Report) -> tuple[int, int, bytes | None]:
        """Grant the worker that is known to be next, directly, up to where that is safe: its number and that bound in ps, -1 if
        that was not done; and the only batch, if it was packed for that."""
        batches, own = report.batches, self.kernel.worker
        if len(batches) > 1 or self._pass_on is None or monotonic() > self._until - HURRY_S + PASS_S:
            return -1, -1, None
        receiver, arrival, _wake, records = batches[0] if batches else (-1, NEVER, NEVER, [])
        found = quiet.following(own, report.next_event, report.next_out, receiver, arrival, self._reach)
        if found is None or len(records) > PASS_RECORDS:
            return -1, -1, None
        to, bound, known = found
        blob = self._blob(records) if to == receiver else NOTHING
        frame = PASS_PREFIX + pack((*known, bound, own, blob))
        passed = len(blob) <= PASS_BYTES and self._pass_on(f"w{to}", frame)
        return to if passed else -1, bound if passed else -1, blob if to == receiver else None

    def _done(self, seq: int, report: Report, blob: bytes | None) -> bytes:
        """The answer to a grant; `blob` is the only batch if it is packed already."""
        now, next_event, next_out, found, events = report
        batches = []
        for worker, arrival, wake, records in found:
            if blob is not None or len(records) <= BLOB_RECORDS:
                batches.append((worker, arrival, wake, blob or self._blob(records)))
            else:
                for first in range(0, len(records), BLOB_RECORDS):
                    batches.append((worker, arrival, wake, self._blob(records[first : first + BLOB_RECORDS])))
        side = self._side() if self.kernel.noted else None
        return DONE_PREFIX + pack((seq, now, next_event, next_out, events, batches, side))

    def _blob(self, records: list[RecordTuple]) -> bytes:
        try:
            return pack_records(records)
        except OverflowError:
            for record in records:
                try:
                    pack_records([record])
                except OverflowError:
                    end, kind = self._ends[record[2]], KINDS[record[3]]
                    name = self.kernel.nodes[end.src].name
                    text = f"integers in a message must fit in 64 bits, not those of {kind!r} {record[4]!r:.200}"
                    raise ModelFault(name, record[0] - end.latency, text, "bad-send") from None
            raise

    def _unfit_counter(self) -> ModelFault | None:
        """What is wrong with the counters of a node, at the end and at its epochs; None: nothing."""
        for node in self.nodes:
            for table in (node.count, *(table for _number, table in node.epochs)):
                for name, value in table.items():
                    if not (isinstance(value, int) and -_WIDEST // 2 <= value < _WIDEST):
                        text = f"counter {name} must be an integer that fits in 64 bits, not {_brief(value)}"
                        return ModelFault(node.name, self.kernel.now, text, "bad-counter")
        return None

    def _side(self) -> bytes | None:
        """The side records so far; what is too much for one frame goes ahead in LOG frames."""
        side: list[Any] = []
        noted = self.kernel.noted
        for node in noted:
            side.extend(node.side)
            node.side = []
        noted.clear()
        if not side:
            return None
        side.sort(key=lambda record: record[:3])
        *parts, last = _packed(side)
        for part in parts:
            self.socket.send(encode(FrameType.LOG, part))
        return last

    def _fail(self, fault: ModelFault, text: str) -> int:
        side = self._side() if hasattr(self, "kernel") else None  # a model that can't be loaded comes before it
        if side is not None:
            self.socket.send(encode(FrameType.LOG, side))
        self.socket.send(encode(FrameType.ERROR, fault.rule, fault.node, fault.sim_time_ps, fault.what, text))
        return 3

    def _registers(self) -> list[Any]:
        """[node, {block: {register: value}}, what went wrong]: a model's fault here ends no run, it is shown."""
        found: list[Any] = []
        for node in self.nodes:
            try:
                blocks, fault = node.snapshot(), ""
                for block, values in blocks.items():
                    if wide := [register for register, value in values.items() if not 0 <= value < _WIDEST]:
                        raise ValueError(f"{wide[0]} of {block} must fit in 64 bits")
            except Exception as error:
                blocks, fault = {}, f"{type(error).__name__}: {error}"
            if blocks or fault:
                found.append([node.name, blocks, fault])
        return found

    def _status(self, registers: int) -> bytes:
        waits = [[n.name, task, what, daemon] for n in self.nodes for task, what, daemon in n.scheduler.waits()]
        clocks = [[n.name, n.now] for n in self.nodes]
        counters = [[n.name, {name: _saturated(v) for name, v in n.count.items()}] for n in self.nodes]
        packed: bytes = msgpack.packb(
            [clocks, waits, counters, self._registers() if registers else []], use_bin_type=True
        )
        return packed

    def _final(self) -> bytes:
        kernel = self.kernel
        nodes = []
        for node in self.nodes:
            count, digest = kernel.digests[node.id].result()
            waits = [[task, what, daemon] for task, what, daemon in node.scheduler.waits()]
            nodes.append(
                [
                    node.name,
                    node.now,
                    count,
                    digest,
                    dict(sorted(node.count.items())),
                    waits,
                    node.id in kernel.off,
                    node.epochs,
                ]
            )
        side = self._side()
        traffic = [[(link, count) for link, count in kernel.sent.items() if count], kernel.work()]
        body = [kernel.end_time, kernel.events, kernel.messages, nodes, side, self._registers(), traffic]
        packed: bytes = msgpack.packb(body, use_bin_type=True)
        return packed


def open_worker(endpoint: str, name: str, credential: str | None = None) -> Socket:
    """A worker's socket: ``ipc://`` is spoken by the main thread itself, ``zmq+ipc://`` and ``tcp://`` by libzmq; the latter
    needs a credential (a file, or ``-`` for stdin)."""
    if endpoint.startswith("ipc://"):
        from cosim.link.unix_link import FastWorkerSocket

        return FastWorkerSocket(endpoint, name, peers=True)
    from cosim.link.zmq_link import WorkerSocket

    if credential is None:
        return WorkerSocket(endpoint.removeprefix("zmq+"), name, peers=True)
    from cosim.link.keys import load_credential

    return WorkerSocket(endpoint, name, load_credential(credential))


def main(argv: list[str] | None = None) -> int:
    """Entry point: ``python -m cosim.node.worker ENDPOINT NAME PARENT_PID [CREDENTIAL]``."""
    from cosim.node.death import die_with

    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) not in (3, 4):
        sys.stderr.write("usage: python -m cosim.node.worker ENDPOINT NAME PARENT_PID [CREDENTIAL]\n")
        return 2
    endpoint, name, parent, *credential = arguments
    die_with(int(parent))
    return serve(endpoint, name, *credential)


def serve(endpoint: str, name: str, credential: str | None = None) -> int:
    """Connect and run to the end; returns the exit status."""
    try:
        socket = open_worker(endpoint, name, credential)
    except ValueError as error:  # an endpoint, or a credential, that can't be used
        sys.stderr.write(f"{name}: {error}\n")
        return 4
    try:
        return Worker(socket, name).serve()
    except LinkClosed as closed:
        sys.stderr.write(f"{name}: {closed}\n")
        return 4
    except KeyboardInterrupt:
        return 130
    finally:
        socket.close()


if __name__ == "__main__":
    sys.exit(main())
