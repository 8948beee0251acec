"""The same events, whatever the placement and the schedule: I1 to I6 against the sequential reference."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.cluster import Cluster, same
from tests.property.reference import Reference
from tests.property.scenario import Scenario, make_placement, make_scenario, placements, scenarios, seeded


@settings(max_examples=300)
@given(scenarios(), st.data())
def test_any_placement_and_schedule_gives_the_reference(scenario: Scenario, data: st.DataObject) -> None:
    """Every node consumes what it consumes in the reference, for drawn placements and orders of answers."""
    expected = Reference(scenario).run()
    placement = data.draw(placements(len(scenario.nodes)))
    order = random.Random(data.draw(st.integers(0, 2**16)))
    same(Cluster(scenario, placement).run(order.randint), expected)


def test_thousand_machines_give_the_reference(seed: int) -> None:
    """The same with seeded machines: one process per node, all in one, and a mixture, each in a schedule of its own."""
    for k in range(seed, seed + 1000):
        pick = seeded(k)
        scenario = make_scenario(pick)
        n = len(scenario.nodes)
        expected = Reference(scenario).run()
        for placement in (tuple((i,) for i in range(n)), (tuple(range(n)),), make_placement(pick, n)):
            try:
                same(Cluster(scenario, placement).run(pick), expected)
            except Exception as error:
                error.add_note(f"machine {k}, placement {placement}")
                raise
