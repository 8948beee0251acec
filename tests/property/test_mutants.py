"""The rule of design section 3 with one piece left out, each time: the properties must notice.

Each mutant runs the same seeded machines as the unharmed rule; one of them at least must break an invariant,
be refused by the barrier or by a worker, or end otherwise than the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from operator import itemgetter

import pytest

from cosim.core.barrier import Barrier, Grant, ProtocolViolation
from cosim.core.baton import Quiet
from cosim.core.bounds import Distances
from cosim.core.kernel import MAX_EVENTS_PER_GRANT, Kernel, ModelFault, Report
from cosim.core.message import Record
from cosim.core.time import NEVER
from tests.property.cluster import Cluster, same
from tests.property.reference import Reference
from tests.property.scenario import make_placement, make_quiet, make_scenario, seeded

BUDGET = 400
"""Machines of each sort that a mutant may survive before it counts as not noticed."""


class ForgetsDelivered(Cluster):
    """Delivered inputs forgotten while a node runs: base is its promise alone as soon as they are handed over."""

    class barrier_type(Barrier):
        """Holds next_out instead of base."""

        def _grant(self, w: int, bound: int) -> Grant:
            grant = super()._grant(w, bound)
            self._slots[w].held = self._slots[w].next_out
            self._settle(w)
            return grant


class ForgetsKept(Cluster):
    """Kept inputs left out of the promise."""

    class kernel(Kernel):
        """Looks at its timers only."""

        def _next_out(self, next_event: int) -> int:
            heap = self._heap
            self._heap = [entry for entry in heap if entry[5] < 0]
            own = self._heap and min(self._heap)[0] or NEVER
            try:
                return max(next_event, super()._next_out(own))
            finally:
                self._heap = heap


class DirectOnly(Cluster):
    """Direct latencies without closure."""

    def between(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """NEVER where no link leads directly."""
        table = [[NEVER] * len(placement) for _ in placement]
        for src, dst, latency in self.scenario.links:
            row, x = table[self.worker_of[src]], self.worker_of[dst]
            row[x] = min(row[x], latency)
        return table


class SenderReactionAdded(Cluster):
    """Distances that add the reaction of the sender, which has promised about its sends."""

    def between(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The largest reaction of the sending worker on top."""
        reactions = [max(self.scenario.nodes[i].reaction for i in group) for group in placement]
        right = distances.between(placement)
        return [[min(NEVER, cell + r) for cell in row] for row, r in zip(right, reactions, strict=True)]


class NoEarlyReturn(Cluster):
    """Own outputs left out of the bound, without early return."""

    def returns(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[dict[int, int]]:
        """Nothing ever comes back."""
        return [{} for _ in placement]


class LateReturn(Cluster):
    """Early return one picosecond late: the bound is exclusive."""

    def returns(self, distances: Distances, placement: Sequence[Sequence[int]]) -> Sequence[dict[int, int]]:
        """One more than right."""
        return [{dst: back + 1 for dst, back in row.items()} for row in distances.returns(placement)]


class NoNextEvent(Cluster):
    """DONE without next_event: the promise stands for both."""

    def figures(self, next_event: int, next_out: int) -> tuple[int, int]:
        """The promise, twice."""
        return next_out, next_out


class SortsBeforeNumbering(Cluster):
    """Sequence numbers given after sorting the outputs by arrival, not at the send call."""

    class kernel(Kernel):
        """Renumbers what it sends, per source."""

        def grant(
            self, bound: int, max_events: int = MAX_EVENTS_PER_GRANT, hurry: Callable[[], bool] | None = None
        ) -> Report:
            report = super().grant(bound, max_events, hurry)
            by_source: dict[int, list[tuple[int, int, int, int]]] = {}
            for b, batch in enumerate(report.batches):
                for k, record in enumerate(map(Record._make, batch.records)):
                    source = self._links[record.link].src
                    by_source.setdefault(source, []).append((record.arrival, record.seq, b, k))
            for sent in by_source.values():
                numbers = sorted(map(itemgetter(1), sent))
                for number, (_, _, b, k) in zip(numbers, sorted(sent), strict=True):
                    records = report.batches[b].records
                    records[k] = (records[k][0], number, *records[k][2:])
            return report


class InclusiveBound(Cluster):
    """Bounds taken as inclusive."""

    class kernel(Kernel):
        """Executes the instant of the bound too."""

        def grant(
            self, bound: int, max_events: int = MAX_EVENTS_PER_GRANT, hurry: Callable[[], bool] | None = None
        ) -> Report:
            report = super().grant(min(NEVER, bound + 1), max_events, hurry)
            return report._replace(now=min(report.now, bound))


class ForgetsPending(Cluster):
    """Undelivered inputs left out of base: only promises count."""

    class barrier_type(Barrier):
        """Knows no wakes."""

        def _settle(self, w: int) -> None:
            self._slots[w].wake = NEVER
            super()._settle(w)


class OverlooksTheBlocked(Cluster):
    """Blocked workers not looked at again when their limiter moves on."""

    class barrier_type(Barrier):
        """Forgets who waits for whom."""

        def _settle(self, w: int) -> None:
            self._watch[w].clear()
            super()._settle(w)


class Trusting(Barrier):
    """Takes every bound that is passed to it; else it keeps its books as it should."""

    def passed(self, w: int, bound: int, kept: tuple[int, int]) -> int:
        return self._hand_on(w, bound, kept)


class TakesEveryBound(Cluster):
    """Whoever has the baton is believed, and makes the right grants."""

    barrier_type = Trusting


class PassesTooFar(Cluster):
    """Whoever is granted by another worker may go as far as the hub said of that one: its own word is left out."""

    barrier_type = Trusting

    def following(self, w: int, report: Report) -> tuple[int, int, Quiet] | None:
        found = super().following(w, report)
        return found and (found[0], self.quiet.without(found[0]), found[2])


class PassesItsQuiet(Cluster):
    """Who passes the baton on does not count itself among those that may speak."""

    barrier_type = Trusting

    def following(self, w: int, report: Report) -> tuple[int, int, Quiet] | None:
        found = super().following(w, report)
        return found and (*found[:2], self.quiet.after(w, NEVER, found[0]))


class LeavesOutTwo(Cluster):
    """Leaves out the one that would speak first, whoever gets the baton."""

    barrier_type = Trusting

    def following(self, w: int, report: Report) -> tuple[int, int, Quiet] | None:
        self.quiet = self.quiet._replace(time=self.quiet.then)
        return super().following(w, report)


class ForgetsUndelivered(Cluster):
    """What waits at the hub is left out of the time below which nothing else arrives."""

    class barrier_type(Barrier):
        """Knows the words of the others only, and takes every bound."""

        def quiet(self, w: int) -> Quiet | None:
            pending, self._pending = self._pending, set()
            try:
                return super().quiet(w)
            finally:
                self._pending = pending

        def passed(self, w: int, bound: int, kept: tuple[int, int]) -> int:
            return super().passed(w, bound, (NEVER, NEVER))


class ForgetsWhatItSent(Cluster):
    """Who grants another worker than the one it has sent to does not count what it sent among what may arrive."""

    barrier_type = Trusting

    def following(self, w: int, report: Report) -> tuple[int, int, Quiet] | None:
        found = super().following(w, report)
        if found is not None and report.batches and report.batches[0].worker != found[0]:
            return super().following(w, report._replace(batches=[]))
        return found


class LosesUndelivered(Cluster):
    """What waits at the hub for a worker is taken for delivered when another one grants it."""

    def inputs(self, w: int) -> tuple[int, int]:
        return NEVER, NEVER


def first_noticed(kind: type[Cluster], budget: int = BUDGET) -> int | None:
    """Number of the first machine on which this kind of cluster goes wrong; None if it never does."""
    for k, make in product(range(budget), (make_scenario, make_quiet)):
        pick = seeded(k)
        scenario = make(pick)
        n = len(scenario.nodes)
        for placement in (tuple((i,) for i in range(n)), make_placement(pick, n)):
            try:
                same(kind(scenario, placement).run(pick), Reference(scenario).run())
            except (AssertionError, ModelFault, ProtocolViolation):
                return k
    return None


@pytest.mark.parametrize("kind", [Cluster, TakesEveryBound])
def test_the_rule_itself_survives_the_budget(kind: type[Cluster]) -> None:
    """The unharmed rule passes on every machine that the mutants get, whether or not the hub checks what is passed: whatever else
    is noticed is the mutant's."""
    assert first_noticed(kind) is None


@pytest.mark.parametrize(
    "mutant",
    [
        ForgetsDelivered,
        ForgetsKept,
        DirectOnly,
        SenderReactionAdded,
        NoEarlyReturn,
        LateReturn,
        NoNextEvent,
        SortsBeforeNumbering,
        InclusiveBound,
        ForgetsPending,
        OverlooksTheBlocked,
        PassesTooFar,
        PassesItsQuiet,
        LeavesOutTwo,
        ForgetsUndelivered,
        ForgetsWhatItSent,
        LosesUndelivered,
    ],
)
def test_mutant_is_noticed(mutant: type[Cluster]) -> None:
    """Without that piece of the rule a machine of the budget goes wrong."""
    found = first_noticed(mutant)
    assert found is not None, f"{mutant.__name__} survived {BUDGET} machines"
    print(f"{mutant.__name__}: machine {found}")
