"""What distributor and redistributors share: groups, priorities, offers of LPIs, and steps that wait for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.arch.groups import GROUP0, GROUP1_NS, GROUP1_S, config_of, edges_of, group_of
from nodes.arch.lpi import config_byte
from nodes.arch.waiters import Waiters
from nodes.redistributor.config import lpi_offers
from nodes.redistributor.stream import Offer


@pytest.mark.parametrize(
    ("group", "modifier", "two_states", "found"),
    [
        (0, 0, True, GROUP0),
        (0, 1, True, GROUP1_S),
        (1, 0, True, GROUP1_NS),
        (1, 1, True, GROUP1_NS),
        (0, 1, False, GROUP0),
        (1, 1, False, GROUP1_NS),
    ],
)
def test_a_modifier_counts_with_two_security_states(group: int, modifier: int, two_states: bool, found: int) -> None:
    """IGRPMODR makes Secure Group 1 of Group 0, and says nothing where there is one Security state (IHI 0069, 4.6)."""
    assert group_of(9, group << 9, modifier << 9, two_states) == found


@given(st.integers(0, 0xFFFF))
def test_a_configuration_register_says_which_are_edges(edges: int) -> None:
    """The odd bits of ICFGR are the mask again; the even ones are reserved."""
    assert edges_of(config_of(edges)) == edges == edges_of(config_of(edges) | 0x5555_5555)
    assert config_of(edges) & 0x5555_5555 == 0


def test_a_step_waits_until_all_that_it_waits_for_are_over() -> None:
    """Not for one of two; each once, in the order in which they began to wait; with nothing to wait for, at once."""
    waiters, done = Waiters(), list[str]()
    waiters.after([1, 2], lambda: done.append("both"))
    waiters.after([2], lambda: done.append("second"))
    waiters.after([], lambda: done.append("none"))
    waiters.over(1)
    assert done == ["none"]
    waiters.over(2)
    waiters.over(2)
    assert done == ["none", "both", "second"]


def test_an_lpi_that_the_cpu_interface_holds_stays_while_its_configuration_is_read() -> None:
    """One that it does not hold must wait for its configuration byte; one that is leaving is not offered at all."""
    held = Offer(8200, 0xA0, GROUP1_NS)
    known = {8202: config_byte(0x40, True), 8203: config_byte(0x40, False)}
    offers = lpi_offers(range(8200, 8205), {8204}, known.get, held, GROUP1_NS, lower_half=False)
    assert list(offers) == [held, Offer(8202, 0x40, GROUP1_NS)]
    assert list(lpi_offers([8200], {8200}, known.get, held, GROUP1_NS, lower_half=False)) == []
    assert list(lpi_offers([8202], (), known.get, None, GROUP1_NS, lower_half=True)) == [Offer(8202, 0xA0, GROUP1_NS)]
