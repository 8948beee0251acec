"""Who waits for whom at a barrier: `Barrier.explain`, in data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Wait(NamedTuple):
    """What one worker does or waits for, for `cosim why`.

    state       "joining"; "running" (since grant `seq`); "ready" (may run now, grant not made yet); "blocked"
                (has work at `next_event`, not below `bound`); "idle" (no work before the end of the run);
                "lost"
    next_event  earliest event, kept or undelivered input, ps
    bound       the bound granted (running, lost) or possible now (ready, blocked, idle), ps
    limiter     the worker that keeps `bound` where it is (blocked only), else None; `base` is the earliest
                time at which it can speak and `distance` the way from it to here, so that bound = base +
                distance; all three are 0 when it has not joined yet, NEVER (base, distance) without limiter
    chain       `limiter`, its own limiter and so on; the last one is running, ready, joining or lost: the
                cause
    """

    worker: int
    name: str
    state: str
    seq: int
    now: int
    next_event: int
    bound: int
    limiter: int | None
    base: int
    distance: int
    chain: tuple[int, ...]


def chain(views: Sequence[Wait], view: Wait) -> tuple[int, ...]:
    """The limiters behind a blocked worker, one behind the other; need falls at each step, so it ends."""
    behind: list[int] = []
    while view.limiter is not None:
        behind.append(view.limiter)
        view = views[view.limiter]
    return tuple(behind)
