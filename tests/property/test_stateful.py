"""A hub's life, step by step, chosen by hypothesis: joins, grants, answers and questions in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cosim.core.barrier import Wait
from cosim.core.kernel import MAX_EVENTS_PER_GRANT
from cosim.core.time import NEVER
from tests.property.cluster import Broken, Cluster, same
from tests.property.reference import Outcome, Reference
from tests.property.scenario import Scenario, placements, scenarios


class HubLife(RuleBasedStateMachine):
    """Any interleaving of what a hub may do ends in the reference's outcome."""

    cluster: Cluster
    expected: Outcome

    @initialize(scenario=scenarios(), data=st.data())
    def build(self, scenario: Scenario, data: st.DataObject) -> None:
        """A machine, placed somehow, nobody joined yet."""
        self.cluster = Cluster(scenario, data.draw(placements(len(scenario.nodes))))
        self.expected = Reference(scenario).run()
        self.absent = list(range(len(self.cluster.kernels)))
        self.clocks = [0] * len(self.absent)

    @precondition(lambda self: self.absent)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """A worker joins; nothing is granted before the last one did."""
        assert self.cluster.barrier.grants() == []
        assert not self.cluster.barrier.idle
        self.cluster.join(self.absent.pop(data.draw(st.integers(0, len(self.absent) - 1))))

    @precondition(lambda self: not self.absent)
    @rule()
    def grants(self) -> None:
        """The hub looks for grants; a second look at once finds none."""
        self.cluster.issue()
        if self.cluster.baton is None:
            assert self.cluster.barrier.grants() == []
            assert not [w for w in self.cluster.barrier.explain() if w.state == "ready"], "nobody was overlooked"

    @precondition(lambda self: self.cluster.running)
    @rule(data=st.data(), max_events=st.sampled_from([1, 2, MAX_EVENTS_PER_GRANT]), pass_on=st.booleans())
    def answer(self, data: st.DataObject, max_events: int, pass_on: bool) -> None:
        """One of the running workers answers, early or not, and passes the baton on or not."""
        w = data.draw(st.sampled_from(sorted(self.cluster.running)))
        report = self.cluster.finish(w, max_events, pass_on)
        assert report.now >= self.clocks[w], "I1: the clock of a worker never goes back"
        self.clocks[w] = report.now

    @invariant()
    def explanations_hold(self) -> None:
        """`explain` agrees with what may be granted, and every chain ends at a cause."""
        if not hasattr(self, "cluster"):
            return
        waits = self.cluster.barrier.explain()
        for wait in waits:
            check(wait, waits, self.cluster.scenario.until)
        running = sorted(w.worker for w in waits if w.state == "running")
        assert running == sorted(self.cluster.running)
        if not self.absent:
            busy = any(w.state in ("running", "ready") for w in waits)
            assert busy != self.cluster.barrier.idle, "I3: work and no leave, or leave without work"

    def teardown(self) -> None:
        """Whatever was done so far, the rest of the run leads to the same end."""
        if not hasattr(self, "cluster"):
            return
        for w in self.absent:
            self.cluster.join(w)
        self.cluster.issue()
        while self.cluster.running:
            self.cluster.finish(max(self.cluster.running))
            self.cluster.issue()
        same(self.cluster.outcome(), self.expected)


def check(wait: Wait, waits: list[Wait], until: int) -> None:
    """One line of `explain` against its definition."""
    if wait.state == "blocked":
        if wait.limiter is None or wait.next_event < wait.bound or wait.bound != wait.base + wait.distance:
            raise Broken(f"a blocked worker must have a limiter and a bound that follows from it: {wait}")
        if waits[wait.chain[-1]].state not in ("running", "ready", "joining"):
            raise Broken(f"a chain must end at a cause: {wait}")
    else:
        assert wait.limiter is None
        assert wait.chain == ()
        assert (wait.base, wait.distance) == (NEVER, NEVER)
        if wait.state == "idle":
            assert wait.next_event >= until
        if wait.state == "ready":
            assert wait.next_event < wait.bound <= until


HubLife.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestHubLife = HubLife.TestCase
