"""A hub per host under a root hub: the same events as in the sequential reference, whatever the hosts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.core.barrier import Out, ProtocolViolation
from cosim.core.bounds import Distances
from cosim.core.host_barrier import HostBarrier
from cosim.core.kernel import ModelFault
from cosim.core.time import NEVER
from tests.property.cluster import Broken, same
from tests.property.hosts import Tree
from tests.property.reference import Reference
from tests.property.scenario import Pick, Scenario, make_placement, make_scenario, placements, scenarios, seeded


def hosts_of(pick: Pick, workers: int) -> list[list[int]]:
    """Workers on one to three hosts, none empty."""
    count = pick(1, min(3, workers))
    hosts: list[list[int]] = [[] for _ in range(count)]
    for w in range(workers):
        hosts[w if w < count else pick(0, count - 1)].append(w)
    return hosts


@settings(max_examples=200)
@given(scenarios(), st.data())
def test_any_hosts_give_the_reference(scenario: Scenario, data: st.DataObject) -> None:
    """Drawn placements on drawn hosts, in drawn orders, give every node the inputs of the reference."""
    expected = Reference(scenario).run()
    placement = data.draw(placements(len(scenario.nodes)))
    pick = random.Random(data.draw(st.integers(0, 2**16))).randint
    same(Tree(scenario, placement, hosts_of(pick, len(placement))).run(pick), expected)


def campaign(tree: type[Tree], seeds: range) -> None:
    """Seeded machines on `tree`; raises at the first that differs from the reference."""
    for k in seeds:
        pick = seeded(k)
        scenario = make_scenario(pick)
        expected = Reference(scenario).run()
        placement = make_placement(pick, len(scenario.nodes))
        same(tree(scenario, placement, hosts_of(pick, len(placement))).run(pick), expected)


def test_six_hundred_trees_give_the_reference(seed: int) -> None:
    """The same with seeded machines."""
    campaign(Tree, range(seed, seed + 600))


class OwnDistances(Tree):
    """Mutant: a host measures with its own distances alone."""

    def host_between(
        self, distances: Distances, placement: Sequence[Sequence[int]], hosts: Sequence[Sequence[int]]
    ) -> Sequence[Sequence[int]]:
        """Links that leave the host are left out of the way from one of its workers to another."""
        whole = [list(row) for row in distances.between(placement)]
        for own in hosts:
            inside = {node for w in own for node in placement[w]}
            links = [link for link in self.scenario.links if link[0] in inside and link[1] in inside]
            alone = Distances(len(self.nodes), links, [spec.reaction for spec in self.scenario.nodes]).between(
                placement
            )
            for a in own:
                for b in own:
                    whole[a][b] = alone[a][b]
        return whole


class Forgetful(HostBarrier):
    """Mutant: what left the host does not limit its workers."""

    def _leave(self, out: Out) -> None:
        caps = list(self._caps)
        super()._leave(out)
        self._caps = caps
        for index in range(len(caps)):
            self._settle(index)


class NoCaps(Tree):
    """The tree with that mutant."""

    host_barrier = Forgetful


@pytest.mark.parametrize("mutant", [OwnDistances, NoCaps])
def test_each_shorter_rule_fails(mutant: type[Tree]) -> None:
    """With a host's own distances, or without caps, the suite's machines find a breach."""
    with pytest.raises((Broken, ProtocolViolation, ModelFault, AssertionError)):
        campaign(mutant, range(1, 1500))


def test_the_counterexample_of_the_design() -> None:
    """Hosts {a, b} and {k}, links a to k 10, k to b 10, b has a timer at 50: b waits for the answer at 20."""
    distances = Distances(3, [(0, 2, 10), (2, 1, 10)], [0, 0, 0]).between([[0], [1], [2]])
    barrier = HostBarrier(distances, [0, 1], [0, 0, 1])
    barrier.ready(0, 0, 0)
    barrier.ready(1, 50, 50)
    assert barrier.first() == (0, 0)
    barrier.open(NEVER, [])
    (grant,) = barrier.grants()
    assert grant.worker == 0
    barrier.report(0, grant.seq, NEVER, NEVER, NEVER, [Out(2, 10, 10)])
    assert barrier.grants() == []
    report = barrier.close()
    assert (report.now, report.next_event, report.outs) == (20, 50, [Out(1, 10, 10)])


def test_what_a_host_refuses() -> None:
    """An input below what was executed, and outputs that go nowhere, wake too early or break a promise."""
    distances = Distances(2, [(0, 1, 10), (1, 0, 10)], [0, 0]).between([[0], [1]])
    barrier = HostBarrier(distances, [0], [0, 1], names=["a", "b"])
    barrier.ready(0, 5, 5)
    barrier.open(100, [])
    (grant,) = barrier.grants()
    for out, rule in [(Out(7, 20, 20), "output"), (Out(1, 20, 19), "output"), (Out(1, 14, 14), "promise")]:
        with pytest.raises(ProtocolViolation) as caught:
            barrier.report(0, grant.seq, 20, 20, 20, [out])
        assert caught.value.rule == rule
    barrier.report(0, grant.seq, 100, NEVER, NEVER, [Out(1, 30, 30), Out(1, 25, 25)])
    assert barrier.close() == (35, NEVER, NEVER, [Out(1, 25, 25)])
    with pytest.raises(ProtocolViolation) as caught:
        barrier.open(200, [Out(0, 99, 99)])
    assert caught.value.rule == "safety"
