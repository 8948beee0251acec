"""A scenario on workers behind a barrier, with every choice that a real run leaves open made by the test.

Open are: where nodes live, which running worker answers next, when the hub hands out grants, and after how
many events a worker chooses to answer. Everything else must follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosim.core.barrier import Barrier, Grant, Out
from cosim.core.baton import Quiet
from cosim.core.bounds import Distances
from cosim.core.digest import NodeDigest
from cosim.core.kernel import MAX_EVENTS_PER_GRANT, Kernel, LinkEnd, Report
from cosim.core.message import Record, RecordTuple
from cosim.core.time import NEVER
from tests.property.models import build
from tests.property.reference import Consumed, Outcome
from tests.property.scenario import Pick, Scenario

MAX_GRANTS = 20_000


class Broken(AssertionError):
    """One of the invariants I1 to I6 does not hold; the text begins with its name."""


class Log(NodeDigest):
    """Takes what would be digested, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Consumed] = []
        self.pack = tuple
        self.update = self.entries.append


class Cluster:
    """Workers (real kernels), a real barrier, and a hub's bookkeeping of blobs. The class attributes and methods
    below `mutants replace these` are the places where a rule of design section 3 can be broken on purpose."""

    kernel: type[Kernel] = Kernel
    barrier_type: type[Barrier] = Barrier
    passing = True

    def __init__(self, scenario: Scenario, placement: Sequence[Sequence[int]]) -> None:
        self.scenario = scenario
        self.nodes = build(scenario)
        self.worker_of = {node: w for w, group in enumerate(placement) for node in group}
        reactions = [spec.reaction for spec in scenario.nodes]
        distances = Distances(len(self.nodes), scenario.links, reactions)
        self.barrier = self.barrier_type(self.between(distances, placement), until=scenario.until)
        ends = {
            k: LinkEnd(src, dst, latency, self.worker_of[dst]) for k, (src, dst, latency) in enumerate(scenario.links)
        }
        self.kernels: list[Kernel] = []
        self.logs: dict[int, Log] = {}
        for w, (group, back) in enumerate(zip(placement, self.returns(distances, placement), strict=True)):
            links = {k: end for k, end in ends.items() if w in (self.worker_of[end.src], end.worker)}
            kernel = self.kernel(w, [self.nodes[i] for i in group], links, dict(enumerate(reactions)), back, Log)
            for i in group:
                self.nodes[i].start(kernel)
                log = kernel.digests[i]
                assert isinstance(log, Log)
                self.logs[i] = log
            self.kernels.append(kernel)
        self.inbox: list[list[tuple[int, list[RecordTuple]]]] = [[] for _ in placement]
        self.running: dict[int, tuple[Grant, int, list[tuple[int, list[RecordTuple]]]]] = {}
        self.told: dict[int, int] = {}
        self.baton: int | None = None
        self.quiet = Quiet(0, 0, 0)
        self.granted = 0

    # -- mutants replace these -----------------------------------------------------------------------------

    def between(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The barrier's distances."""
        return distances.between(placement)

    def returns(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[dict[int, int]]:
        """Each worker's early-return times."""
        return distances.returns(placement)

    def figures(self, next_event: int, next_out: int) -> tuple[int, int]:
        """What a worker tells of its (next_event, next_out)."""
        return next_event, next_out

    def following(self, w: int, report: Report) -> tuple[int, int, Quiet] | None:
        """Whom a worker that has the baton may grant, how far, and what that one may know of the others."""
        receiver, arrival = report.batches[0][:2] if report.batches else (-1, NEVER)
        reach = dict(enumerate(self.barrier.distances(w)))
        return self.quiet.following(w, report.next_event, report.next_out, receiver, arrival, reach)

    def inputs(self, w: int) -> tuple[int, int]:
        """What waits for a worker that is granted by another."""
        return self.barrier.inputs(w)

    # -- steps ---------------------------------------------------------------------------------------------

    def join(self, w: int) -> None:
        """Worker w is ready."""
        self.barrier.ready(w, *self.figures(*self.kernels[w].initial()))

    def issue(self) -> int:
        """Hand out all grants that are possible; how many. None while a worker has the baton."""
        if self.baton is not None:
            return 0
        grants = self.barrier.grants()
        for grant in grants:
            base = self.barrier.base(grant.worker)
            self.running[grant.worker] = (grant, base, self.inbox[grant.worker])
            self.inbox[grant.worker] = []
            if self.passing and (quiet := self.barrier.quiet(grant.worker)) is not None:
                self.baton, self.quiet = grant.worker, quiet
        self.granted += len(grants)
        if self.granted > MAX_GRANTS:
            raise Broken("I3: the run does not come to an end")
        if not (self.running or self.barrier.idle):
            raise Broken("I3: somebody has work, nobody has a grant")
        return len(grants)

    def finish(self, w: int, max_events: int = MAX_EVENTS_PER_GRANT, pass_on: bool = True) -> Report:
        """Worker w executes its grant and answers; if it has the baton it makes the next grant itself, where it can."""
        grant, base, inputs = self.running.pop(w)
        kernel = self.kernels[w]
        for sender, records in inputs:
            kernel.take(records, sender, self.worker_of)
        report = kernel.grant(grant.bound, max_events)
        for node in kernel.nodes.values():
            if node.now >= grant.bound > 0:
                raise Broken(f"I4: {node.name} is at {node.now}, its bound was {grant.bound}")
        self.check_promise(base, report)
        outs = [Out(batch.worker, batch.arrival, batch.wake) for batch in report.batches]
        next_event, next_out = self.figures(report.next_event, report.next_out)
        found = self.following(w, report) if self.baton == w and pass_on and len(report.batches) < 2 else None
        kept = self.inputs(w if found is None else found[0])
        self.barrier.report(w, grant.seq, report.now, next_event, next_out, outs)
        if self.baton == w:
            self.baton = None
        taken: list[tuple[int, list[RecordTuple]]] = []
        for batch in report.batches:
            passed = found is not None and batch.worker == found[0]
            (taken if passed else self.inbox[batch.worker]).append((w, batch.records))
        if found is not None:
            to, bound, self.quiet = found
            waits = self.barrier.explain()
            if any(wait.next_event < bound for wait in waits if wait.worker not in (w, to) and wait.state != "idle"):
                raise Broken(f"I6: worker {to} is granted up to {bound}, beyond what another one has to do: {waits}")
            seq = self.barrier.passed(to, bound, kept)
            self.running[to] = (Grant(to, seq, bound), self.barrier.base(to), taken)
            self.baton = to
            self.granted += 1
        return report

    def check_promise(self, base: int, report: Report) -> None:
        """I5, message by message; the barrier itself can only check against distances between workers."""
        for batch in report.batches:
            for record in map(Record._make, batch.records):
                stamp = record.arrival - self.scenario.links[record.link][2]
                if stamp < base:
                    raise Broken(f"I5: sent at {stamp}, promised {base}: {record}")

    def run(self, pick: Pick) -> Outcome:
        """Join in any order, then run to the end with all choices made by `pick`."""
        waiting = list(range(len(self.kernels)))
        while waiting:
            self.join(waiting.pop(pick(0, len(waiting) - 1)))
        self.issue()
        while self.running:
            self.step(pick)
        return self.outcome()

    def step(self, pick: Pick) -> None:
        """One running worker answers; the hub looks for grants now, or after a few more answers."""
        w = sorted(self.running)[pick(0, len(self.running) - 1)]
        self.finish(w, (1, 3, MAX_EVENTS_PER_GRANT)[pick(0, 2)], pick(0, 3) > 0)
        if not self.running or pick(0, 2):
            self.issue()

    def outcome(self) -> Outcome:
        """What came of it, in the form of the reference's."""
        if not self.barrier.idle:
            raise Broken("I3: not over, and nothing can go on")
        return Outcome(
            [self.logs[i].entries for i in range(len(self.nodes))],
            [node.state for node in self.nodes],
            sum(kernel.events for kernel in self.kernels),
            sum(kernel.messages for kernel in self.kernels),
            max(kernel.end_time for kernel in self.kernels),
            self.barrier.reached_until,
        )


def same(found: Outcome, expected: Outcome) -> None:
    """Raise Broken (I2) unless the outcomes agree.

    `left` may differ when a node was switched off: the hub still holds messages for it that nobody will
    consume.
    """
    for i, (mine, theirs) in enumerate(zip(found.consumed, expected.consumed, strict=True)):
        if mine != theirs:
            at = next(
                (k for k, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(mine), len(theirs)),
            )
            raise Broken(f"I2: node {i} consumed {mine[at : at + 1]} at {at}, expected {theirs[at : at + 1]}")
    if found._replace(left=False) != expected._replace(left=False):
        raise Broken(f"I2: {found[1:]} must be {expected[1:]}")
    if expected.left and not found.left:
        raise Broken("I2: events are left at the end of the run, and the barrier does not say so")


__all__ = ["NEVER", "Broken", "Cluster", "same"]
