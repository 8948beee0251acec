"""Replay: one worker is driven again by its journal alone, and its messages are compared with those that it sent in the run.

A worker hears of its surroundings by grants only, so the journal (`cosim.run.hubparts.Journal`) is all that it needs: no hub, no
other node, no wall-clock limit. Messages are compared, not frames: a message that differs is told with its simulated time.
Workers of Python nodes run in this process, in the calling thread, so that a debugger sees them (`PythonReplay`); external
nodes are programs again (`cosim.run.replay_foreign`).

A Python worker gets the bounds of the journal, and executes in each grant as many events as it did in the run: there a grant
ends early when it takes long by the wall clock. What it did depends on nothing else. An external node gets as bound the clock
that it had answered, since how far it goes in one grant is its own affair.
"""

from __future__ import annotations

import json
import pdb
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack

from cosim.core.codec import LIMITS, VERSION, Frame, FrameType, WireError, decode, encode, unpack_records
from cosim.core.journal import JournalError, read_records
from cosim.core.kernel import MAX_EVENTS_PER_GRANT, Kernel, Report
from cosim.core.message import KINDS, Record
from cosim.core.plan import NodePlan, Plan, WorkerPlan
from cosim.core.time import NEVER, fmt
from cosim.errors import NodeError, UsageError
from cosim.node.worker import Worker
from cosim.run.hubparts import grant_frames, place_of
from cosim.run.rundir import DIGESTS_FILE
from cosim.topo.catalogue import Catalogue, allowed

Tell = Callable[[str], None]


class Step(NamedTuple):
    """One grant of a journal: its bound (ps), what it delivered, and the body of its DONE (None: it was never answered)."""

    bound: int
    batches: tuple[tuple[int, bytes], ...]
    done: tuple[Any, ...] | None


class Difference(Exception):
    """The replay went another way than the run: at `time_ps`, `what`, and the two sides in words."""

    def __init__(self, time_ps: int, what: str, sides: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.time_ps = time_ps
        self.what = what
        self.sides = list(sides)


class Replayed(NamedTuple):
    """A replay that went as the run did: `nodes` of the worker, grants and messages compared, time (ps) of the last event or
    `until`, how many `digests` were compared with the run's, and how the journal ended (`ending`)."""

    nodes: list[str]
    grants: int
    messages: int
    sim_time_ps: int
    digests: int
    ending: str


class Script:
    """The journal of the worker that hosts `node`, and the plan of its run.

    Args:
        directory: of the run.
        node: name of a node.
        until: leave out what was executed at or after this time (ps); None: all.

    Raises:
        UsageError: no such node, or no journal of it that can be read.
    """

    def __init__(self, directory: Path, node: str, until: int | None = None) -> None:
        self.directory = directory
        self.plan = _plan(directory)
        by_name = {n.name: n for n in self.plan.nodes}
        if node not in by_name:
            from difflib import get_close_matches

            close = get_close_matches(node, by_name, 1)
            raise UsageError(
                f"node must be one of the run's, not {node!r}",
                code="no-node",
                where=str(directory),
                next_step=f"did you mean {close[0]}?" if close else "`cosim ps RUN` and plan.json have their names",
            )
        self.node = by_name[node]
        self.worker = self.plan.worker_of()[self.node.id]
        self.hosted = [self.plan.nodes[n] for n in self.plan.groups[self.worker]]
        self.returns = self.plan.distances().returns(self.plan.groups)[self.worker]
        self.until = NEVER if until is None else until
        self.path = directory / "journal" / f"w{self.worker}.journal"
        self.torn = ""
        self.steps = self._read()

    def _read(self) -> list[Step]:
        try:
            records, tail = read_records(self.path.read_bytes())
        except (OSError, JournalError) as error:
            text = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"the run must have a journal of {self.node.name}: {text}",
                code="no-journal",
                where=str(self.path),
                next_step="a run over hosts may have left it on the host: see log.jsonl",
            ) from None
        self.torn = tail.torn or ""
        try:
            return list(_steps(records))
        except WireError as error:
            raise UsageError(f"the journal must hold frames of this version: {error}", code="no-journal",
                             where=str(self.path)) from None  # fmt: skip

    def ending(self, cut: bool, open_grant: Step | None) -> str:
        """How the replay ended, in words."""
        if cut:
            return "--until was reached"
        if open_grant is not None:
            return f"the journal ends in a grant to {fmt(open_grant.bound)} that was not answered"
        return f"the journal's last record is cut short ({self.torn})" if self.torn else "the journal's end"

    def digests(self) -> dict[str, tuple[int, str]]:
        """Messages consumed and digest of each node, as the run wrote them down; empty when it did not come to its end."""
        try:
            found = json.loads((self.directory / DIGESTS_FILE).read_text())
            return {str(name): (int(count), str(digest)) for name, (count, digest) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def _plan(directory: Path) -> Plan:
    path = directory / "plan.json"
    try:
        return Plan.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"the run must have its plan: {type(error).__name__}: {error}", code="no-plan", where=str(path)
        ) from None


def _steps(records: Sequence[bytes]) -> Iterator[Step]:
    """The grants of a journal; deliveries that went ahead of one (sequence number 0) belong to it."""
    batches: list[tuple[int, bytes]] = []
    bound: int | None = None
    for record in records:
        body = decode(record[1:]).body
        if record[:1] == b"G":
            batches += body[2]
            if body[0]:
                bound = body[1]
        elif bound is not None:
            yield Step(bound, tuple(batches), body)
            batches, bound = [], None
    if bound is not None:
        yield Step(bound, tuple(batches), None)


class Comparison:
    """Compares messages with those of the journal, grant by grant, and counts them.

    Args:
        plan: of the run.
        tell: takes each message that goes in or out, in words; None: nobody listens.
    """

    def __init__(self, plan: Plan, tell: Tell | None = None) -> None:
        self.messages = self.grants = 0
        self._plan = plan
        self._tell = tell
        self._rows: dict[int, tuple[str, tuple[str, ...]]] = {}
        for node in plan.nodes:
            for code, name, _priority, fields in (node.external or {}).get("kinds", ()):
                self._rows[code] = (name, tuple(fields))

    def words(self, record: Record) -> str:
        """A message in words."""
        link = self._plan.links[record.link]
        names = [self._plan.nodes[n].name for n in (link.src, link.dst)]
        kind = KINDS.get(record.kind)
        name, fields = (repr(kind), kind.fields) if kind else self._rows.get(record.kind, (f"kind {record.kind}", ()))
        if len(fields) == len(record.fields):
            shown = " ".join(f"{n}={_short(v)}" for n, v in zip(fields, record.fields, strict=True))
        else:
            shown = _short(record.fields)
        return (
            f"#{record.seq} sent at {record.arrival - link.latency} ps, arriving at {record.arrival} ps, "
            f"{names[0]}.{link.src_port} -> {names[1]}.{link.dst_port}: {name} {shown}".rstrip()
        )

    def delivered(self, batches: Sequence[tuple[int, bytes]]) -> None:
        """Inputs go to the worker."""
        if self._tell is not None:
            for _worker, blob in batches:
                for record in unpack_records(blob):
                    self._tell(f"in  {self.words(record)}")

    def check(self, recorded: Sequence[bytes], replayed: Sequence[bytes], cut: bool) -> None:
        """Blobs of one grant against each other; `cut`: the replay stopped earlier, so that the last ones may be missing.

        Raises:
            Difference: with the earliest message that differs.
        """
        ours, theirs = self._by_source(replayed), self._by_source(recorded)
        if self._tell is not None:
            for record in ours.values():
                self._tell(f"out {self.words(record)}")
        self.grants += 1
        self.messages += len(ours)
        wrong = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        if cut:
            wrong = [key for key in wrong if key in ours]
        if wrong:
            key = min(wrong, key=lambda k: (self._sent(theirs.get(k) or ours[k]), k))
            found = [self.words(side[key]) if key in side else "no such message" for side in (theirs, ours)]
            earliest = min(self._sent(side[key]) for side in (ours, theirs) if key in side)
            raise Difference(
                earliest, "a message differs", [f"in the journal: {found[0]}", f"in the replay:  {found[1]}"]
            )

    def _by_source(self, blobs: Sequence[bytes]) -> dict[tuple[int, int], Record]:
        """Messages by source node and number."""
        found = [record for blob in blobs for record in unpack_records(blob)]
        found.sort(key=lambda r: (self._sent(r), self._plan.links[r.link].src, r.seq))
        return {(self._plan.links[r.link].src, r.seq): r for r in found}

    def _sent(self, record: Record) -> int:
        return record.arrival - self._plan.links[record.link].latency


def check_digests(script: Script, found: Mapping[str, tuple[int, bytes]], now: int) -> int:
    """Compare what nodes consumed with what the run wrote down; returns how many were compared.

    Raises:
        Difference: a node consumed something else.
    """
    known = script.digests()
    compared = 0
    for name, (count, digest) in sorted(found.items()):
        if name in known:
            if known[name] != (count, digest.hex()):
                raise Difference(
                    now,
                    f"{name} consumed something else than in the run",
                    [
                        f"in the run:    {known[name][0]} messages, digest {known[name][1]}",
                        f"in the replay: {count} messages, digest {digest.hex()}",
                    ],
                )
            compared += 1
    return compared


class _Paced:
    """A kernel that ends each grant where it ended in the run: after so many events, whatever a clock on the wall says."""

    def __init__(self, kernel: Kernel, events: Callable[[], int]) -> None:
        self._kernel = kernel
        self._events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def grant(self, bound: int, _max_events: int, _hurry: Callable[[], bool]) -> Report:
        """As `Kernel.grant`."""
        return self._kernel.grant(bound, self._events())


class _Again(Worker):
    """A worker whose grants end as the journal says."""

    def __init__(self, replay: PythonReplay, name: str) -> None:
        super().__init__(replay, name)
        self._replay = replay

    def _build(self, plan: WorkerPlan) -> None:
        super()._build(plan)
        self.kernel = cast(Kernel, _Paced(self.kernel, self._replay.events))


class PythonReplay:
    """A worker of Python nodes between its journal and a comparison: the worker's socket, for `cosim.node.worker.Worker`.

    Args:
        script: the journal; its worker must host Python nodes.
        tell: as for `Comparison`.
        debug: stop in pdb where a model raises.
        allow_models: packages from which models may come besides those that are installed.

    Raises:
        UsageError: a model of the plan is neither installed nor allowed.
    """

    def __init__(
        self, script: Script, *, tell: Tell | None = None, debug: bool = False, allow_models: Sequence[str] = ()
    ) -> None:
        self.script = script
        self.comparison = Comparison(script.plan, tell)
        self._debug = debug
        self._left = deque(script.steps)
        self._step: Step | None = None
        self._cut = False
        self._seq = 0
        self._now = 0
        self._frames: deque[bytes] = deque()
        self._final: Any = None
        _check_models(script.hosted, allow_models)

    def run(self) -> Replayed:
        """Replay to the end of the journal, or to `until`.

        Raises:
            Difference: it went another way.
            NodeError: a model raised, as it may have done in the run.
        """
        _Again(self, f"w{self.script.worker}").serve()
        compared = 0
        whole = not self._cut and (self._step is None or self._step.done is not None)
        if whole:
            compared = check_digests(self.script, {e[0]: (e[2], e[3]) for e in self._final[3]}, self._now)
        return Replayed(
            [node.name for node in self.script.hosted],
            self.comparison.grants,
            self.comparison.messages,
            self.script.until if self._cut else self._final[0],
            compared,
            self.script.ending(self._cut, None if whole or self._cut else self._step),
        )

    # -- the worker's socket -------------------------------------------------------------------------------------------

    def receive(self, timeout_ms: int | None = None) -> bytes:
        """The next frame for the worker."""
        return self._frames.popleft()

    def close(self) -> None:
        """Nothing is open."""

    def events(self) -> int:
        """After how many events the present grant ended in the run; one where it executed none shows that there is one now."""
        assert self._step is not None
        return MAX_EVENTS_PER_GRANT if self._step.done is None else max(1, self._step.done[4])

    def send(self, data: bytes) -> None:
        """Take a frame of the worker."""
        frame = decode(data)
        if frame.type is FrameType.HELLO:
            plan = self.script.plan.worker_plan(self.script.worker, dict(self.script.returns)).to_msgpack()
            self._frames.append(encode(FrameType.WELCOME, VERSION, plan, [LIMITS.max_frame, LIMITS.max_messages]))
        elif frame.type is FrameType.READY:
            self._next()
        elif frame.type is FrameType.DONE:
            self._answered(frame.body)
            self._next()
        elif frame.type is FrameType.ERROR:
            self._failed(frame)
        elif frame.type is FrameType.BYE:
            self._final = msgpack.unpackb(frame.body[1], strict_map_key=False)

    def _next(self) -> None:
        """Grant what the journal granted next, or say that it is over."""
        if not self._left or self._cut or (self._step is not None and self._now >= self.script.until):
            self._cut = self._cut or bool(self._left)
            self._frames.append(encode(FrameType.BYE, "replay", None))
            return
        step = self._step = self._left.popleft()
        reached = step.bound if step.done is None else step.done[1]
        self._cut = reached > self.script.until
        self._seq += 1
        self.comparison.delivered(step.batches)
        bound = self.script.until if self._cut else step.bound
        self._frames.extend(grant_frames(self._seq, bound, list(step.batches), whole=False))

    def _answered(self, body: tuple[Any, ...]) -> None:
        step = self._step
        assert step is not None
        _seq, now, next_event, _next_out, events, batches, side = body
        self._now = max(self._now, now)
        if step.done is None:
            self.comparison.grants += 1
            return  # the run ended in this grant: there is nothing to compare with
        self.comparison.check([b[3] for b in step.done[5]], [b[3] for b in batches], self._cut)
        if self._cut:
            return
        _check_sides(step.done[6], side)
        was = (step.done[1], step.done[4], step.done[2])
        if was != (now, events, next_event):
            raise Difference(
                min(now, step.done[1]),
                "no message differs, but what was executed does",
                [
                    f"in the journal: {was[1]} events up to {was[0]} ps, the next at {was[2]} ps",
                    f"in the replay:  {events} events up to {now} ps, the next at {next_event} ps",
                ],
            )

    def _failed(self, frame: Frame) -> None:
        code, node, time_ps, what, text = frame.body
        error = sys.exc_info()[1]
        if self._debug and error is not None:
            sys.stderr.write(text)
            pdb.post_mortem((error.__cause__ or error).__traceback__)
        in_run = bool(self._left) or (self._step is not None and self._step.done is not None)
        raise NodeError(
            f"model {node} failed at {fmt(time_ps)}: {what}"
            + ("; in the run it went on there" if in_run else "; the journal ends there too"),
            code=code,
            node=node,
            sim_time_ps=time_ps,
            where=place_of(text),
            next_step="--pdb stops there" if not self._debug else "",
        )


def _check_sides(recorded: bytes | None, replayed: bytes | None) -> None:
    """What nodes log, print and mark is outside the messages, but tells where nodes of one worker go another way.

    Raises:
        Difference: with the first record that differs.
    """
    if recorded == replayed:
        return
    theirs, ours = (
        [] if packed is None else msgpack.unpackb(packed, strict_map_key=False) for packed in (recorded, replayed)
    )
    at = next((n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    sides = [f"at {side[at][0]} ps {side[at][4]}" if at < len(side) else "nothing" for side in (theirs, ours)]
    raise Difference(
        min(side[at][0] for side in (theirs, ours) if at < len(side)),
        "no message that leaves the worker differs, but what its nodes log does",
        [f"in the journal: {sides[0]:.200}", f"in the replay:  {sides[1]:.200}"],
    )


def _check_models(nodes: Sequence[NodePlan], prefixes: Sequence[str]) -> None:
    """A plan is a file: the code that it names must be what `cosim up` would load."""
    installed = set(Catalogue.installed().models.values())
    for node in nodes:
        if node.model not in installed and not allowed(node.model, prefixes):
            raise UsageError(
                f"model of {node.name} must be installed or come from an allowed package, not from {node.model!r}",
                code="model-refused",
                node=node.name,
                next_step=f"if you trust it: --allow-models {node.model.partition(':')[0].partition('.')[0]}",
            )


def _short(value: Any) -> str:
    text = hex(value) if type(value) is int and value > 9 else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
