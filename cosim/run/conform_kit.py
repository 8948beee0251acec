"""The conformance kit's bench: one foreign node between a stimulus and a memory, under any partition of its time into grants.

The kit plays hub and neighbour at once. What reaches the node depends on simulated time alone, so its outputs must too. The
rules of the protocol are those of `cosim.run.foreign` and `cosim.core.barrier`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cosim.attach.plan import MMIO_INITIATOR, KindRow, core_kinds
from cosim.core.barrier import ProtocolViolation
from cosim.core.codec import LIMITS, VERSION, Frame, FrameType, WireError, decode, encode, pack_records, unpack_records
from cosim.core.message import KINDS, MMIO, OKAY, SLVERR, Record, from_bus, to_bus
from cosim.core.plan import LinkPlan, NodePlan, Plan, RegionPlan
from cosim.core.time import NEVER, fmt
from cosim.link.base import LinkClosed
from cosim.link.unix_link import FastHubSocket
from cosim.run.attached import PYTHON, Group
from cosim.run.foreign import Foreign, Refusal, frame_text
from cosim.run.guard import processes_with
from cosim.run.spawn import child_environment

NAME, NEIGHBOUR = "dut", "kit"
_DUT = 1  # worker that hosts the node
_REPLY_SEQ = 1 << 32
_MAP_SIZE = 1 << 52
FRAME_MESSAGES = 3
"""Messages of a frame that a verdict shows in words."""


class RuleBroken(Exception):
    """The node broke a rule: `rule`, what was expected and found, at which simulated time (ps), with the frames."""

    def __init__(self, rule: str, text: str, time_ps: int = 0, frames: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.rule = rule
        self.text = text
        self.time_ps = time_ps
        self.frames = list(frames)


class Input(NamedTuple):
    """Something for the node: it arrives at `at` (ps) by `port`; `kind` and `fields` as in its protocol."""

    at: int
    port: str
    kind: int
    fields: tuple[Any, ...]


@dataclass
class Setup:
    """What a session needs besides the stimulus.

    command      argv of the node
    clock        ps; latencies are multiples of it
    latency      of every link, ps; service: the neighbour's time to answer a request, ps
    wait_s       wall-clock limit to join; wall_s: of one grant
    """

    command: list[str]
    params: dict[str, Any] = field(default_factory=dict)
    clock: int = 1000
    latency: int = 20_000
    service: int = 10_000
    seed: int = 1
    wait_s: float = 60.0
    wall_s: float = 10.0
    environment: dict[str, str] = field(default_factory=dict)


class Neighbour:
    """Answers the node's requests: a memory whose bytes tell their address until they are written.

    `fault(n)` gives the status of the n-th completion.
    """

    def __init__(self, setup: Setup, fault: Callable[[int], int] = lambda _n: OKAY) -> None:
        self._delay = setup.service + setup.latency
        self._fault = fault
        self._bytes: dict[int, int] = {}
        self.requests = 0

    def answer(self, record: Record, back: int) -> Record | None:
        """The completion of a request that came as `record`, over link `back`; None for a message that has none."""
        if record.kind == MMIO.WritePosted.code:
            self._store(record.fields[0], from_bus(record.fields[2], record.fields[1]))
            return None
        if record.kind not in (MMIO.Read.code, MMIO.Write.code):
            return None
        tag, addr, size = record.fields[:3]
        status = self._fault(self.requests)
        self.requests += 1
        data: int | bytes = 0
        if status == OKAY and record.kind == MMIO.Read.code:
            data = to_bus(bytes(self._bytes.get(a, (a * 7 + 3) & 0xFF) for a in range(addr, addr + size)))
        elif status == OKAY:
            self._store(addr, from_bus(record.fields[3], size))
        arrival = record.arrival + self._delay
        return Record(arrival, _REPLY_SEQ + record.seq, back, MMIO.Completion.code, (tag, status, data))

    def _store(self, addr: int, data: bytes) -> None:
        self._bytes.update(zip(range(addr, addr + len(data)), data, strict=True))


class LateErrors(Neighbour):
    """After a reset at `at` (ps) completes with SLVERR what the node had asked before; `altered` counts these completions. Those
    within two clocks of the reset are left alone: a clocked node sees it at its next edge."""

    def __init__(self, setup: Setup, at: int) -> None:
        super().__init__(setup)
        self._asked_before = at + setup.latency
        self._from = at + 2 * setup.clock
        self.altered = 0

    def answer(self, record: Record, back: int) -> Record | None:
        """As the memory's, but for the status."""
        found = super().answer(record, back)
        if found is None or record.arrival >= self._asked_before or found.arrival < self._from:
            return found
        self.altered += 1
        return found._replace(fields=(found.fields[0], SLVERR, 0))


class Session:
    """One life of the node under test, from its start to its end. A context manager."""

    def __init__(self, setup: Setup, neighbour: Neighbour) -> None:
        self.setup = setup
        self.neighbour = neighbour
        self.ports: dict[str, str] = {}
        self.now = 0
        self.next_event = NEVER
        self.next_out = NEVER
        self.outputs: list[Record] = []
        self.inputs: list[tuple[Any, ...]] = []
        self.grants = 0
        self.frames: deque[tuple[str, bytes]] = deque(maxlen=3)
        self.foreign: Foreign
        self.plan: Plan
        self._seq = 0
        self._folder = Path(tempfile.mkdtemp(prefix="conform-"))
        self._link: FastHubSocket | None = None
        self._group: Group | None = None
        self.identity = b""

    # -- start and end -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._group is not None:
            self._group.send_signal(9)
            self._group.wait()
            for pid in self.survivors():
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
        self.hang_up()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self.token = secrets.token_hex(16)
        endpoint = f"ipc://{self._folder / 'hub'}"
        self._link = FastHubSocket(endpoint)
        token_file = self._folder / "token"
        self.token_path = str(token_file).encode()
        token_file.write_text(self.token + "\n")
        first, *rest = self.setup.command
        command = [sys.executable if first == PYTHON else first, *rest]
        with (self._folder / "log").open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "cosim.run.guard", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                env={
                    **child_environment(),
                    **self.setup.environment,
                    "COSIM_ENDPOINT": endpoint,
                    "COSIM_NAME": NAME,
                    "COSIM_TOKEN_FILE": str(token_file),
                    "COSIM_RUN_DIR": str(self._folder),
                },
            )
        self._group = Group(popen)

    def printed(self) -> str:
        """What the node has written."""
        return (self._folder / "log").read_text(errors="replace")[-2000:].strip()

    def join(self, protocols: Sequence[str] = ()) -> None:
        """HELLO, WELCOME, READY. Raises RuleBroken."""
        frame, data = self.receive(self.setup.wait_s, "join-timeout")
        if frame.type is not FrameType.HELLO:
            self.broken("order", f"HELLO must come first, not {frame.type.name}", data)
        options = frame.body[4]
        ports = options.get("ports")
        if not isinstance(ports, dict):
            self.broken("options", f"ports in HELLO must be a map of names to roles, not {ports!r}", data)
        self.ports = {str(port): str(role) for port, role in sorted(ports.items())}
        self.plan = self._plan(options, protocols)
        returns = self.plan.distances().returns(self.plan.groups)
        self.foreign = Foreign(self.plan, _DUT, returns[_DUT], self.token, self.setup.wall_s)
        try:
            welcome = self.foreign.admit(frame.body)
        except Refusal as error:
            self.send(encode(FrameType.REFUSED, error.code, error.what))
            self.broken(error.code, error.what, data)
        self.send(encode(FrameType.WELCOME, VERSION, welcome, [LIMITS.max_frame, LIMITS.max_messages]))
        frame, data = self.receive(self.setup.wait_s, "join-timeout")
        if frame.type is not FrameType.READY:
            rule = "node-failed" if frame.type is FrameType.ERROR else "order"
            self.broken(rule, f"READY must follow WELCOME, not {self._what(frame)}", data)
        self._check_times(0, frame.body[0], frame.body[1], data)
        self.foreign.ready(*frame.body)

    def _plan(self, options: dict[str, Any], protocols: Sequence[str]) -> Plan:
        latency = self.setup.latency
        links: list[LinkPlan] = []
        regions: dict[str, tuple[RegionPlan, ...]] = {}

        def add(port: str, out: bool) -> int:
            src, dst = ((0, port), (1, port)) if out else ((1, port), (0, port))
            links.append(LinkPlan(len(links), *src, *dst, latency))
            return len(links) - 1

        for port, role in self.ports.items():
            out = add(port, True)
            add(port, False)
            if role == MMIO_INITIATOR:
                regions[port] = (RegionPlan(0, _MAP_SIZE, out, 0, "everything"),)
        add("power", False)
        lookahead = options.get("lookahead_ps", 0)
        rows = core_kinds() + [KindRow.of(k) for k in KINDS.values() if k.protocol in protocols]
        external = {
            "argv": [], "connect": False, "wait_ms": 0, "wall_limit_ms": None, "class": "deterministic", "env": {}, "cwd": "",
            "ports": [*self.ports.items(), ("power", "power")],
            "kinds": [list(row) for row in rows],
        }  # fmt: skip
        reaction = lookahead if type(lookahead) is int and lookahead >= 0 else 0
        dut = NodePlan(0, NAME, NAME, self.setup.params, reaction, regions, "external", external)
        kit = NodePlan(1, NEIGHBOUR, NEIGHBOUR, {}, self.setup.service)
        return Plan("conform", self.setup.seed, (dut, kit), tuple(links), ((1,), (0,)))

    def finish(self) -> dict[str, int]:
        """BYE, final report, exit status 0: the counters. Raises RuleBroken."""
        self.send(encode(FrameType.BYE, "quiescent", None))
        frame, data = self.receive(self.setup.wall_s, "exit")
        if frame.type is not FrameType.BYE:
            self.broken("order", f"BYE must answer BYE, not {self._what(frame)}", data)
        try:
            entry = self.foreign.final(frame.body[1])[3][0]
        except ProtocolViolation as error:
            self.broken(error.rule, error.text, data)
        status = self.end_status(self.setup.wall_s)
        if status != 0:
            self.broken("exit", f"the node must end with exit status 0 within {self.setup.wall_s:.0f} s of its BYE, not with "
                                f"{'no end' if status is None else status}")  # fmt: skip
        counters: dict[str, int] = entry[4]
        return counters

    def end_status(self, limit_s: float) -> int | None:
        """The exit status of the process; None when it still runs after `limit_s`."""
        assert self._group is not None
        deadline = time.monotonic() + limit_s
        while (status := self._group.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return status

    def kill(self) -> None:
        """kill -9."""
        assert self._group is not None
        self._group.send_signal(9)

    def survivors(self) -> list[int]:
        """Processes that were started by the node and live: its group, and what has its environment."""
        return processes_with(self.token_path)

    def hang_up(self) -> None:
        """Close the connection, as a hub that is gone."""
        if self._link is not None:
            self._link.close()
            self._link = None

    # -- frames --------------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a frame to the node."""
        assert self._link is not None
        self.frames.append(("to node:  ", frame))
        with suppress(LinkClosed):  # the receive that follows says how it ended
            self._link.send(self.identity, frame)

    def receive(self, limit_s: float, late: str) -> tuple[Frame, bytes]:
        """The next frame of the node; RuleBroken (rule `late`) after `limit_s`, or when it is gone or speaks nonsense."""
        assert self._link is not None and self._group is not None
        deadline = time.monotonic() + limit_s
        while (item := self._link.receive()) is None:
            if self._link.twice:
                self.broken("duplicate", "the node must connect once; a second connection of its name came")
            if self._link.closed or (not self.identity and self._group.poll() is not None):
                status = self.end_status(1.0)
                self.broken(
                    "node-lost", f"the node must stay until BYE; it ended with {_status(status)}: {self.printed()}"
                )
            if time.monotonic() > deadline:
                rule = "no answer" if late == "stall" else late
                self.broken(late, f"the node must answer within {limit_s:.0f} s of wall-clock time ({rule})")
            self._link.wait(50)
        identity, data = item
        self.frames.append(("from node:", data))
        if identity != NAME.encode():
            self.broken("unknown-name", f"routing id must be COSIM_NAME = {NAME!r}, not {identity!r}", data)
        self.identity = identity
        try:
            frame = decode(data)
        except WireError as error:
            self.broken("bad-frame", str(error), data)
        if frame.type is FrameType.LOG:
            return self.receive(max(0.0, deadline - time.monotonic()), late)
        return frame, data

    def broken(self, rule: str, text: str, data: bytes | None = None, time_ps: int | None = None) -> NoReturn:
        """Raise RuleBroken with the last frames."""
        shown = [f"{way} {self._in_words(frame)}{frame_text(frame)}" for way, frame in self.frames]
        raise RuleBroken(rule, text, self.now if time_ps is None else time_ps, shown)

    def _in_words(self, data: bytes) -> str:
        """What a frame says, before its bytes: of a GRANT and a DONE the times and the first messages; nothing of nonsense."""
        try:
            frame = decode(data)
            if frame.type is FrameType.GRANT:
                seq, bound, batches = frame.body
                head, blobs = f"GRANT {seq} below {bound} ps", [blob for _worker, blob in batches]
            elif frame.type is FrameType.DONE:
                seq, now, next_event, next_out, _events, batches, _side = frame.body
                times = ("never" if t == NEVER else f"{t} ps" for t in (next_event, next_out))
                head = f"DONE {seq} at {now} ps, next_event {next(times)}, next_out {next(times)}"
                blobs = [batch[3] for batch in batches]
            else:
                return f"{frame.type.name}, "
            shown = [self.readable(record) for blob in blobs for record in unpack_records(blob)]
        except (WireError, LookupError, TypeError, ValueError, AttributeError):
            return ""
        more = f"; and {len(shown) - FRAME_MESSAGES} more" if len(shown) > FRAME_MESSAGES else ""
        return f"{head}: {'; '.join(shown[:FRAME_MESSAGES]) or 'no messages'}{more}, "

    @staticmethod
    def _what(frame: Frame) -> str:
        return f"ERROR ({frame.body[0]}: {frame.body[3]})" if frame.type is FrameType.ERROR else frame.type.name

    # -- grants --------------------------------------------------------------------------------------------------------

    def offer(self, item: Input, number: int) -> None:
        """Queue an input; `number` is its place in the stimulus."""
        link = next(k.id for k in self.plan.links if k.dst == 0 and k.dst_port == item.port)
        self.push(Record(item.at, number, link, item.kind, item.fields))

    def push(self, record: Record) -> None:
        """Queue a record."""
        heappush(self.inputs, (record.arrival, KINDS[record.kind].priority, record.seq, record))

    def need(self) -> int:
        """Time of the earliest thing that the node has to do."""
        return min(self.next_event, self.inputs[0][0] if self.inputs else NEVER)

    def due(self, bound: int, ahead: int = 0) -> list[Record]:
        """Take the inputs below `bound`, and up to `ahead` later ones."""
        found = []
        while self.inputs and (self.inputs[0][0] < bound or ahead > 0):
            ahead -= self.inputs[0][0] >= bound
            found.append(heappop(self.inputs)[-1])
        return found

    def grant_frame(self, bound: int, records: Sequence[Record]) -> bytes:
        """The next GRANT."""
        self._seq += 1
        self.grants += 1
        return encode(FrameType.GRANT, self._seq, bound, [(0, pack_records(records))] if records else [])

    def grant(self, bound: int, records: Sequence[Record]) -> None:
        """Grant up to `bound` with these inputs; take the answer, and have it answered. Raises RuleBroken."""
        batches = [(0, pack_records(records))] if records else []
        self.foreign.granted(batches)
        self.send(self.grant_frame(bound, records))
        frame, data = self.receive(self.setup.wall_s, "stall")
        if frame.type is not FrameType.DONE:
            rule = "node-failed" if frame.type is FrameType.ERROR else "order"
            self.broken(rule, f"DONE must answer GRANT, not {self._what(frame)}", data)
        seq, now, next_event, next_out, _events, _batches, _side = frame.body
        if seq != self._seq:
            self.broken("sequence", f"the answer must be to grant {self._seq}, not {seq}", data)
        if now > bound:
            self.broken("overrun", f"the clock must stop at the bound {bound} ps, not at {now} ps", data, now)
        if now < self.now:
            self.broken("clock", f"the clock must not go back from {self.now} ps to {now} ps", data)
        self._check_times(now, next_event, next_out, data)
        try:
            blobs = self.foreign.answered(frame.body)
        except ProtocolViolation as error:
            self.broken(error.rule, error.text, data, now)
        except WireError as error:
            self.broken("bad-frame", str(error), data, now)
        self.now, self.next_event, self.next_out = now, next_event, next_out
        for _worker, _arrival, _wake, blob in blobs:
            for record in unpack_records(blob):
                self.outputs.append(record)
                port = self.plan.links[record.link].src_port
                back = next(k.id for k in self.plan.links if k.dst == 0 and k.dst_port == port)
                answer = self.neighbour.answer(record, back)
                if answer is not None:
                    self.push(answer)

    def _check_times(self, now: int, next_event: int, next_out: int, data: bytes) -> None:
        self.next_event, self.next_out = next_event, next_out
        if next_event < now:
            self.broken("past-event", f"next_event must be >= now = {now} ps, not {next_event} ps", data)
        if next_out < next_event:
            self.broken("promise-order", f"next_out must be >= next_event = {next_event} ps, not {next_out} ps", data)

    def unanswered(self) -> list[str]:
        """Requests to the node that have no completion."""
        return [
            f"tag {tag} on port {port}, which arrived at {fmt(arrival)}"
            for (port, _peer), tags in sorted(self.foreign.requests.items())
            for tag, (arrival, _size) in sorted(tags.items())
        ]

    def readable(self, record: Record) -> str:
        """A message in words."""
        link = self.plan.links[record.link]
        kind = KINDS[record.kind]
        fields = ", ".join(f"{n}={_short(v)}" for n, v in zip(kind.fields, record.fields, strict=True))
        if link.dst == 0:
            return f"arriving at {record.arrival} ps at {link.dst_port}: {kind!r} {fields}"
        return f"#{record.seq} sent at {record.arrival - link.latency} ps by {link.src_port}: {kind!r} {fields}"


def _short(value: Any) -> str:
    text = hex(value) if type(value) is int and value > 9 else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _status(status: int | None) -> str:
    if status is None:
        return "no exit status yet"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
