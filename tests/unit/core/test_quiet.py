"""What a worker with the baton knows of the others: never more than is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.baton import Quiet
from cosim.core.time import NEVER

times = st.integers(0, 50) | st.just(NEVER)
WORKERS = 5


def known(events: list[int], holder: int) -> Quiet:
    """All that can be known: the two that have something to do first, but the one with the baton."""
    (time, who), (then, _) = sorted((t, w) for w, t in enumerate(events) if w != holder)[:2]
    return Quiet(time, who, then)


@given(
    st.lists(times, min_size=WORKERS, max_size=WORKERS), st.lists(st.tuples(st.integers(0, WORKERS - 1), times, times))
)
def test_nobody_has_anything_to_do_before_it_is_said(events: list[int], passes: list[tuple[int, int, int]]) -> None:
    """However the baton goes round: its holder is told of no time that is later than somebody's event or an arrival, and of
    nobody's event that is not."""
    holder, quiet, arrival = 0, known(events, 0), NEVER
    for taker, next_event, sent in passes:
        found = quiet.following(holder, next_event, next_event, taker, sent, {taker: NEVER})
        if taker == holder or found is None:
            continue
        if found[0] != taker:
            arrival, taker = min(arrival, sent), found[0]
        events[holder] = next_event
        holder, quiet = taker, found[2]
        assert quiet.then <= arrival and quiet.time <= arrival
        assert quiet.who == holder or quiet.time == events[quiet.who]
        for without in range(WORKERS):
            others = [t for w, t in enumerate(events) if w not in (holder, without)]
            assert quiet.without(without) <= min(others)
        assert quiet.without(holder) == (quiet.time if quiet.who != holder else quiet.then) >= quiet.time


@given(times, times, times)
def test_of_two_both_go_as_far_as_the_hub_would_let_them(first: int, second: int, third: int) -> None:
    """Where only two have work, each leaves out the other: neither is held up by its own next word when the baton comes back."""
    quiet = known([0, first, NEVER], 0).after(0, second, 1)
    assert (quiet.without(0), quiet.time) == (NEVER, second)
    back = quiet.after(1, third, 0)
    assert (back.without(1), back.time) == (NEVER, third)


def test_one_who_is_told_of_nobody_leaves_out_nobody() -> None:
    """Its own number stands for that."""
    quiet = Quiet(40, 0, 40)
    assert [quiet.without(worker) for worker in range(3)] == [40] * 3
    assert quiet.after(0, 50, 1) == (40, 1, 40)
    assert quiet.after(0, 30, 1) == (30, 0, 40)
    assert Quiet(40, 2, 60).after(0, 50, 1) == (40, 2, 50)
    assert Quiet(40, 2, 60).after(0, 50, 2) == (50, 0, 60)


REACH = {1: 10, 2: 20}


@pytest.mark.parametrize(
    ("quiet", "event", "out", "receiver", "arrival", "expected"),
    [
        # To the receiver, up to its own next word + distance, or what is known of the others.
        (Quiet(90, 2, 95), 30, 40, 1, 45, (1, 50, Quiet(30, 0, 90))),
        (Quiet(90, 2, 95), NEVER, NEVER, 1, 45, (1, 90, Quiet(90, 2, 95))),
        # Not if the message arrives no earlier than that.
        (Quiet(90, 2, 95), 30, 35, 1, 45, None),
        (Quiet(90, 0, 90), NEVER, NEVER, 1, 90, None),
        # To the one that has something to do before: what was sent waits at the hub, and bounds it.
        (Quiet(42, 1, 95), 60, 60, 2, 80, (1, 70, Quiet(60, 0, 80))),
        (Quiet(42, 1, 95), 60, 75, 2, 80, (1, 80, Quiet(60, 0, 80))),
        (Quiet(42, 1, 70), 85, 85, 2, 80, (1, 70, Quiet(70, 1, 70))),
        # With what was sent to it, whichever of the two is first, or with nothing.
        (Quiet(42, 1, 95), NEVER, NEVER, 1, 93, (1, 95, Quiet(95, 1, 95))),
        (Quiet(94, 1, 95), NEVER, NEVER, 1, 93, (1, 95, Quiet(95, 1, 95))),
        (Quiet(42, 1, 95), NEVER, NEVER, -1, NEVER, (1, 95, Quiet(95, 1, 95))),
        # Not if that is late, or nobody is known of.
        (Quiet(42, 1, 95), 30, 32, -1, NEVER, None),
        (Quiet(95, 1, 95), NEVER, NEVER, -1, NEVER, None),
        (Quiet(NEVER, 0, NEVER), NEVER, NEVER, -1, NEVER, None),
        # One whose distance is not known is 0 away.
        (Quiet(42, 3, 95), 41, 43, -1, NEVER, (3, 43, Quiet(41, 0, 95))),
    ],
)
def test_the_one_that_is_next_is_granted(
    quiet: Quiet, event: int, out: int, receiver: int, arrival: int, expected: tuple[int, int, Quiet] | None
) -> None:
    """The receiver of what was sent or the mate, whichever has something to do first, to where nobody else can reach it."""
    assert quiet.following(0, event, out, receiver, arrival, REACH) == expected
