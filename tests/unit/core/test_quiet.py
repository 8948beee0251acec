"""What a worker with the baton knows of the others: never more than is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.baton import Quiet
from cosim.core.time import NEVER

times = st.integers(0, 50) | st.just(NEVER)
WORKERS = 5


def known(speaks: list[int], holder: int) -> Quiet:
    """All that can be known: the two that speak first, but the one with the baton; events come when they speak."""
    (time, who), (then, _) = sorted((t, w) for w, t in enumerate(speaks) if w != holder)[:2]
    return Quiet(time, who, then, who, time)


@given(
    st.lists(times, min_size=WORKERS, max_size=WORKERS),
    st.lists(st.tuples(st.integers(0, WORKERS - 1), times, times, times)),
)
def test_nobody_speaks_before_it_is_said(speaks: list[int], passes: list[tuple[int, int, int, int]]) -> None:
    """However the baton goes round: its holder is told of no time that is later than somebody may speak or something arrives,
    and the event that it is told of is one that its mate has."""
    holder, quiet, events, arrival = 0, known(speaks, 0), list(speaks), NEVER
    for taker, next_event, next_out, sent in passes:
        if taker == holder:
            continue
        speaks[holder], events[holder] = next_out, next_event
        arrival = min(arrival, sent)
        holder, quiet = taker, quiet.until(sent).after(holder, next_event, next_out, taker)
        assert quiet.then <= arrival and quiet.time <= arrival
        assert quiet.mate != holder and quiet.need == events[quiet.mate]
        for without in range(WORKERS):
            others = [t for w, t in enumerate(speaks) if w not in (holder, without)]
            assert quiet.without(without) <= min(others)
        assert quiet.without(holder) == (quiet.time if quiet.who != holder else quiet.then) >= quiet.time


@given(times, times, times)
def test_of_two_both_go_as_far_as_the_hub_would_let_them(first: int, second: int, third: int) -> None:
    """Where only two have work, each leaves out the other: neither is held up by its own next word when the baton comes back."""
    quiet = known([0, first, NEVER], 0).after(0, second, second, 1)
    assert (quiet.without(0), quiet.time) == (NEVER, second)
    back = quiet.after(1, third, third, 0)
    assert (back.without(1), back.time) == (NEVER, third)


def test_one_who_is_told_of_nobody_leaves_out_nobody() -> None:
    """Its own number stands for that."""
    quiet = Quiet(40, 0, 40, 0, NEVER)
    assert [quiet.without(worker) for worker in range(3)] == [40] * 3
    assert quiet.after(0, 45, 50, 1) == (40, 1, 40, 0, 45)
    assert quiet.after(0, 25, 30, 1) == (30, 0, 40, 0, 25)
    assert Quiet(40, 2, 60, 2, 40).after(0, 45, 50, 1) == (40, 2, 50, 2, 40)
    assert Quiet(40, 2, 60, 2, 40).after(0, 45, 50, 2) == (50, 0, 60, 0, 45)


REACH = {1: 10, 2: 20}


@pytest.mark.parametrize(
    ("quiet", "event", "out", "receiver", "arrival", "expected"),
    [
        # To the receiver, up to its own next word + distance, or what is known of the others.
        (Quiet(90, 2, 95, 2, 80), 30, 40, 1, 45, (1, 50, Quiet(40, 0, 90, 0, 30))),
        (Quiet(90, 2, 95, 2, 80), NEVER, NEVER, 1, 45, (1, 90, Quiet(90, 2, 95, 2, 80))),
        # Not if the message arrives no earlier than that.
        (Quiet(90, 2, 95, 2, NEVER), 30, 40, 1, 50, None),
        # To the mate, which has something to do before: what was sent waits at the hub, and bounds it.
        (Quiet(90, 1, 95, 1, 42), 60, 60, 2, 80, (1, 70, Quiet(60, 0, 80, 0, 60))),
        (Quiet(90, 1, 95, 1, 42), 60, 75, 2, 80, (1, 80, Quiet(75, 0, 80, 0, 60))),
        # With what was sent to it, whichever of the two is first, or with nothing.
        (Quiet(90, 1, 95, 1, 42), NEVER, NEVER, 1, 93, (1, 95, Quiet(95, 1, 95, 0, NEVER))),
        (Quiet(90, 1, 95, 1, 94), NEVER, NEVER, 1, 93, (1, 95, Quiet(95, 1, 95, 0, NEVER))),
        (Quiet(90, 1, 95, 1, 42), NEVER, NEVER, -1, NEVER, (1, 95, Quiet(95, 1, 95, 0, NEVER))),
        # Not if that is late, or nobody is known of.
        (Quiet(90, 1, 95, 1, 95), NEVER, NEVER, -1, NEVER, None),
        (Quiet(NEVER, 0, NEVER, 0, NEVER), NEVER, NEVER, -1, NEVER, None),
        # One whose distance is not known is 0 away.
        (Quiet(90, 3, 95, 3, 42), 41, 43, -1, NEVER, (3, 43, Quiet(43, 0, 95, 0, 41))),
    ],
)
def test_the_one_that_is_next_is_granted(
    quiet: Quiet, event: int, out: int, receiver: int, arrival: int, expected: tuple[int, int, Quiet] | None
) -> None:
    """The receiver of what was sent or the mate, whichever has something to do first, to where nobody else can reach it."""
    assert quiet.following(0, event, out, receiver, arrival, REACH) == expected
