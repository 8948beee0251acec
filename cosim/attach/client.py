"""A foreign node in Python: blocking, for use inside a simulator's thread. docs/attach.md is its tutorial.

    with AttachClient.from_env(ports={"bus": "mmio_target"}) as node:
        for grant in node:
            for message in grant:            # inputs below the limit, in order; node.now is their time
                node.reply(message, data=memory[message.addr])
            node.done()

A node with events of its own executes them up to `node.stop` (exclusive; a send may lower it) and says in `done` when the next
one is due. Times are picoseconds.
"""

from __future__ import annotations

import os
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgpack

from cosim.attach.plan import DELIVER, MMIO_INITIATOR, AttachPlan, KindRow, LinkRow, PlanError, may_carry
from cosim.core.codec import VERSION, FrameType, WireError, decode, encode, pack_records, unpack_records
from cosim.core.message import ATTR_NONSECURE, ATTR_PRIVILEGED, DECERR, MMIO, OKAY, POWER, SLVERR, Kind, Record
from cosim.core.time import NEVER
from cosim.link.base import LinkClosed

__all__ = [
    "DECERR",
    "NEVER",
    "NONSECURE",
    "OKAY",
    "SLVERR",
    "VERSION",
    "AttachClient",
    "AttachError",
    "Grant",
    "Message",
]

NONSECURE = ATTR_NONSECURE | ATTR_PRIVILEGED
JOIN_TIMEOUT_MS = 60_000
SIDE_LOG, SIDE_CONSOLE, SIDE_MARK = 0, 1, 2


class AttachError(Exception):
    """The hub refused this node (`code` as in docs/protocol.md), is gone, or this node broke a rule; the text says which."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code


class _Socket(Protocol):
    def receive(self, timeout_ms: int | None = None) -> bytes | None: ...

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None: ...


class Message:
    """An input: `arrival` (ps), this node's `port`, `peer` (``node.port``), `kind` (such as ``mmio.Read``); the fields of its
    kind are attributes (`tag`, `addr`, `size`, `data`, `attr` of a bus access)."""

    __slots__ = ("_row", "arrival", "attributes", "fields", "link", "peer", "port", "seq")

    def __init__(self, row: KindRow, link: LinkRow, record: Record) -> None:
        self._row = row
        self.arrival = record.arrival
        self.seq = record.seq
        self.link = link.id
        self.port = link.port
        self.peer = link.peer
        self.attributes = link.attributes
        self.fields = record.fields

    @property
    def kind(self) -> str:
        """``protocol.Kind``."""
        return self._row.name

    @property
    def code(self) -> int:
        """The kind's number on the wire."""
        return self._row.code

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[self._row.fields.index(name)]
        except ValueError:
            raise AttributeError(f"a {self._row.name} has {', '.join(self._row.fields)}, not {name}") from None

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}={v!r}" for n, v in zip(self._row.fields, self.fields, strict=False))
        return f"<{self._row.name} at {self.arrival} ps from {self.peer} to {self.port}: {shown}>"


class Grant:
    """Leave to execute everything below `bound` (ps, exclusive). Iterating takes the inputs below `node.stop`, in order."""

    def __init__(self, node: AttachClient, bound: int) -> None:
        self._node = node
        self.bound = bound

    def __iter__(self) -> Iterator[Message]:
        while (message := self._node.take()) is not None:
            yield message


class AttachClient:
    """One foreign node; a context manager.

    Args:
        endpoint: ``ipc://PATH`` or ``tcp://ADDRESS:PORT`` of the hub.
        name: of the node in the topology.
        ports: this node's ports and their roles: mmio_target, mmio_initiator, wire or channel:PROTOCOL.
        token: the run's secret for this node.
        lookahead_ps: least time from an input to an output that it causes; promised, and checked by the hub.
        quantum_ps: all times of this node are multiples of it (a clock period); 0: no such limit.
        model: versions of model and tools, for the record.
        caps: capabilities; "wave": this node writes waveforms to the path (without suffix) in COSIM_WAVE, if that is set.
        link: "fast" (plain socket, this thread) or "zmq" (libzmq); without effect over tcp.
        credential: file of this node's key (``-``: stdin), which an endpoint ``tcp://ADDRESS:PORT`` must have.

    Attributes after joining: `plan` (`AttachPlan`), `params` (of the topology), `seed`, `now` (time of the last input taken or
    of the grant's begin), `stop` (limit of the current grant), `count` (counters, reported as NODE.COUNTER), `off` (the power
    is off: nothing more can be sent).

    Raises:
        AttachError: from every method: refused, hub gone, or a send that breaks a rule.
    """

    def __init__(
        self,
        endpoint: str,
        name: str,
        ports: Mapping[str, str],
        token: str,
        *,
        lookahead_ps: int = 0,
        quantum_ps: int = 0,
        model: Mapping[str, str] | None = None,
        caps: tuple[str, ...] = (),
        kind: str = "python",
        link: str = "fast",
        credential: str | Path | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self._options = {
            "ports": dict(ports),
            "lookahead_ps": lookahead_ps,
            "quantum_ps": quantum_ps,
            "caps": [DELIVER, *caps],
            "model": dict(model or {}),
            "token": token,
        }
        self.plan: AttachPlan
        self.params: dict[str, Any] = {}
        self.seed = 0
        self.now = 0
        self.stop = 0
        self.off = False
        self.count: Counter[str] = Counter()
        self._socket = _open(endpoint, name, link, credential)
        self._begun = 0
        self._off_at = NEVER
        self._grant_seq = 0
        self._open_grant = False
        self._announced = False
        self._seq = 0
        self._tag = 0
        self._events = 0
        self._side_number = 0
        self._side: list[Any] = []
        self._outbox: list[Record] = []
        self._kept: list[tuple[int, int, int, int, Record]] = []
        self._epochs: list[list[Any]] = []

    @classmethod
    def from_env(cls, ports: Mapping[str, str], **options: Any) -> AttachClient:
        """As cosim told this process by COSIM_ENDPOINT, COSIM_NAME, COSIM_TOKEN_FILE and, over tcp, COSIM_CREDENTIAL."""
        try:
            endpoint, name, file = (os.environ[f"COSIM_{n}"] for n in ("ENDPOINT", "NAME", "TOKEN_FILE"))
        except KeyError as missing:
            raise AttachError(
                "environment",
                f"{missing.args[0]} must be set: start this program from cosim, or source attach/NODE.env",
            ) from None
        options.setdefault("credential", os.environ.get("COSIM_CREDENTIAL"))
        return cls(endpoint, name, ports, Path(file).read_text().strip(), **options)

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> AttachClient:
        try:
            self._join()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, AttachError):
            try:
                self.fail(f"{type(error).__name__}: {error}")
            except AttachError:
                pass  # the first error says more
        self._socket.close()

    def _join(self) -> None:
        self._send(encode(FrameType.HELLO, VERSION, self.name, self.kind, os.getpid(), self._options))
        frame = self._receive(JOIN_TIMEOUT_MS)
        if frame is None:
            raise AttachError(
                "no-welcome", f"no WELCOME within {JOIN_TIMEOUT_MS // 1000} s; is another {self.name} connected?"
            )
        if frame.type is FrameType.REFUSED:
            raise AttachError(*frame.body)
        if frame.type is not FrameType.WELCOME:
            raise AttachError("order", f"WELCOME or REFUSED must come first, not {frame.type.name}")
        try:
            self.plan = AttachPlan.from_msgpack(frame.body[1])
        except PlanError as error:
            raise AttachError("plan", str(error)) from None
        self.params, self.seed = self.plan.params, self.plan.seed
        self._kinds = {row.code: row for row in self.plan.kinds}
        self._codes = {row.name: row.code for row in self.plan.kinds}
        self._links = {row.id: row for row in self.plan.links}
        self._roles = dict(self.plan.ports)
        self._out = {(row.port, row.peer): row for row in self.plan.links if row.out}
        self._maps = dict(self.plan.maps)

    def ready(self, next_event: int = NEVER, next_out: int | None = None) -> None:
        """Reset is done and the node is at time 0: its first event and earliest send (ps). Iterating says `ready()` itself."""
        self._announced = True
        self._send(encode(FrameType.READY, next_event, next_event if next_out is None else max(next_event, next_out)))

    def __iter__(self) -> Iterator[Grant]:
        if not self._announced:
            self.ready()
        while (grant := self.wait()) is not None:
            yield grant
            if self._open_grant:
                self.done()

    def wait(self) -> Grant | None:
        """Block until the next grant; None at the end of the run (the node's report is on its way then)."""
        if self._open_grant:
            raise AttachError("order", "done() must answer the grant before the next one is awaited")
        seq = bound = 0
        while not seq:  # a grant of number 0 only delivers
            frame = self._receive(None)
            assert frame is not None
            if frame.type is FrameType.BYE:
                self._send(encode(FrameType.BYE, frame.body[0], self._report()))
                return None
            if frame.type is not FrameType.GRANT:
                raise AttachError("order", f"GRANT or BYE must come, not {frame.type.name}")
            seq, bound, batches = frame.body
            if seq and (seq != self._grant_seq + 1 or bound < self._begun):
                wanted = self._grant_seq + 1
                raise AttachError(
                    "sequence", f"GRANT must have number {wanted} and go forward, not {seq} to {bound} ps"
                )
            self._deliver(batches)
        self._grant_seq, self.stop, self._open_grant = seq, bound, True
        return Grant(self, bound)

    def _report(self) -> bytes:
        """The final report: counters, and what they were at each epoch."""
        try:
            report: bytes = msgpack.packb([dict(self.count), self._epochs], use_bin_type=True)
        except OverflowError:
            wide = [f"{name} ({hex(n)[:24]})" for name, n in self.count.items() if not -(1 << 63) <= n < 1 << 64]
            raise AttachError("report", f"a counter must fit in 64 bits, not {', '.join(wide)}") from None
        return report

    def _deliver(self, batches: tuple[tuple[int, bytes], ...]) -> None:
        try:
            for _worker, blob in batches:
                for record in unpack_records(blob):
                    self._keep(record)
        except WireError as error:
            raise AttachError("bad-frame", str(error)) from None

    def _keep(self, record: Record) -> None:
        link, row = self._links.get(record.link), self._kinds.get(record.kind)
        if link is None or link.out or row is None:
            raise AttachError(
                "bad-link", f"an input must come over a link to this node and be of a known kind: {record}"
            )
        if record.arrival < self._begun:
            raise AttachError(
                "message-in-the-past", f"{row.name} for {record.arrival} ps came when the clock was at {self._begun} ps"
            )
        if len(record.fields) != len(row.fields) or not may_carry(self._roles[link.port], False, row.code, self._kinds):
            raise AttachError("kind", f"port {link.port} must not get {row.name} with {record.fields}")
        if record.arrival < self._off_at:
            insort(self._kept, (record.arrival, row.priority, link.peer_id, record.seq, record))

    # -- inputs --------------------------------------------------------------------------------------------------------

    def peek(self) -> int:
        """Arrival (ps) of the next input that this node holds; NEVER when it holds none."""
        return self._kept[0][0] if self._kept else NEVER

    def take(self) -> Message | None:
        """The next input below `stop`; None when there is none. Power and epoch messages are dealt with here."""
        while self._kept and self._kept[0][0] < self.stop:
            record = self._kept.pop(0)[-1]
            self.now = max(self.now, record.arrival)
            self._events += 1
            if record.kind == POWER.Off.code:
                self.off, self._off_at = True, record.arrival
                self._kept.clear()
                return None
            if record.kind == POWER.Epoch.code:
                self._epochs.append([record.fields[0], dict(self.count)])
                continue
            return Message(self._kinds[record.kind], self._links[record.link], record)
        return None

    # -- outputs -------------------------------------------------------------------------------------------------------

    def send(
        self,
        port: str,
        kind: Kind | str | int,
        fields: tuple[Any, ...],
        *,
        at: int | None = None,
        to: str | None = None,
    ) -> int:
        """Send a message at time `at` (ps; default `now`); it arrives after the link's latency, which is returned (ps).

        `to` is the peer (``node`` or ``node.port``) when the port has several. A send at or after the end of power is dropped.
        """
        return self._emit(self._link(port, to), kind, fields, self.now if at is None else at)

    def _link(self, port: str, to: str | None) -> LinkRow:
        found = [
            row
            for (p, peer), row in self._out.items()
            if p == port and (to is None or to in (peer, peer.partition(".")[0]))
        ]
        if len(found) != 1:
            have = ", ".join(peer for p, peer in self._out if p == port) or "nobody"
            raise AttachError("bad-link", f"port {port} must lead to one {to or 'peer'}; it leads to {have}")
        return found[0]

    def _emit(self, link: LinkRow, kind: Kind | str | int, fields: tuple[Any, ...], at: int) -> int:
        code = kind.code if isinstance(kind, Kind) else self._codes.get(kind, -1) if isinstance(kind, str) else kind
        row = self._kinds.get(code)
        if (
            row is None
            or not may_carry(self._roles[link.port], True, code, self._kinds)
            or len(fields) != len(row.fields)
        ):
            raise AttachError("kind", f"port {link.port} ({self._roles[link.port]}) must not send {kind} with {fields}")
        if at < self._begun:
            raise AttachError(
                "message-in-the-past", f"a send must not lie before the grant's begin {self._begun} ps, not at {at} ps"
            )
        arrival = at + link.latency
        if at >= self._off_at:
            return arrival
        self._outbox.append(Record(arrival, self._seq, link.id, code, fields))
        self._seq += 1
        if link.returns < NEVER:
            self.stop = min(self.stop, arrival + link.returns)
        return arrival

    def reply(self, request: Message, status: int = OKAY, data: int | bytes = 0, *, at: int | None = None) -> None:
        """Complete a read or write (nothing for a posted one); `data` of a read is an int for 1, 2, 4 and 8 bytes, else bytes."""
        if request.code == MMIO.WritePosted.code:
            return
        link = self._out[(request.port, request.peer)]
        good = status < 2 and request.code == MMIO.Read.code
        self._emit(link, MMIO.Completion, (request.tag, status, data if good else 0), self.now if at is None else at)

    def read(self, port: str, address: int, size: int, *, attr: int = NONSECURE, at: int | None = None) -> int | None:
        """Issue a read of 1 to 4096 bytes; its tag, which the completion carries. None: no region there (DECERR)."""
        return self._request(port, MMIO.Read, address, (size, attr), at)

    def write(
        self, port: str, address: int, size: int, data: int | bytes, *, attr: int = NONSECURE, at: int | None = None
    ) -> int | None:
        """Issue a write that completes; its tag, as for `read`."""
        return self._request(port, MMIO.Write, address, (size, data, attr), at)

    def post(
        self, port: str, address: int, size: int, data: int | bytes, *, attr: int = NONSECURE, at: int | None = None
    ) -> bool:
        """Issue a posted write; whether there is a region."""
        return self._request(port, MMIO.WritePosted, address, (size, data, attr), at) is not None

    def _request(self, port: str, kind: Kind, address: int, rest: tuple[Any, ...], at: int | None) -> int | None:
        if self._roles.get(port) != MMIO_INITIATOR:
            raise AttachError("bad-link", f"port {port} must be an {MMIO_INITIATOR}; the plan has {self._roles}")
        for region in self._maps.get(port, ()):
            if region.base <= address and address + rest[0] <= region.base + region.size:
                break
        else:
            self.count["decode_errors"] += 1
            return None
        offset, tag = address - region.base + region.offset, self._tag
        head = (offset,) if kind is MMIO.WritePosted else (tag, offset)
        self._emit(self._links[region.link], kind, (*head, *rest), self.now if at is None else at)
        if kind is not MMIO.WritePosted:
            self._tag += 1
        return tag

    def done(self, next_event: int = NEVER, next_out: int | None = None, *, now: int | None = None) -> None:
        """Answer the grant: everything below `stop` (or `now`, if less) is executed, and all inputs below it were taken.

        Args:
            next_event: this node's earliest own event (ps); inputs that it holds are added here.
            next_out: earliest time (ps) of any later send without a new input; default `next_event`. A promise.
            now: the clock, when the node stopped short of `stop`.
        """
        if not self._open_grant:
            raise AttachError("order", "done() must answer a grant")
        reached = self.stop if now is None else min(now, self.stop)
        held = self.peek()
        if held < reached:
            raise AttachError("kept-input", f"the input for {held} ps must be taken before {reached} ps")
        event = min(next_event, held)
        out = min(next_event if next_out is None else next_out, held + self.plan.reaction)
        if self.off:
            event = out = NEVER
        event = max(event, reached)
        batches = [(0, 0, 0, pack_records(self._outbox))] if self._outbox else []
        side = msgpack.packb(self._side, use_bin_type=True) if self._side else None
        body = (self._grant_seq, reached, event, min(NEVER, max(out, event)), self._events, batches, side)
        self._send(encode(FrameType.DONE, *body))
        self._begun = reached
        self.now = max(self.now, reached)
        self._outbox, self._side, self._events, self._open_grant = [], [], 0, False

    # -- what people see -----------------------------------------------------------------------------------------------

    def log(self, event: str, **fields: Any) -> None:
        """A log event (log.jsonl) at `now`."""
        self._record(SIDE_LOG, [event, fields])

    def console(self, file: str, text: str) -> None:
        """Text for console/FILE.log."""
        self._record(SIDE_CONSOLE, [file, text])

    def mark(self, name: str, *identity: Any) -> None:
        """A named point in time, paired by cosim for latencies."""
        self._record(SIDE_MARK, [name, list(identity)])

    def _record(self, kind: int, payload: list[Any]) -> None:
        self._side.append([self.now, self.plan.node, self._side_number, kind, payload])
        self._side_number += 1

    def fail(self, what: str) -> None:
        """End the run: this node has failed, and `what` says how."""
        self._send(encode(FrameType.ERROR, "node-failed", self.name, self.now, what, ""))

    # -- frames --------------------------------------------------------------------------------------------------------

    def _receive(self, timeout_ms: int | None) -> Any:
        try:
            data = self._socket.receive(timeout_ms)
            return None if data is None else decode(data)
        except LinkClosed as error:
            raise AttachError("hub-gone", str(error)) from None
        except WireError as error:
            raise AttachError("bad-frame", str(error)) from None

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except LinkClosed as error:
            raise AttachError("hub-gone", str(error)) from None


def _open(endpoint: str, name: str, link: str, credential: str | Path | None) -> _Socket:
    if link == "fast" and endpoint.startswith("ipc://"):
        from cosim.link.unix_link import FastWorkerSocket

        return FastWorkerSocket(endpoint, name)
    from cosim.link.keys import load_credential
    from cosim.link.zmq_link import WorkerSocket

    try:
        tcp = endpoint.startswith("tcp://") and credential is not None
        return WorkerSocket(endpoint, name, load_credential(credential) if tcp and credential is not None else None)
    except ValueError as error:
        raise AttachError("credential", str(error)) from None
