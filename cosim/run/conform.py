"""The conformance kit: `examine` runs a foreign node through its cases and says which rule it broke, when, with the frames.

The idea: what a node sends may depend on what it gets and on simulated time, never on how time was cut into grants. So one
stimulus is run under many partitions, and the streams are compared message by message. The other cases try what a run must
survive: errors, power off or reset in the middle of a transfer, nonsense from the hub, the death of either side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from cosim.attach.plan import MMIO_INITIATOR, MMIO_TARGET, WIRE_ROLE
from cosim.core.codec import FrameType, encode
from cosim.core.message import DECERR, KINDS, MMIO, OKAY, POWER, SLVERR, WIRE, Record
from cosim.core.time import NEVER
from cosim.run.conform_kit import Input, LateErrors, Neighbour, RuleBroken, Session, Setup
from cosim.run.conform_stimulus import ATTR
from cosim.run.conform_stimulus import Stimulus as Stimulus
from cosim.run.conform_stimulus import default_stimulus as default_stimulus
from cosim.run.conform_stimulus import stimulus_from as stimulus_from

MAX_GRANTS = 200_000
_UNKNOWN_KIND = 1023 * 64 + 63
_NOT_A_FRAME = b"CSA1\x04\0\0\0\x93\x01\xcf\xff"
_LIMIT_MESSAGES = 4096

Bound = Callable[[int, int], int]
"""(now, need) to the next bound, above need."""


class Verdict(NamedTuple):
    """Result of one case: `rule` is "" when it passed; `text`, `time_ps` and `frames` tell how it was broken."""

    case: str
    rule: str
    text: str
    time_ps: int
    frames: tuple[str, ...]
    grants: int
    messages: int


class Stream(NamedTuple):
    """What a node sent under one partition; `shown` are the messages in words, `unserved` the accesses of the stimulus, such as
    ``9 writes``, of whose kind none was completed with OKAY."""

    records: list[Record]
    shown: list[str]
    grants: int
    counters: dict[str, int]
    unserved: tuple[str, ...] = ()


def _unserved(stimulus: Stimulus, session: Session, records: Sequence[Record]) -> tuple[str, ...]:
    ports = {link.id: link.src_port for link in session.plan.links}
    good = {(ports[r.link], r.fields[0]) for r in records if r.kind == MMIO.Completion.code and r.fields[1] < SLVERR}
    found = []
    for kind, name in ((MMIO.Read.code, "read"), (MMIO.Write.code, "write")):
        asked = [(item.port, item.fields[0]) for item in stimulus.inputs if item.kind == kind]
        if asked and good.isdisjoint(asked):
            found.append(f"{len(asked)} {name}{'s' * (len(asked) > 1)}")
    return tuple(found)


def partitions(clock: int, horizon: int, seed: int) -> dict[str, Bound]:
    """The partitions of time, by name."""
    odd = 3 * clock + clock // 3
    chance = random.Random(seed)

    def step(size: int) -> Bound:
        return lambda _now, need: (need // size + 1) * size

    return {
        "far": lambda _now, _need: horizon,
        "1 clock": step(clock),
        "7 clocks": step(7 * clock),
        "200 clocks": step(200 * clock),
        f"{odd} ps": step(odd),
        f"random({seed})": lambda _now, need: need + 1 + chance.randrange(50 * clock),
        "one event": lambda _now, need: need + 1,
        "eager": lambda now, _need: now + 97 * clock + 1,
    }


class Kit:
    """Runs cases against one node.

    Args:
        setup: how the node is started.
        stimulus: None for `default_stimulus`, over `size` bytes of each target port.
        protocols: names of channel protocols that this process has imported.
    """

    def __init__(
        self, setup: Setup, stimulus: Stimulus | None = None, *, size: int = 0x1000, protocols: Sequence[str] = ()
    ) -> None:
        self.setup = setup
        self.size = size
        self.protocols = protocols
        self._stimulus = stimulus
        self.ports: dict[str, str] = {}
        self.reference: Stream | None = None

    # -- one run -------------------------------------------------------------------------------------------------------

    def open(self, neighbour: Neighbour | None = None) -> Session:
        """A session, not joined yet."""
        return Session(self.setup, neighbour or Neighbour(self.setup))

    def stimulus(self, session: Session) -> Stimulus:
        """The stimulus for the ports that the node has told."""
        self.ports = session.ports
        if self._stimulus is None:
            self._stimulus = default_stimulus(session.ports, self.setup.clock, self.setup.seed, self.size)
        missing = {item.port for item in self._stimulus.inputs} - set(session.ports)
        if missing:
            raise RuleBroken(
                "ports", f"the stimulus needs the ports {', '.join(sorted(missing))}; HELLO has {session.ports}"
            )
        return self._stimulus

    def run(
        self,
        partition: str,
        *,
        neighbour: Neighbour | None = None,
        extra: Sequence[Input] = (),
        twice: bool = False,
        ahead: int = 0,
    ) -> Stream:
        """The whole stimulus under one partition, to the end; `twice` delivers every completion twice."""
        with self.open(neighbour) as session:
            session.join(self.protocols)
            stimulus = self.stimulus(session)
            ordered = sorted(enumerate([*stimulus.inputs, *extra]), key=lambda pair: (pair[1].at, pair[0]))
            for number, (_, item) in enumerate(ordered):
                session.offer(item, number)
            bound_of = partitions(self.setup.clock, stimulus.horizon, self.setup.seed)[partition]
            self._drive(session, stimulus.horizon, bound_of, twice, ahead)
            off = session.foreign.off_at < NEVER
            if session.unanswered() and not off and not twice:
                session.broken(
                    "unanswered", f"every request must be completed; open at the end: {session.unanswered()[0]}"
                )
            latencies = {link.id: link.latency for link in session.plan.links}
            records = [r for r in session.outputs if r.arrival - latencies[r.link] < stimulus.horizon]
            records.sort(key=lambda r: (r.arrival, r.seq))
            shown = [session.readable(r) for r in records]
            return Stream(records, shown, session.grants, session.finish(), _unserved(stimulus, session, records))

    def _drive(self, session: Session, horizon: int, bound_of: Bound, twice: bool, ahead: int) -> None:
        seen = 0
        while (need := session.need()) < horizon:
            bound = min(horizon, max(bound_of(session.now, need), session.now + 1))
            records = session.due(bound, ahead)
            if twice:
                records = [copy for r in records for copy in ([r, r] if r.kind == MMIO.Completion.code else [r])]
            session.grant(bound, records)
            seen += 1
            if seen > MAX_GRANTS:
                session.broken("progress", f"the node must come to rest; it asked for more than {MAX_GRANTS:,} grants")

    def same(self, a: Stream, b: Stream, rule: str, what: str) -> None:
        """Raise RuleBroken unless two streams are equal."""
        for number, (left, right) in enumerate(zip(a.records, b.records, strict=False)):
            if left != right:
                raise RuleBroken(
                    rule,
                    f"{what}: message {number} differs",
                    min(left.arrival, right.arrival),
                    [f"first:  {a.shown[number]}", f"second: {b.shown[number]}"],
                )
        if len(a.records) != len(b.records):
            longer = a if len(a.records) > len(b.records) else b
            number = min(len(a.records), len(b.records))
            raise RuleBroken(
                rule,
                f"{what}: {len(a.records)} messages against {len(b.records)}",
                longer.records[number].arrival,
                [f"only in the {'first' if longer is a else 'second'}: {longer.shown[number]}"],
            )

    # -- cases ---------------------------------------------------------------------------------------------------------

    def cases(self) -> Iterator[tuple[str, Callable[[], Stream | None]]]:
        """(name, function) of each case; what later ones need is known when the first has passed."""
        first, *others = partitions(self.setup.clock, 0, self.setup.seed)
        yield f"partition: {first}", lambda: self.partition(first)
        yield "equal seeds", self.equal_seeds
        for name in others:
            yield f"partition: {name}", lambda name=name: self.partition(name)  # type: ignore[misc]
        yield "partition: 7 clocks, inputs early", lambda: self.partition("7 clocks", ahead=8)
        initiates = MMIO_INITIATOR in self.ports.values()
        if initiates:
            yield "completions with SLVERR", lambda: self.error_completions(SLVERR)
            yield "completions with DECERR", lambda: self.error_completions(DECERR)
            yield "completions that come twice", self.duplicate_completions
        yield "power off in mid-transfer", self.power_off
        for what in () if self._stimulus is None else self._stimulus.resets:
            if not isinstance(what, str):
                yield f"reset ({what.port} {KINDS[what.kind]!r}) in mid-transfer", partial(self.reset, what)
            elif self.ports.get(what) == WIRE_ROLE:
                yield f"reset ({what}) in mid-transfer", partial(self.reset, what)
        yield "an input in the past", self.past
        yield "bytes that are no frame", self.garbage
        yield "an unknown message kind", self.unknown_kind
        yield "a gap in the grants", self.gap
        if MMIO_TARGET in self.ports.values():
            yield f"{_LIMIT_MESSAGES:,} inputs at once", self.limits
        yield "kill -9 in mid-grant", self.killed
        yield "the hub goes away", self.hub_gone
        yield "HELLO refused", self.refused

    def partition(self, name: str, ahead: int = 0) -> Stream:
        """One partition against the first."""
        stream = self.run(name, ahead=ahead)
        if self.reference is None:
            self.reference = stream
        else:
            self.same(
                self.reference, stream, "partition", f"grants of `far` and of `{name}` must give one message stream"
            )
        return stream

    def equal_seeds(self) -> Stream:
        """The same run again."""
        stream = self.run("far")
        self.same(self._known(), stream, "repeat", "two runs with the same seed must give one message stream")
        return stream

    def error_completions(self, status: int) -> Stream:
        """Every other completion is an error."""

        def fault(number: int) -> int:
            return status if number % 2 else OKAY

        first = self.run("one event", neighbour=Neighbour(self.setup, fault))
        second = self.run("far", neighbour=Neighbour(self.setup, fault))
        self.same(first, second, "partition", "with error completions, two partitions must give one message stream")
        return second

    def duplicate_completions(self) -> Stream | None:
        """A completion that comes twice is refused, or the second one ignored."""
        try:
            stream = self.run("200 clocks", twice=True)
        except RuleBroken as broken:
            if broken.rule == "node-failed":
                return None  # refused
            if broken.rule == "node-lost" and "signal" not in broken.text and "exit status 0" not in broken.text:
                return None
            raise
        self.same(
            self._known(), stream, "duplicate-completion", "a second completion of one tag must be refused or ignored"
        )
        return stream

    def power_off(self) -> Stream:
        """Off while a request is under way."""
        extra = [Input(self._middle(), "power", POWER.Off.code, ())]
        first, second = self.run("one event", extra=extra), self.run("200 clocks", extra=extra)
        self.same(first, second, "partition", "with power off, two partitions must give one message stream")
        return second

    def reset(self, what: str | Input) -> Stream:
        """Reset while a request is under way: the requests that it has got are completed, be it with an error, and completions of
        its own from before are nobody's, so that nothing may depend on what they say."""
        at = self._middle()
        if isinstance(what, str):
            end = at + 10 * self.setup.clock
            extra = [Input(at, what, WIRE.Level.code, (0, 1)), Input(end, what, WIRE.Level.code, (0, 0))]
        else:
            extra = [what._replace(at=at)]
        first, second = self.run("one event", extra=extra), self.run("200 clocks", extra=extra)
        self.same(first, second, "partition", "with a reset, two partitions must give one message stream")
        late = LateErrors(self.setup, at)
        third = self.run("200 clocks", neighbour=late, extra=extra)
        self.same(second, third, "reset", "completions of requests from before the reset must be dropped: OKAY or SLVERR in "
                                          f"{late.altered} of them must make no difference")  # fmt: skip
        return second

    def past(self) -> None:
        """An input below the clock is refused."""
        with self._advanced() as session:
            link = next(k for k in session.plan.links if k.dst == 0 and k.dst_port == "power")
            old = Record(session.now - 1, 1 << 40, link.id, POWER.Epoch.code, (1,))
            session.send(session.grant_frame(session.now + self.setup.clock, [old]))
            self._refused_by(session, "accepts-past", f"an input at {old.arrival} ps, below its clock, must be refused")

    def garbage(self) -> None:
        """Bytes that are no frame are refused."""
        with self._advanced() as session:
            session.send(_NOT_A_FRAME)
            self._refused_by(session, "accepts-garbage", "a frame that is cut short must be refused")

    def unknown_kind(self) -> None:
        """A kind that no port carries is refused."""
        with self._advanced() as session:
            link = next(k for k in session.plan.links if k.dst == 0)
            record = Record(session.now + 1, 1 << 40, link.id, _UNKNOWN_KIND, ())
            session.send(session.grant_frame(session.now + self.setup.clock, [record]))
            self._refused_by(session, "accepts-unknown-kind", f"a message of kind {_UNKNOWN_KIND} must be refused")

    def gap(self) -> None:
        """A GRANT that skips a number is refused."""
        with self._advanced() as session:
            session.grant_frame(session.now + 1, [])
            session.send(session.grant_frame(session.now + self.setup.clock, []))
            self._refused_by(session, "accepts-gap", "a GRANT that skips a number must be refused")

    def limits(self) -> None:
        """Many inputs in one grant are answered, or refused in words."""
        with self._advanced() as session:
            port = next(p for p, role in self.ports.items() if role == MMIO_TARGET)
            link = next(k.id for k in session.plan.links if k.dst == 0 and k.dst_port == port)
            at = session.now + self.setup.clock
            records = [
                Record(at, (1 << 40) + n, link, MMIO.Read.code, ((1 << 40) + n, 0, 4, ATTR))
                for n in range(_LIMIT_MESSAGES)
            ]
            session.foreign.granted([])
            session.send(session.grant_frame(at + 1, records))
            try:
                session.receive(self.setup.wall_s, "limits")
            except RuleBroken as broken:
                if broken.rule != "node-lost" or "signal" in broken.text or "exit status 0" in broken.text:
                    raise RuleBroken("limits", broken.text, broken.time_ps, broken.frames) from None

    def killed(self) -> None:
        """Its death is seen at once, and nothing is left of it."""
        with self._advanced() as session:
            session.send(session.grant_frame(session.now + 1000 * self.setup.clock, []))
            session.kill()
            try:
                while True:
                    session.receive(5.0, "kill")
            except RuleBroken as broken:
                if broken.rule != "node-lost":
                    raise
            if session.survivors():
                session.broken(
                    "leftover", f"nothing must be left after kill -9 of its group, not {session.survivors()}"
                )

    def hub_gone(self) -> None:
        """A node whose hub is gone ends, and not with success."""
        with self._advanced() as session:
            session.hang_up()
            status = session.end_status(self.setup.wall_s)
            if status is None or status == 0:
                how = "still running" if status is None else "exit status 0"
                session.broken(
                    "hub-gone",
                    f"the node must end with an error within {self.setup.wall_s:.0f} s after its connection ended, not {how}",
                )

    def refused(self) -> None:
        """A node that is refused ends, and not with success."""
        with self.open() as session:
            session.receive(self.setup.wait_s, "join-timeout")
            session.send(encode(FrameType.REFUSED, "version", "the kit refuses every version here"))
            status = session.end_status(self.setup.wall_s)
            if status is None or status == 0:
                how = "still running" if status is None else "exit status 0"
                session.broken("ignores-refusal", f"a node that was REFUSED must end with an error, not {how}")

    # -- help ----------------------------------------------------------------------------------------------------------

    def _known(self) -> Stream:
        if self.reference is None:
            raise RuleBroken("partition", "the first partition did not pass: there is nothing to compare with")
        return self.reference

    def _middle(self) -> int:
        """A time in the middle of a transfer: when the first request of the node is at its neighbour; else half-way."""
        for record in self.reference.records if self.reference else ():
            if record.kind in (MMIO.Read.code, MMIO.Write.code):
                return record.arrival + self.setup.clock // 2
        times = [item.at for item in self._stimulus.inputs] if self._stimulus else [0]
        return max(1, sorted(times)[len(times) // 2]) if times else self.setup.clock

    @contextmanager
    def _advanced(self) -> Iterator[Session]:
        """A session that has had its first grant."""
        with self.open() as session:
            session.join(self.protocols)
            session.grant(100 * self.setup.clock, [])
            if session.now == 0:
                session.broken("progress", "a grant without an input must move the clock")
            yield session

    def _refused_by(self, session: Session, rule: str, text: str) -> None:
        """The node answers with ERROR, or ends with an error; anything else breaks `rule`."""
        try:
            frame, data = session.receive(self.setup.wall_s, rule)
        except RuleBroken as broken:
            if broken.rule == "node-lost" and "signal" in broken.text:
                raise RuleBroken("crash", broken.text, broken.time_ps, broken.frames) from None
            if broken.rule == "node-lost" and "exit status 0" not in broken.text:
                return
            raise RuleBroken(rule, f"{text}; {broken.text}", broken.time_ps, broken.frames) from None
        if frame.type is not FrameType.ERROR:
            session.broken(rule, f"{text}; it answered {frame.type.name}", data)


def examine(kit: Kit, only: Callable[[str], bool] = lambda _name: True) -> Iterator[Verdict]:
    """Run the cases whose names `only` accepts (the first always), and give each one's verdict as it is known."""
    for name, case in kit.cases():
        if kit.reference is not None and not only(name):
            continue
        try:
            stream = case()
        except RuleBroken as broken:
            yield Verdict(name, broken.rule, broken.text, broken.time_ps, tuple(broken.frames), 0, 0)
            if kit.reference is None or broken.rule == "repeat":
                return  # nothing else can be said of it
        else:
            yield Verdict(name, "", "", 0, (), stream.grants if stream else 0, len(stream.records) if stream else 0)
