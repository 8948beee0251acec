"""What a worker with the baton knows of the others: never more than is true."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosim.core.baton import Quiet
from cosim.core.time import NEVER

times = st.integers(0, 50) | st.just(NEVER)
WORKERS = 5


def known(speaks: list[int], holder: int) -> Quiet:
    """All that can be known: the two that speak first, but the one with the baton."""
    (time, who), (then, _) = sorted((t, w) for w, t in enumerate(speaks) if w != holder)[:2]
    return Quiet(time, who, then)


@given(st.lists(times, min_size=WORKERS, max_size=WORKERS), st.lists(st.tuples(st.integers(0, WORKERS - 1), times)))
def test_nobody_speaks_before_it_is_said(speaks: list[int], passes: list[tuple[int, int]]) -> None:
    """However the baton goes round: its holder is told of no time that is later than somebody may speak."""
    holder, quiet = 0, known(speaks, 0)
    for taker, next_out in passes:
        if taker == holder:
            continue
        speaks[holder] = next_out
        holder, quiet = taker, quiet.after(holder, next_out, taker)
        for without in range(WORKERS):
            others = [t for w, t in enumerate(speaks) if w not in (holder, without)]
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
